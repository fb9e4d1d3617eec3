import itertools

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize

from chaffinch.filters.label_models.completion import Completion
from chaffinch.filters.label_models.metal import Metal
from chaffinch.filters.label_models.moments import PairCounts, enough_peers, majority_shares
from chaffinch.filters.label_models.votes import count_patterns, vote_classes

SCALE = 1e13  # samples of an exact distribution; sums of whole numbers below 2^53 are exact


def enumerated(prior, rates):
    """All patterns of independent sources with counts proportional to their probability.

    rates[j][y][v] is P(j votes v given class y); what is left over is the abstain.
    """
    k = len(prior)
    symbols = [-1, 1, 0] if k == 2 else [*range(1, k + 1), 0]
    patterns, counts = [], []
    for choice in itertools.product(range(k + 1), repeat=len(rates)):
        probability = 0.0
        for y in range(k):
            product = prior[y]
            for j, v in enumerate(choice):
                product *= rates[j][y][v] if v < k else 1 - sum(rates[j][y])
            probability += product
        patterns.append([symbols[v] for v in choice])
        counts.append(round(probability * SCALE))
    return np.array(patterns, np.int8), np.array(counts)


def planted(n, accuracies, coverages, prior, seed=0):
    """Votes of independent sources: (n, m) in -1, 0, +1, and the (n,) truth in -1, +1."""
    rng = np.random.default_rng(seed)
    truth = np.where(rng.random(n) < prior, 1, -1)
    right = rng.random((n, len(accuracies))) < accuracies
    votes = np.where(right, truth[:, None], -truth[:, None])
    return (votes * (rng.random(votes.shape) < coverages)).astype(np.int8), truth


CONFUSIONS = np.array(
    [[[0.9, 0.1], [0.3, 0.7]], [[0.6, 0.4], [0.05, 0.95]], [[0.8, 0.2], [0.35, 0.65]], [[0.7, 0.3], [0.4, 0.6]]]
)  # (source, class, vote)


@pytest.mark.parametrize("prior", [0.15, 0.5, 0.8])
def test_recovers_the_exact_distribution(prior):
    coverage = np.array([1.0, 0.7, 0.5, 0.9])
    patterns, counts = enumerated([1 - prior, prior], (CONFUSIONS * coverage[:, None, None]).tolist())
    model = Metal(class_prior=prior).fit_patterns(patterns, counts)
    assert model.converged_
    np.testing.assert_allclose(model.confusion_, CONFUSIONS, atol=1e-5)
    right = CONFUSIONS[:, 0, 0] * (1 - prior) + CONFUSIONS[:, 1, 1] * prior
    np.testing.assert_allclose(model.accuracy_, right, atol=1e-5)
    balanced = CONFUSIONS[:, [0, 1], [0, 1]].mean(axis=1)
    np.testing.assert_allclose(model.weight_, np.log(balanced / (1 - balanced)), atol=1e-4)


def test_recovers_on_which_class_sources_speak_up():
    rates = [[[0.0, 0.05], [0.0, 0.4]], [[0.3, 0.0], [0.1, 0.0]], [[0.0, 0.2], [0.0, 0.3]], [[0.5, 0.1], [0.2, 0.3]]]
    patterns, counts = enumerated([0.7, 0.3], rates)
    model = Metal(class_prior=0.3, voting="informative", correlated="ignore").fit_patterns(patterns, counts)
    expected = np.array(rates)
    expected[expected.sum(axis=1, keepdims=True).repeat(2, axis=1) == 0] = 1  # votes never seen say nothing
    np.testing.assert_allclose(model.confusion_, expected, atol=1e-5)
    one_sided = Metal(class_prior=0.3, correlated="ignore").fit_patterns(patterns[:, :3], counts)
    np.testing.assert_allclose(one_sided.confusion_, expected[:3], atol=1e-4)  # chosen without being told
    keep, drop, none = one_sided.predict_proba([[1, 0, 0], [0, -1, 0], [0, 0, 0]])
    assert keep == pytest.approx(0.3 * 0.4 / (0.3 * 0.4 + 0.7 * 0.05), abs=1e-4)
    assert drop == pytest.approx(0.3 * 0.1 / (0.3 * 0.1 + 0.7 * 0.3), abs=1e-4)
    assert none == 0.3


@pytest.mark.parametrize("k", [2, 3, 4])
def test_recovers_coins_over_classes(k):
    accuracies = np.array([0.9, 0.7, 0.5 + 0.2 * (k == 2), 0.8])
    prior = np.arange(1, k + 1) / np.arange(1, k + 1).sum()
    rates = [[[0.8 * (a if v == y else (1 - a) / (k - 1)) for v in range(k)] for y in range(k)] for a in accuracies]
    patterns, counts = enumerated(prior, rates)
    given_prior = float(prior[1]) if k == 2 else tuple(prior)
    model = Metal(classes=k, class_prior=given_prior, form="one_coin", correlated="ignore")
    model.fit_patterns(patterns, counts)
    np.testing.assert_allclose(model.accuracy_, accuracies, atol=1e-5)
    np.testing.assert_allclose(model.confusion_, np.array(rates) / 0.8, atol=1e-5)


