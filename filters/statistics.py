"""Numbers that need the whole pool: statistics that add up over shards, exact order statistics from them.

Whatever needs the pool has one shape: count in every shard, add the counts in any order, fit once, apply per shard.
The state is small however large the pool is, and the result does not depend on how the pool was cut into shards.
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np

DIGIT_BITS = 16
DIGITS = 1 << DIGIT_BITS


def sortable(values: np.ndarray) -> np.ndarray:
    """Maps float32 to uint32 such that the integers sort as the numbers do; -0 counts as 0.

    Args:
        values: (n,) float32 without NaN.

    Returns:
        (n,) uint32.
    """
    bits = (np.asarray(values, np.float32) + np.float32(0)).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def unsortable(keys: np.ndarray) -> np.ndarray:
    """The inverse of `sortable`.

    Args:
        keys: (n,) uint32.

    Returns:
        (n,) float32.
    """
    keys = np.asarray(keys, np.uint32)
    return np.where(keys >> 31, keys & np.uint32((1 << 31) - 1), ~keys).astype(np.uint32).view(np.float32)


@dataclass
class Histogram:
    """How often each 16-bit digit occurs: one level of an exact search for the value at a given rank.

    Attributes:
        counts: (65536,) int64.
    """

    counts: np.ndarray = field(default_factory=lambda: np.zeros(DIGITS, np.int64))

    @classmethod
    def of(cls, digits: np.ndarray) -> Self:
        """Counts (n,) integers below 65536."""
        return cls(np.bincount(digits, minlength=DIGITS))

    def merge(self, other: Self) -> Self:
        """Adds another shard's counts to these."""
        self.counts += other.counts
        return self

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    def locate(self, rank: int) -> tuple[int, int]:
        """Finds the digit that holds a rank.

        Args:
            rank: 0-based rank in ascending order, below `total`.

        Returns:
            The digit, and the rank among the values that share it.
        """
        cumulative = np.cumsum(self.counts)
        digit = int(np.searchsorted(cumulative, rank, side="right"))
        return digit, rank - int(cumulative[digit] - self.counts[digit])


@dataclass(frozen=True)
class Ranks:
    """P(value of the pool < x): the share of the pool that lies below a value, linear between knots.

    Attributes:
        values: (k,) float64, ascending; the ends of the histogram's bins that hold anything.
        shares: (k,) float64 in [0, 1], ascending.
    """

    values: np.ndarray
    shares: np.ndarray

    @classmethod
    def from_histogram(cls, histogram: Histogram, knots: int = 512) -> Self:
        """Summarises the histogram of the high digits of a column.

        Args:
            histogram: counts of `sortable(values) >> 16`.
            knots: how many bins are described exactly; between them ranks are interpolated.

        Returns:
            Ranks of the column; of an empty histogram, ranks that are 0.5 everywhere.
        """
        filled = np.flatnonzero(histogram.counts)
        if not len(filled):
            return cls(np.zeros(1), np.full(1, 0.5))
        below = np.concatenate([[0], np.cumsum(histogram.counts[filled])]) / histogram.total
        # A bin of float32's high half ends where the next begins: its share is spread between the two.
        starts = unsortable(filled.astype(np.uint32) << 16).astype(np.float64)
        ends = unsortable((filled.astype(np.uint32) << 16) | 0xFFFF).astype(np.float64)
        values = np.stack([starts, ends], 1).ravel()
        shares = np.stack([below[:-1], below[1:]], 1).ravel()
        if len(filled) > knots:
            wanted = np.searchsorted(shares, np.linspace(0, 1, 2 * knots), side="left")
            chosen = np.unique(np.concatenate([[0, len(shares) - 1], np.minimum(wanted, len(shares) - 1)]))
            values, shares = values[chosen], shares[chosen]
        distinct = np.concatenate([[True], np.diff(values) > 0])
        return cls(values[distinct], shares[distinct])

    def of(self, values: np.ndarray) -> np.ndarray:
        """The rank of each value.

        Args:
            values: (n,) numbers; NaN stays NaN.

        Returns:
            (n,) float64 in [0, 1].
        """
        wide = np.asarray(values, np.float64)
        if len(self.values) < 2:
            return np.where(np.isnan(wide), np.nan, self.shares[0])
        # Not np.interp: its arithmetic may depend on how many values it is given, and a rank must not.
        slopes = np.diff(self.shares) / np.diff(self.values)
        left = np.clip(np.searchsorted(self.values, wide, side="right") - 1, 0, len(slopes) - 1)
        inside = np.clip(wide, self.values[0], self.values[-1])
        ranks: np.ndarray = (inside - self.values[left]) * slopes[left] + self.shares[left]
        return ranks
