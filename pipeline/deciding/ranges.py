"""Ranges of filters: which of them a pool, the reference or labels have to decide, and all of them as numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chaffinch.filters.filter import Filter
from chaffinch.filters.label_cut import LabelCut, cut_by_labels
from chaffinch.filters.ranges import ByLabels, FittedRanges, Interval, Share, check_overlap, parse_ranges
from chaffinch.pipeline.deciding.judgement import Pool
from chaffinch.pipeline.deciding.labels import CountLabelledScores, Labels, ScoredRows
from chaffinch.pipeline.deciding.lessons import Count
from chaffinch.pipeline.rows import Part

_DIGITS = 6


class RangeError(Exception):
    """A filter's ranges do not fit the pool, or labels cannot decide them."""


@dataclass(frozen=True)
class ByLabelsFitted:
    """Ranges that labels decided.

    Attributes:
        ranges: filter and "keep" or "drop" -> range.
        report: filter -> what labels said of its scores, as plain JSON values.
    """

    ranges: Mapping[tuple[str, str], Interval] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)


def find_shares(filters: Mapping[str, Filter], of_reference: bool) -> dict[tuple[str, str], Share]:
    """The ranges that a pool, or the reference, has to decide: filter and "keep" or "drop" -> share."""
    found = {}
    for name, judge in filters.items():
        for which, parsed in parse_ranges(judge.keep, judge.drop).items():
            if isinstance(parsed, Share) and parsed.of_reference == of_reference:
                found[name, which] = parsed
    return found


def find_by_labels(filters: Mapping[str, Filter]) -> dict[str, dict[str, ByLabels]]:
    """The ranges that labels have to decide: filter -> "keep" or "drop" -> range."""
    found: dict[str, dict[str, ByLabels]] = {}
    for name, judge in filters.items():
        for which, parsed in parse_ranges(judge.keep, judge.drop).items():
            if isinstance(parsed, ByLabels):
                found.setdefault(name, {})[which] = parsed
    return found


def fit_by_labels(
    count: Count, pool: Pool, parts: Sequence[Part], filters: Mapping[str, Filter], labels: Labels | None
) -> ByLabelsFitted:
    """Fits the ranges that labels decide, in one pass over the pool; costs nothing where there are none.

    A filter with one such range ends it at the lenient cut. With both, it drops what lies beyond the lenient cut, keeps
    what lies beyond the strict one, and abstains between them: there labels cannot say where the line is.

    Args:
        count: adds up over a pool.
        pool: the pool.
        parts: its shards, with the rows that repeat a uid. Samples that a required filter drops count, too: its own
            range may be one of these.
        filters: all filters.
        labels: what somebody said of single samples.

    Returns:
        The ranges.

    Raises:
        RangeError: labels are too few, or do not part the scores of a filter at all; names it.
    """
    wanted = find_by_labels(filters)
    if not wanted:
        return ByLabelsFitted()
    if labels is None:
        raise RangeError(f"filters.{next(iter(wanted))}: its range needs labels:, a file of samples with answers")
    task = CountLabelledScores(pool.source, {name: filters[name] for name in wanted}, labels)
    rows: ScoredRows = count("Find scores of labelled samples", parts, task)
    places, scores = rows.ordered()
    ranges: dict[tuple[str, str], Interval] = {}
    report = {}
    for column, (name, asked) in enumerate(wanted.items()):
        high_is_good = (asked["keep"].side == "above") if "keep" in asked else (asked["drop"].side == "below")
        try:
            cut = cut_by_labels(scores[:, column], labels.keep[places], high_is_good)
        except ValueError as error:
            bounds = " and ".join(f"{which}: {getattr(filters[name], which)}" for which in asked)
            known = f"{len(places)} of {len(labels)} labels are of usable samples of this pool"
            raise RangeError(
                f"filters.{name}: {bounds} {error} ({known}); label more with `chaffinch label`, or give the range as "
                "numbers or a share of the pool"
            ) from error
        strict = len(asked) == 2
        for which in asked:
            sides = cut.strict if strict and which == "keep" else cut.lenient
            ranges[name, which] = sides[0 if which == "keep" else 1]
        report[name] = _describe(cut, int((~labels.at_random[places]).sum()), high_is_good, strict)
    return ByLabelsFitted(ranges, report)


def _describe(cut: LabelCut, picked: int, high_is_good: bool, gap: bool) -> dict[str, Any]:
    lines = [cut.lenient, cut.strict] if gap else [cut.lenient]
    return {
        "good_side": "above" if high_is_good else "below",
        "ends": sorted({keep[0] if high_is_good else keep[1] for keep, _ in lines}),
        "good": cut.good,
        "bad": cut.bad,
        "unjudged": cut.unjudged,
        "picked": picked,
        "auc": round(cut.auc, _DIGITS),
        "balanced_accuracy": round(cut.balanced_accuracy, _DIGITS),
        "best_balanced_accuracy": round(cut.best, _DIGITS),
        "good_kept": round(cut.good_kept, _DIGITS),
        "bad_kept": round(cut.bad_kept, _DIGITS),
        "finding": cut.finding,
    }


def fit_ranges(
    filters: Mapping[str, Filter],
    ends: Mapping[tuple[str, str], float | None],
    by_labels: Mapping[tuple[str, str], Interval] | None = None,
) -> list[FittedRanges]:
    """Turns every filter's bounds into numbers.

    Args:
        filters: all filters.
        ends: the inner ends of ranges that a pool decided.
        by_labels: the ranges that labels decided, where there are any.

    Returns:
        (m,) ranges.

    Raises:
        RangeError: keep and drop overlap now that their ends are known; names the filter.
    """
    ranges = []
    for name, judge in filters.items():
        intervals: dict[str, Interval | None] = {}
        for which, parsed in parse_ranges(judge.keep, judge.drop).items():
            if isinstance(parsed, ByLabels):
                intervals[which] = (by_labels or {})[name, which]
            else:
                intervals[which] = parsed.interval(ends[name, which]) if isinstance(parsed, Share) else parsed
        keep, drop = intervals["keep"], intervals["drop"]
        if keep is not None and drop is not None:
            try:
                check_overlap(keep, drop, f"keep: {judge.keep} and drop: {judge.drop}")
            except ValueError as error:
                raise RangeError(f"filters.{name}: {error}") from error
        ranges.append(FittedRanges(keep, drop))
    return ranges
