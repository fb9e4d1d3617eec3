import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from chaffinch.filters.soft_votes import MISSING, Moments, SoftSample, soften


def some(seed=0, n=80, m=4, missing=0.2):
    rng = np.random.default_rng(seed)
    soft = soften(rng.random(n * m)).reshape(n, m)
    return np.where(rng.random((n, m)) < missing, MISSING, soft)


def test_soft_votes_are_normal_scores_in_small_steps():
    ranks = np.array([0.5, norm.cdf(1), norm.cdf(-2), 0.0, 1.0, np.nan])
    assert soften(ranks).tolist() == [0, 1024, -2048, -3808, 3808, MISSING]
    assert soften(ranks).dtype == np.int16


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_soft_votes_keep_the_order_of_ranks(ranks):
    assert (np.diff(soften(np.sort(ranks)).astype(int)) >= 0).all()


def test_moments_are_what_loops_add_up():
    soft = some()
    moments = Moments.of(soft)
    for i in range(4):
        for j in range(4):
            both = [(int(row[i]), int(row[j])) for row in soft if MISSING not in (row[i], row[j])]
            assert moments.common[i, j] == len(both)
            assert moments.sums[i, j] == sum(one for one, _ in both)
            assert moments.products[i, j] == sum(one * two for one, two in both)


@given(st.integers(0, 80), st.permutations(range(80)))
def test_moments_of_parts_are_those_of_the_whole(cut, order):
    soft = some()
    whole, parts = Moments.of(soft), Moments.of(soft[order][:cut]).merge(Moments.of(soft[order][cut:]))
    for name in ("common", "sums", "products"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


def test_moments_of_some_columns():
    soft = some()
    few, direct = Moments.of(soft).of_columns([2, 0]), Moments.of(soft[:, [2, 0]])
    np.testing.assert_array_equal(few.sums, direct.sums)
    np.testing.assert_array_equal(few.products, direct.products)


def test_correlations_are_those_of_samples_that_both_judge():
    soft = some(n=400, missing=0)
    soft[:, 1] = soft[:, 0] // 2 + soft[:, 1] // 2
    np.testing.assert_allclose(Moments.of(soft).correlation(10), np.corrcoef(soft.astype(float).T), atol=1e-9)
    soft[50:, 2] = MISSING
    assert Moments.of(soft).correlation(51)[0, 2] == 0
    soft[:, 3] = 7
    found = Moments.of(soft).correlation(10)
    assert found[3].tolist() == [0, 0, 0, 1]
    assert (found == found.T).all()


def test_the_same_is_the_same_everywhere():
    soft = some(m=3)
    soft = np.column_stack([soft, soft[:, 0], soft[:, 1], soft[:, 2]])
    soft[0, 4] = MISSING if soft[0, 4] != MISSING else 3  # missing on one sample more, or less
    known = np.flatnonzero(soft[:, 5] != MISSING)[0]
    soft[known, 5] += 1
    expected = np.eye(6, dtype=bool)
    expected[0, 3] = expected[3, 0] = True
    np.testing.assert_array_equal(Moments.of(soft).same(), expected)


@pytest.mark.parametrize("most", [1, 30, 200])
def test_a_sample_is_the_same_however_the_pool_is_cut(most):
    soft, hashes = some(), np.random.default_rng(1).permutation(80).astype(np.uint64)
    whole = SoftSample.of(soft, hashes, most)
    parts = SoftSample.of(soft[:13], hashes[:13], most)
    parts = SoftSample.of(soft[13:], hashes[13:], most).merge(parts)
    np.testing.assert_array_equal(parts.soft, whole.soft)
    assert whole.places.tolist() == sorted(hashes.tolist())[:most]
    assert len(whole.soft) == min(most, 80)
