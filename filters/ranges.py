"""Ranges: from `keep: top 30%` in a config, over counts of the pool, to two numbers that turn scores into votes."""

import math
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from chaffinch.filters.filter import Bounds
from chaffinch.filters.statistics import DIGIT_BITS, Histogram, unsortable

Interval = tuple[float, float]
"""A closed range of scores, low <= high; (inf, -inf) holds nothing."""

NOTHING: Interval = (float("inf"), float("-inf"))

_SHARE = re.compile(r"\s*(top|bottom)\s+([0-9.]+)\s*%\s*")
_REFERENCE = re.compile(r"\s*(above|below)\s+reference\s+([0-9.]+)\s*%\s*")
_LABELS = re.compile(r"\s*(above|below)\s+labels\s*")
_FORMS = (
    "[low, high] with null for open, 'top 30%', 'bottom 40%', 'above reference 5%', 'below reference 1%', "
    "'above labels' or 'below labels'"
)


@dataclass(frozen=True)
class Share:
    """A range that the pool decides.

    Attributes:
        side: "top" and "above" hold the high scores, "bottom" and "below" the low ones.
        percent: share of the pool ("top", "bottom"), or quantile of the reference ("above", "below"), in [0, 100].
    """

    side: Literal["top", "bottom", "above", "below"]
    percent: float

    @property
    def of_reference(self) -> bool:
        """Whether the reference pool decides, and not the pool itself."""
        return self.side in ("above", "below")

    def rank(self, total: int) -> int | None:
        """Which measured value is the range's inner end.

        Args:
            total: how many values were measured.

        Returns:
            A 0-based rank in ascending order, or None where the range holds nothing.
        """
        count = round(self.percent * total / 100)
        if self.side == "top":
            return total - count if count else None
        if self.side == "bottom":
            return count - 1 if count else None
        return max(math.ceil(self.percent * total / 100) - 1, 0) if total else None

    def interval(self, edge: float | None) -> Interval:
        """The range with its inner end at `edge`; values equal to the edge are all inside."""
        if edge is None:
            return NOTHING
        return (edge, float("inf")) if self.side in ("top", "above") else (float("-inf"), edge)


@dataclass(frozen=True)
class ByLabels:
    """A range that ends where labels part a filter's scores.

    Attributes:
        side: "above" holds the high scores, "below" the low ones.
    """

    side: Literal["above", "below"]


Parsed = Interval | Share | ByLabels
"""A `keep:` or `drop:` as it was read."""


def parse_bounds(bounds: Bounds) -> Parsed:
    """Reads one `keep:` or `drop:`.

    Args:
        bounds: as written in the config.

    Returns:
        A closed interval, a share to be fitted to the pool or the reference, or a range to be fitted to labels.

    Raises:
        ValueError: it has none of the allowed forms.
    """
    if isinstance(bounds, str):
        if match := _LABELS.fullmatch(bounds):
            return ByLabels(match[1])  # type: ignore[arg-type]
        for form in (_SHARE, _REFERENCE):
            if match := form.fullmatch(bounds):
                percent = float(match[2])
                if percent > 100:
                    raise ValueError(f"{bounds!r} is more than 100%")
                return Share(match[1], percent)  # type: ignore[arg-type]
        raise ValueError(f"{bounds!r} is no range; write {_FORMS}")
    low, high = bounds
    interval = (float("-inf") if low is None else float(low), float("inf") if high is None else float(high))
    if not interval[0] <= interval[1]:
        raise ValueError(f"the range {list(bounds)} is empty: its low end lies above its high end")
    return interval


def parse_ranges(keep: Bounds | None, drop: Bounds | None) -> dict[str, Parsed | None]:
    """Reads both ranges of a filter: "keep" and "drop" -> what `parse_bounds` says, None where it is not given."""
    return {
        which: None if bounds is None else parse_bounds(bounds) for which, bounds in (("keep", keep), ("drop", drop))
    }


