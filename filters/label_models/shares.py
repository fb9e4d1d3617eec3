"""P(keep) in a pool, from the votes on it and on known-good samples; and how sure that is."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from chaffinch.filters.label_models.mixture import Tally, given_keep
from chaffinch.filters.label_models.triplets import FEWEST_TOGETHER, weighted_median
from chaffinch.filters.label_models.votes import vote_classes

DRAWS = 200
"""Of the bootstrap: the ends of a 95% interval are each the fifth from the end."""

_SEED = 0
_RESAMPLED = 100_000  # a larger pool's own noise is nothing beside the reference's
_OFTEN = 0.1  # of the reference
_LEAST_SHARE = 0.01

Counted = tuple[np.ndarray, np.ndarray]
"""(p patterns, m sources) votes, and (p,) how many samples show each."""

Best = tuple[np.ndarray, np.ndarray]
"""Which patterns of the pool, and of the reference, are among the best: (p,) bools."""


@dataclass(frozen=True)
class Draw:
    """Votes from which P(keep) is told, as they were counted or as the bootstrap drew them.

    Attributes:
        pool: of the pool.
        reference: of known-good samples.
        ratio: the share of the best among the pool, over that among the reference; in [0.01, 1].
    """

    pool: Tally
    reference: Tally
    ratio: float

    @classmethod
    def of(cls, pool: Counted, reference: Counted, best: Best, with_abstains: bool, tally: Tally | None = None) -> Self:
        """Adds up.

        Args:
            pool: counted votes.
            reference: counted votes.
            best: which patterns are among the best.
            with_abstains: whether an abstain is a symbol.
            tally: of the pool, where it is known.
        """
        mine = Tally.of(*pool, with_abstains) if tally is None else tally
        share, there = (
            float(counts[chosen].sum() / max(counts.sum(), 1))
            for (_, counts), chosen in zip((pool, reference), best, strict=True)
        )
        # Of an empty pool, or where chance drew none of the best, nothing is known.
        ratio = min(max(share / there, _LEAST_SHARE), 1.0) if there and len(pool[1]) else 1.0
        return cls(mine, Tally.of(*reference, with_abstains), ratio)

    def share(self, usable: np.ndarray, smoothing: float) -> tuple[float, float, bool]:
        """P(keep), as the smaller one of its upper bound and of what pairs tell.

        Args:
            usable: (m,) bool, sources that count.
            smoothing: of the reference's votes.

        Returns:
            P(keep); its bound; and whether pairs told anything. Where they do not, P(keep) is half the bound.
        """
        chosen = np.flatnonzero(usable)
        keep = given_keep(self.reference, smoothing)[chosen]
        pool = self.pool.of_sources(chosen)
        bound = min(largest_share(pool, keep), self.ratio)
        found = share_by_pairs(pool, keep)
        return (bound / 2 if found is None else min(bound, found)), bound, found is not None


def resample(pool: Counted, reference: Counted, best: Best, with_abstains: bool) -> list[Draw]:
    """The bootstrap over patterns, the same every time; a pool of more than 100,000 samples is taken as it is.

    Args:
        pool: counted votes, in an order that does not depend on how they were counted.
        reference: counted votes, likewise.
        best: which patterns are among the best.
        with_abstains: whether an abstain is a symbol.
    """
    rng = np.random.default_rng(_SEED)
    n, k = int(pool[1].sum()), int(reference[1].sum())
    whole = None if 0 < n <= _RESAMPLED else Tally.of(*pool, with_abstains)
    draws = []
    for _ in range(DRAWS):
        theirs = rng.multinomial(k, reference[1] / k)
        mine = rng.multinomial(n, pool[1] / n) if whole is None else pool[1]
        draws.append(Draw.of((pool[0], mine), (reference[0], theirs), best, with_abstains, whole))
    return draws


def best_samples(pool: Counted, reference: Counted, ratios: np.ndarray) -> Best:
    """The samples with the highest odds that are half of the reference.

    Args:
        pool: counted votes.
        reference: counted votes.
        ratios: (m, 3) log odds of each source's votes: drop, keep, abstain.

    Returns:
        Which patterns of each are among them.
    """
    odds = []
    for patterns, _ in (pool, reference):
        total = np.zeros(len(patterns))
        for row, column in zip(ratios, vote_classes(patterns, 2).T, strict=True):
            total += row.take(column)
        odds.append(total)
    least = best_half(odds[1], reference[1])
    return odds[0] >= least, odds[1] >= least


def largest_share(pool: Tally, keep: np.ndarray) -> float:
    """The largest P(keep) at which no P(vote | drop) is negative, in (0, 1].

    Args:
        pool: votes on the pool.
        keep: (m, s) P(vote | keep); votes that a tenth of good samples do not get say more about chance.
    """
    cast = pool.shown.sum(axis=1, keepdims=True)
    ratios = (pool.shown / np.maximum(cast, 1) / keep)[(keep >= _OFTEN) & (cast > 0)]
    return float(np.clip(ratios.min(initial=1.0), _LEAST_SHARE, 1.0))


def share_by_pairs(pool: Tally, keep: np.ndarray) -> float | None:
    """P(keep) from how votes of pairs vary together, were sources independent given the class.

    Cov(x_i, x_j) = p / (1 - p) a_i a_j, with a_i the mean vote on good samples less that on the pool. The odds are
    those of least absolute deviations: the median over pairs of Cov / (a_i a_j), weighted by a_i a_j.

    Args:
        pool: votes on the pool.
        keep: (m, s) P(vote | keep).

    Returns:
        P(keep) in [0.01, 0.99]; None where no pair tells it.
    """
    rows = np.maximum(pool.common, 1)
    mean = pool.sums / rows
    apart = (keep[:, 1] - keep[:, 0])[:, None] - mean
    weight = np.triu(np.where((apart > 0) & (apart.T > 0) & (pool.common >= FEWEST_TOGETHER), apart * apart.T, 0), 1)
    chosen = weight > 0
    if not chosen.any():
        return None
    covariance = pool.products / rows - mean * mean.T
    odds = weighted_median(covariance[chosen] / weight[chosen], weight[chosen])
    return float(np.clip(odds / (1 + odds), _LEAST_SHARE, 1 - _LEAST_SHARE)) if odds > 0 else None


def best_half(scores: np.ndarray, counts: np.ndarray) -> float:
    """The highest score that half of some samples reach.

    Args:
        scores: (p,) of each pattern.
        counts: (p,) how many samples show it, not all 0.
    """
    order = np.argsort(-scores, kind="stable")
    reached = np.cumsum(counts[order])
    return float(scores[order][np.searchsorted(reached, reached[-1] / 2)])


def share_and_interval(draws: np.ndarray, level: float = 0.5) -> tuple[float, np.ndarray]:
    """An estimate of a class prior and how sure it is.

    Args:
        draws: (b,) estimates from resampled data.
        level: which quantile is the estimate. Where a prior that is too high costs three times as much as one that is
            too low by as much, the best guess is the lower quartile.

    Returns:
        The quantile, in [0.01, 0.99]; and (2,) a 95% interval.
    """
    low, chosen, high = np.quantile(draws, [0.025, level, 0.975])
    return float(np.clip(chosen, _LEAST_SHARE, 1 - _LEAST_SHARE)), np.array([low, high])
