import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaffinch.filters.label_models.common_cause import PairMoments, loadings, residual_variance
from chaffinch.filters.label_models.echoes import copied_from, excess_correlation
from chaffinch.filters.label_models.opinions import opinion_weights
from chaffinch.filters.label_models.votes import count_patterns


def planted(n, accuracies, prior=0.5, coverage=1.0, copies=0, original=0.7, flipped=0.05, seed=0):
    """Votes of independent sources, then of near copies of one more; and the (n,) truth."""
    rng = np.random.default_rng(seed)
    truth = np.where(rng.random(n) < prior, 1, -1)
    columns = [np.where(rng.random(n) < accuracy, truth, -truth) for accuracy in accuracies]
    source = np.where(rng.random(n) < original, truth, -truth)
    columns += [np.where(rng.random(n) < flipped, -source, source) for _ in range(copies)]
    votes = np.stack(columns, axis=1)
    return (votes * (rng.random(votes.shape) < coverage)).astype(np.int8), truth


def excess(votes, classes=2):
    return excess_correlation(*count_patterns(votes), classes)


def apart(matrix):
    """The entries above the diagonal."""
    return matrix[np.triu_indices(len(matrix), 1)]


def slow_moments(votes, i, j):
    """Plain loops over the samples on which both vote."""
    pairs = [(int(row[i]), int(row[j])) for row in votes if row[i] and row[j]]
    n = len(pairs)
    mean = [sum(pair[side] for pair in pairs) / n for side in (0, 1)]
    spread = [(sum((pair[side] - mean[side]) ** 2 for pair in pairs) / n) ** 0.5 for side in (0, 1)]
    scaled = [[(pair[side] - mean[side]) / spread[side] for side in (0, 1)] for pair in pairs]
    r = sum(a * b for a, b in scaled) / n
    return n, r, sum((a * b - r * (a * a + b * b) / 2) ** 2 for a, b in scaled) / n**2


def test_moments_of_pairs_agree_with_plain_loops():
    votes, _ = planted(60, [0.9, 0.7, 0.6], 0.3, 0.7)
    pairs = PairMoments.of(*count_patterns(votes))
    for i, j in itertools.permutations(range(3), 2):
        found = pairs.common[i, j], pairs.correlation[i, j], pairs.variance[i, j]
        np.testing.assert_allclose(found, slow_moments(votes.tolist(), i, j), rtol=1e-12)


def test_loadings_are_those_of_enumerated_distributions():
    """Every pattern of four sources that err towards one class, weighed by its exact probability."""
    keep = np.array([[0.1, 0.7], [0.3, 0.95], [0.02, 0.5], [0.6, 0.2]])  # P(votes keep | drop), P(votes keep | keep)
    patterns = np.array(list(itertools.product([-1, 1], repeat=4)), dtype=np.int8)
    given_class = [np.where(patterns == 1, keep[:, y], 1 - keep[:, y]).prod(axis=1) for y in (0, 1)]
    share = 0.7 * given_class[0] + 0.3 * given_class[1]
    pairs = PairMoments.of(patterns, share * 1e6)
    mean = keep @ [0.7, 0.3]
    expected = (keep[:, 1] - keep[:, 0]) * np.sqrt(0.3 * 0.7) / np.sqrt(mean * (1 - mean))
    np.testing.assert_allclose(loadings(pairs.correlation, pairs.common), expected, atol=1e-6)


def test_the_sampling_error_is_that_of_repeated_samples():
    residuals, claimed = [], []
    for seed in range(300):
        votes, _ = planted(1500, [0.85, 0.8, 0.75, 0.7, 0.65], 0.4, 0.8, seed=seed)
        patterns, counts = count_patterns(votes)
        pairs = PairMoments.of(patterns, counts)
        found = loadings(pairs.correlation, pairs.common)
        residuals.append(apart(pairs.correlation - np.outer(found, found)))
        claimed.append(apart(residual_variance(patterns, counts, pairs, pairs.common, found)))
    np.testing.assert_allclose(np.sqrt(np.mean(claimed, axis=0)), np.std(residuals, axis=0), rtol=0.15)


