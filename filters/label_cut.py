"""Where labels part a filter's scores: the end of a range that says `above labels` or `below labels`."""

import math
from dataclasses import dataclass

import numpy as np

from chaffinch.filters.ranges import Interval

FEWEST = 10
"""So many good and so many bad samples with a label a filter has to be able to judge."""

_ONE_SIDED_90 = 1.2816  # standard deviations
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class LabelCut:
    """What labels say of a filter's scores.

    Attributes:
        good: how many samples that are to be kept the filter can judge.
        bad: how many that are to be dropped.
        unjudged: how many samples with a label it cannot judge (NaN).
        auc: P(a good one is further on the good side than a bad one), ties half, in [0, 1]; below 0.5 the sides are
            confused.
        best: balanced accuracy of the best cut, in [0, 1].
        balanced_accuracy: that of the lenient cut, likewise.
        good_kept: share of the good on the good side of the lenient cut.
        bad_kept: share of the bad there.
        lenient: what lies on the good and on the bad side of the lenient cut.
        strict: the same of the strict cut.
    """

    good: int
    bad: int
    unjudged: int
    auc: float
    best: float
    balanced_accuracy: float
    good_kept: float
    bad_kept: float
    lenient: tuple[Interval, Interval]
    strict: tuple[Interval, Interval]

    @property
    def noise(self) -> float:
        """How far from 0.5 the AUC of a score that tells nothing gets in one of ten cases, to one side."""
        return _ONE_SIDED_90 * math.sqrt((self.good + self.bad + 1) / (12 * self.good * self.bad))

    @property
    def finding(self) -> str:
        """One of "parts", "reversed" (bad samples lie on the good side), and "nothing" where labels show neither."""
        if self.auc > 0.5 + self.noise:
            return "parts"
        return "reversed" if self.auc < 0.5 - self.noise else "nothing"


def cut_by_labels(scores: np.ndarray, keep: np.ndarray, high_is_good: bool) -> LabelCut:
    """Finds the cuts that part labelled samples best.

    A cut lies in the middle of a gap between neighbouring scores. Best is what has the highest balanced accuracy, the
    mean of the shares of good and of bad samples that are on their own side; among equals the one in the widest gap,
    then the more lenient one. Balanced accuracy, because it is highest at the same cut when part of the bad samples are
    bad for reasons that this filter does not look at: they only lower the peak.

    What labels say is noisy, and the highest of many noisy values is too high. Two cuts differ only by the samples
    between them: g of G good and b of B bad ones, by (b/B - g/G)/2. A cut is as good as the best one as far as anybody
    can tell if that is no more than its own standard error. Of those the lenient cut drops least, the strict one keeps
    least. Whoever draws one line takes the lenient one: a bad sample that passes may still be dropped by others, a good
    one that is dropped is lost. Both come nearer to the best cut as labels grow, as n**(-1/3).

    Args:
        scores: (k,) float32 of samples with a label; NaN where the filter cannot judge. Infinite ones are the largest
            or smallest there are.
        keep: (k,) bool what was said of them.
        high_is_good: which side is to be kept.

    Returns:
        The cuts; the same for any order of the samples.

    Raises:
        ValueError: too few of either kind can be judged, or all of them have one score.

    Source: A. Menon et al. (2015), Learning from Corrupted Binary Labels via Class-Probability Estimation, for the
    balanced error under contaminated classes; L. Breiman et al. (1984), Classification and Regression Trees, for the
    rule of one standard error.
    """
    judged = ~np.isnan(scores)
    values, said = np.clip(scores[judged].astype(np.float64), -_LARGEST, _LARGEST), keep[judged].astype(bool)
    good, bad = int(said.sum()), int((~said).sum())
    if min(good, bad) < FEWEST:
        raise ValueError(
            f"needs {FEWEST} good and {FEWEST} bad samples with a label that it can judge; there are {good} good and "
            f"{bad} bad ones"
        )
    levels, place = np.unique(values if high_is_good else -values, return_inverse=True)
    if len(levels) == 1:
        raise ValueError(f"all {good + bad} samples with a label have the score {values[0]:g}, nothing parts them")
    good_at = np.bincount(place[said], minlength=len(levels))
    bad_at = np.bincount(place[~said], minlength=len(levels))
    lost, caught = np.cumsum(good_at)[:-1], np.cumsum(bad_at)[:-1]
    merit = caught * good - lost * bad  # whole numbers, so that ties are exact
    best = min(range(len(merit)), key=lambda cut: (-merit[cut], levels[cut] - levels[cut + 1], cut))
    more_lost, more_caught = np.abs(lost - lost[best]) / good, np.abs(caught - caught[best]) / bad
    error = np.sqrt(more_lost * (1 - more_lost) / good + more_caught * (1 - more_caught) / bad)
    within = np.flatnonzero((merit[best] - merit) / (good * bad) <= error)
    lenient = int(within[0])
    below = np.cumsum(bad_at) - bad_at
    return LabelCut(
        good=good,
        bad=bad,
        unjudged=int((~judged).sum()),
        auc=float((good_at * (below + bad_at / 2)).sum() / (good * bad)),
        best=0.5 + float(merit[best]) / (2 * good * bad),
        balanced_accuracy=0.5 + float(merit[lenient]) / (2 * good * bad),
        good_kept=1 - float(lost[lenient]) / good,
        bad_kept=1 - float(caught[lenient]) / bad,
        lenient=_sides(levels, lenient, high_is_good),
        strict=_sides(levels, int(within[-1]), high_is_good),
    )


def _sides(levels: np.ndarray, cut: int, high_is_good: bool) -> tuple[Interval, Interval]:
    """What lies on the good and on the bad side of the middle of a gap; no score of either end changes sides."""
    low, high = float(levels[cut]), float(levels[cut + 1])
    middle = float(np.float32((low + high) / 2))
    from_, to = (middle if middle > low else high), (middle if middle < high else low)
    if high_is_good:
        return (from_, math.inf), (-math.inf, to)
    return (-math.inf, -from_), (-to, math.inf)