def test_recovers_rules_of_three_classes_that_partly_guess():
    prior = np.array([0.5, 0.3, 0.2])
    vote, share, skill = [0, 1, 2, 1, 2, 0], [0.3, 0.2, 0.15, 0.1, 0.3, 0.1], [0.8, 0.5, 0.7, 0.9, 0.3, 0.6]
    rates = np.zeros((6, 3, 3))
    for j in range(6):
        given_vote = (1 - skill[j]) * prior + skill[j] * (np.arange(3) == vote[j])
        rates[j, :, vote[j]] = share[j] * given_vote / prior
    patterns, counts = enumerated(prior, rates.tolist())
    model = Metal(classes=3, class_prior=tuple(prior), correlated="ignore").fit_patterns(patterns, counts)
    for j in range(6):
        np.testing.assert_allclose(model.confusion_[j, :, vote[j]], rates[j, :, vote[j]], atol=1e-5)
    posterior = model.predict_proba([[0, 0, 3, 0, 0, 0]])[0]
    np.testing.assert_allclose(posterior, 0.3 * prior + 0.7 * np.array([0, 0, 1]), atol=1e-4)


def random_completion(seed, informative, k=2, m=4):
    """A problem that no error rates solve exactly."""
    rng = np.random.default_rng(seed)
    source, vote = np.repeat(np.arange(m), k), np.tile(np.arange(k), m)
    target = rng.uniform(0.05, 0.3, (m * k, m * k))
    weight = rng.uniform(0.2, 1, (m, m))
    weight = np.where(np.eye(m, dtype=bool), 0, weight + weight.T)[np.ix_(source, source)]
    prior = rng.dirichlet(np.full(k, 5.0))
    shares = rng.uniform(0.1, 0.4, m * k)
    margin = rng.uniform(0.5, 1, m * k)
    coverage = np.ones(m * k)
    return Completion(target + target.T, weight, shares, margin, source, vote, coverage, informative, prior, 1000.0)


@pytest.mark.parametrize("informative", [False, True])
@pytest.mark.parametrize("k", [2, 3])
def test_the_objective_is_the_one_stated_and_its_gradient_is_its_own(informative, k):
    problem = random_completion(0, informative, k)
    rng = np.random.default_rng(1)
    b = rng.uniform(0, 0.5, (4 * k, k))
    mu, rows = b / np.sqrt(problem.prior), range(4 * k)
    expected = 0.0
    for r in rows:
        for s in rows:
            modelled = sum(mu[r, y] * problem.prior[y] * mu[s, y] for y in range(k))
            if r // k != s // k:
                expected += problem.weight[r, s] * (problem.target[r, s] - modelled) ** 2
        expected += problem.margin[r] * (sum(mu[r, y] * problem.prior[y] for y in range(k)) - problem.shares[r]) ** 2
    value, gradient = problem.loss(b)
    assert value == pytest.approx(expected, rel=1e-12)
    slope = approx_fprime(b.ravel(), lambda flat: problem.loss(flat.reshape(b.shape))[0], 1e-7)
    np.testing.assert_allclose(gradient.ravel(), slope, atol=1e-5)

    skill = rng.uniform(0.1, 0.9, 4)
    at, derivative = problem.at_skill(skill)
    ahead, _ = problem.at_skill(skill + 1e-7)
    np.testing.assert_allclose(derivative, (ahead - at) / 1e-7, atol=1e-6)
    np.testing.assert_allclose(at @ np.sqrt(problem.prior), problem.shares, rtol=1e-12)  # all margins are met


