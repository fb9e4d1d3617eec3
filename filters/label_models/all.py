"""The rule that every filter has to be content."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from chaffinch.filters.label_models.label_model import LabelModel
from chaffinch.filters.label_models.votes import vote_classes


@dataclass(kw_only=True)
class All(LabelModel):
    """Keeps a sample where no source votes drop: P(keep) is 0 as soon as one does, and 1 otherwise.

    A plain rule, nothing is learned: sources count the same, their accuracy is not estimated (NaN), and a row of
    abstains is kept, since nobody objects.
    """

    is_rule: ClassVar[bool] = True

    def fit_patterns(self, patterns: np.ndarray, counts: np.ndarray) -> Self:
        """Learns nothing but the number of sources.

        Args:
            patterns: (p patterns, m sources) rows of votes -1, 0, +1.
            counts: (p,) how many samples show each pattern.

        Returns:
            The model itself.

        Raises:
            ValueError: votes are no votes, or counts no counts.
        """
        return self.learn_nothing(patterns, counts)

    def predict_patterns(self, patterns: np.ndarray) -> np.ndarray:
        """Applies the rule.

        Args:
            patterns: (p patterns, m sources) votes -1, 0, +1.

        Returns:
            (p,) float64: 0 where a source votes drop, else 1.

        Raises:
            ValueError: votes are no votes.
        """
        dropped: np.ndarray = (vote_classes(patterns, 2) == 0).any(axis=1)
        return np.where(dropped, 0.0, 1.0)
