"""How well an order of samples finds the good ones: AUC, F1 at the true keep share, recall by kind of noise.

Everything is measured under (b resamples, n samples) weights, the first row of which is all ones: one pass gives both
the figure and its bootstrap distribution, and two orders measured under the same weights can be compared pair by pair.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

NEVER = -np.inf
"""The place in an order of samples that are not kept whatever happens: rejected, vetoed or ruled out."""


@dataclass(frozen=True)
class Truth:
    """What is true of n samples.

    Attributes:
        good: (n,) bool, whether each should be kept.
        kinds: (n,) str, the kind of noise; of good samples whatever the truth file calls them.
        copies: groups of rows that are copies of one another, each with at least one good row.
    """

    good: np.ndarray
    kinds: np.ndarray
    copies: Sequence[np.ndarray] = ()

    @property
    def noise(self) -> list[str]:
        """The kinds of noise, most frequent first."""
        names, counts = np.unique(self.kinds[~self.good], return_counts=True)
        return [str(names[index]) for index in np.lexsort((names, -counts))]

    def settle(self, order: np.ndarray) -> "Truth":
        """Judges copies by group: which of them survives is arbitrary, so the first in the order is the good one.

        In a group with g good rows the g rows that come first count as good; those that had no right to it change
        places with those that had. How many are good and of each kind does not change. Rows that tie stay as they are.

        Args:
            order: (n,) float64, higher is kept first.

        Returns:
            The truth to measure this order against.
        """
        good, kinds = self.good.copy(), self.kinds.copy()
        for rows in self.copies:
            ranked = rows[np.lexsort((~self.good[rows], -order[rows]))]
            first = np.isin(rows, ranked[: self.good[rows].sum()])
            up, down = rows[first & ~self.good[rows]], rows[~first & self.good[rows]]
            good[up], good[down] = True, False
            kinds[up], kinds[down] = self.kinds[down], self.kinds[up]
        return replace(self, good=good, kinds=kinds)


@dataclass(frozen=True)
class Measures:
    """Figures under b sets of weights; all in [0, 1], higher is better.

    Attributes:
        auc: (b,) P(a good sample comes before a noisy one); ties count half.
        precision: (b,) share of the kept samples that are good.
        recall: (b,) share of the good samples that are kept.
        f1: (b,) harmonic mean of the two.
        caught: kind -> (b,) share of this noise that is not kept.
        aucs: kind -> (b,) P(a good sample comes before one of this kind).
    """

    auc: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    caught: dict[str, np.ndarray]
    aucs: dict[str, np.ndarray]


def measure(order: np.ndarray, truth: Truth, weights: np.ndarray, as_many_as_good: bool = True) -> Measures:
    """Measures an order of samples.

    Args:
        order: (n,) float64, higher is kept first; equal numbers are no preference, `NEVER` is not kept at all.
        truth: what is true; copies are settled here.
        weights: (b, n) how often each sample counts.
        as_many_as_good: keeps as many samples as are good, from the first on, or all there are where some are never
            kept; of samples that tie at the cut each is kept in part, which is the mean over all ways to break the tie.
            Otherwise everything is kept but what never is.

    Returns:
        The figures.
    """
    settled = truth.settle(order)
    ranked = np.argsort(-order, kind="stable")
    falling = order[ranked]
    starts = np.flatnonzero(np.concatenate([[True], falling[1:] != falling[:-1]]))
    possible = falling[starts] != NEVER
    weighted = weights[:, ranked].astype(np.float64)

    def tied(rows: np.ndarray) -> np.ndarray:
        """(b, t) weight of the chosen rows in each of the t ties, first to last."""
        return np.asarray(np.add.reduceat(weighted * rows[ranked], starts, axis=1))

    everything, good = tied(np.ones(len(order))), tied(settled.good)
    total_good = good.sum(axis=1)
    kept = np.broadcast_to(possible.astype(np.float64), everything.shape)
    if as_many_as_good:
        room = total_good[:, None] - (np.cumsum(everything, axis=1) - everything)
        kept = kept * np.clip(_ratio(room, everything), 0, 1)
    before = np.cumsum(good, axis=1) - good / 2
    noise = {kind: tied(~settled.good & (settled.kinds == kind)) for kind in settled.noise}
    found, chosen = (good * kept).sum(axis=1), (everything * kept).sum(axis=1)
    bad = everything - good
    return Measures(
        auc=_ratio((bad * before).sum(axis=1), bad.sum(axis=1) * total_good),
        precision=_ratio(found, chosen),
        recall=_ratio(found, total_good),
        f1=_ratio(2 * found, chosen + total_good),
        caught={kind: 1 - _ratio((part * kept).sum(axis=1), part.sum(axis=1)) for kind, part in noise.items()},
        aucs={kind: _ratio((part * before).sum(axis=1), part.sum(axis=1) * total_good) for kind, part in noise.items()},
    )


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros(np.broadcast_shapes(above.shape, below.shape)), where=below != 0)


def groups_right(kept: np.ndarray, truth: Truth) -> float:
    """The share of groups of copies of which exactly as many are kept as are good, whichever; 1 without groups.

    Args:
        kept: (n,) bool.
        truth: what is true.
    """
    right = [kept[rows].sum() == truth.good[rows].sum() for rows in truth.copies]
    return float(np.mean(right)) if right else 1.0


def resample(truth: Truth, times: int, seed: int) -> np.ndarray:
    """Weights for the bootstrap: samples drawn with replacement, copies of one another together.

    Args:
        truth: what is true.
        times: how many resamples.
        seed: of the draws.

    Returns:
        (times + 1, n) int64; the first row is all ones.

    Source: B. Efron (1979), Bootstrap Methods: Another Look at the Jackknife, Annals of Statistics 7(1).
    """
    samples = len(truth.good)
    owner = np.arange(samples)
    for rows in truth.copies:
        owner[rows] = rows[0]
    _, unit = np.unique(owner, return_inverse=True)
    units = int(unit.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(units, np.full(units, 1 / units), size=times)
    return np.concatenate([np.ones((1, samples), np.int64), drawn[:, unit]])


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """The figure and its 95% percentile interval.

    Args:
        values: (b,) the figure, then its resamples.

    Returns:
        Figure, low and high end, rounded to 4 digits.
    """
    low, high = np.percentile(values[1:], [2.5, 97.5]) if len(values) > 1 else (values[0], values[0])
    return round(float(values[0]), 4), round(float(low), 4), round(float(high), 4)
