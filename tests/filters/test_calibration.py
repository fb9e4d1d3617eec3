import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import beta

from chaffinch.filters.calibration import SHIFT, STRETCH, Calibration, reliability, share_interval


def labelled(samples, seed=0, shift=0.0, slope=1.0):
    """Probabilities, and labels drawn as if the truth were at other log odds."""
    rng = np.random.default_rng(seed)
    probability = rng.uniform(0.02, 0.98, samples)
    odds = np.log(probability / (1 - probability))
    return probability, rng.random(samples) < 1 / (1 + np.exp(-(shift + slope * odds)))


@pytest.mark.parametrize("samples", [0, 1, 20, 300])
def test_the_fit_is_the_maximum_that_a_general_optimiser_finds(samples):
    probability, keep = labelled(samples, seed=samples, shift=1.0, slope=0.5)
    odds, sign = np.log(probability / (1 - probability)), np.where(keep, 1, -1)

    def loss(point):
        margins = sign * (point[0] + math.exp(point[1]) * odds)
        return (
            sum(math.log1p(math.exp(-margin)) for margin in margins)
            + point[0] ** 2 / (2 * SHIFT**2)
            + point[1] ** 2 / (2 * STRETCH**2)
        )

    best = minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000}).x
    found = Calibration.fit(probability, keep)
    assert (found.shift, math.log(found.slope)) == pytest.approx(tuple(best), abs=1e-5)


def test_many_labels_find_what_was_planted_and_few_move_little():
    found = Calibration.fit(*labelled(20_000, shift=-1.0, slope=0.6))
    assert found.shift == pytest.approx(-1.0, abs=0.08)
    assert found.slope == pytest.approx(0.6, abs=0.05)
    nothing = Calibration.fit(np.zeros(0), np.zeros(0, bool))
    assert (nothing.shift, nothing.slope) == (0.0, 1.0)
    sure = np.array([0.9])
    assert Calibration.fit(np.full(1, 0.9), np.zeros(1, bool)).apply(sure)[0] > 0.5
    assert Calibration.fit(np.full(20, 0.9), np.zeros(20, bool)).apply(sure)[0] < 0.5


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=30), st.lists(st.floats(0, 1), min_size=1, max_size=20)
)
def test_no_two_probabilities_change_places_and_certainties_stay(labels, probabilities):
    probability = np.array([one for one, _ in labels])
    calibration = Calibration.fit(probability, np.array([keep for _, keep in labels], bool))
    wide = np.sort(np.array(probabilities, np.float32))
    moved = calibration.apply(wide)
    assert np.all(np.diff(moved) >= 0)
    assert np.all((moved >= 0) & (moved <= 1))
    assert np.all(moved[wide == 0] == 0)
    assert np.all(moved[wide == 1] == 1)
    assert all(calibration.apply(np.array([one]))[0] == two for one, two in zip(wide, moved, strict=True))


def test_reliability_by_hand():
    found = reliability(np.array([0.1, 0.1, 0.9, 0.5]), np.array([False, True, True, False]))
    assert found["brier"] == pytest.approx((0.01 + 0.81 + 0.01 + 0.25) / 4)
    assert found["log_loss"] == pytest.approx(-(2 * math.log(0.9) + math.log(0.1) + math.log(0.5)) / 4)
    assert found["auc"] == pytest.approx((0.5 + 0 + 1 + 1) / 4)
    assert [one["samples"] for one in found["bins"]] == [2, 1, 1]
    assert found["bins"][0] == {"low": 0.0, "high": 0.2, "samples": 2, "probability": pytest.approx(0.1), "keep": 0.5}
    assert reliability(np.zeros(0), np.zeros(0, bool)) == {
        "samples": 0,
        "brier": None,
        "log_loss": None,
        "auc": None,
        "bins": [],
    }


@pytest.mark.parametrize(("kept", "drawn"), [(0, 5), (5, 5), (1, 3), (40, 100)])
def test_intervals_of_shares_are_jeffreys(kept, drawn):
    low, high = share_interval(kept, drawn)
    assert low == (0 if kept == 0 else pytest.approx(beta(kept + 0.5, drawn - kept + 0.5).ppf(0.025)))
    assert high == (1 if kept == drawn else pytest.approx(beta(kept + 0.5, drawn - kept + 0.5).ppf(0.975)))
