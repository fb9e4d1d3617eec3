"""What deciding counts in each shard: values, repeated uids, vote patterns, and keys around the cut."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from chaffinch.filters.cut import CutCounts, CutSearch, hash_uids
from chaffinch.filters.filter import Filter
from chaffinch.filters.fitted import Fitted
from chaffinch.filters.patterns import Patterns
from chaffinch.filters.soft_votes import Moments, SoftSample
from chaffinch.filters.statistics import DIGIT_BITS, Histogram, sortable
from chaffinch.pipeline.deciding.find_repeats import claim
from chaffinch.pipeline.deciding.probabilities import Probabilities
from chaffinch.pipeline.repeats import Claims, Seen, Suspects
from chaffinch.pipeline.rows import Part, Rows, Source, count_rows, read_scores, read_uids

# So many digits are counted at once: a histogram has 65,536 bins, and adding one for each shard would take longer.
_MOST_WAITING = 1 << 19
_MOST_PARTS = 32  # of tiny shards an array's own head takes a hundred times the room of its digits
_NO_KEYS = np.zeros(0, np.float32), np.zeros(0, np.uint32), np.zeros(0, np.uint64)


@dataclass
class DigitCounts:
    """A histogram of 16-bit digits that shards add to.

    Attributes:
        waiting: (n,) uint16 parts that are not counted yet.
        counted: the histogram of the others, None where there are none.
    """

    waiting: list[np.ndarray]
    counted: Histogram | None = None

    def merge(self, other: Self) -> Self:
        """Adds another shard's digits."""
        self.waiting += other.waiting
        if other.counted is not None:
            self.counted = other.counted if self.counted is None else self.counted.merge(other.counted)
        if sum(map(len, self.waiting)) > _MOST_WAITING:
            self.counted, self.waiting = self.histogram(), []
        elif len(self.waiting) > _MOST_PARTS:
            self.waiting = [np.concatenate(self.waiting)]
        return self

    def histogram(self) -> Histogram:
        """The histogram of all."""
        found = Histogram.of(np.concatenate([np.zeros(0, np.uint16), *self.waiting]))
        return found if self.counted is None else found.merge(self.counted)


def _merge(total: dict[Any, DigitCounts], parts: Mapping[Any, DigitCounts]) -> None:
    for key, part in parts.items():
        total[key] = total[key].merge(part) if key in total else part


@dataclass
class PoolCounts:
    """The first pass.

    Attributes:
        read: samples found.
        high: filter -> counts of the high halves of its scores.
        seen: which uids occurred, and which more than once.
    """

    read: int
    high: dict[str, DigitCounts]
    seen: Seen

    def merge(self, other: Self) -> Self:
        """Adds another shard's part."""
        self.read += other.read
        _merge(self.high, other.high)
        self.seen.merge(other.seen)
        return self


@dataclass(frozen=True)
class CountPool:
    """Counts what ranges, ranks and repeats start from.

    Attributes:
        source: where columns come from.
        filters: name -> filters whose values are counted.
        size: bits for the search for repeats; 0 where they are known, or looked for apart.
    """

    source: Source
    filters: Mapping[str, Filter]
    size: int

    def __call__(self, part: Part) -> PoolCounts:
        """Counts one shard."""
        scores = read_scores(part, self.source, list(self.filters.values()))
        high = {
            name: DigitCounts([(_keys(values) >> DIGIT_BITS).astype(np.uint16)])
            for name, values in zip(self.filters, scores, strict=True)
        }
        if not self.size:
            return PoolCounts(len(scores[0]) if scores else count_rows(part, self.source), high, Seen(0, [], []))
        usable = Rows.read(part, self.source, []).usable
        return PoolCounts(len(usable), high, Seen.of(read_uids(part, self.source, usable), self.size))


