"""Soft votes: how good each filter finds a sample, as whole numbers whose sums are exact in any order."""

from dataclasses import dataclass
from typing import Self

import numpy as np

STEPS = 1024
"""Soft votes are standard normal scores in steps of 1/1024."""

MISSING = np.int16(np.iinfo(np.int16).min)
"""The soft vote of a filter that cannot judge a sample."""

_FARTHEST_RANK = 1e-4  # 3.7 deviations: one sample may not decide what is learned of a filter


def soften(ranks: np.ndarray) -> np.ndarray:
    """Turns ranks in the pool into soft votes.

    Args:
        ranks: (n,) shares of the pool that are worse, in [0, 1], higher is better; NaN where a filter cannot judge.

    Returns:
        (n,) int16 standard normal scores in steps of 1/1024, in [-3808, 3808], higher is better; or MISSING.
    """
    from scipy.special import ndtri

    scores = ndtri(np.clip(ranks, _FARTHEST_RANK, 1 - _FARTHEST_RANK)) * STEPS
    unknown = np.isnan(scores)
    return np.where(unknown, MISSING, np.rint(np.where(unknown, 0.0, scores))).astype(np.int16)


@dataclass
class Moments:
    """First and second moments of soft votes, over the samples that each pair of filters judges; exact whole numbers.

    Attributes:
        common: (m, m) int64 how many samples both filters judge.
        sums: (m, m) int64 [i, j] the sum of i's soft votes over the samples that j judges too.
        products: (m, m) int64 the sums of products.
    """

    common: np.ndarray
    sums: np.ndarray
    products: np.ndarray

    @classmethod
    def of(cls, soft: np.ndarray) -> Self:
        """Sums up.

        Args:
            soft: (n samples, m filters) int16 soft votes.

        Returns:
            Their moments; exact up to 600 billion samples.
        """
        known = soft != MISSING
        # Products of these numbers stay below 2**24, so that float64 sums of a shard's are whole numbers, exactly.
        values, there = np.where(known, soft, 0).astype(np.float64), known.astype(np.float64)
        parts = (there.T @ there, values.T @ there, values.T @ values)
        return cls(*(part.astype(np.int64) for part in parts))

    def merge(self, other: Self) -> Self:
        """Adds another shard's moments to these."""
        self.common += other.common
        self.sums += other.sums
        self.products += other.products
        return self

    def of_columns(self, columns: list[int]) -> "Moments":
        """The moments of some filters alone."""
        chosen = np.ix_(columns, columns)
        return Moments(self.common[chosen], self.sums[chosen], self.products[chosen])

    def correlation(self, fewest: int) -> np.ndarray:
        """Correlations of soft votes over the samples that both filters of a pair judge.

        Args:
            fewest: samples that a pair has to share; with fewer its correlation counts as 0.

        Returns:
            (m, m) in [-0.999, 0.999], 0 where a filter is constant; unit diagonal.
        """
        rows = np.maximum(self.common, 1)
        mean = self.sums / rows
        covariance = self.products / rows - mean * mean.T
        deviation = np.sqrt(np.maximum(covariance.diagonal(), 0.0))
        scale = np.outer(deviation, deviation)
        known = (self.common >= fewest) & (scale > 0)
        found: np.ndarray = np.clip(np.where(known, covariance / np.where(known, scale, 1.0), 0.0), -0.999, 0.999)
        np.fill_diagonal(found, 1.0)
        return found

    def same(self) -> np.ndarray:
        """Which filters have the same soft vote on every sample: (m, m) bool."""
        squares, judged = self.products.diagonal(), self.common.diagonal()
        apart = squares[:, None] + squares - 2 * self.products  # the sum of squared differences where both judge
        same: np.ndarray = (apart == 0) & (self.common == judged) & (self.common == judged[:, None])
        return same

    def own_order(self, columns: np.ndarray) -> np.ndarray:
        """An order of some filters that depends on their soft votes, and not on where they stand.

        Args:
            columns: (c,) positions of filters, no two of them the same.

        Returns:
            (c,) the same positions; of filters that these moments cannot tell apart, the first comes first.
        """
        some = self.of_columns(columns.tolist())
        keys = [
            [part[row, row] for part in (some.common, some.sums, some.products)]
            + [value for part in (some.products, some.sums, some.common) for value in np.sort(part[row]).tolist()]
            for row in range(len(columns))
        ]
        return columns[np.array(sorted(range(len(keys)), key=keys.__getitem__), np.intp)]


@dataclass
class SoftSample:
    """The soft votes of so many samples that a hash of their uids chooses, the same however the pool is cut.

    Attributes:
        most: how many samples are remembered at most.
        places: (k,) uint64 hashes, ascending; those remembered are the smallest of all.
        soft: (k samples, m filters) int16 their soft votes.
    """

    most: int
    places: np.ndarray
    soft: np.ndarray

    @classmethod
    def of(cls, soft: np.ndarray, hashes: np.ndarray, most: int) -> Self:
        """Chooses from one shard.

        Args:
            soft: (n samples, m filters) int16 soft votes.
            hashes: (n,) uint64 seeded hashes of the samples' uids.
            most: how many to remember at most.
        """
        chosen = np.argsort(hashes, kind="stable")[:most]
        return cls(most, hashes[chosen], soft[chosen])

    def merge(self, other: Self) -> Self:
        """Adds another shard's samples, and forgets those that are too many."""
        places = np.concatenate([self.places, other.places])
        chosen = np.argsort(places, kind="stable")[: self.most]
        self.places, self.soft = places[chosen], np.concatenate([self.soft, other.soft])[chosen]
        return self
