"""Counted bins climb as raw values would."""

import math

import numpy as np
import pytest

from chaffinch.filters.binarising.bins import Bins, count_high, read_high
from chaffinch.filters.binarising.mixture import LEAST_VARIANCE, TOLERANCE, Mixture, fit_mixture


def bins_of(values):
    return Bins.of(*read_high(count_high(np.asarray(values, np.float32)[:, None]), 1)[0])


def cut(values):
    """Where two-means cuts, by trying."""

    def cost(edge):
        return sum(((side - side.mean()) ** 2).sum() for side in (values[values < edge], values[values >= edge]))

    return min(np.unique(values)[1:], key=cost)


def slow(values):
    """Expectation maximisation on raw values, one after the other."""
    n, edge = len(values), cut(values)
    mean = sum(values) / n
    least = LEAST_VARIANCE * sum((value - mean) ** 2 for value in values) / n
    shares = [[float(value < edge), float(value >= edge)] for value in values]
    before = -math.inf
    while True:
        weights, means, variances = [], [], []
        for side in (0, 1):
            mass = sum(share[side] for share in shares)
            weights.append(mass / n)
            means.append(sum(share[side] * value for share, value in zip(shares, values, strict=True)) / mass)
            spread = sum(share[side] * (value - means[side]) ** 2 for share, value in zip(shares, values, strict=True))
            variances.append(max(spread / mass, least))
        total, shares = 0.0, []
        for value in values:
            joint = [
                weights[side]
                * math.exp(-((value - means[side]) ** 2) / (2 * variances[side]))
                / math.sqrt(2 * math.pi * variances[side])
                for side in (0, 1)
            ]
            total += math.log(sum(joint))
            shares.append([one / sum(joint) for one in joint])
        if total / n - before <= TOLERANCE:
            return weights, means, variances
        before = total / n


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_a_loop_where_bins_hold_one_value_each(seed):
    rng = np.random.default_rng(seed)
    raw = np.concatenate([rng.normal(-1, 1, 60), rng.normal(3, 0.5, 100)]).astype(np.float32)
    values = (raw.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)  # eight bits: all of a bin are equal
    fitted = fit_mixture(bins_of(values))
    for found, expected in zip(
        (fitted.weights, fitted.means, fitted.variances), slow(values.astype(float)), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_planted_groups_come_back():
    rng = np.random.default_rng(5)
    values = np.concatenate([rng.normal(-2, 1.5, 60_000), rng.normal(4, 0.7, 40_000)])
    fitted = fit_mixture(bins_of(values))
    np.testing.assert_allclose(fitted.weights, [0.6, 0.4], atol=0.01)
    np.testing.assert_allclose(fitted.means, [-2, 4], atol=0.05)
    np.testing.assert_allclose(np.sqrt(fitted.variances), [1.5, 0.7], atol=0.02)
    # Where 0.6 N(-2, 1.5) and 0.4 N(4, 0.7) meet, to be found on a grid.
    grid = np.linspace(-2, 4, 600_001)
    densities = [
        weight / sd * np.exp(-((grid - mean) ** 2) / (2 * sd**2))
        for weight, mean, sd in ((0.6, -2, 1.5), (0.4, 4, 0.7))
    ]
    assert fitted.crossing() == pytest.approx(grid[np.argmax(densities[1] > densities[0])], abs=0.05)


def test_the_crossing_is_where_both_are_equally_likely():
    mixture = Mixture(np.array([0.7, 0.3]), np.array([0.0, 3.0]), np.array([1.0, 0.25]), 0)
    edge = mixture.crossing()
    assert 0 < edge < 3
    low, high = mixture.lean(np.array([np.nextafter(edge, 0), edge]))
    assert low < 0 <= high
    even = Mixture(np.array([0.5, 0.5]), np.array([-1.0, 5.0]), np.array([2.0, 2.0]), 0)
    assert even.crossing() == pytest.approx(2.0)


def test_no_crossing_where_one_outweighs_the_other():
    assert Mixture(np.array([0.999, 0.001]), np.array([0.0, 1.0]), np.array([1.0, 1.0]), 0).crossing() is None
    assert Mixture(np.array([0.5, 0.5]), np.array([1.0, 1.0]), np.array([1.0, 1.0]), 0).crossing() is None


def test_a_spike_is_no_infinite_likelihood():
    rng = np.random.default_rng(6)
    fitted = fit_mixture(bins_of(np.concatenate([np.full(500, 5.0), rng.normal(0, 1, 500)])))
    assert np.isfinite([*fitted.weights, *fitted.means, *fitted.variances]).all()
    assert fitted.means[1] == pytest.approx(5.0, abs=0.01)
    assert fitted.variances[1] > 0