@pytest.mark.parametrize("informative", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_a_general_optimiser_finds_nothing_better(informative, seed):
    problem = random_completion(seed, informative)
    mu, value, converged = problem.solve(0)
    assert converged
    assert problem.loss(mu * np.sqrt(problem.prior))[0] == pytest.approx(value, rel=1e-10)
    rng = np.random.default_rng(seed)
    limits = [(0, edge) for edge in np.tile(np.sqrt(problem.prior), 8)]
    for _ in range(5):
        start = rng.uniform(0, [edge for _, edge in limits])
        found = minimize(
            lambda flat: problem.loss(flat.reshape(8, 2))[0],
            start,
            method="SLSQP",
            bounds=limits,
            options={"maxiter": 500},
        )
        assert value <= found.fun + 1e-7

    skill, value, converged = problem.solve_skill(0)
    assert converged
    for _ in range(5):
        moved = np.clip(skill + rng.normal(0, 0.05, 4), -0.05, 1)
        assert problem.loss(problem.at_skill(moved)[0])[0] >= value - 1e-12


def test_pairs_are_counted_as_plain_loops_count_them():
    votes = np.random.default_rng(0).integers(0, 4, (200, 3))
    patterns, counts = count_patterns(votes)
    pairs = PairCounts.of(vote_classes(patterns, 3), counts, 3)
    for i, v, j, w in itertools.product(range(3), repeat=4):
        assert pairs.cells[i, v, j, w] == sum(row[i] == v + 1 and row[j] == w + 1 for row in votes)
    for i, j in itertools.product(range(3), repeat=2):
        both = [row for row in votes if row[i] and row[j]]
        assert pairs.together[i, j] == len(both)
        same = sum(row[i] == row[j] for row in both) / len(both)
        assert pairs.agreement()[i, j] == pytest.approx((3 * same - 1) / 2)


def test_correlation_is_numpys_where_both_vote():
    votes, _ = planted(500, [0.9, 0.7, 0.6], [0.8, 0.7, 0.9], 0.4)
    patterns, counts = count_patterns(votes)
    correlation = PairCounts.of(vote_classes(patterns, 2), counts, 2).correlation()
    for i, j in itertools.combinations(range(3), 2):
        both = votes[(votes[:, i] != 0) & (votes[:, j] != 0)]
        assert correlation[i, j] == pytest.approx(np.corrcoef(both[:, i], both[:, j])[0, 1])


def test_the_majority_splits_ties_and_hears_shares():
    voted = vote_classes(np.array([[1, 1, -1], [1, -1, 0], [0, 0, 0]]), 2)
    counts = np.array([6, 4, 100])
    np.testing.assert_allclose(majority_shares(voted, counts, None, 2), [3 / 12, 9 / 12])
    shares = np.array([[0.4, 0.4, 1.0], [0.5, 0.5, 0], [0, 0, 0]])
    np.testing.assert_allclose(majority_shares(voted, counts, shares, 2), [9 / 12, 3 / 12])


def test_linked_pairs_are_left_out_unless_too_few_remain():
    usable = ~np.eye(4, dtype=bool)
    linked = np.zeros((4, 4), bool)
    linked[0, 1] = linked[1, 0] = True
    free = enough_peers(usable, linked)
    assert not free[0, 1]
    assert free.sum() == 10
    linked[0, 2] = linked[2, 0] = True  # the first would have one peer
    assert enough_peers(usable, linked)[0].sum() == 3


ACCURACIES = np.array([0.9, 0.85, 0.8, 0.75, 0.7, 0.65])
COVERAGES = np.array([0.9, 0.5, 0.8, 0.7, 1.0, 0.6])


@pytest.mark.parametrize("voting", ["missing", "informative"])
@pytest.mark.parametrize("prior", [0.2, 0.5])
def test_recovers_what_was_planted(voting, prior):
    votes, truth = planted(20_000, ACCURACIES, COVERAGES, prior)
    model = Metal(class_prior=prior, voting=voting).fit(votes)
    np.testing.assert_allclose(model.accuracy_, ACCURACIES, atol=0.03)
    probability = model.predict_proba(votes)
    likelihood = [np.where(votes == side, ACCURACIES, np.where(votes == 0, 1, 1 - ACCURACIES)) for side in (-1, 1)]
    drop, keep = likelihood[0].prod(axis=1) * (1 - prior), likelihood[1].prod(axis=1) * prior
    assert np.abs(probability - keep / (keep + drop)).mean() < 0.02
    best = ((keep > drop) == (truth > 0)).mean()
    assert ((probability > 0.5) == (truth > 0)).mean() > best - 0.005


def test_batches_of_work_do_not_matter_where_voting_is_missing():
    """Sources that meet only in one half of the samples look like opponents to moments over all samples."""
    votes, _ = planted(4000, [0.8] * 10, [1.0] * 10, 0.5)
    votes[:2000, 5:] = 0
    votes[2000:, :5] = 0
    votes[1900:2100] = planted(200, [0.8] * 10, [1.0] * 10, 0.5, seed=1)[0]
    missing = Metal(class_prior=0.5).fit(votes)
    np.testing.assert_allclose(missing.accuracy_, 0.8, atol=0.04)
    informative = Metal(class_prior=0.5, voting="informative", smoothing=0).fit(votes)
    assert np.abs(informative.accuracy_ - 0.8).max() > 0.1


def test_the_prior_is_the_majoritys_unless_given():
    votes, _ = planted(20_000, [0.9] * 9, [1.0] * 9, 0.2)
    assert Metal().fit(votes).class_prior_ == pytest.approx(0.2, abs=0.01)
    assert Metal(class_prior=0.3).fit(votes).class_prior_ == 0.3


def test_near_copies_share_their_say():
    """Ten near copies do not outvote three sources that are each better."""
    votes, truth = planted(4000, [0.85, 0.85, 0.85, 0.6], [1.0] * 4, 0.5)
    rng = np.random.default_rng(3)
    copies = np.where(rng.random((4000, 10)) < 0.95, votes[:, 3:], -votes[:, 3:])
    everyone = np.column_stack([votes[:, :3], copies])
    right = {
        how: (
            (Metal(class_prior=0.5, correlated=how).fit(everyone).predict_proba(everyone) > 0.5) == (truth > 0)
        ).mean()
        for how in ("discount", "ignore")
    }
    assert right["discount"] > 0.9
    assert right["discount"] > right["ignore"]


SETTINGS = [{}, {"voting": "informative"}, {"form": "one_coin"}]
each_setting = pytest.mark.parametrize("chosen", SETTINGS, ids=["plain", "informative", "one_coin"])


@pytest.mark.parametrize("vote", [-1, 1])
@pytest.mark.parametrize("voting", ["missing", "informative"])
def test_a_source_that_always_votes_the_same_has_no_influence(vote, voting):
    votes, _ = planted(300, ACCURACIES[:4], [1.0] * 4, 0.4)
    wider = np.column_stack([votes, np.full(300, vote)])
    model, without = Metal(class_prior=0.4, voting=voting).fit(wider), Metal(class_prior=0.4, voting=voting).fit(votes)
    np.testing.assert_allclose(model.predict_proba(wider), without.predict_proba(votes), atol=1e-6)
    assert model.weight_[4] == 0


@each_setting
@pytest.mark.parametrize("votes", [[[1], [-1], [0], [1]], [[1], [1]], [[-1], [0]]])
def test_one_source_alone_is_taken_to_be_right_nine_times_in_ten(chosen, votes):
    model = Metal(class_prior=0.4, **chosen).fit(votes)
    keep, drop, none = model.predict_proba([[1], [-1], [0]])
    assert keep == pytest.approx(0.9 * 0.4 / (0.9 * 0.4 + 0.1 * 0.6))
    assert drop == pytest.approx(0.1 * 0.4 / (0.1 * 0.4 + 0.9 * 0.6))
    assert none == 0.4
    assert model.accuracy_.tolist() == [0.9]
    assert model.weight_[0] == pytest.approx(np.log(9))


def test_sources_that_never_meet_do_not_teach_each_other():
    votes, _ = planted(400, [0.9, 0.8], [1.0, 1.0], 0.5)
    votes[:200, 0] = votes[200:, 1] = 0
    assert Metal(class_prior=0.5).fit(votes).accuracy_.tolist() == [0.9, 0.9]


@each_setting
@pytest.mark.parametrize("prior", [None, 0.2])
def test_nothing_but_abstains_leaves_the_prior(chosen, prior):
    model = Metal(class_prior=prior, **chosen).fit(np.zeros((9, 3)))
    assert model.predict_proba(np.zeros((2, 3))).tolist() == [prior or 0.5] * 2
    assert model.weight_.tolist() == [0, 0, 0]
    assert model.converged_


@each_setting
@pytest.mark.parametrize("prior", [1e-6, 0.5, 1 - 1e-6])
def test_hard_cases_stay_finite(chosen, prior):
    two, _ = planted(100, [0.9, 0.7], [1.0, 0.8], 0.5)
    agreed = np.repeat([[1, 1, 1], [-1, -1, -1]], 50, axis=0)
    nearly = np.vstack([agreed, [[1, 1, -1], [1, 0, 0]]])
    for votes in (two, agreed, nearly, np.ones((5, 3)), [[1, -1, 0]]):
        model = Metal(class_prior=prior, **chosen).fit(votes)
        m = np.shape(votes)[1]
        probability = model.predict_proba(np.array(list(itertools.product([-1, 0, 1], repeat=m))))
        assert np.isfinite(probability).all()
        assert ((probability >= 0) & (probability <= 1)).all()
        assert np.isfinite(model.weight_).all()
        assert (model.weight_ >= 0).all()


def test_sources_worse_than_chance_keep_their_sign_and_weigh_nothing():
    votes, _ = planted(5000, [0.9, 0.85, 0.8, 0.75, 0.2], [1.0] * 5, 0.5)
    model = Metal(class_prior=0.5).fit(votes)
    assert model.accuracy_[4] == pytest.approx(0.2, abs=0.03)
    assert model.weight_[4] == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"form": "coin"}, "take 'confusion' or 'one_coin'"),
        ({"voting": "symbol"}, "take 'missing' or 'informative'"),
        ({"smoothing": -1}, "0 or more"),
        ({"classes": 1}, "from 2 to 127"),
        ({"classes": 3, "class_prior": 0.5}, "one number, but there are 3 classes"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Metal(**wrong)
