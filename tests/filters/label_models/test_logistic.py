import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from chaffinch.filters.label_models.logistic import fit_logistic


def planted(k, n, share, slopes, seed=0):
    """Features of k good samples, then n of which a share is good; and which are of the first kind."""
    rng = np.random.default_rng(seed)
    good = np.concatenate([np.ones(k, bool), rng.random(n) < share])
    features = rng.standard_normal((k + n, len(slopes))) + np.outer(good, slopes)
    return features, np.arange(k + n) < k


def objective(coefficients, features, labelled, penalty, share):
    """Minus the stated likelihood, sample by sample in probabilities, and the ridge."""
    inner = coefficients[0] + features @ coefficients[1:]
    k, n = labelled.sum(), (~labelled).sum()
    if share is None:
        chance = expit(inner)
    else:
        odds = k / (n * share) * expit(inner)
        chance = odds / (1 + odds)
    return -np.log(np.where(labelled, chance, 1 - chance)).sum() + 0.5 * (penalty * coefficients[1:] ** 2).sum()


@pytest.mark.parametrize("share", [None, 0.3, 0.6])
@pytest.mark.parametrize("rising", [[False] * 3, [True] * 3])
def test_a_general_optimiser_finds_nothing_better(share, rising):
    features, labelled = planted(60, 400, 0.4, [1.0, 0.5, -0.7])
    penalty = np.array([1.0, 0.5, 2.0])
    found = fit_logistic(features, labelled, penalty, np.array(rising), share)
    bounds = [(None, None), *((0 if rise else None, None) for rise in rising)]
    best = min(
        (
            minimize(objective, start, (features, labelled, penalty, share), "L-BFGS-B", bounds=bounds, tol=1e-12)
            for start in ([0.0] * 4, [-1.0, 0.5, 0.5, 0.5], found)
        ),
        key=lambda result: result.fun,
    )
    assert objective(found, features, labelled, penalty, share) <= best.fun + 1e-6
    np.testing.assert_allclose(found, best.x, atol=2e-3)
    assert (found[3] == 0) == rising[2]


def test_with_the_share_the_odds_of_good_against_bad_are_recovered():
    slopes = np.array([1.0, 1.5, 0.0])
    features, labelled = planted(20_000, 40_000, 0.6, slopes)
    found = fit_logistic(features, labelled, np.full(3, 1e-3), np.zeros(3, bool), 0.6)
    np.testing.assert_allclose(found[1:], slopes, atol=0.1)
    assert found[0] == pytest.approx(np.log(0.6 / 0.4) - (slopes**2).sum() / 2, abs=0.15)


def test_without_features_only_the_share_is_left():
    features, labelled = np.zeros((50, 0)), np.arange(50) < 10
    nothing = np.zeros(0)
    assert fit_logistic(features, labelled, nothing, nothing.astype(bool)) == pytest.approx(np.log(10 / 40))
    assert expit(fit_logistic(features, labelled, nothing, nothing.astype(bool), 0.3)[0]) == pytest.approx(0.3)


@pytest.mark.parametrize("share", [None, 0.5])
def test_perfectly_separated_sets_stay_finite(share):
    features = np.array([[1.0]] * 20 + [[-1.0]] * 20)
    found = fit_logistic(features, features[:, 0] > 0, np.ones(1), np.ones(1, bool), share)
    assert np.isfinite(found).all()
    assert found[1] > 0.5
