"""Logistic regression of labelled samples against unlabelled ones: a ridge, bounded slopes, odds with a ceiling."""

import numpy as np

_STEPS = 100
_ENOUGH = 1e-9  # nats


def fit_logistic(
    features: np.ndarray, labelled: np.ndarray, penalty: np.ndarray, rising: np.ndarray, share: float | None = None
) -> np.ndarray:
    """Tells labelled samples, all good, from unlabelled ones, or good samples from bad ones.

    Without a share it is plain logistic regression: log odds of being labelled are linear. With the share of good
    samples among the unlabelled ones, log odds s of being good are: of labelled samples k and unlabelled n, the odds of
    being labelled are k / (n share) * P(good), and can never exceed k / (n share). It maximises the likelihood of the
    labels, less the penalty, by Fisher scoring: each step is a least squares problem that keeps the bounds. Without a
    share that is Newton's method, and the maximum the only one; with a share it climbs from where all are alike.

    Args:
        features: (n, d).
        labelled: (n,) bool; both values occur.
        penalty: (d,) above 0; half of it times the square of each coefficient is subtracted.
        rising: (d,) bool, coefficients that have to be 0 or more.
        share: of good samples among the unlabelled ones, in (0, 1).

    Returns:
        (d + 1,) the intercept, which is neither penalised nor bounded, then the coefficients.

    Source: G. Ward, T. Hastie, S. Barry, J. Elith, J. Leathwick (2009), Presence-Only Data and the EM Algorithm,
        Biometrics 65(2): the likelihood with a share.
    """
    from scipy.optimize import lsq_linear
    from scipy.special import expit, logit

    design = np.concatenate([np.ones((len(features), 1)), features], axis=1)
    ridge = np.concatenate([[0.0], penalty])
    least = np.concatenate([[-np.inf], np.where(rising, 0.0, -np.inf)])
    odds = labelled.sum() / (~labelled).sum()
    start = np.log(odds) if share is None else logit(share)
    found = np.concatenate([[start], np.zeros(features.shape[1])])

    def loss(coefficients: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        inner = design @ coefficients
        outer = inner if share is None else np.log(odds / share) - np.logaddexp(0.0, -inner)
        size = np.logaddexp(0.0, np.where(labelled, -outer, outer)).sum() + (ridge * coefficients**2).sum() / 2
        return float(size), inner, outer

    now, inner, outer = loss(found)
    for _ in range(_STEPS):
        chance = expit(outer)
        slope = 1.0 if share is None else expit(-inner)
        curvature = (design * (chance * (1 - chance) * slope**2)[:, None]).T @ design + np.diag(ridge)
        curvature[0, 0] += 1e-12  # where everything is said, no sample moves the intercept
        downhill = design.T @ ((labelled - chance) * slope) - ridge * found
        # The quadratic model's least value within the bounds: a least squares problem by curvature = L L^T.
        lower = np.linalg.cholesky(curvature)
        target = lower.T @ found + np.linalg.solve(lower, downhill)
        step = lsq_linear(lower.T, target, bounds=(least, np.inf), method="bvls").x - found
        size = 1.0
        while (tried := loss(found + size * step))[0] > now and size > 1e-6:
            size /= 2
        if tried[0] > now:
            break
        before, (now, inner, outer), found = now, tried, found + size * step
        if before - now < _ENOUGH:
            break
    return np.asarray(np.maximum(found, least))
