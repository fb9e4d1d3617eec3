"""Sources that a label model is better without: those that nearly always say the same, and those no better than chance.

Both are for whoever asks. A filter that keeps 97% may be the only one that sees its kind of defect, and a label model
finds out by itself how much most sources are worth.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from chaffinch.filters.label_models.evidence import Evidence, Labelled

FEWEST_LABELS = 20
"""So many samples with a label a source has to have voted on before labels say anything of it."""
FEWEST_OF_A_KIND = 5
"""So many of them have to be good, to be bad, and to have the vote that it casts less often."""
WORTH_HAVING = 2 / 3
"""The balanced accuracy of a source that is right twice as often as it is wrong."""

_ONE_SIDED_90 = 1.2816  # standard deviations


@dataclass(frozen=True)
class DroppedSource:
    """Why a source is left out.

    Attributes:
        why: "extreme" or "useless".
        keep_share: share of keep among its votes in the pool, in [0, 1].
        labels: samples with a label that it voted on.
        balanced_accuracy: the mean of how often it is right on good and on bad ones, in [0, 1]; None where labels are
            too few to say.
        interval: its low and high end, each one-sided at 90%; None likewise.
    """

    why: Literal["extreme", "useless"]
    keep_share: float
    labels: int
    balanced_accuracy: float | None
    interval: tuple[float, float] | None

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> "DroppedSource":
        """What `dataclasses.asdict` wrote, after a trip through JSON; other entries do not count."""
        interval = state["interval"]
        return cls(
            state["why"],
            state["keep_share"],
            state["labels"],
            state["balanced_accuracy"],
            None if interval is None else (interval[0], interval[1]),
        )


@dataclass(frozen=True)
class DropSources:
    """Which sources to leave out.

    Attributes:
        extreme: leave out sources of whose votes less than this share are keep, or less than this share drop; in
            [0, 0.5). None: none for that.
        useless: leave out sources whose votes are no better than chance on samples with a label. That is so where the
            low end of the interval of their balanced accuracy is not above one half, and the high end is below two
            thirds: of twenty labels the first alone says little, and would cost many a good source. Without labels,
            with too few of them, or for a source whose rarer vote they hardly show, nothing is said.
    """

    extreme: float | None = 0.1
    useless: bool = True

    def find(self, evidence: Evidence, columns: Sequence[int]) -> dict[int, DroppedSource]:
        """Looks at the sources of one aspect.

        Args:
            evidence: on all m sources.
            columns: which of them are of the aspect.

        Returns:
            Column -> why it is left out. One is always left: if all were to go, the one of the highest balanced
            accuracy stays (one half where labels say nothing), then that whose keep share is nearest to one half, then
            the first.
        """
        found, rank = {}, {}
        for column in columns:
            votes = evidence.votes.patterns[:, column]
            keeps, drops = (int(evidence.votes.counts[votes == vote].sum()) for vote in (1, -1))
            if not keeps + drops:
                continue  # what never votes has no share, and no weight either
            share = keeps / (keeps + drops)
            labels, accuracy, interval = _try(evidence.labelled, column)
            why: Literal["extreme", "useless"] | None = None
            if self.useless and interval is not None and interval[0] <= 0.5 and interval[1] < WORTH_HAVING:
                why = "useless"
            elif self.extreme is not None and not self.extreme <= share <= 1 - self.extreme:
                why = "extreme"
            if why is not None:
                found[column] = DroppedSource(why, share, labels, accuracy, interval)
            rank[column] = (0.5 if accuracy is None else accuracy, -abs(share - 0.5), -column)
        if found and len(found) == len(columns):
            del found[max(rank, key=lambda column: rank[column])]
        return found


def _try(labelled: Labelled | None, column: int) -> tuple[int, float | None, tuple[float, float] | None]:
    """On how many labels a source voted, and its balanced accuracy there, with its interval, where they are enough."""
    if labelled is None:
        return 0, None, None
    votes = labelled.votes[:, column]
    voted, keeps = votes != 0, votes == 1
    good, bad = int((voted & labelled.keep).sum()), int((voted & ~labelled.keep).sum())
    kept_good, kept_bad = int((keeps & labelled.keep).sum()), int((keeps & ~labelled.keep).sum())
    rarer = min(kept_good + kept_bad, good + bad - kept_good - kept_bad)
    if good + bad < FEWEST_LABELS or min(good, bad, rarer) < FEWEST_OF_A_KIND:
        return good + bad, None, None
    return good + bad, 0.5 + (kept_good / good - kept_bad / bad) / 2, accuracy_interval(kept_good, good, kept_bad, bad)


def accuracy_interval(kept_good: int, good: int, kept_bad: int, bad: int) -> tuple[float, float]:
    """Interval of a balanced accuracy, about 90% to each side: 85% at worst of a dozen labels of one kind.

    Args:
        kept_good: good samples with a keep vote.
        good: good samples with a vote.
        kept_bad: bad samples with a keep vote.
        bad: bad samples with a vote.

    Returns:
        Low and high end, in [0, 1].

    Source: A. Agresti and B. Caffo (2000), Simple and Effective Confidence Intervals for Proportions and Differences of
    Proportions: normal, with one success and one failure added to either side.
    """
    one, other = (kept_good + 1) / (good + 2), (kept_bad + 1) / (bad + 2)
    middle = 0.5 + (one - other) / 2
    half = _ONE_SIDED_90 * math.sqrt(one * (1 - one) / (good + 2) + other * (1 - other) / (bad + 2)) / 2
    return float(np.clip(middle - half, 0, 1)), float(np.clip(middle + half, 0, 1))
