"""The ensemble: a label model inside each aspect, P(keep) as their product, and what each filter contributes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chaffinch.filters.label_models.label_model import LabelModel
from chaffinch.filters.label_models.votes import distinct_patterns


@dataclass(frozen=True)
class Ensemble:
    """Fitted label models, one per aspect.

    A sample is kept when every aspect holds, so probabilities multiply; filters that judge the same thing share one
    latent class inside their aspect.

    Attributes:
        aspects: aspect -> the positions of its filters among the m columns of votes, and its fitted label model.
    """

    aspects: Mapping[str, tuple[tuple[int, ...], LabelModel]]

    @classmethod
    def fit(
        cls, aspects: Sequence[str], models: Mapping[str, LabelModel], patterns: np.ndarray, counts: np.ndarray
    ) -> "Ensemble":
        """Fits every aspect's label model.

        Args:
            aspects: (m,) the aspect of each filter.
            models: aspect -> a label model, not fitted yet.
            patterns: (p patterns, m filters) int8 votes.
            counts: (p,) how many samples show each.

        Returns:
            The fitted ensemble.
        """
        fitted = {}
        for aspect, model in models.items():
            columns = tuple(index for index, name in enumerate(aspects) if name == aspect)
            fitted[aspect] = (columns, model.fit_patterns(patterns[:, columns], counts))
        return cls(fitted)

    @property
    def is_rule(self) -> bool:
        """Whether a probability of 0 is final."""
        return any(model.is_rule for _, model in self.aspects.values())

    def probability(self, votes: np.ndarray) -> np.ndarray:
        """P(keep) of each sample.

        Args:
            votes: (n samples, m filters) int8.

        Returns:
            (n,) float32; rounded before anything compares it, so that equal votes mean equal probabilities.
        """
        patterns, inverse, _ = distinct_patterns(votes)
        product = np.ones(len(patterns))
        for columns, model in self.aspects.values():
            product = product * model.predict_proba(patterns[:, columns])
        rounded: np.ndarray = product.astype(np.float32)[inverse]
        return rounded

    def weights(self, filters: int) -> np.ndarray:
        """How much each filter's opinion counts where samples have to be ordered.

        Args:
            filters: m.

        Returns:
            (m,) float64, 0 or more; 0 for filters under a plain rule: they say what must not be, and a sample that is
            far from that is no better than one that is near.
        """
        weights = np.zeros(filters)
        for columns, model in self.aspects.values():
            if not model.is_rule:
                weights[list(columns)] = np.nan_to_num(model.weight_)
        return weights

    def accuracies(self, filters: int) -> np.ndarray:
        """(m,) P(vote is right given that the filter votes), as the label models estimate it; NaN where they do not."""
        accuracies = np.full(filters, np.nan)
        for columns, model in self.aspects.values():
            accuracies[list(columns)] = model.accuracy_
        return accuracies

    def state(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            aspect: {"filters": list(columns), "model": model.state()}
            for aspect, (columns, model) in self.aspects.items()
        }


def diagnose(patterns: np.ndarray, counts: np.ndarray) -> list[dict[str, float]]:
    """What each filter contributes, from counted votes.

    Args:
        patterns: (p patterns, m filters) int8 votes of all filters, vetoes included.
        counts: (p,) how many samples show each.

    Returns:
        For each filter, as shares of the samples in [0, 1]: keep, drop and coverage (it votes), overlap (it and
        another vote), conflict (another votes the opposite); and only_drop, how many samples it alone votes to drop.
    """
    total = max(int(counts.sum()), 1)
    votes, drops = patterns != 0, (patterns == -1).sum(axis=1)
    voters = votes.sum(axis=1)
    found = []
    for column in patterns.T:
        covered = column != 0
        opposed = ((patterns == -column[:, None]) & votes).any(axis=1) & covered
        found.append(
            {
                "keep": int(counts[column == 1].sum()) / total,
                "drop": int(counts[column == -1].sum()) / total,
                "coverage": int(counts[covered].sum()) / total,
                "overlap": int(counts[covered & (voters > 1)].sum()) / total,
                "conflict": int(counts[opposed].sum()) / total,
                "only_drop": int(counts[(column == -1) & (drops == 1)].sum()),
            }
        )
    return found
