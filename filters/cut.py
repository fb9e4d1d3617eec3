"""The cut: which samples are kept, in the order of (probability, soft score, seeded hash of the uid).

Few votes give few distinct probabilities, so that "keep exactly this many" nearly always lands among samples of equal
probability. Those are ordered by their soft score and then by a hash, 96 bits in all, and the cut is found exactly by
counting 16 bits at a time.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from chaffinch.filters.statistics import DIGIT_BITS, Histogram

_DIGITS_OF_KEY = 6
# Below this many candidates the keys themselves are fetched instead of counted again.
FEW = 100_000


@dataclass(frozen=True, order=True)
class Cut:
    """The last sample that is kept; samples that compare equal or above are kept.

    Attributes:
        probability: P(keep), float32.
        soft: soft score, 0 to 2^32 - 1.
        tie: hash of the uid, 0 to 2^64 - 1.
    """

    probability: float
    soft: int = 0
    tie: int = 0

    def keeps(self, probability: np.ndarray, soft: np.ndarray, tie: np.ndarray) -> np.ndarray:
        """Which samples are kept.

        Args:
            probability: (n,) float32.
            soft: (n,) uint32.
            tie: (n,) uint64.

        Returns:
            (n,) bool.
        """
        edge = np.float32(self.probability)
        above = (soft > self.soft) | ((soft == self.soft) & (tie >= np.uint64(self.tie)))
        kept: np.ndarray = (probability > edge) | ((probability == edge) & above)
        return kept


def mix(values: np.ndarray) -> np.ndarray:
    """Scrambles 64-bit integers one to one, so that their order says nothing about them.

    Args:
        values: (n,) uint64.

    Returns:
        (n,) uint64.

    Source: the finaliser of SplitMix64, Steele, Lea and Flood 2014, "Fast Splittable Pseudorandom Number Generators".
    """
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = values ^ (values >> np.uint64(31))
    return mixed


def hash_uids(uids: np.ndarray, seed: int) -> np.ndarray:
    """A seeded hash that orders samples when nothing else does.

    Args:
        uids: (n, 2) uint64, high and low halves.
        seed: any integer.

    Returns:
        (n,) uint64.
    """
    start = np.array([seed % (1 << 64)], np.uint64)
    return mix(mix(mix(start) ^ uids[:, 0]) ^ uids[:, 1])


def quantise(soft: np.ndarray) -> np.ndarray:
    """Soft scores in [0, 1] as uint32, so that they can be counted exactly."""
    return np.asarray(np.clip(soft, 0, 1) * np.float64(0xFFFFFFFF), np.uint32)


@dataclass(frozen=True)
class CutSearch:
    """The search for the cut among samples of one probability, one digit of their key per pass.

    Attributes:
        probability: P(keep) of the group in which the cut lies.
        rank: 0-based rank in ascending order of the last sample that is kept, among those that share the prefix.
        remaining: how many samples share the prefix.
        prefix: the digits found so far, 16 bits each, most significant first.
    """

    probability: float
    rank: int
    remaining: int
    prefix: tuple[int, ...] = ()

    def candidates(self, probability: np.ndarray, soft: np.ndarray, tie: np.ndarray) -> np.ndarray:
        """Which of n samples still may be the cut: (n,) bool."""
        chosen: np.ndarray = np.equal(probability, np.float32(self.probability))
        for level, digit in enumerate(self.prefix):
            chosen = chosen & (_digit(soft, tie, level) == digit)
        return chosen

    def count(self, probability: np.ndarray, soft: np.ndarray, tie: np.ndarray) -> "CutCounts":
        """What one shard contributes to the next step."""
        chosen = self.candidates(probability, soft, tie)
        if self.remaining <= FEW or len(self.prefix) == _DIGITS_OF_KEY:
            return CutCounts(None, soft[chosen], tie[chosen])
        return CutCounts(Histogram.of(_digit(soft[chosen], tie[chosen], len(self.prefix))), soft[:0], tie[:0])

    def step(self, counts: "CutCounts") -> "Cut | CutSearch":
        """Narrows the search, or ends it.

        Args:
            counts: the sum of what all shards contributed.

        Returns:
            The cut, or the next search.
        """
        if counts.histogram is None:
            order = np.lexsort((counts.tie, counts.soft))
            last = order[self.rank]
            return Cut(self.probability, int(counts.soft[last]), int(counts.tie[last]))
        digit, rank = counts.histogram.locate(self.rank)
        remaining = int(counts.histogram.counts[digit])
        return CutSearch(self.probability, rank, remaining, (*self.prefix, digit))


@dataclass
class CutCounts:
    """A step's statistics: a histogram of the next digit, or the keys themselves when few are left.

    Attributes:
        histogram: counts of the next digit, or None.
        soft: (n,) uint32.
        tie: (n,) uint64.
    """

    histogram: Histogram | None
    soft: np.ndarray
    tie: np.ndarray

    def merge(self, other: Self) -> Self:
        """Adds another shard's part."""
        if self.histogram is not None and other.histogram is not None:
            self.histogram.merge(other.histogram)
        self.soft = np.concatenate([self.soft, other.soft])
        self.tie = np.concatenate([self.tie, other.tie])
        return self


def _digit(soft: np.ndarray, tie: np.ndarray, level: int) -> np.ndarray:
    """The level-th 16 bits, from the most significant, of the 96-bit key (soft, tie)."""
    source, place = (soft, 1 - level) if level < 2 else (tie, 5 - level)
    return ((source.astype(np.uint64) >> np.uint64(DIGIT_BITS * place)) & np.uint64(0xFFFF)).astype(np.int64)
