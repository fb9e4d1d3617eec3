"""Two-means on a line: the one cut after which squared distances to the two sides' means are least."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from chaffinch.filters.binarising.bins import Bins, values_of
from chaffinch.filters.binarising.rules import Rule
from chaffinch.filters.statistics import DIGITS, Histogram

# Bounds are compared with this share of room, more than their rounding.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Cut:
    """A cut between two values.

    Attributes:
        gain: the squared distances that it saves; higher is better.
        middle: half-way between the means of the two sides: what lies nearer to the upper is kept.
        below: no value of the lower side lies above this.
        above: no value of the upper side lies below this.
    """

    gain: float
    middle: float
    below: float
    above: float

    @property
    def threshold(self) -> float:
        """A float32 with the lower side below it and the upper side at or above it."""
        lowest = np.nextafter(np.float32(self.below), np.float32(np.inf))
        return float(np.clip(np.float32(self.middle), lowest, np.float32(self.above)))


@dataclass(frozen=True)
class Place:
    """A bin that has to be looked into.

    Attributes:
        digit: its high half.
        before: how many values lie below the bin.
        sum_before: their sum.
    """

    digit: int
    before: int
    sum_before: float


@dataclass(frozen=True)
class TwoMeansSearch:
    """The search for the best cut, once all cuts between bins are known.

    Attributes:
        dip: of the step, to be told on.
        best: the best cut between bins, None where there is but one bin.
        places: bins inside which a better one may lie, or the middle of the best; usually one.
        total: how many values there are.
        sum: of them, all less `centre`.
        centre: their mean, which sums are taken around.
    """

    dip: float
    best: Cut | None
    places: Sequence[Place]
    total: int
    sum: float
    centre: float

    @classmethod
    def start(cls, bins: Bins, dip: float) -> "TwoMeansSearch":
        """Tries every cut between bins, and tells inside which bins a better one may lie.

        The gain is convex in how many values lie below the cut and in their sum. Inside a bin these two stay within a
        triangle: its corners are both ends of the bin, and as many of its values at its lowest as its sum allows with
        the others at its highest. No cut inside gains more than the best corner, and the cuts at both ends are known.

        Args:
            bins: what was counted, of one value at least.
            dip: of the step.
        """
        counts, total = bins.counts, int(bins.counts.sum())
        centre = float((counts * bins.means).sum() / total)
        sums = counts * (bins.means - centre)
        before = np.concatenate([[0], np.cumsum(counts)])
        sum_before = np.concatenate([[0.0], np.cumsum(sums)])
        whole = float(sum_before[-1])
        gains = _gain(before[1:-1], sum_before[1:-1], total, whole)
        best = None
        if len(gains):
            at = int(np.argmax(gains))
            best = _cut(
                gains[at], before[at + 1], sum_before[at + 1], total, whole, centre, bins.highs[at], bins.lows[at + 1]
            )
        lows, highs = bins.lows - centre, bins.highs - centre
        at_lowest = np.clip((counts * highs - sums) / (bins.highs - bins.lows), 0, counts)
        corner = _gain(before[:-1] + at_lowest, sum_before[:-1] + at_lowest * lows, total, whole)
        worth = (counts > 1) & (corner > (best.gain if best else 0.0) * (1 - _ROUNDING))
        if best is not None:
            # The bin that the middle falls into, beside the cut, may hold values on either side of it.
            worth |= ((bins.highs == best.below) & (best.middle <= best.below)) | (
                (bins.lows == best.above) & (best.middle >= best.above)
            )
        places = [Place(int(bins.digits[at]), int(before[at]), float(sum_before[at])) for at in np.flatnonzero(worth)]
        return cls(dip, best, tuple(places), total, whole, centre)

    @property
    def digits(self) -> list[int]:
        """High halves of the bins to look into."""
        return [place.digit for place in self.places]

    def finish(self, low: Mapping[int, Histogram]) -> Rule:
        """The best cut of all; of equals the lowest.

        Args:
            low: the bins' low halves.
        """
        best, cuts = self.best, []
        for place in self.places:
            digits = np.flatnonzero(low[place.digit].counts)
            counts, values = low[place.digit].counts[digits], values_of(place.digit, digits)
            if best is not None and best.below == values_of(place.digit, DIGITS - 1):
                best = replace(best, below=float(values[-1]))
            if best is not None and best.above == values_of(place.digit, 0):
                best = replace(best, above=float(values[0]))
            if len(digits) < 2:
                continue
            before = place.before + np.cumsum(counts)[:-1]
            sum_before = place.sum_before + np.cumsum(counts * (values - self.centre))[:-1]
            gains = _gain(before, sum_before, self.total, self.sum)
            at = int(np.argmax(gains))
            cuts.append(
                _cut(
                    gains[at], before[at], sum_before[at], self.total, self.sum, self.centre, values[at], values[at + 1]
                )
            )
        cuts += [] if best is None else [best]
        if not cuts:
            return Rule("sign", 0.0, self.dip, "all scores are equal")
        return Rule("two_means", max(cuts, key=lambda cut: (cut.gain, -cut.below)).threshold, self.dip)


def split_bins(bins: Bins) -> np.ndarray:
    """The best cut between bins: (b,) bool, which lie above it; all where there is but one."""
    best = TwoMeansSearch.start(bins, 0.0).best
    return np.ones(len(bins), bool) if best is None else bins.lows >= best.above


def _gain(before: np.ndarray, sum_before: np.ndarray, total: int, whole: float) -> np.ndarray:
    """How much less the squared distances to two means are than those to one."""
    after = total - before
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = sum_before / before - (whole - sum_before) / after
        gains: np.ndarray = before * (after / total) * apart * apart
    return np.where((before > 0) & (after > 0), gains, 0.0)


def _cut(
    gain: float, before: int, sum_before: float, total: int, whole: float, centre: float, below: float, above: float
) -> Cut:
    lower, upper = sum_before / before, (whole - sum_before) / (total - before)
    return Cut(float(gain), float(centre + (lower + upper) / 2), float(below), float(above))
