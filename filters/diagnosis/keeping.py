"""Which samples a rule for keeping takes, as far as vote patterns tell."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class KeepRule:
    """How much is to be kept.

    Attributes:
        share: keep so many of the samples, in [0, 1], the most probable first; None: as many as `probability` gives.
        probability: the least P(keep) that is kept.
    """

    share: float | None
    probability: float = 0.0

    def kept(self, probability: np.ndarray, counts: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        """Which share of each pattern's samples is kept.

        Args:
            probability: (p,) float32 P(keep).
            counts: (p,) how many samples show each pattern.
            allowed: (p,) bool, whether its samples may be kept at all.

        Returns:
            (p,) float64 in [0, 1]. Of the patterns at the cut, which are equally probable, the same share of each is
            taken: the scores that choose among their samples are not known here.
        """
        if self.share is None:
            return (allowed & (probability >= np.float32(self.probability))).astype(np.float64)
        kept = np.zeros(len(counts))
        groups, inverse = np.unique(probability[allowed], return_inverse=True)
        sizes = np.bincount(inverse, weights=counts[allowed], minlength=len(groups))
        above = sizes[::-1].cumsum()[::-1] - sizes
        left = np.clip(self.share * counts.sum() - above, 0, sizes)
        kept[allowed] = (left / np.maximum(sizes, 1e-300))[inverse]
        return kept


def thin(patterns: np.ndarray, counts: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Some of the samples, evenly spaced in the order of the patterns, so that nothing is left to chance.

    Args:
        patterns: (p patterns, m filters) int8, in a fixed order.
        counts: (p,) how many samples show each.
        samples: how many are wanted.

    Returns:
        The patterns that they show and (q,) int64 counts; all of them where there are no more.
    """
    total = int(counts.sum())
    if total <= samples:
        return patterns, counts
    places = (2 * np.arange(samples) + 1) * total // (2 * samples)
    found, number = np.unique(np.searchsorted(np.cumsum(counts), places, side="right"), return_counts=True)
    return patterns[found], number.astype(np.int64)