@dataclass
class FineCounts:
    """The second pass.

    Attributes:
        low: filter and high digit -> counts of the low halves of the scores with that high half.
        claims: samples whose uid may be repeated.
    """

    low: dict[tuple[str, int], DigitCounts]
    claims: Claims

    def merge(self, other: Self) -> Self:
        """Adds another shard's part."""
        _merge(self.low, other.low)
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
        scores = read_scores(part, self.source, list(self.filters.values()))
        low = {}
        for name, values in zip(self.filters, scores, strict=True):
            keys = _keys(values)
            for digit in self.digits[name]:
                inside = keys[keys >> DIGIT_BITS == digit]
                low[name, digit] = DigitCounts([inside.astype(np.uint16)])  # the low half
        return FineCounts(low, self._claims(part))

    def _claims(self, part: Part) -> Claims:
        if self.suspects.bits is None:
            return Claims(np.zeros((0, 2), np.uint64), np.zeros((0, 2), np.int64))
        uids = read_uids(part, self.source)
        return claim(part, self.source, uids, self.suspects.rows(uids))


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

    def __call__(self, part: Part) -> Patterns:
        """Counts the votes on one shard's usable samples; the third pass."""
        rows = Rows.read(part, self.source, list(self.filters.values()))
        return Patterns.of(self.fitted.votes(rows.scores, len(rows.usable))[rows.usable])


@dataclass
class SoftCounts:
    """What label models learn from scores.

    Attributes:
        moments: of all samples.
        sample: some of them.
    """

    moments: Moments
    sample: SoftSample

    def merge(self, other: Self) -> Self:
        """Adds another shard's part."""
        self.moments.merge(other.moments)
        self.sample.merge(other.sample)
        return self


@dataclass(frozen=True)
class CountSoft:
    """Sums up soft votes, of samples that no required filter drops.

    Attributes:
        source: where columns come from.
        filters: all filters.
        fitted: their ranges and ranks.
        seed: of the hash that chooses samples.
        most: how many samples to remember.
    """

    source: Source
    filters: Mapping[str, Filter]
    fitted: Fitted
    seed: int
    most: int

    def __call__(self, part: Part) -> SoftCounts:
        """Counts one shard."""
        rows = Rows.read(part, self.source, list(self.filters.values()))
        votes = self.fitted.votes(rows.scores, len(rows.usable))
        chosen = rows.usable & ~self.fitted.ruled_out(votes)
        soft = self.fitted.soft_votes([scores[chosen] for scores in rows.scores], int(chosen.sum()))
        hashes = hash_uids(read_uids(part, self.source, chosen), self.seed)
        return SoftCounts(Moments.of(soft), SoftSample.of(soft, hashes, self.most))


@dataclass(frozen=True)
class CountProbabilities:
    """Counts probabilities that are not of vote patterns, one 16-bit digit per pass.

    Attributes:
        source: where columns come from.
        filters: all filters.
        fitted: the judgement, but for the cut.
        high: the first digit of the probabilities whose second is counted; None: the first is.
    """

    source: Source
    filters: Mapping[str, Filter]
    fitted: Fitted
    high: int | None = None

    def __call__(self, part: Part) -> DigitCounts:
        """Counts one shard."""
        rows = Rows.read(part, self.source, list(self.filters.values()))
        votes = self.fitted.votes(rows.scores, len(rows.usable))
        chances = self._probabilities.of(votes, rows.scores)
        keys = sortable(chances.probability[rows.usable & chances.candidates])
        if self.high is None:
            return DigitCounts([(keys >> DIGIT_BITS).astype(np.uint16)])
        return DigitCounts([keys[keys >> DIGIT_BITS == self.high].astype(np.uint16)])

    @functools.cached_property
    def _probabilities(self) -> Probabilities:
        return Probabilities(self.fitted)


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
        votes = self.fitted.votes(rows.scores, len(rows.usable))
        chances = self._probabilities.of(votes, rows.scores)
        probability, chosen = chances.probability, rows.usable & chances.candidates
        # Only the group in which the cut lies is ordered; the others need no soft score.
        chosen &= probability == np.float32(self.search.probability)
        if not chosen.any():
            return self.search.count(*_NO_KEYS)
        soft = self.fitted.soft_scores([scores[chosen] for scores in rows.scores], int(chosen.sum()))
        return self.search.count(probability[chosen], soft, hash_uids(read_uids(part, self.source, chosen), self.seed))

    @functools.cached_property
    def _probabilities(self) -> Probabilities:
        return Probabilities(self.fitted)


def _keys(scores: np.ndarray) -> np.ndarray:
    return sortable(scores[~np.isnan(scores)])
