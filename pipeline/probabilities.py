"""P(keep) looked up: shards of one pool show much the same votes, so each pattern is judged once in a process."""

import numpy as np

from chaffinch.filters.ensemble import Ensemble
from chaffinch.filters.label_models.votes import as_digits

# With more filters a table of all patterns would be larger than a few megabytes.
_MOST_FILTERS = 14


class Probabilities:
    """The probabilities of an ensemble, remembered by pattern; exactly those that it computes."""

    def __init__(self, ensemble: Ensemble, filters: int) -> None:
        """Begins with nothing known.

        Args:
            ensemble: a fitted ensemble.
            filters: m, how many filters it judges by.
        """
        self._ensemble = ensemble
        self._known = np.full(3**filters, np.nan, np.float32) if filters <= _MOST_FILTERS else None

    def of(self, votes: np.ndarray) -> np.ndarray:
        """P(keep) of each sample.

        Args:
            votes: (n samples, m filters) int8.

        Returns:
            (n,) float32.
        """
        if self._known is None:
            return self._ensemble.probability(votes)
        codes = as_digits(votes, -1, 3, np.dtype(np.int32))
        found = self._known[codes]
        unknown = np.isnan(found)
        if unknown.any():
            found[unknown] = self._known[codes[unknown]] = self._ensemble.probability(votes[unknown])
        return found
