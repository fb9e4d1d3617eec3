import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaffinch.filters.label_models.mixture import MARGIN, Tally, check_reference, given_drop, given_keep
from chaffinch.filters.label_models.shares import best_half, largest_share, share_and_interval, share_by_pairs


def enumerated(keep, drop, prior, samples=10**9):
    """Counts of all patterns of independent sources, as good as exact; P(votes keep) given each class, no abstains."""
    patterns = np.array(list(itertools.product([-1, 1], repeat=len(keep))))
    shares = [np.where(patterns > 0, p, 1 - np.asarray(p)).prod(axis=1) for p in (keep, drop)]
    return patterns, np.rint(samples * (prior * shares[0] + (1 - prior) * shares[1])).astype(np.int64)


KEEP, DROP = [0.95, 0.9, 0.99, 0.8], [0.3, 0.5, 0.7, 0.2]


def some(seed=0, n=60, m=3):
    return np.random.default_rng(seed).integers(-1, 2, (n, m)).astype(np.int8)


@pytest.mark.parametrize("with_abstains", [True, False])
def test_tallies_are_what_loops_add_up(with_abstains):
    votes = some()
    tally = Tally.of(votes, np.full(60, 2), with_abstains)
    for i, j in itertools.product(range(3), repeat=2):
        both = [row for row in votes.tolist() if with_abstains or (row[i] and row[j])]
        assert tally.common[i, j] == 2 * len(both)
        assert tally.sums[i, j] == 2 * sum(row[i] for row in both)
        assert tally.products[i, j] == 2 * sum(row[i] * row[j] for row in both)
    symbols = (-1, 1, 0) if with_abstains else (-1, 1)
    expected = [[2 * (votes[:, j] == symbol).sum() for symbol in symbols] for j in range(3)]
    np.testing.assert_array_equal(tally.shown, expected)


@pytest.mark.parametrize("prior", [0.1, 0.46, 0.9])
def test_exact_moments_give_the_exact_mixture(prior):
    pool = Tally.of(*enumerated(KEEP, DROP, prior), False)
    good = Tally.of(*enumerated(KEEP, DROP, 1.0), False)
    keep = given_keep(good, 1.0)
    np.testing.assert_allclose(keep[:, 1], KEEP, atol=1e-6)
    assert share_by_pairs(pool, keep) == pytest.approx(prior, abs=1e-6)
    np.testing.assert_allclose(given_drop(pool, good, keep, prior)[:, 1], DROP, atol=1e-6)


def test_the_bound_is_where_a_probability_would_turn_negative():
    pool = Tally.of(*enumerated(KEEP, DROP, 0.4), False)
    good = Tally.of(*enumerated(KEEP, DROP, 1.0), False)
    keep = given_keep(good, 1.0)
    bound = largest_share(pool, keep)
    expected = min((0.4 * q + 0.6 * d) / q for q, d in zip(KEEP, DROP, strict=True))
    assert bound == pytest.approx(expected)
    left = (pool.shown / pool.shown.sum(axis=1, keepdims=True) - bound * keep) / (1 - bound)
    assert left.min() == pytest.approx(0, abs=1e-9)


def test_an_error_free_source_gives_the_prior_as_its_bound():
    pool = Tally.of(*enumerated([0.9, 0.8], [0.0, 0.5], 0.35), False)
    good = Tally.of(*enumerated([0.9, 0.8], [0.0, 0.5], 1.0), False)
    assert largest_share(pool, given_keep(good, 1.0)) == pytest.approx(0.35, abs=1e-6)


def test_one_correlated_pair_does_not_move_the_share():
    patterns, counts = enumerated(KEEP, DROP, 0.4)
    echo = np.column_stack([patterns, patterns[:, 0]])
    keep = given_keep(Tally.of(echo, enumerated(KEEP, DROP, 1.0)[1], False), 1.0)
    assert share_by_pairs(Tally.of(echo, counts, False), keep) == pytest.approx(0.4, abs=1e-6)


def test_pairs_that_tell_nothing_give_no_share():
    keep = np.array([[0.1, 0.9], [0.2, 0.8]])
    assert share_by_pairs(Tally.of(np.zeros((1, 2)), np.array([50]), False), keep) is None
    one = Tally.of(*enumerated([0.9], [0.3], 0.5), False)
    assert share_by_pairs(one, keep[:1]) is None
    opposed = Tally.of(np.array([[1, -1], [-1, 1]]), np.array([50, 50]), False)
    assert share_by_pairs(opposed, keep) is None


@given(st.integers(0, 500), st.floats(0.02, 0.98))
def test_what_is_left_is_a_probability_whatever_the_prior(seed, prior):
    pool, good = (Tally.of(some(seed + more, n), np.ones(n), True) for more, n in ((0, 60), (1, 12)))
    keep = given_keep(good, 1.0)
    drop = given_drop(pool, good, keep, prior)
    np.testing.assert_allclose(drop.sum(axis=1), 1)
    assert (drop >= MARGIN / (1 + 3 * 0.25)).all()


def test_less_is_known_of_bad_samples_where_fewer_good_ones_were_seen():
    pool = Tally.of(np.array([[1], [-1]]), np.array([72_000, 28_000]), False)
    margins = []
    for k in (10, 100, 1000):
        good = Tally.of(np.array([[1], [-1]]), np.array([9 * k, k]) // 10, False)
        margins.append(given_drop(pool, good, np.array([[0.1, 0.9]]), 0.8)[0, 1])
    assert margins[0] > margins[1] > margins[2]


def test_a_share_is_a_quantile_of_what_was_drawn():
    share, interval = share_and_interval(np.arange(101) / 100, 0.25)
    assert share == pytest.approx(0.25)
    assert share_and_interval(np.arange(101) / 100)[0] == pytest.approx(0.5)
    np.testing.assert_allclose(interval, [0.025, 0.975])
    assert share_and_interval(np.zeros(3))[0] == 0.01


@pytest.mark.parametrize(("samples", "told"), [(0, "none"), (9, "9")])
def test_a_small_reference_is_refused_with_the_remedy(samples, told):
    with pytest.raises(ValueError, match=rf"anchored .* has {told}: give 10 or more as `reference:`.*dawid_skene"):
        check_reference(samples, "anchored")
    check_reference(10, "anchored")


def test_the_best_half_are_as_few_as_hold_half():
    scores, counts = np.array([0.0, 3.0, 1.0, 2.0]), np.array([4, 2, 3, 2])
    assert best_half(scores, counts) == 1.0  # above it are 4 of 11, with it 7
    assert best_half(scores, np.array([0, 2, 0, 2])) == 3.0
