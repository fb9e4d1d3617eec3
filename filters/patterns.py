"""Vote patterns of a pool, counted as numbers: with many filters there are nearly as many patterns as samples."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np

from chaffinch.filters.label_models.votes import as_digits

# Parts are brought together when so many codes have gathered, so that each is sorted a few times only.
_MOST_LOOSE = 1 << 20
_MOST_BINS = 3**13
_MOST_DIGITS = 40  # 3 to the 40th is the last power of three below 2 to the 64th


@dataclass
class Patterns:
    """How often each row of votes occurs.

    Attributes:
        filters: m, the number of votes in a row.
        codes: parts of (p,) uint64, a row's votes as digits of base 3; beyond 40 filters the votes' own bytes.
        counts: parts of (p,) int64 how often each occurs.
        loose: how many codes there are beyond those of the first part.
    """

    filters: int
    codes: list[np.ndarray] = field(default_factory=list)
    counts: list[np.ndarray] = field(default_factory=list)
    loose: int = 0

    @classmethod
    def of(cls, votes: np.ndarray) -> Self:
        """Counts the rows of (n samples, m filters) int8 votes."""
        codes, counts = np.unique(_encode(votes), return_counts=True)
        return cls(votes.shape[1], [codes], [counts])

    def merge(self, other: Self) -> Self:
        """Adds another shard's counts to these."""
        self.codes += other.codes
        self.counts += other.counts
        self.loose = sum(map(len, self.codes[1:]))
        if self.loose > max(_MOST_LOOSE, len(self.codes[0])):
            self._gather()
        return self

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """The patterns in a fixed order.

        Returns:
            (p patterns, m filters) int8, and (p,) int64 counts.
        """
        self._gather()
        codes, counts = self.codes[0], self.counts[0]
        if codes.dtype != np.uint64:
            return codes.view(np.int8).reshape(len(codes), self.filters), counts
        places = np.uint64(3) ** np.arange(self.filters, dtype=np.uint64)[::-1]
        return (codes[:, None] // places % np.uint64(3)).astype(np.int8) - np.int8(1), counts

    def _gather(self) -> None:
        codes, parts = np.concatenate(self.codes), np.concatenate(self.counts)
        if 3**self.filters <= _MOST_BINS:
            # Few enough patterns for a bin each, which is far quicker than sorting.
            bins = np.zeros(3**self.filters, np.int64)
            np.add.at(bins, codes, parts)
            codes = np.flatnonzero(bins).astype(np.uint64)
            counts = bins[codes]
        else:
            codes, inverse = np.unique(codes, return_inverse=True)
            counts = np.zeros(len(codes), np.int64)
            np.add.at(counts, inverse, parts)
        self.codes, self.counts, self.loose = [codes], [counts], 0


def _encode(votes: np.ndarray) -> np.ndarray:
    """(n,) codes of (n samples, m filters) int8 votes."""
    filters = votes.shape[1]
    if filters > _MOST_DIGITS:
        return np.ascontiguousarray(votes).view(np.dtype((np.void, filters))).ravel()
    return as_digits(votes, -1, 3, np.dtype(np.uint64))
