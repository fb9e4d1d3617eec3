"""Completes the matrix of what pairs of sources vote: the error rates that explain it, to the minimum."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_LEAST_SKILL = 0.2
"""Of all sources alike, since without any all directions are flat, and no descent would begin."""
_STEPS = 5000
_GRADIENT = 1e-12
_ARRIVED = 1e-6  # of the gradient, in units of the objective at the start: where rounding ends the descent is below

Objective = Callable[[np.ndarray], tuple[float, np.ndarray]]


@dataclass(frozen=True)
class Completion:
    """The objective, over rows r: one for each vote v of each source j that occurs.

        sum over rows r, s of different sources: weight[r, s] (target[r, s] - sum over y: mu[r, y] prior[y] mu[s, y])^2
        + sum over rows: margin[r] (sum over y: mu[r, y] prior[y] - shares[r])^2

    The unknowns are taken times sqrt(prior): b = mu sqrt(prior), in which target is b b^T.

    Attributes:
        target: (r, r) P(row r and row s).
        weight: (r, r) 0 or more, symmetric, 0 between rows of one source.
        shares: (r,) P(row), above 0.
        margin: (r,) 0 or more.
        source: (r,) which source a row is of, 0..m-1, ascending.
        vote: (r,) which class it votes for.
        coverage: (r,) P(source votes); 1 where everything is given that it does.
        informative: whether mu counts how often sources vote; otherwise it is given that they do.
        prior: (k,) shares of the classes.
        samples: n.
    """

    target: np.ndarray
    weight: np.ndarray
    shares: np.ndarray
    margin: np.ndarray
    source: np.ndarray
    vote: np.ndarray
    coverage: np.ndarray
    informative: bool
    prior: np.ndarray
    samples: float

    def loss(self, b: np.ndarray) -> tuple[float, np.ndarray]:
        """The objective and its gradient.

        Args:
            b: (r, k) mu sqrt(prior).

        Returns:
            A number, 0 or more, and (r, k).
        """
        root = np.sqrt(self.prior)
        misfit = b @ b.T - self.target
        pulled = self.weight * misfit
        off = b @ root - self.shares
        value = float((misfit * pulled).sum() + (self.margin * off**2).sum())
        return value, 4 * pulled @ b + 2 * (self.margin * off)[:, None] * root

    def at_skill(self, skill: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sources that are described by one number each, and meet all margins.

        A vote v leaves the other classes in the proportions of the prior; only P(class v given vote v) is at issue.
        Given that a source votes, it is what one accuracy 1 / k + skill (k - 1) / k in every class comes to. Where it
        also counts how often a source speaks up, it is prior[v] + skill (1 - prior[v]): a share of the votes knows, and
        the rest is blind, so that votes for rare classes may be as reliable as those for frequent ones.

        Args:
            skill: (m,) 0 for sources that guess, 1 for sources that know.

        Returns:
            (r, k) b, and (r, k) its derivative in the skill.
        """
        k = len(self.prior)
        skill, prior = skill[self.source], self.prior[self.vote]
        if self.informative:
            certain, slope = prior + (1 - prior) * skill, 1 - prior
        else:
            right, total = prior * (1 + (k - 1) * skill), prior * (1 + (k - 1) * skill) + (1 - prior) * (1 - skill)
            certain = right / total
            slope = (prior * (k - 1) * total - right * (k * prior - 1)) / total**2
        own = self.vote[:, None] == np.arange(k)
        others = self.prior / (1 - prior)[:, None]
        scale = self.shares[:, None] / np.sqrt(self.prior)
        b = np.where(own, certain[:, None], (1 - certain)[:, None] * others) * scale
        return b, np.where(own, slope[:, None], -slope[:, None] * others) * scale

    def common_skill(self) -> float:
        """The skill (0.2 to 1) that explains the target best, were all sources alike."""
        from scipy.optimize import minimize_scalar

        sources = int(self.source[-1]) + 1
        found = minimize_scalar(
            lambda skill: self.loss(self.at_skill(np.full(sources, skill))[0])[0],
            bounds=(_LEAST_SKILL, 1),
            method="bounded",
        )
        return float(found.x)

    def pull(self, b: np.ndarray, smoothing: float) -> np.ndarray:
        """How strongly rows are drawn towards what all sources have in common.

        With the noise of the target as it would be at b, and skills that spread evenly between 0 and 1, the minimum is
        then the most probable value; it vanishes as 1 / n.

        Args:
            b: (r, k) sources that are all alike.
            smoothing: 0 for none, 1 for as much as that.

        Returns:
            (m,) per squared difference of skills.
        """
        expected = np.clip(b @ b.T, 0, 1)
        leverage = self.weight * self.shares**2
        noise = (self.weight * leverage * expected * (1 - expected)).sum(axis=1)
        sources = int(self.source[-1]) + 1
        per_source = [
            np.bincount(self.source, weights=rows, minlength=sources) for rows in (noise, leverage.sum(axis=1))
        ]
        pulled: np.ndarray = smoothing * 2 * per_source[0] / np.maximum(per_source[1], 1e-300) / self.samples * 12
        return pulled

    def solve(self, smoothing: float) -> tuple[np.ndarray, float, bool]:
        """Descends from sources that are all alike to the nearest minimum over all error rates.

        Args:
            smoothing: how much rows are drawn to where they start.

        Returns:
            (r, k) mu; the objective with the pull; whether the gradient vanishes there.
        """
        k = len(self.prior)
        root = np.sqrt(self.prior)
        start, _ = self.at_skill(np.full(int(self.source[-1]) + 1, self.common_skill()))
        start = np.minimum(start, root)
        pull = self.pull(start, smoothing)[self.source][:, None] / 2  # each is seen in two rows
        own = self.vote[:, None] == np.arange(k)
        spread = np.where(own, 1.0, _error_spread(k)) * (1 - 1 / k) ** 2 * self.coverage[:, None] ** 2
        pull = pull / (spread * self.prior)

        def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
            b = flat.reshape(-1, k)
            value, gradient = self.loss(b)
            away = b - start
            return value + float((pull * away**2).sum()), (gradient + 2 * pull * away).ravel()

        found, value, converged = _descend(
            objective, start.ravel(), [(0.0, edge) for edge in np.tile(root, len(start))]
        )
        mu: np.ndarray = found.reshape(-1, k) / root
        return mu, value, converged

    def solve_skill(self, smoothing: float) -> tuple[np.ndarray, float, bool]:
        """The same over sources that have one number each, see `at_skill`.

        Args:
            smoothing: how much skills are drawn to the common one.

        Returns:
            (m,) skills; the objective with the pull; whether the gradient vanishes there.
        """
        k, sources = len(self.prior), int(self.source[-1]) + 1
        common = self.common_skill()
        start = np.full(sources, common)
        pull = self.pull(self.at_skill(start)[0], smoothing)

        def objective(skill: np.ndarray) -> tuple[float, np.ndarray]:
            b, slope = self.at_skill(skill)
            value, gradient = self.loss(b)
            away = skill - common
            slopes = np.bincount(self.source, weights=(gradient * slope).sum(axis=1), minlength=sources)
            return value + float((pull * away**2).sum()), slopes + 2 * pull * away

        worst = np.full(sources, -1 / (k - 1))
        if self.informative:  # below, a probability would be negative
            rarest = np.ones(sources)
            np.minimum.at(rarest, self.source, self.prior[self.vote])
            worst = -rarest / (1 - rarest)
        return _descend(objective, start, [(float(low), 1.0) for low in worst])


def _error_spread(classes: int) -> float:
    """The variance of one kind of error against that of the accuracy; 1 with two classes.

    Accuracies spread evenly between chance and 1, and errors over the k - 1 wrong votes as a flat Dirichlet.
    """
    k = classes
    return float(4 * 2 / ((k - 1) * k) - 3 / (k - 1) ** 2)


def _descend(
    objective: Objective, start: np.ndarray, bounds: list[tuple[float, float]]
) -> tuple[np.ndarray, float, bool]:
    """L-BFGS within bounds, until nothing more is gained."""
    from scipy.optimize import minimize

    scale = max(objective(start)[0], 1e-300)

    def scaled(point: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = objective(point)
        return value / scale, gradient / scale

    settings = {"maxiter": _STEPS, "maxfun": 2 * _STEPS, "ftol": 0.0, "gtol": _GRADIENT, "maxcor": 20}
    found = minimize(scaled, start, jac=True, method="L-BFGS-B", bounds=bounds, options=settings)
    low, high = np.transpose(bounds)
    left = np.clip(found.x - found.jac, low, high) - found.x
    return found.x, float(found.fun * scale), bool(np.abs(left).max(initial=0) <= _ARRIVED)
