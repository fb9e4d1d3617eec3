"""Numbers, shares and ranges as people read them."""

from chaffinch.filters.filter import Bounds
from chaffinch.filters.ranges import Interval


def number(value: float) -> str:
    """A measurement with up to four digits."""
    if value != value:
        return "cannot judge"
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace("-", "\N{MINUS SIGN}")
    text = f"{value:.4g}" if abs(value) >= 1 else f"{value:.3g}"
    return "0" if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def percent(share: float) -> str:
    """A share in [0, 1]; what is not nothing does not read as nothing, nor what is not all as all."""
    if 0 < share < 0.0005:
        return "<0.1%"
    if 0.9995 <= share < 1:
        return ">99.9%"
    return f"{share:.1%}"


def interval(bounds: Interval | None) -> str:
    """A fitted range in words."""
    if bounds is None:
        return "all other scores"
    low, high = bounds
    if low > high:
        return "nothing"
    if low == float("-inf"):
        return "all scores" if high == float("inf") else f"{number(high)} and below"
    return f"{number(low)} and above" if high == float("inf") else f"{number(low)} to {number(high)}"


def asked(bounds: Bounds | None) -> str:
    """A range as the config has it, where that is not the fitted range itself."""
    return bounds if isinstance(bounds, str) else ""
