"""A pool as a mixture: good samples, of which some are known, and bad ones, which are what is left."""

from dataclasses import dataclass
from typing import Self

import numpy as np

FEWEST_REFERENCE = 10
"""Known-good samples that a model asks for at least; 30 are worth a lot."""

MARGIN = 0.01
"""The least that P(vote | drop) can be, however little is left for it: no vote proves that a sample is good."""

_LARGEST_MARGIN = 0.25


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

    def of_sources(self, chosen: np.ndarray) -> "Tally":
        """The tally of some sources alone."""
        pairs = np.ix_(chosen, chosen)
        return Tally(self.shown[chosen], self.common[pairs], self.sums[pairs], self.products[pairs])


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


def one_share(class_prior: float | tuple[float, ...] | None) -> float | None:
    """A class prior of two classes.

    Args:
        class_prior: as of every label model.

    Returns:
        P(keep), or None.

    Raises:
        ValueError: it is of more classes.
    """
    if isinstance(class_prior, tuple):
        raise ValueError(f"class_prior has {len(class_prior)} shares, but there are two classes: give P(keep)")
    return class_prior


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