def check_ranges(keep: Bounds | None, drop: Bounds | None) -> None:
    """Refuses what can be seen to be wrong before anything is measured.

    Args:
        keep: scores that vote keep.
        drop: scores that vote drop.

    Raises:
        ValueError: neither is given, one has no allowed form, or both claim the same scores.
    """
    if keep is None and drop is None:
        raise ValueError(f"needs keep: or drop:, either as {_FORMS}")
    one, other = parse_ranges(keep, drop).values()
    if one is None or other is None:
        return
    if isinstance(one, ByLabels) or isinstance(other, ByLabels):
        high = [part.side in ("top", "above") for part in (one, other) if not isinstance(part, tuple)]
        if high in ([True, True], [False, False]):
            raise ValueError(f"keep: {keep} and drop: {drop} overlap; one has to lie at the other end")
    elif isinstance(one, Share) and isinstance(other, Share):
        same_pool = one.of_reference == other.of_reference
        if one.side == other.side:
            raise ValueError(f"keep: {keep} and drop: {drop} overlap; one has to lie at the other end")
        if same_pool and not one.of_reference and one.percent + other.percent > 100:
            raise ValueError(f"keep: {keep} and drop: {drop} overlap: together more than 100% of the pool")
        if same_pool and one.of_reference:
            above, below = (one, other) if one.side == "above" else (other, one)
            if below.percent > above.percent:
                raise ValueError(f"keep: {keep} and drop: {drop} overlap")
    elif not isinstance(one, Share) and not isinstance(other, Share):
        check_overlap(one, other, f"keep: {list(keep or ())} and drop: {list(drop or ())}")


def check_overlap(keep: Interval, drop: Interval, names: str) -> None:
    """Refuses fitted ranges that claim the same scores; they may touch in one value, which then votes keep.

    Args:
        keep: scores that vote keep.
        drop: scores that vote drop.
        names: how to name them in the error.

    Raises:
        ValueError: they overlap.
    """
    low, high = max(keep[0], drop[0]), min(keep[1], drop[1])
    if low < high:
        raise ValueError(f"{names} overlap between {low:g} and {high:g}; let them touch at most")


@dataclass(frozen=True)
class FittedRanges:
    """A filter's ranges as plain numbers.

    Attributes:
        keep: closed range that votes keep, or None for all that `drop` leaves.
        drop: closed range that votes drop, or None for all that `keep` leaves.
    """

    keep: Interval | None
    drop: Interval | None

    def vote(self, scores: np.ndarray) -> np.ndarray:
        """Turns scores into votes.

        Args:
            scores: (n,) float32; NaN abstains.

        Returns:
            (n,) int8: -1 drop, 0 abstain, +1 keep.
        """
        keep, drop = _inside(scores, self.keep), _inside(scores, self.drop)
        if keep is None:
            assert drop is not None
            votes = np.where(drop, np.int8(-1), np.int8(1))
        elif drop is None:
            votes = np.where(keep, np.int8(1), np.int8(-1))
        else:
            votes = keep.astype(np.int8) - (drop & ~keep).astype(np.int8)
        return np.where(np.isnan(scores), np.int8(0), votes)

    @property
    def direction(self) -> int:
        """+1 where higher scores are better, -1 where lower ones are, 0 for a band."""
        if self.keep is not None:
            upward, downward = self.keep[1] == float("inf"), self.keep[0] == float("-inf")
        else:
            assert self.drop is not None
            upward, downward = self.drop[0] == float("-inf"), self.drop[1] == float("inf")
        return int(upward) - int(downward)


def _inside(scores: np.ndarray, interval: Interval | None) -> np.ndarray | None:
    if interval is None:
        return None
    # Compared as float32: a bound written as 0.3 means the float32 that a stored 0.3 is.
    low, high = np.float32(interval[0]), np.float32(interval[1])
    return (scores >= low) & (scores <= high)


@dataclass(frozen=True)
class Search:
    """The search for a share's inner end: which high digit, and which rank inside it.

    Attributes:
        digit: high half of the sortable key.
        rank: rank among the values with that high half.
    """

    digit: int
    rank: int

    @classmethod
    def start(cls, share: Share, coarse: Histogram) -> "Search | None":
        """Finds the high half from the first pass; None where the range holds nothing."""
        rank = share.rank(coarse.total)
        return None if rank is None else cls(*coarse.locate(rank))

    def finish(self, fine: Histogram) -> float:
        """Finds the value from the second pass, the histogram of the low halves under `digit`."""
        low, _ = fine.locate(self.rank)
        return float(unsortable(np.array([(self.digit << DIGIT_BITS) | low], np.uint32))[0])
