"""Hartigan's dip against its definition, and what it takes for one group."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from chaffinch.filters.binarising.bins import Bins, count_high, read_high
from chaffinch.filters.binarising.dip import dip_of, dip_of_line, has_two_groups


def dip(values):
    return dip_of(Bins.of(*read_high(count_high(np.asarray(values, np.float32)[:, None]), 1)[0]))


def slow(values, shares):
    """The least distance to any line whose slopes rise up to a mode and fall after it, mode by mode, as a program."""
    knots, widths, best = len(values), np.diff(values), 1.0
    slopes = (np.eye(knots)[1:] - np.eye(knots)[:-1]) / widths[:, None]
    near = np.concatenate([np.eye(knots), -np.eye(knots)])
    for mode in range(knots - 1):
        turns = slopes[:-1] - slopes[1:]
        turns[mode:] *= -1
        rules = np.concatenate(
            [np.c_[near, -np.ones(2 * knots)], np.c_[np.concatenate([turns, -slopes]), np.zeros(2 * knots - 3)]]
        )
        bounds = np.concatenate([shares, -shares, np.zeros(2 * knots - 3)])
        found = linprog(np.eye(knots + 1)[knots], A_ub=rules, b_ub=bounds, bounds=[(0, 1)] * (knots + 1))
        assert found.status == 0
        best = min(best, found.fun)
    return best


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 10)), min_size=1, max_size=7))
@settings(max_examples=60, deadline=None)
def test_agrees_with_its_definition(segments):
    widths, rises = np.array(segments, float).T
    rises[0] += 1
    values = np.concatenate([[0.0], np.cumsum(widths)])
    shares = np.concatenate([[0.0], np.cumsum(rises) / rises.sum()])
    assert dip_of_line(values, shares) == pytest.approx(slow(values, shares), abs=1e-9)


def test_known_values():
    assert dip([]) == dip([3.0]) == dip([3.0] * 9) == 0
    assert dip([0.0, 1.0]) == pytest.approx(0.25, abs=0.005)  # but for the width of a bin
    assert dip([-5.0] * 10 + [7.0] * 30) == pytest.approx(0.125, abs=0.01)  # half the smaller group
    assert dip([-1e-42, 0.0, 1e-42]) == 0  # both sides of zero, where two bins meet


@pytest.mark.parametrize(
    "draw",
    ["normal", "uniform", "exponential", "lognormal", "standard_cauchy", "constant", "near_constant", "bfloat16"],
)
@pytest.mark.parametrize("size", [5, 300, 20_000])
def test_one_group_is_one_group(draw, size):
    rng = np.random.default_rng(size)
    if draw == "constant":
        values = np.full(size, 0.3)
    elif draw == "near_constant":
        values = 100 + rng.normal(size=size) * 1e-3
    elif draw == "bfloat16":
        values = (rng.normal(size=size).astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    else:
        values = getattr(rng, draw)(size=size)
    assert not has_two_groups(dip(values), size)


@pytest.mark.parametrize(("share", "apart"), [(0.5, 3), (0.2, 4), (0.1, 4.5), (0.9, 5)])
def test_two_groups_are_two(share, apart):
    rng = np.random.default_rng(2)
    values = rng.normal(size=20_000) + apart * (rng.random(20_000) < share)
    assert has_two_groups(dip(values), len(values))


def test_uniform_pools_rarely_look_like_two():
    """The bound's own claim, on pools that it was not found on; at most twice as often as it says."""
    rng = np.random.default_rng(3)
    assert sum(has_two_groups(dip(rng.random(200)), 200) for _ in range(1000)) <= 4


def test_two_values_are_too_few_to_tell():
    assert not has_two_groups(0.25, 2)
    assert not has_two_groups(0.0, 0)
