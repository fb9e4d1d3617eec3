"""P(keep) looked up: shards of one pool show much the same votes, so each pattern is judged once in a process."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chaffinch.filters.fitted import Fitted
from chaffinch.filters.label_models.votes import as_digits

# With more filters a table of all patterns would be larger than a few megabytes.
_MOST_FILTERS = 14


@dataclass(frozen=True)
class Chances:
    """What the ensemble makes of n samples.

    Attributes:
        probability: (n,) float32 P(keep).
        candidates: (n,) bool, which may be kept at all.
        covered: (n,) bool, of which any filter that does not veto has something to say.
    """

    probability: np.ndarray
    candidates: np.ndarray
    covered: np.ndarray


class Probabilities:
    """The probabilities of an ensemble; those of votes are remembered by pattern."""

    def __init__(self, fitted: Fitted) -> None:
        """Begins with nothing known.

        Args:
            fitted: a judgement.
        """
        self._fitted = fitted
        filters = len(fitted.judges)
        self._known = np.full(3**filters, np.nan, np.float32) if filters <= _MOST_FILTERS else None

    def of(self, votes: np.ndarray, scores: Sequence[np.ndarray]) -> Chances:
        """Judges samples.

        Args:
            votes: (n samples, m filters) int8.
            scores: (m,) arrays of n float32 scores; looked at only where label models judge by them.
        """
        fitted, soft = self._fitted, None
        probability = self._by_votes(votes)
        if fitted.ensemble.is_soft:
            soft = fitted.soft_votes(scores, len(votes))
            probability = fitted.ensemble.by_scores(probability, soft)
        covered = fitted.covered(votes, soft)
        return Chances(probability, fitted.candidates(votes, probability, covered), covered)

    def _by_votes(self, votes: np.ndarray) -> np.ndarray:
        if self._known is None:
            return self._fitted.ensemble.by_votes(votes)
        codes = as_digits(votes[:, self._fitted.judges], -1, 3, np.dtype(np.int32))
        found = self._known[codes]
        unknown = np.isnan(found)
        if unknown.any():
            found[unknown] = self._known[codes[unknown]] = self._fitted.ensemble.by_votes(votes[unknown])
        return found
