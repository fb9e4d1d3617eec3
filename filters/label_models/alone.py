"""One filter by itself, taken at its word as far as the class prior allows."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from chaffinch.filters.label_models.label_model import LabelModel
from chaffinch.filters.label_models.votes import merge_patterns, vote_classes

MOST_ACCURATE = 0.99
LEAST_ACCURATE = 0.6
ASSUMED_ACCURACY = 0.9


@dataclass(kw_only=True)
class Alone(LabelModel):
    """Calibrates the votes of a filter that has its aspect to itself: its mean P(keep) is the class prior.

    Nobody can tell how often a source is right that has no peers. But its votes and the class prior have to agree: with
    accuracy a in both classes it votes keep with probability p a + (1 - p) (1 - a), which gives a. Without a class
    prior the filter itself says which share of the pool is good, and a is as high as it gets. A row on which it
    abstains has the class prior.

    Attributes:
        class_prior: P(keep) in this aspect; None: the share of keep votes among the filter's votes.
    """

    @property
    def prior_unknown(self) -> str:
        """There is nobody to compare with."""
        return "one filter does not tell it, and the share of its own keep votes is taken"

    def fit_patterns(self, patterns: np.ndarray, counts: np.ndarray) -> Self:
        """Finds the accuracy at which votes and class prior agree.

        Args:
            patterns: (p patterns, 1 source) votes -1, 0, +1.
            counts: (p,) how many samples show each.

        Returns:
            The model itself; `accuracy_` (1,) lies in [0.6, 0.99], and is 0.9 where a class prior of one half leaves it
            open.

        Raises:
            ValueError: there is more than one source, or votes are no votes.
        """
        patterns, counts = merge_patterns(patterns, counts)
        vote_classes(patterns, 2)
        if patterns.shape[1] != 1:
            raise ValueError(
                f"`alone` is for one filter, not for {patterns.shape[1]}: choose a label model for several"
            )
        keeps, drops = int(counts[patterns[:, 0] == 1].sum()), int(counts[patterns[:, 0] == -1].sum())
        share = keeps / (keeps + drops) if keeps + drops else 0.5
        if isinstance(self.class_prior, tuple):
            raise ValueError("class_prior has several shares, but there are two classes: give P(keep)")
        if self.class_prior is None:
            prior, accuracy = min(max(share, 1 - MOST_ACCURATE), MOST_ACCURATE), MOST_ACCURATE
        else:
            prior, lean = self.class_prior, 2 * self.class_prior - 1
            accuracy = ASSUMED_ACCURACY if abs(lean) < 1e-6 else (share - (1 - prior)) / lean
        self.class_prior_ = prior
        self.accuracy_ = np.array([min(max(accuracy, LEAST_ACCURATE), MOST_ACCURATE)])
        self.weight_ = np.log(self.accuracy_ / (1 - self.accuracy_))
        return self

    def predict_patterns(self, patterns: np.ndarray) -> np.ndarray:
        """Bayes' rule for one vote.

        Args:
            patterns: (p patterns, 1 source) votes -1, 0, +1.

        Returns:
            (p,) float64 P(keep).

        Raises:
            ValueError: votes are no votes.
        """
        voted = vote_classes(patterns, 2)[:, 0]
        right = self.accuracy_[0]
        given_keep, given_drop = (
            np.array([1 - right, right, 1.0]),
            np.array([right, 1 - right, 1.0]),
        )  # drop, keep, none
        joint = self.class_prior_ * given_keep[voted]
        posterior: np.ndarray = joint / (joint + (1 - self.class_prior_) * given_drop[voted])
        return posterior
