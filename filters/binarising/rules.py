"""What a step's decision comes to: a threshold, and how it was found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from chaffinch.filters.statistics import Histogram

Kind = Literal["sign", "share", "softmax", "two_means", "mixture"]


@dataclass(frozen=True)
class Rule:
    """A step's decision: scores at or above the threshold vote keep, those below it drop.

    Attributes:
        kind: what set the threshold; "sign" also where another rule found nothing to go by.
        threshold: a float32; None where no score is high enough.
        dip: how far from one group the scores are, in [0, 0.25]; None where that was not looked at.
        note: why the sign stands in for what was asked; None where it does not.
    """

    kind: Kind
    threshold: float | None
    dip: float | None = None
    note: str | None = None


class Search(Protocol):
    """A rule whose threshold lies inside known bins, which have to be counted value by value."""

    @property
    def digits(self) -> Sequence[int]:
        """High halves of these bins."""

    def finish(self, low: Mapping[int, Histogram]) -> Rule:
        """The rule, from each of these bins' low halves."""


SIGN = Rule("sign", 0.0)
"""Drops s < 0: learning the sample moves the model away from the reference. What moves it nowhere, 0, is kept."""


def above(value: float) -> float | None:
    """The threshold of "s > value": the next float32 after it; None where there is none but infinity."""
    with np.errstate(over="ignore"):  # says that infinity comes next
        found = float(np.nextafter(np.float32(value), np.float32(np.inf)))
    return found if np.isfinite(found) else None


def vote(scores: np.ndarray, rules: Sequence[Rule]) -> np.ndarray:
    """Decides on every step.

    Args:
        scores: (n samples, t steps) float32; NaN abstains.
        rules: (t,) one for each step.

    Returns:
        (n, t) int8: -1 drop, 0 abstain, +1 keep.
    """
    edges = np.array([np.nan if rule.threshold is None else rule.threshold for rule in rules], np.float32)
    votes = np.where(scores >= edges, np.int8(1), np.int8(-1))
    votes[np.isnan(scores)] = 0
    return votes
