"""One source, one vote."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from chaffinch.filters.label_models.label_model import LabelModel
from chaffinch.filters.label_models.votes import class_shares, vote_classes


@dataclass(kw_only=True)
class Majority(LabelModel):
    """P(keep) is the share of keep votes among the votes cast: 0.5 is a tie, and stays one.

    All sources count the same (`weight_` is 1), and their accuracy is not estimated (`accuracy_` is NaN).

    Attributes:
        class_prior: what a row of abstains gets; None: the same share for every class, 0.5 with two.
        classes: k, at least 2. Two classes are voted -1 (drop) and +1 (keep), more are voted 1..k.
    """

    classes: int = 2

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ValueError: a setting is out of its range.
        """
        super().__post_init__()
        if not 2 <= self.classes <= 127:
            raise ValueError(f"classes is {self.classes}: give a number from 2 to 127")
        class_shares(self.class_prior, self.classes)

    def fit_patterns(self, patterns: np.ndarray, counts: np.ndarray) -> Self:
        """Learns nothing but the number of sources.

        Args:
            patterns: (p patterns, m sources) rows of votes.
            counts: (p,) how many samples show each pattern.

        Returns:
            The model itself.

        Raises:
            ValueError: votes are no votes, or counts no counts.
        """
        return self.learn_nothing(patterns, counts, self.classes)

    def predict_patterns(self, patterns: np.ndarray) -> np.ndarray:
        """Counts the votes.

        Args:
            patterns: (p patterns, m sources) votes.

        Returns:
            (p,) float64 share of keep votes; with `classes=k`, (p, k) the share of each class.

        Raises:
            ValueError: votes are no votes.
        """
        voted = vote_classes(patterns, self.classes)
        ballots = np.stack([(voted == number).sum(axis=1) for number in range(self.classes)], axis=1)  # (p, k)
        cast = ballots.sum(axis=1, keepdims=True)
        prior = class_shares(self.class_prior, self.classes)
        shares = np.where(cast > 0, ballots / np.maximum(cast, 1), prior)
        return shares[:, 1] if self.classes == 2 else shares
