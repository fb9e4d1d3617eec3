"""The cut: the last sample that is kept, found by counting; no sample is ever sorted among all others."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from chaffinch.filters.cut import Cut, CutSearch
from chaffinch.filters.fitted import Fitted
from chaffinch.filters.statistics import DIGIT_BITS, unsortable
from chaffinch.pipeline.deciding.counts import CountAroundCut, CountProbabilities, DigitCounts
from chaffinch.pipeline.deciding.judgement import Judgement
from chaffinch.pipeline.deciding.lessons import Count
from chaffinch.pipeline.rows import Part, Source


@dataclass(frozen=True)
class _Group:
    """The samples of one probability, among which the cut lies.

    Attributes:
        probability: theirs.
        above: how many samples have a higher one.
        size: how many have this one.
    """

    probability: float
    above: int
    size: int


def find_cut(
    count: Count,
    parts: Sequence[Part],
    source: Source,
    judgement: Judgement,
    fitted: Fitted,
    patterns: np.ndarray,
    counts: np.ndarray,
) -> tuple[Cut, dict[str, int]]:
    """Finds the last sample that is kept.

    Args:
        count: adds up over the pool.
        parts: the pool.
        source: where columns come from.
        judgement: what the config asks for.
        fitted: the judgement, but for the cut.
        patterns: (p patterns, m filters) int8 votes.
        counts: (p,) how many samples show each.

    Returns:
        The cut, and how many of the kept samples probability, the soft score or the hash decided on.
    """
    if not judgement.orders:
        return Cut(judgement.probability or 0.0), {}
    wanted = judgement.wanted(int(counts.sum()))
    if fitted.ensemble.is_soft:
        available, group = _group_by_scores(count, parts, CountProbabilities(source, judgement.filters, fitted), wanted)
    else:
        available, group = _group_by_votes(fitted, patterns, counts, wanted)
    how = {"wanted": wanted, "available": available}
    if group is None:
        return Cut(float("inf") if wanted <= 0 else -1.0), how
    how |= {
        "by_probability": group.above,
        "by_soft_score": wanted - group.above,
        "of_equal_probability": group.size,
    }
    if wanted == group.above + group.size:
        return Cut(group.probability), how
    # Counted from below, the last kept sample has so many of its group under it.
    rank = group.size - (wanted - group.above)
    search: CutSearch | Cut = CutSearch(group.probability, rank, group.size)
    while isinstance(search, CutSearch):
        step = CountAroundCut(source, judgement.filters, fitted, judgement.seed, search)
        search = search.step(count("Order samples", parts, step))
    return search, how


def _group_by_votes(fitted: Fitted, patterns: np.ndarray, counts: np.ndarray, wanted: int) -> tuple[int, _Group | None]:
    """How many samples may be kept, and the group of the cut, where not none or all of them are."""
    probability = fitted.ensemble.by_votes(patterns)
    allowed = fitted.candidates(patterns, probability, fitted.covered(patterns))
    groups, inverse = np.unique(probability[allowed], return_inverse=True)
    sizes = np.bincount(inverse, weights=counts[allowed], minlength=len(groups)).astype(np.int64)
    available = int(sizes.sum())
    if not 0 < wanted < available:
        return available, None
    above = available - np.cumsum(sizes)  # samples of higher probability than each group's
    group = int(np.flatnonzero(above < wanted)[0])
    return available, _Group(float(groups[group]), int(above[group]), int(sizes[group]))


def _group_by_scores(
    count: Count, parts: Sequence[Part], task: CountProbabilities, wanted: int
) -> tuple[int, _Group | None]:
    """The same where there are as many probabilities as samples: two passes, over the halves of their bits."""
    first: DigitCounts = count("Count probabilities", parts, task)
    high = first.histogram()
    available = high.total
    if not 0 < wanted < available:
        return available, None
    digit, rank = high.locate(available - wanted)  # so many samples stay below the last that is kept
    second: DigitCounts = count("Count probabilities finely", parts, replace(task, high=digit))
    low = second.histogram()
    fine, inside = low.locate(rank)
    size = int(low.counts[fine])
    probability = unsortable(np.array([digit << DIGIT_BITS | fine], np.uint32))[0]
    below = available - wanted - inside
    return available, _Group(float(probability), available - below - size, size)
