"""The cut is the best of all cuts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chaffinch.filters.binarising import Binariser, fit_binariser, vote

ALWAYS = Binariser("two_means", test_groups=False)
# Values within a bin, in neighbouring ones, far apart, and equal.
VALUES = st.floats(-4, 4, width=32) | st.floats(1, 1.015625, width=32) | st.sampled_from([0.0, 0.25, 1.0, 100.0])


def cost(values, upper):
    """Squared distances to the means of two sides."""
    sides = [values[upper].astype(np.float64), values[~upper].astype(np.float64)]
    return sum(float(((side - side.mean()) ** 2).sum()) for side in sides if len(side))


def slow(values):
    """The least cost over all cuts between different values."""
    return min(cost(values, values >= edge) for edge in np.unique(values)[1:])


@given(hnp.arrays(np.float32, st.integers(1, 40), elements=VALUES))
def test_no_cut_is_better(values):
    rules = fit_binariser(values[:, None], ALWAYS)
    if len(np.unique(values)) == 1:
        assert (rules[0].kind, rules[0].threshold, rules[0].note) == ("sign", 0.0, "all scores are equal")
        return
    assert rules[0].kind == "two_means"
    upper = vote(values[:, None], rules)[:, 0] > 0
    assert 0 < upper.sum() < len(values)
    spread = cost(values, np.ones(len(values), bool))
    assert cost(values, upper) <= slow(values) + 1e-9 * spread


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_thousands_within_one_bin(scale):
    rng = np.random.default_rng(0)
    values = (scale * (1 + rng.random(2000) / 200)).astype(np.float32)
    upper = vote(values[:, None], fit_binariser(values[:, None], ALWAYS))[:, 0] > 0
    assert cost(values / scale, upper) <= slow((values / scale).astype(np.float32)) * (1 + 1e-4)
    order = np.sort(values)
    assert upper.sum() == max(
        range(1, 2000), key=lambda cut: -cost(order.astype(np.float64) / scale, np.arange(2000) >= 2000 - cut)
    )


def test_neighbouring_floats_are_told_apart():
    low, high = np.float32(1), np.nextafter(np.float32(1), np.float32(2))
    values = np.array([low, low, high], np.float32)
    assert vote(values[:, None], fit_binariser(values[:, None], ALWAYS)).ravel().tolist() == [-1, -1, 1]
