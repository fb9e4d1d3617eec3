"""Rules per step: planted groups, one group, odd pools, and what the docstrings promise."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import logsumexp

from chaffinch.filters import binarising
from chaffinch.filters.binarising import Binariser, binarise, fit_binariser, vote
from chaffinch.filters.ranges import FittedRanges, Share

KINDS = ("sign", "share", "softmax", "two_means", "mixture")


def make(kind, **settings):
    return Binariser(kind, share=0.6 if kind == "share" else None, **settings)


def planted(n=4000, apart=5.0, bad=0.3, shift=0.0):
    """(n, 1) scores of two groups, and which are good."""
    rng = np.random.default_rng(1)
    good = rng.random(n) >= bad
    return (rng.normal(size=n) + apart * good + shift).astype(np.float32)[:, None], good


@pytest.mark.parametrize("kind", ["two_means", "mixture"])
@pytest.mark.parametrize("shift", [-20.0, -2.5, 30.0])
def test_planted_groups_are_parted_wherever_they_lie(kind, shift):
    scores, good = planted(shift=shift)
    (rule,) = fit_binariser(scores, make(kind))
    assert rule.kind == kind
    assert ((vote(scores, [rule])[:, 0] > 0) == good).mean() > 0.98


@pytest.mark.parametrize("kind", ["two_means", "mixture"])
def test_one_group_is_left_to_the_sign(kind):
    scores = np.random.default_rng(2).normal(1, 1, (3000, 1)).astype(np.float32)
    (rule,) = fit_binariser(scores, make(kind))
    assert (rule.kind, rule.threshold, rule.note) == ("sign", 0.0, "one group")
    assert rule.dip < 0.01
    (always,) = fit_binariser(scores, make(kind, test_groups=False))
    assert always.note != "one group"
    if kind == "two_means":
        assert always.threshold == pytest.approx(1, abs=0.1)  # near its middle


def test_steps_are_judged_one_by_one():
    scores, _ = planted()
    one = np.random.default_rng(3).normal(size=scores.shape).astype(np.float32)
    rules = fit_binariser(np.hstack([scores, one, scores + 3]), make("two_means"))
    assert [rule.kind for rule in rules] == ["two_means", "sign", "two_means"]
    assert rules[2].threshold == pytest.approx(rules[0].threshold + 3, abs=1e-4)


def test_the_sign_keeps_zero():
    scores = np.array([[-1e-40, -0.0, 0.0, 1e-40, np.nan, -np.inf, np.inf]], np.float32)
    assert binarise(scores).tolist() == [[-1, 1, 1, 1, 0, -1, 1]]


SCORES = hnp.arrays(
    np.float32, st.integers(1, 60), elements=st.floats(width=32) | st.sampled_from([-1.0, 0.0, 0.5, 0.5000001])
)


@given(SCORES, st.floats(0.01, 1))
def test_a_share_is_that_of_ranges(values, share):
    known = np.sort(values[~np.isnan(values)])
    votes = binarise(values[:, None], Binariser("share", share))[:, 0]
    if not len(known):
        assert not votes.any()
        return
    wanted = Share("top", 100 * share)
    rank = wanted.rank(len(known))
    edge = None if rank is None else float(known[rank])
    np.testing.assert_array_equal(votes, FittedRanges(wanted.interval(edge), None).vote(values))


@given(
    hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(-8, 8, width=32)),
    st.sampled_from([0.1, 0.5, 1.0, 20.0]),
)
def test_softmax_keeps_what_weighs_more_than_the_mean(values, temperature):
    wide = values.astype(np.float64) / temperature
    mean = temperature * (logsumexp(wide) - np.log(len(values)))
    (rule,) = fit_binariser(values[:, None], Binariser("softmax", temperature=temperature))
    assert rule.threshold == pytest.approx(mean, abs=1e-3 * temperature + 1e-5)
    votes = vote(values[:, None], [rule])[:, 0]
    clear = np.abs(values - mean) > 1e-3 * temperature + 1e-5
    np.testing.assert_array_equal(votes[clear] > 0, values[clear] > mean)


def test_softmax_of_equal_scores_keeps_none():
    assert (binarise(np.full((5, 1), 0.3), make("softmax")) == -1).all()  # nobody weighs more than the mean


def test_softmax_of_great_scores_stays_finite():
    scores = np.array([[1e4], [-1e4], [1.0]], np.float32)
    assert binarise(scores, Binariser("softmax", temperature=0.05)).ravel().tolist() == [1, -1, -1]
    scores[:2] *= np.float32(3e34)
    assert binarise(scores, Binariser("softmax", temperature=0.05)).ravel().tolist()[1:] == [-1, -1]


@pytest.mark.parametrize("kind", KINDS)
class TestOddPools:
    """Pools that have nothing to go by, or hardly anything."""

    def test_nothing_was_seen(self, kind):
        (rule,) = fit_binariser(np.full((4, 1), np.nan), make(kind))
        assert (rule.kind, rule.threshold) == ("sign", 0.0)
        assert (rule.note == "no scores") == (kind != "sign")
        assert fit_binariser(np.zeros((0, 2)), make(kind)) == [rule, rule]
        assert fit_binariser(np.zeros((3, 0)), make(kind)) == []

    @pytest.mark.parametrize("tests", [True, False])
    def test_all_are_equal(self, kind, tests):
        votes = binarise(np.full((6, 1), -2.0), make(kind, test_groups=tests))
        assert len(set(votes.ravel().tolist())) == 1

    def test_infinities_vote_by_their_side_and_move_nothing(self, kind):
        scores, _ = planted()
        odd = np.float32([[np.inf], [-np.inf], [np.nan]])
        with_odd = fit_binariser(np.vstack([scores, odd]), make(kind))
        if kind != "share":  # to which they count
            assert with_odd == fit_binariser(scores, make(kind))
        assert vote(odd, with_odd).ravel().tolist() == [1, -1, 0]

    def test_one_sample(self, kind):
        votes = binarise(np.array([[0.7]]), make(kind, test_groups=False))
        assert votes.tolist() == [[-1 if kind == "softmax" else 1]]

    def test_only_infinities(self, kind):
        votes = binarise(np.array([[np.inf], [-np.inf]]), make(kind, test_groups=False))
        assert votes.ravel().tolist() == [1, -1]


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 50), st.integers(1, 3)), elements=st.floats(width=32)),
    st.sampled_from(KINDS),
    st.booleans(),
)
def test_more_is_never_worse(scores, kind, tests):
    """Every step's decision is a threshold, and the order of samples does not move it."""
    rules = fit_binariser(scores, make(kind, test_groups=tests))
    assert fit_binariser(scores[::-1], make(kind, test_groups=tests)) == rules
    votes = vote(scores, rules)
    for column, voted in zip(scores.T, votes.T, strict=True):
        known = ~np.isnan(column)
        assert (voted[~known] == 0).all()
        assert np.all(np.diff(voted[known][np.argsort(column[known], kind="stable")]) >= 0)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"kind": "share"}, "needs share:"),
        ({"kind": "sign", "share": 0.5}, "is for binariser: share, not for sign"),
        ({"kind": "share", "share": 0.0}, "no part of the pool"),
        ({"kind": "share", "share": 30.0}, "no part of the pool"),
        ({"kind": "softmax", "temperature": 0.0}, "above 0"),
        ({"kind": "softmax", "temperature": float("nan")}, "above 0"),
    ],
)
def test_settings_are_checked(settings, problem):
    with pytest.raises(ValueError, match=problem):
        fit_binariser(np.zeros((2, 1)), Binariser(**settings))


def test_scores_are_a_matrix():
    with pytest.raises(ValueError, match=r"not of shape \(3,\); for one step give \(n, 1\)"):
        binarise(np.zeros(3))


def test_the_example_holds():
    assert doctest.testmod(binarising).failed == 0
    assert doctest.testmod(binarising).attempted > 5
