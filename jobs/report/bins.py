"""Bins of a histogram, and where a filter's ranges lie among them."""

import itertools
from collections.abc import Sequence

import numpy as np

from chaffinch.filters.ranges import FittedRanges, Interval
from chaffinch.jobs.report.words import number

_BINS = 60
_MOST_WHOLE = 80
_TAIL = 0.005


def find_bins(values: np.ndarray, ends: Sequence[float]) -> tuple[np.ndarray, bool]:
    """Where the bins of a histogram begin and end.

    Long tails are cut where they hold less than half a percent and would take most of the room; their samples are
    counted in the outermost bins. A bin begins at the end of a range, so that few bins hold two votes.

    Args:
        values: (n,) float64, without NaN.
        ends: finite ends of ranges; they are inside.

    Returns:
        (b + 1,) ascending edges, and whether each bin holds one whole number.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        finite = np.array([0.0, *ends])
    low, high = float(finite.min()), float(finite.max())
    tail_low, tail_high = (float(edge) for edge in np.quantile(finite, [_TAIL, 1 - _TAIL]))
    if high - low > 3 * (tail_high - tail_low) > 0:
        low, high = tail_low, tail_high
    low, high = min(low, *ends, high), max(high, *ends, low)
    if np.all(finite == np.round(finite)) and high - low <= _MOST_WHOLE:
        return np.arange(np.floor(low), np.ceil(high) + 2) - 0.5, True
    if high <= low:
        margin = abs(low) * 0.05 or 0.5
        return np.linspace(low - margin, high + margin, 12), False
    width = (high - low) / _BINS
    start = ends[0] - np.ceil((ends[0] - low) / width - 1e-6) * width if len(ends) else low
    edges: np.ndarray = start + width * np.arange(int(np.floor((high - start) / width)) + 2)
    return edges, False


def label_bins(edges: np.ndarray, whole: bool = False, below: bool = False, above: bool = False) -> list[str]:
    """What each bin holds, in words.

    Args:
        edges: (b + 1,) as `find_bins` returns them.
        whole: whether each bin holds one whole number.
        below: whether the first bin also holds what lies below it.
        above: whether the last bin also holds what lies above it.

    Returns:
        (b,) such as "0.2 to 0.25".
    """
    if whole:
        labels = [number(centre) for centre in (edges[:-1] + edges[1:]) / 2]
    else:
        labels = [f"{number(low)} to {number(high)}" for low, high in itertools.pairwise(edges)]
    if below:
        labels[0] = f"{labels[0].rpartition(' to ')[2]} and below"
    if above:
        labels[-1] = f"{labels[-1].partition(' to ')[0]} and above"
    return labels


def find_bands(ranges: FittedRanges, whole: bool) -> list[tuple[str, Interval]]:
    """Which scores vote drop and keep, as intervals to be shaded.

    Args:
        ranges: a filter's ranges; one that is not given is all that the other leaves.
        whole: whether bins hold one whole number each; ends are then moved to where such bins meet.

    Returns:
        "drop" or "keep" and an interval, drops first; between them the filter abstains.
    """
    found: dict[str, list[Interval]] = {}
    for name, own, other in (("drop", ranges.drop, ranges.keep), ("keep", ranges.keep, ranges.drop)):
        found[name] = [_between_bins(own) if whole else own] if own is not None and own[0] <= own[1] else []
        if own is None and other is not None:
            low, high = (_between_bins(other) if whole else other) if other[0] <= other[1] else (np.inf, np.inf)
            found[name] = [(-np.inf, low)] if low > -np.inf else []
            found[name] += [(high, np.inf)] if high < np.inf else []
    return [(name, interval) for name in ("drop", "keep") for interval in found[name]]


def _between_bins(interval: Interval) -> Interval:
    return float(np.ceil(interval[0]) - 0.5), float(np.floor(interval[1]) + 0.5)
