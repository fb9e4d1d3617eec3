"""A gate: required filters, fitted ahead of the rest, that spare an expensive scorer the samples they drop."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from chaffinch.filters.filter import Filter
from chaffinch.filters.ranges import FittedRanges
from chaffinch.pipeline.deciding.judgement import Pool
from chaffinch.pipeline.deciding.learn import measure
from chaffinch.pipeline.deciding.lessons import Count, teach
from chaffinch.pipeline.deciding.ranges import find_shares, fit_ranges
from chaffinch.pipeline.rows import Part, Source, read_scores
from chaffinch.pipeline.shards import Shard


@dataclass(frozen=True)
class Gate:
    """Tells which samples are worth measuring.

    Attributes:
        source: where the filters' columns come from.
        filters: required filters.
        ranges: their ranges.
    """

    source: Source
    filters: Sequence[Filter]
    ranges: Sequence[FittedRanges]

    @classmethod
    def fit(cls, count: Count, pool: Pool, reference: Pool | None, filters: Mapping[str, Filter]) -> "Gate":
        """Fits the ranges of required filters; passes over a pool only where it decides them or filters learn from it.

        Args:
            count: adds up over a pool.
            pool: the pool, with the tables that the filters read.
            reference: known-good samples that ranges may lean on, with the same tables.
            filters: name -> required filter; none whose range labels decide, for those come after scoring.

        Returns:
            The gate.

        Raises:
            RangeError: keep and drop of a filter overlap.
            FilterError: a filter cannot learn from the pool.
        """
        filters = teach(count, pool, filters)
        ends: dict[tuple[str, str], float | None] = {}
        for leaned_on, of_reference in ((pool, False), (reference, True)):
            shares = find_shares(filters, of_reference)
            if shares and leaned_on is not None:
                ends |= measure(count, leaned_on, filters, shares, set(), {}).ends
        return cls(pool.source, list(filters.values()), fit_ranges(filters, ends))

    @staticmethod
    def leans_on_pool(filters: Mapping[str, Filter]) -> bool:
        """Whether `fit` looks at the pool, whose samples have to be listed before."""
        return bool(find_shares(filters, False)) or any(judge.learns for judge in filters.values())

    def passes(self, shard: Shard) -> np.ndarray:
        """Which samples of a shard no filter drops: (s,) bool. Rejected samples pass; they are nobody's to measure."""
        scores = read_scores(Part(0, shard), self.source, self.filters)
        votes = [ranges.vote(score) for ranges, score in zip(self.ranges, scores, strict=True)]
        passing: np.ndarray = np.min(votes, axis=0) >= 0
        return passing
