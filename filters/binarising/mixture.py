"""A mixture of two Gaussians on a line, fitted to counted bins."""

from dataclasses import dataclass

import numpy as np

from chaffinch.filters.binarising.bins import Bins
from chaffinch.filters.binarising.two_means import split_bins

MOST_ITERATIONS = 1000
TOLERANCE = 1e-10
"""Nats per sample: the climb stops when a step gains less."""

LEAST_VARIANCE = 1e-6
"""Of the pool's variance: no component gets narrower, or one on equal values would be infinitely likely."""


@dataclass(frozen=True)
class Mixture:
    """Two Gaussians, the lower mean first.

    Attributes:
        weights: (2,) shares of the pool, summing to 1.
        means: (2,) in the score's unit, ascending.
        variances: (2,) in its square.
        iterations: steps made.
    """

    weights: np.ndarray
    means: np.ndarray
    variances: np.ndarray
    iterations: int

    def lean(self, scores: np.ndarray) -> np.ndarray:
        """Log odds (nats) that scores are of the upper component; above 0: likelier than not."""
        lower, upper = (self.log_joint(scores)[component] for component in (0, 1))
        return np.asarray(upper - lower)

    def log_joint(self, scores: np.ndarray) -> np.ndarray:
        """(2, n) log of weight times density, in nats."""
        apart = scores - self.means[:, None]
        spread = self.variances[:, None]
        found: np.ndarray = np.log(self.weights[:, None]) - (apart * apart / spread + np.log(2 * np.pi * spread)) / 2
        return found

    def crossing(self) -> float | None:
        """Where between the means both components are equally likely.

        With unequal variances the wider component wins on both far sides; only the crossing between the means parts
        the two groups, and what lies above it counts as upper.

        Returns:
            In the score's unit; None where one component outweighs the other all the way.
        """
        low, high = (float(mean) for mean in self.means)
        if not (self.lean(np.array([low])) < 0 < self.lean(np.array([high]))):
            return None
        while low < (middle := low + (high - low) / 2) < high:
            if self.lean(np.array([middle])) < 0:
                low = middle
            else:
                high = middle
        return high


def fit_mixture(bins: Bins) -> Mixture:
    """Climbs from the best two-means cut between bins to a (local) maximum of the likelihood.

    A bin's values share what its mean has of each component; its variance is added to theirs.

    Args:
        bins: what was counted, of two bins at least.

    Returns:
        The mixture.

    Source: A. P. Dempster, N. M. Laird and D. B. Rubin (1977), Maximum Likelihood from Incomplete Data via the EM
        Algorithm, Journal of the Royal Statistical Society B 39(1).
    """
    counts, total = bins.counts.astype(np.float64), float(bins.counts.sum())
    centre = (counts * bins.means).sum() / total
    values = bins.means - centre
    least = LEAST_VARIANCE * float((counts * (values * values + bins.variances)).sum() / total)
    upper = split_bins(bins)
    shares = np.stack([~upper, upper]).astype(np.float64)
    before = -np.inf
    for iterations in range(MOST_ITERATIONS + 1):
        mixture = _maximise(shares * counts, values, bins.variances, least, iterations)
        joint = mixture.log_joint(values)
        top = joint.max(axis=0)
        likelihood = np.exp(joint - top)
        densities = likelihood.sum(axis=0)
        shares = likelihood / densities
        gained = float((counts * (top + np.log(densities))).sum() / total)
        if gained - before <= TOLERANCE:
            break
        before = gained
    order = np.argsort(mixture.means, kind="stable")
    return Mixture(mixture.weights[order], (mixture.means + centre)[order], mixture.variances[order], iterations)


def _maximise(mass: np.ndarray, values: np.ndarray, variances: np.ndarray, least: float, iterations: int) -> Mixture:
    """The likeliest mixture given how much (2, b) of each bin is of each component."""
    totals = mass.sum(axis=1)
    # A component that has lost everything keeps a trace, so that nothing is divided by 0.
    held = np.maximum(totals, 1e-300)
    means = (mass * values).sum(axis=1) / held
    apart = values - means[:, None]
    spread = (mass * (apart * apart + variances)).sum(axis=1) / held
    return Mixture(held / held.sum(), means, np.maximum(spread, least), iterations)
