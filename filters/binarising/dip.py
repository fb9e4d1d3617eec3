"""One group or two: Hartigan's dip, how far a distribution is from any that has a single mode."""

import math

import numpy as np

from chaffinch.filters.binarising.bins import Bins

LEAST_DIP = 0.002
"""A tenth of the pool, four standard deviations away from the rest, gives 0.0026. Large pools show wiggles of any size
for sure; less than this is not worth a split."""

SURE = 0.65
"""Of n values from one uniform group, the dip times sqrt(n) exceeds this about once in five hundred pools."""


def has_two_groups(dip: float, values: int) -> bool:
    """Whether a pool falls into two groups at least.

    The uniform distribution is the hardest of those with one mode to tell from two, so that a bound for it holds for
    all of them, skewed and heavy-tailed ones included.

    Args:
        dip: of the pool, in [0, 0.25].
        values: n, how many it was taken from.

    Returns:
        Whether the dip is larger than chance would make it in one group, and large enough to matter.

    Source: J. A. Hartigan and P. M. Hartigan (1985), The Dip Test of Unimodality, Annals of Statistics 13(1).
    """
    return values > 0 and dip > max(LEAST_DIP, SURE / math.sqrt(values))


def dip_of(bins: Bins) -> float:
    """The dip of a step's scores, each bin's spread evenly over its width.

    Args:
        bins: what was counted.

    Returns:
        The dip, in [0, 0.25]; 0 for one value, and for none.
    """
    if not len(bins):
        return 0.0
    shares = np.cumsum(bins.counts) / bins.counts.sum()
    below = np.concatenate([[0.0], shares[:-1]])
    values, heights = np.stack([bins.lows, bins.highs], 1).ravel(), np.stack([below, shares], 1).ravel()
    distinct = np.concatenate([[True], np.diff(values) > 0])  # the bins on both sides of 0 meet there
    return dip_of_line(values[distinct], heights[distinct])


def dip_of_line(values: np.ndarray, shares: np.ndarray) -> float:
    """The dip of a distribution function that is linear between knots.

    It is the least distance, over all values, to a distribution function that is convex up to some mode and concave
    after it. The mode is closed in on: between the largest convex function below and the least concave one above, the
    gap is widest where the mode has to be; what lies outside of it then bounds the distance from below.

    Args:
        values: (k,) float64, strictly ascending.
        shares: (k,) float64, from 0 to 1, ascending.

    Returns:
        The dip, in [0, 0.25].

    Source: P. M. Hartigan (1985), Algorithm AS 217, Applied Statistics 34(3).
    """
    first, last, distance = 0, len(values) - 1, 0.0
    while True:
        inside = slice(first, last + 1)
        here, height = values[inside], shares[inside]
        under, over = _hull(here, height, 1), _hull(here, height, -1)
        convex, concave = (np.interp(here, here[knots], height[knots]) for knots in (under, over))
        gap = concave - convex
        knots = np.union1d(under, over)
        widest = int(knots[np.argmax(gap[knots])])
        if gap[widest] <= distance:
            return distance / 2
        # The mode lies between a knot of the convex function and one of the concave.
        start = int(under[np.searchsorted(under, widest, side="right") - 1])
        end = int(over[np.searchsorted(over, widest, side="left")])
        left = float((height - convex)[: start + 1].max())
        right = float((concave - height)[end:].max())
        distance = max(distance, left, right)
        if (start, end) == (0, len(here) - 1):
            return distance / 2
        first, last = first + start, first + end


def _hull(values: np.ndarray, shares: np.ndarray, side: int) -> np.ndarray:
    """Positions of the knots of the largest convex function below a line (side 1), or of the least concave above."""
    across, along = values.tolist(), (side * shares).tolist()
    kept: list[int] = []
    for new in range(len(across)):
        while len(kept) > 1:
            before, at = kept[-2], kept[-1]
            rise, run = along[at] - along[before], across[at] - across[before]
            if rise * (across[new] - across[before]) < (along[new] - along[before]) * run:
                break
            kept.pop()
        kept.append(new)
    return np.array(kept, np.int64)
