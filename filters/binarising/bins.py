"""A step's scores as 65,536 narrow bins: how many lie in each, with their exact mean and variance.

A bin is what shares the high half of a float32's bits, 1/128 of its value wide or narrower. Inside a bin the low half
is the value on a linear scale, so that its sums are whole numbers: they add over shards in any order, and stay exact.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chaffinch.filters.binarising.tally import Tally
from chaffinch.filters.statistics import DIGIT_BITS, DIGITS, Histogram, sortable, unsortable

_MIDDLE = 1 << (DIGIT_BITS - 1)
# The bins that hold infinities.
_LOWEST, _HIGHEST = sortable(np.array([-np.inf, np.inf], np.float32)).astype(np.int64) >> DIGIT_BITS


@dataclass(frozen=True)
class Bins:
    """The finite scores of one step, b bins that hold any, ascending.

    Attributes:
        digits: (b,) int64 high halves of the sortable keys.
        counts: (b,) int64.
        lows: (b,) float64, the lowest value that each could hold.
        highs: (b,) float64, the highest.
        means: (b,) float64 of the values in each.
        variances: (b,) float64 of the values in each.
    """

    digits: np.ndarray
    counts: np.ndarray
    lows: np.ndarray
    highs: np.ndarray
    means: np.ndarray
    variances: np.ndarray

    @classmethod
    def of(cls, digits: np.ndarray, sums: np.ndarray) -> "Bins":
        """The bins of what was counted.

        Args:
            digits: (b,) high halves, distinct and ascending.
            sums: (b, 3) int64: how many values, and the sums of their low halves less 32,768 and of these squared.
        """
        digits = digits.astype(np.int64)
        finite = (digits > _LOWEST) & (digits < _HIGHEST)
        digits, (counts, first, second) = digits[finite], sums[finite].T
        lows, highs = values_of(digits, 0), values_of(digits, DIGITS - 1)
        steps = (highs - lows) / (DIGITS - 1)
        mean = first / counts
        spread = second / counts - mean * mean
        return cls(
            digits,
            counts,
            lows,
            highs,
            np.clip(lows + steps * (_MIDDLE + mean), lows, highs),
            steps * steps * np.maximum(spread, 0),
        )

    def __len__(self) -> int:
        return len(self.digits)


def values_of(digits: np.ndarray | int, low: np.ndarray | int) -> np.ndarray:
    """The values, as float64, whose sortable keys have these high and low halves."""
    keys = np.asarray(digits, np.int64) << DIGIT_BITS | np.asarray(low, np.int64)
    return unsortable(keys.astype(np.uint32)).astype(np.float64)


def count_high(scores: np.ndarray) -> Tally:
    """Counts every step's bins: the first pass.

    Args:
        scores: (n samples, t steps) float32; NaN does not count.

    Returns:
        Codes step * 65,536 + high half, with the three sums that `Bins.of` takes.
    """
    keys, steps = _keys(scores)
    low = (keys & (DIGITS - 1)) - _MIDDLE
    return Tally.of(steps * DIGITS + (keys >> DIGIT_BITS), np.stack([np.ones_like(low), low, low * low], 1))


def read_high(tally: Tally, steps: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Takes the first pass apart.

    Args:
        tally: of `count_high`.
        steps: t.

    Returns:
        For each step (b,) high halves and (b, 3) sums.
    """
    codes, sums = tally.arrays()
    edges = np.searchsorted(codes, np.arange(steps + 1, dtype=np.uint64) * np.uint64(DIGITS))
    return [
        ((codes[start:end] % np.uint64(DIGITS)).astype(np.int64), sums[start:end])
        for start, end in itertools.pairwise(edges)
    ]


def count_low(scores: np.ndarray, wanted: Sequence[tuple[int, int]]) -> Tally:
    """Counts single values inside a few bins: the second pass.

    Args:
        scores: (n samples, t steps) float32; NaN does not count.
        wanted: (w,) step and high half of each bin.

    Returns:
        Codes position in `wanted` * 65,536 + low half, with how often each occurs.
    """
    keys, steps = _keys(scores)
    bins = steps * DIGITS + (keys >> DIGIT_BITS)
    asked = np.array([step * DIGITS + digit for step, digit in wanted], np.int64)
    order = np.argsort(asked)
    place = np.minimum(np.searchsorted(asked[order], bins), max(len(asked) - 1, 0))
    found = asked[order][place] == bins if len(asked) else np.zeros(len(bins), bool)
    codes = order[place[found]] * DIGITS + (keys[found] & (DIGITS - 1))
    return Tally.of(codes, np.ones((len(codes), 1), np.int64))


def read_low(tally: Tally, wanted: Sequence[tuple[int, int]]) -> dict[tuple[int, int], Histogram]:
    """Takes the second pass apart: step and high half -> histogram of the low halves."""
    codes, sums = tally.arrays()
    found = {}
    for position, key in enumerate(wanted):
        start, end = np.searchsorted(codes, np.array([position, position + 1], np.uint64) * np.uint64(DIGITS))
        histogram = Histogram()
        histogram.counts[(codes[start:end] % np.uint64(DIGITS)).astype(np.int64)] = sums[start:end, 0]
        found[key] = histogram
    return found


def _keys(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sortable keys and steps of the scores that are none of them NaN: two (v,) int64."""
    rows, steps = np.nonzero(~np.isnan(scores))
    return sortable(scores[rows, steps]).astype(np.int64), steps.astype(np.int64)
