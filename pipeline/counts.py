"""What deciding counts in each shard: values, repeated uids, vote patterns, and keys around the cut."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from chaffinch.filters.cut import CutCounts, CutSearch, hash_uids
from chaffinch.filters.filter import Filter
from chaffinch.filters.fitted import Fitted
from chaffinch.filters.statistics import DIGIT_BITS, Histogram, PatternCounts, merge_named, sortable
from chaffinch.pipeline.repeats import Claims, Seen, Suspects
from chaffinch.pipeline.rows import Part, Rows, Source


@dataclass
class PoolCounts:
    """The first pass.

    Attributes:
        read: samples found.
        high: filter -> histogram of the high halves of its scores.
        seen: which uids occurred, and which more than once.
    """

    read: int
    high: dict[str, Histogram]
    seen: Seen

    def merge(self, other: Self) -> Self:
        """Adds another shard's part."""
        self.read += other.read
        merge_named(self.high, other.high.items())
        self.seen.merge(other.seen)
        return self


@dataclass(frozen=True)
class CountPool:
    """Counts what ranges, ranks and repeats start from.

    Attributes:
        source: where columns come from.
        filters: name -> filters whose values are counted.
        size: bits for the search for repeats.
    """

    source: Source
    filters: Mapping[str, Filter]
    size: int

    def __call__(self, part: Part) -> PoolCounts:
        """Counts one shard."""
        rows = Rows.read(part, self.source, list(self.filters.values()))
        high = {
            name: Histogram.of((_keys(scores) >> DIGIT_BITS).astype(np.int64))
            for name, scores in zip(self.filters, rows.scores, strict=True)
        }
        return PoolCounts(len(rows.reject), high, Seen.of(rows.uids()[rows.usable], self.size))


@dataclass
class FineCounts:
    """The second pass.

    Attributes:
        low: filter and high digit -> histogram of the low halves of the scores with that high half.
        claims: samples whose uid may be repeated.
    """

    low: dict[tuple[str, int], Histogram]
    claims: Claims

    def merge(self, other: Self) -> Self:
        """Adds another shard's part."""
        for key, part in other.low.items():
            self.low[key] = self.low[key].merge(part) if key in self.low else part
        self.claims.merge(other.claims)
        return self


@dataclass(frozen=True)
class CountFine:
    """Counts the values around the ends of ranges, and collects uids that may be repeated.

    Attributes:
        source: where columns come from.
        filters: filters whose values are counted.
        digits: filter -> high halves of interest.
        suspects: hashes of uids that occurred more than once.
    """

    source: Source
    filters: Mapping[str, Filter]
    digits: Mapping[str, Sequence[int]]
    suspects: Suspects

    def __call__(self, part: Part) -> FineCounts:
        """Counts one shard."""
        rows = Rows.read(part, self.source, list(self.filters.values()))
        low = {}
        for name, scores in zip(self.filters, rows.scores, strict=True):
            keys = _keys(scores)
            for digit in self.digits[name]:
                inside = keys[keys >> DIGIT_BITS == digit] & np.uint32(0xFFFF)
                low[name, digit] = Histogram.of(inside.astype(np.int64))
        uids = rows.uids()
        found = self.suspects.rows(uids)
        found = found[rows.usable[found]]
        return FineCounts(low, Claims(uids[found], np.stack([np.full(len(found), part.number), found], axis=1)))


@dataclass
class VoteCounts:
    """The third pass.

    Attributes:
        patterns: how often each row of votes occurs among samples that can be used.
        rejects: reason -> how many samples.
    """

    patterns: PatternCounts
    rejects: Counter[str]

    def merge(self, other: Self) -> Self:
        """Adds another shard's part."""
        self.patterns.merge(other.patterns)
        self.rejects.update(other.rejects)
        return self


@dataclass(frozen=True)
class CountVotes:
    """Counts vote patterns.

    Attributes:
        source: where columns come from.
        filters: all filters.
        fitted: their ranges.
    """

    source: Source
    filters: Mapping[str, Filter]
    fitted: Fitted

    def __call__(self, part: Part) -> VoteCounts:
        """Counts one shard."""
        rows = Rows.read(part, self.source, list(self.filters.values()))
        votes = self.fitted.votes(rows.scores)[rows.usable]
        return VoteCounts(PatternCounts.of(votes), Counter(rows.reject.drop_null().to_pylist()))


@dataclass(frozen=True)
class CountAroundCut:
    """One step of the search for the cut.

    Attributes:
        source: where columns come from.
        filters: all filters.
        fitted: the judgement, but for the cut.
        seed: of the hash that breaks ties.
        search: where the cut lies as far as is known.
    """

    source: Source
    filters: Mapping[str, Filter]
    fitted: Fitted
    seed: int
    search: CutSearch

    def __call__(self, part: Part) -> CutCounts:
        """Counts one shard."""
        rows = Rows.read(part, self.source, list(self.filters.values()))
        votes = self.fitted.votes(rows.scores)
        probability = self.fitted.ensemble.probability(votes[:, self.fitted.judges])
        chosen = rows.usable & self.fitted.candidates(votes, probability)
        # Only the group in which the cut lies is ordered; the others need no soft score.
        chosen &= probability == np.float32(self.search.probability)
        soft = self.fitted.soft_scores([scores[chosen] for scores in rows.scores])
        return self.search.count(probability[chosen], soft, hash_uids(rows.uids()[chosen], self.seed))


def _keys(scores: np.ndarray) -> np.ndarray:
    return sortable(scores[~np.isnan(scores)])
