import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaffinch.filters.label_models.triplets import triplet_loadings, weighted_median

MANY = 10**8


def one_factor(loadings, blocks=()):
    """Correlations of sources with these loadings; those of a block share a further cause, (columns, share)."""
    g = np.array(loadings, float)
    within = np.eye(len(g))
    for columns, share in blocks:
        within[np.ix_(columns, columns)] = share + (1 - share) * np.eye(len(columns))
    spread = np.sqrt(1 - g**2)
    return np.outer(g, g) + within * np.outer(spread, spread)


def find(correlation, samples=MANY):
    return triplet_loadings(correlation, np.full(correlation.shape, samples))


def slow_loadings(correlation):
    """The docstring's median in plain loops, where no pair is left out."""
    m = len(correlation)
    r = correlation.tolist()
    share = [1 / (1 + sum(r[i][j] ** 2 for j in range(m) if j != i)) for i in range(m)]
    trust = [[((1 - abs(r[i][j])) / (1 + abs(r[i][j]))) ** 2 for j in range(m)] for i in range(m)]
    found = []
    for i in range(m):
        values = []
        for j, k in itertools.combinations([x for x in range(m) if x != i], 2):
            weight = trust[i][j] * trust[i][k] * trust[j][k] * share[j] * share[k]
            values.append((r[i][j] * r[i][k] / r[j][k], weight))
        values.sort()
        half, total = sum(weight for _, weight in values) / 2, 0.0
        for value, weight in values:
            total += weight
            if total >= half:
                found.append(max(value, 0.0) ** 0.5)
                break
    return found


@pytest.mark.parametrize("loadings", [[0.5, 0.6, 0.7], [0.78, 0.2, 0.4, 0.6], [0.3] * 8, np.linspace(0.1, 0.79, 20)])
def test_exact_correlations_give_exact_loadings(loadings):
    found, known = find(one_factor(loadings))
    np.testing.assert_allclose(found, loadings, atol=1e-9)
    assert known.all()


def test_agrees_with_plain_loops():
    rng = np.random.default_rng(0)
    correlation = one_factor([0.5, 0.6, 0.7, 0.4, 0.55])
    noise = rng.normal(0, 0.02, correlation.shape)
    correlation += np.triu(noise, 1) + np.triu(noise, 1).T
    found, _ = find(correlation, samples=400)  # no residual is beyond its error, so that no pair is left out
    np.testing.assert_allclose(found, slow_loadings(correlation), rtol=1e-9)


@pytest.mark.parametrize("copies", [2, 4, 10])
@pytest.mark.parametrize("alike", [0.5, 0.8, 0.99])
def test_near_copies_do_not_pass_for_the_class(copies, alike):
    loadings = [0.5] * copies + [0.6, 0.55, 0.45, 0.5]
    found, _ = find(one_factor(loadings, [(list(range(copies)), alike)]))
    np.testing.assert_allclose(found, loadings, atol=0.02)


def test_ten_near_copies_and_three_others():
    loadings = [0.45] * 10 + [0.5, 0.45, 0.4]
    found, _ = find(one_factor(loadings, [(list(range(10)), 0.95)]))
    np.testing.assert_allclose(found, loadings, atol=1e-6)


def test_one_who_knows_nothing_has_nothing():
    rng = np.random.default_rng(1)
    correlation = one_factor([0.0, 0.5, 0.6, 0.5, 0.4])
    noise = np.triu(rng.normal(0, 0.01, correlation.shape), 1)
    found, _ = find(correlation + noise + noise.T, samples=10_000)
    assert abs(found[0]) < 0.1
    np.testing.assert_allclose(found[1:], [0.5, 0.6, 0.5, 0.4], atol=0.05)


@given(st.lists(st.booleans(), min_size=5, max_size=5), st.permutations(range(5)))
def test_most_are_better_than_chance_and_order_does_not_matter(flips, order):
    sign = np.where(flips, -1, 1)
    loadings = np.array([0.5, 0.6, 0.7, 0.4, 0.3])
    found, _ = find(one_factor((loadings * sign)[order]))
    expected = loadings * sign * (1 if sign.sum() > 0 else -1)
    np.testing.assert_allclose(found, expected[order], atol=1e-9)


def test_who_is_seldom_beside_others_is_not_known():
    correlation = one_factor([0.5, 0.6, 0.7, 0.5])
    common = np.full((4, 4), MANY)
    common[3, :3] = common[:3, 3] = 5
    found, known = triplet_loadings(correlation, common)
    np.testing.assert_allclose(found, [0.5, 0.6, 0.7, 0.0], atol=1e-9)
    assert known.tolist() == [True, True, True, False]


def test_no_loading_exceeds_that_of_a_source_without_error():
    correlation = np.array([[1, 0.8, 0.6], [0.8, 1, 0.2], [0.6, 0.2, 1]])
    found, _ = find(correlation)  # 0.8 * 0.6 / 0.2 is above 1
    assert found[0] == pytest.approx(np.sqrt(2 / np.pi))
    perfect = np.random.default_rng(0).standard_normal(100_000)
    assert np.corrcoef(perfect, perfect > 0)[0, 1] == pytest.approx(found[0], abs=0.01)


def test_sources_that_share_nothing_tell_nothing():
    found, known = find(np.eye(4))
    assert found.tolist() == [0] * 4
    assert not known.any()


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(1, 4)), min_size=1, max_size=12))
def test_the_weighted_median_is_that_of_repeated_values(pairs):
    values, weights = (np.array(part, float) for part in zip(*pairs, strict=True))
    assert weighted_median(values, weights) == np.median(np.repeat(values, weights.astype(int)))
