"""The rule that keeps everything that no required filter has dropped."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from chaffinch.filters.label_models.label_model import LabelModel
from chaffinch.filters.label_models.votes import vote_classes


@dataclass(kw_only=True)
class Nothing(LabelModel):
    """Ignores all votes: P(keep) is 1 for every sample, so that only vetoes and `keep:` decide.

    A plain rule, nothing is learned: where fewer samples are asked for than there are, all sources count the same in
    ordering them, and their accuracy is not estimated (NaN).
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
        """Keeps everything.

        Args:
            patterns: (p patterns, m sources) votes -1, 0, +1.

        Returns:
            (p,) float64 ones.

        Raises:
            ValueError: votes are no votes.
        """
        vote_classes(patterns, 2)
        return np.ones(len(patterns))