@pytest.mark.parametrize("flipped", [0.05, 0.08, 0.1, 0.12])
@pytest.mark.parametrize("seed", range(5))
def test_ten_near_copies_are_found_and_three_honest_sources_are_not(flipped, seed):
    votes, _ = planted(3000, [0.8] * 3, copies=10, flipped=flipped, seed=seed)
    found = excess(votes)
    assert (apart(found[3:, 3:]) > 0.3).all()
    assert not found[:3, 3:].any()
    assert not apart(found[:3, :3]).any()
    # What is planted: copies correlate by (1 - 2 f)^2, of which their accuracy explains (0.4 (1 - 2 f))^2.
    kept = (1 - 2 * flipped) ** 2
    assert apart(found[3:, 3:]).mean() == pytest.approx((1 - 0.16) * kept / (1 - 0.16 * kept), abs=0.05)
    together = opinion_weights(found, np.ones((1, 13), bool))[0]
    assert together[:3].tolist() == [1, 1, 1]
    assert 1 < together[3:].sum() < 2


@pytest.mark.parametrize("prior", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("coverage", [0.4, 1.0])
def test_honest_sources_are_left_alone(prior, coverage):
    """Of 30 fits of 5 to 15 sources one may be expected to have a false find with probability 0.3; two have not."""
    wrong = 0
    for seed in range(30):
        rng = np.random.default_rng(seed + 1000)
        votes, _ = planted(2000, rng.uniform(0.55, 0.95, rng.integers(5, 16)), prior, coverage, seed=seed)
        wrong += apart(excess(votes)).any()
    assert wrong <= 1


@pytest.mark.parametrize("copies", [2, 4, 10])
@pytest.mark.parametrize(("prior", "coverage"), [(0.5, 1.0), (0.2, 0.5), (0.9, 1.0)])
def test_blocks_are_found(copies, prior, coverage):
    recall, wrong = [], 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        votes, _ = planted(10_000, rng.uniform(0.6, 0.9, 6), prior, coverage, copies, 0.75, 0.08, seed)
        found = excess(votes) > 0
        recall.append(apart(found[6:, 6:]).mean())
        wrong += apart(found).sum() - apart(found[6:, 6:]).sum()
    assert np.mean(recall) == 1
    assert wrong == 0


def test_a_source_that_echoes_the_opposite_is_as_redundant():
    votes, _ = planted(3000, [0.8] * 4, copies=3)
    turned = votes.copy()
    turned[:, 6] *= -1
    np.testing.assert_allclose(excess(turned), excess(votes), atol=1e-6)
    assert (apart(excess(turned)[4:, 4:]) > 0.3).all()


def test_two_blocks_alone_cannot_be_told_from_two_truths():
    one, truth = planted(3000, [], copies=4, original=0.8)
    rng = np.random.default_rng(5)
    source = np.where(rng.random(3000) < 0.8, truth, -truth)
    other = np.stack([np.where(rng.random(3000) < 0.05, -source, source) for _ in range(4)], axis=1)
    found = excess(np.column_stack([one, other]).astype(np.int8)) > 0
    assert not found[:4, 4:].any()  # whatever is found, it is not that the two blocks were one


def test_near_copies_over_classes_are_found_and_honest_sources_are_not():
    rng = np.random.default_rng(0)
    truth = rng.integers(1, 4, 6000)

    def say(of, accuracy):
        wrong = (of - 1 + rng.integers(1, 3, len(of))) % 3 + 1
        return np.where(rng.random(len(of)) < accuracy, of, wrong)

    source = say(truth, 0.7)
    votes = np.stack([say(truth, 0.8) for _ in range(4)] + [say(source, 0.93) for _ in range(3)], axis=1)
    found = excess(votes, 3) > 0
    assert apart(found[4:, 4:]).all()
    assert not found[:4, 4:].any()
    assert not apart(found[:4, :4]).any()


@pytest.mark.parametrize(
    "votes",
    [
        np.zeros((0, 3), np.int8),
        np.zeros((5, 0), np.int8),
        np.zeros((50, 3), np.int8),
        np.array([[1], [-1]] * 30),
        np.array([[1, 1], [-1, 1]] * 30),
        planted(19, [0.9] * 4, copies=4)[0],
    ],
)
def test_where_nothing_can_be_known_nothing_is_found(votes):
    found = excess(votes)
    copies = copied_from(count_patterns(votes)[0])
    np.testing.assert_array_equal(found, copies[:, None] == copies)


def test_copies_are_found_exactly():
    votes, _ = planted(500, [0.9, 0.8, 0.7, 0.7])
    wider = np.column_stack([votes, votes[:, 1], votes[:, 0], votes[:, 1]])
    assert copied_from(wider).tolist() == [0, 1, 2, 3, 1, 0, 1]
    found = excess(wider)
    assert found[1, 4] == found[4, 6] == found[0, 5] == 1
    np.testing.assert_array_equal(found[:4, :4], excess(votes))


@pytest.mark.parametrize("counts", [[1], [1, -1]])
def test_counts_that_count_nothing_are_refused(counts):
    with pytest.raises(ValueError, match="2 patterns need as many counts"):
        excess_correlation(np.array([[1], [-1]]), np.array(counts))


@given(seed=st.integers(0, 10_000), data=st.data())
@settings(max_examples=15, deadline=None)
def test_orders_signs_and_silent_sources_change_nothing(seed, data):
    votes, _ = planted(800, [0.85, 0.75, 0.65, 0.8], 0.4, 0.9, copies=3, seed=seed)
    found = excess(votes)
    order = data.draw(st.permutations(range(7)))
    np.testing.assert_allclose(excess(votes[:, order]), found[np.ix_(order, order)], atol=2e-8)
    np.testing.assert_allclose(excess(-votes), found, atol=2e-8)
    np.testing.assert_array_equal(excess(votes[::-1]), found)
    wider = excess(np.insert(votes, 3, 0, axis=1))
    np.testing.assert_array_equal(np.delete(np.delete(wider, 3, 0), 3, 1), found)
    assert wider[3].sum() == 1


@pytest.mark.parametrize("h", [0.0, 0.2, 0.7, 0.95])
@pytest.mark.parametrize("c", [1, 2, 3, 10])
def test_equally_correlated_sources_count_as_their_best_mean_says(h, c):
    correlation = np.full((c, c), h)
    np.fill_diagonal(correlation, 1)
    weights = opinion_weights(correlation, np.ones((1, c), bool))[0]
    np.testing.assert_allclose(weights, 1 / (1 + (c - 1) * h), rtol=1e-9)


def test_copies_count_once_together_and_who_abstains_counts_nothing():
    correlation = np.eye(5)
    correlation[:4, :4] = 1
    voting = np.array([[1, 1, 1, 1, 1], [1, 0, 0, 1, 0], [0, 0, 1, 0, 1], [0, 0, 0, 0, 0]], bool)
    expected = [[0.25] * 4 + [1], [0.5, 0, 0, 0.5, 0], [0, 0, 1, 0, 1], [0] * 5]
    np.testing.assert_allclose(opinion_weights(correlation, voting), expected, atol=1e-5)


def test_a_source_loosely_tied_to_ten_copies_is_hardly_touched():
    correlation = np.full((11, 11), 0.9)
    correlation[10] = correlation[:, 10] = 0.1
    np.fill_diagonal(correlation, 1)
    weights = opinion_weights(correlation, np.ones((1, 11), bool))[0]
    assert weights[10] > 0.88
    assert weights[:10].sum() == pytest.approx(1, abs=0.02)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_weights_are_shares_and_a_row_depends_on_no_other(seed):
    rng = np.random.default_rng(seed)
    correlation = np.corrcoef(rng.normal(size=(6, 8)) + rng.normal(size=8))
    correlation = np.where(np.abs(correlation) > 0.2, np.abs(correlation), 0)
    voting = rng.random((40, 6)) < 0.6
    weights = opinion_weights(correlation, voting)
    assert ((weights > 0) == voting).all()
    assert (weights <= 1).all()
    np.testing.assert_array_equal(np.concatenate([opinion_weights(correlation, row[None]) for row in voting]), weights)
    order = rng.permutation(6)
    turned = opinion_weights(correlation[np.ix_(order, order)], voting[:, order])
    np.testing.assert_allclose(turned, weights[:, order], atol=1e-12)


def test_two_that_meet_on_easy_samples_are_right_there_and_no_echoes():
    rng = np.random.default_rng(3)
    truth = rng.choice([-1, 1], 3000)
    easy = np.arange(3000) < 300
    accuracies = np.array([0.8, 0.75, 0.7, 0.75, 0.8, 0.7])
    right = rng.random((3000, 6)) < np.where(easy[:, None], 0.99, accuracies)
    votes = np.where(right, truth[:, None], -truth[:, None]).astype(np.int8)
    votes[300:2000, 0] = 0
    votes[2000:, 1] = 0
    assert not apart(excess(votes)).any()
    votes[:300, 0] = np.where(rng.random(300) < 0.7, truth[:300], -truth[:300])  # wrong there, and both alike
    votes[:300, 1] = votes[:300, 0]
    assert np.flatnonzero(excess(votes)[0] > 0.5).tolist() == [0, 1]
