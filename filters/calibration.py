"""Calibration: a few labels tell how far probabilities are to be believed; no order changes."""

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

SHIFT = 1.0
"""Standard deviation, before any label is seen, of how far log odds are off: an odds ratio of 2.7."""
STRETCH = 0.5
"""Standard deviation, before any label is seen, of the log of how far they are stretched: a factor of 1.6."""

_EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_STEPS = 100


@dataclass(frozen=True)
class Calibration:
    """Log odds times a slope plus a shift; 0 and 1 stay what they are.

    Attributes:
        shift: in nats.
        slope: above 0, so that no two probabilities change places.
    """

    shift: float
    slope: float

    @classmethod
    def fit(cls, probability: np.ndarray, keep: np.ndarray) -> Self:
        """The most probable calibration given labels, under normal priors for the shift and the log of the slope.

        With no label it changes nothing, with few it moves little: twenty labels that all contradict a probability of
        0.9 bring it below one half, one does not. Labels need not be drawn at random, as long as what was looked at was
        chosen by votes and probabilities alone.

        Args:
            probability: (k,) P(keep) of labelled samples.
            keep: (k,) bool what was said of them.

        Returns:
            The maximum, by Newton steps that are halved until they climb.

        Source: J. Platt (1999), Probabilistic Outputs for Support Vector Machines, for the form.
        """
        inside = (probability > 0) & (probability < 1)
        odds = _log_odds(probability[inside].astype(np.float64))
        sign = np.where(keep[inside], 1.0, -1.0)

        def loss(shift: float, log_slope: float) -> float:
            margin = sign * (shift + math.exp(log_slope) * odds)
            prior = (shift / SHIFT) ** 2 / 2 + (log_slope / STRETCH) ** 2 / 2
            return float(np.logaddexp(0, -margin).sum()) + prior

        point, value = np.zeros(2), loss(0.0, 0.0)
        for _ in range(_STEPS):
            stretched = math.exp(point[1]) * odds
            margin = sign * (point[0] + stretched)
            wrong = np.exp(-np.logaddexp(0, margin))
            curve = wrong * (1 - wrong)
            design = np.stack([np.ones_like(odds), stretched])
            gradient = -(design * (sign * wrong)).sum(axis=1) + point / np.array([SHIFT, STRETCH]) ** 2
            hessian = (design * curve) @ design.T + np.diag([SHIFT**-2, STRETCH**-2])
            step, size = np.linalg.solve(hessian, gradient), 1.0
            while size > 1e-6 and loss(*(point - size * step)) > value:
                size /= 2
            moved = point - size * step
            if size <= 1e-6 or np.abs(moved - point).max() < 1e-10:
                break
            point, value = moved, loss(*moved)
        return cls(float(point[0]), math.exp(float(point[1])))

    def apply(self, probability: np.ndarray) -> np.ndarray:
        """Calibrates.

        Args:
            probability: (n,) P(keep).

        Returns:
            (n,) float32; equal or in the same order as before.
        """
        inside = (probability > 0) & (probability < 1)
        odds = _log_odds(np.where(inside, probability, 0.5).astype(np.float64))
        moved = 1 / (1 + np.exp(-(self.shift + self.slope * odds)))
        found: np.ndarray = np.where(inside, moved, probability).astype(np.float32)
        return found


def _log_odds(probability: np.ndarray) -> np.ndarray:
    odds: np.ndarray = np.log(probability) - np.log1p(-probability)
    return odds


def reliability(probability: np.ndarray, keep: np.ndarray) -> dict[str, Any]:
    """How probabilities compare with labels.

    Args:
        probability: (k,) P(keep) of labelled samples.
        keep: (k,) bool what was said of them.

    Returns:
        samples: k; brier: the mean square error, in [0, 1], lower is better; log_loss: in nats, lower is better (a
        probability counts as at least 1e-6 from 0 and 1); auc: P(a kept one has the higher probability), None without
        both kinds; bins: per fifth of [0, 1] that holds any: low, high, samples, mean probability, the share that is to
        be kept.
    """
    wide, good = probability.astype(np.float64), keep.astype(bool)
    safe = np.clip(np.where(good, wide, 1 - wide), 1e-6, 1.0)
    places = np.clip(np.digitize(wide, _EDGES) - 1, 0, len(_EDGES) - 2)
    bins = [
        {
            "low": _EDGES[place],
            "high": _EDGES[place + 1],
            "samples": int((places == place).sum()),
            "probability": float(wide[places == place].mean()),
            "keep": float(good[places == place].mean()),
        }
        for place in np.unique(places)
    ]
    above = (wide[good][:, None] > wide[~good][None]).mean() if good.any() and not good.all() else math.nan
    equal = (wide[good][:, None] == wide[~good][None]).mean() if good.any() and not good.all() else math.nan
    return {
        "samples": len(good),
        "brier": float(((wide - good) ** 2).mean()) if len(good) else None,
        "log_loss": float(-np.log(safe).mean()) if len(good) else None,
        "auc": None if math.isnan(above) else float(above + equal / 2),
        "bins": bins,
    }


def share_interval(kept: int, drawn: int) -> tuple[float, float]:
    """95% interval of a share, from samples drawn at random: Jeffreys', the quantiles of Beta(k + 1/2, n - k + 1/2).

    Args:
        kept: k, how many of those drawn are to be kept.
        drawn: n.

    Returns:
        Low and high end, in [0, 1].
    """
    from scipy.special import betaincinv

    low = 0.0 if kept == 0 else float(betaincinv(kept + 0.5, drawn - kept + 0.5, 0.025))
    high = 1.0 if kept == drawn else float(betaincinv(kept + 0.5, drawn - kept + 0.5, 0.975))
    return low, high
