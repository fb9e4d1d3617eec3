"""A pool as a mixture: good samples, of which some are known, and bad ones, which are what is left."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from chaffinch.filters.label_models.triplets import weighted_median

FEWEST_REFERENCE = 10
"""Known-good samples that a model asks for at least; 30 are worth a lot."""

MARGIN = 0.01
"""The least that P(vote | drop) can be, however little is left for it: no vote proves that a sample is good."""

_LARGEST_MARGIN = 0.25
_OFTEN = 0.1  # of the reference
_FEWEST_TOGETHER = 10
_LEAST_SHARE = 0.01


@dataclass(frozen=True)
class Tally:
    """Votes added up; whole numbers, so that no order of samples changes a bit.

    Attributes:
        shown: (m, s) how often each source shows each symbol: drop, keep and, where it is one, abstain.
        common: (m, m) how many samples count for a pair: on which both vote, or all where an abstain is a symbol.
        sums: (m, m) [i, j] the sum of i's votes over those.
        products: (m, m) the sum of products.
    """

    shown: np.ndarray
    common: np.ndarray
    sums: np.ndarray
    products: np.ndarray

    @classmethod
    def of(cls, patterns: np.ndarray, counts: np.ndarray, with_abstains: bool) -> Self:
        """Adds up.

        Args:
            patterns: (p patterns, m sources) votes -1, 0 or +1.
            counts: (p,) how many samples show each.
            with_abstains: whether an abstain is a symbol.
        """
        votes, weight = patterns.astype(np.float64), counts.astype(np.float64)[:, None]
        there = np.ones_like(votes) if with_abstains else np.abs(votes)
        keeps, drops = ((votes == side) * weight for side in (1, -1))
        shown = [drops.sum(axis=0), keeps.sum(axis=0)]
        if with_abstains:
            shown.append(weight.sum() - shown[0] - shown[1])
        weighted = votes * weight
        return cls(np.stack(shown, axis=1), (there * weight).T @ there, weighted.T @ there, weighted.T @ votes)


def check_reference(samples: int, kind: str) -> None:
    """Refuses a reference that is too small.

    Args:
        samples: how many known-good samples there are.
        kind: the label model that wants them.

    Raises:
        ValueError: fewer than 10; says what to do.
    """
    if samples < FEWEST_REFERENCE:
        raise ValueError(
            f"{kind} learns from known-good samples, but has {samples or 'none'}: give {FEWEST_REFERENCE} or more as "
            "`reference:` (from Python: reference=), better 30, or take a label model that needs none, such as "
            "dawid_skene"
        )


def given_keep(reference: Tally, smoothing: float) -> np.ndarray:
    """P(vote | keep).

    Args:
        reference: votes on k known-good samples.
        smoothing: pseudo-votes per source, spread evenly over symbols.

    Returns:
        (m, s) probabilities.
    """
    shown = reference.shown + smoothing / reference.shown.shape[1]
    shares: np.ndarray = shown / shown.sum(axis=1, keepdims=True)
    return shares


def given_drop(pool: Tally, reference: Tally, keep: np.ndarray, prior: float) -> np.ndarray:
    """P(vote | drop): what is left of the pool's votes, at least 0.01 and a standard error.

    Args:
        pool: votes on the pool.
        reference: votes on known-good samples.
        keep: (m, s) P(vote | keep).
        prior: P(keep), in (0, 1).

    Returns:
        (m, s) probabilities.
    """
    cast = pool.shown.sum(axis=1, keepdims=True)
    share = np.where(cast > 0, pool.shown / np.maximum(cast, 1), keep)
    left = (share - prior * keep) / (1 - prior)
    # The bad samples' share is as unsure as the good ones', of which the reference shows few, and what divides it.
    known = reference.shown.sum(axis=1, keepdims=True) + 1
    error = np.sqrt(prior**2 * keep * (1 - keep) / known + share * (1 - share) / np.maximum(cast, 1)) / (1 - prior)
    clipped = np.maximum(left, np.clip(error, MARGIN, _LARGEST_MARGIN))
    shares: np.ndarray = clipped / clipped.sum(axis=1, keepdims=True)
    return shares


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
    weight = np.triu(np.where((apart > 0) & (apart.T > 0) & (pool.common >= _FEWEST_TOGETHER), apart * apart.T, 0), 1)
    chosen = weight > 0
    if not chosen.any():
        return None
    covariance = pool.products / rows - mean * mean.T
    odds = weighted_median(covariance[chosen] / weight[chosen], weight[chosen])
    return float(np.clip(odds / (1 + odds), _LEAST_SHARE, 1 - _LEAST_SHARE)) if odds > 0 else None


def careful_share(draws: np.ndarray) -> tuple[float, np.ndarray]:
    """A careful estimate of a class prior, and how sure it is.

    The lower quartile is the best guess where a prior that is too high costs three times as much as one that is too low
    by as much.

    Args:
        draws: (b,) estimates from resampled data.

    Returns:
        The lower quartile, in [0.01, 0.99]; and (2,) a 95% interval.
    """
    low, quartile, high = np.quantile(draws, [0.025, 0.25, 0.975])
    return float(np.clip(quartile, _LEAST_SHARE, 1 - _LEAST_SHARE)), np.array([low, high])
