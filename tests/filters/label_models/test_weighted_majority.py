import itertools
import json

import numpy as np
import pytest
from scipy.optimize import minimize

from chaffinch.filters.label_models import Majority, WeightedMajority
from chaffinch.filters.label_models.votes import count_patterns


def planted(n, accuracies, coverage=0.8, prior=(0.5, 0.5), seed=0):
    """Votes of independent sources whose errors spread evenly, and the (n,) truth, coded alike."""
    rng = np.random.default_rng(seed)
    k, m = len(prior), len(accuracies)
    truth = rng.choice(k, n, p=prior)
    wrong = (truth[:, None] + rng.integers(1, k, (n, m))) % k
    votes = np.where(rng.random((n, m)) < accuracies, truth[:, None], wrong)
    code = np.array([-1, 1]) if k == 2 else np.arange(1, k + 1)
    return (code[votes] * (rng.random((n, m)) < coverage)).astype(np.int8), code[truth]


def bayes(row, accuracies, prior, classes):
    """P(class | votes) of one row, multiplied out in plain Python."""
    joint = list(prior)
    for y in range(classes):
        for vote, accuracy in zip(row, accuracies, strict=True):
            if vote:
                said = (0 if vote < 0 else 1) if classes == 2 else vote - 1
                joint[y] *= accuracy if said == y else (1 - accuracy) / (classes - 1)
    return [value / sum(joint) for value in joint]


@pytest.mark.parametrize(("classes", "prior"), [(2, (0.7, 0.3)), (3, (0.5, 0.3, 0.2))])
def test_given_accuracies_are_weighed_by_bayes_rule(classes, prior):
    accuracies = (0.9, 0.6, 0.75, 0.2)
    votes = np.array(list(itertools.product([-1, 0, 1] if classes == 2 else range(4), repeat=4)), np.int8)
    model = WeightedMajority(
        classes=classes, class_prior=prior[1] if classes == 2 else prior, accuracies=accuracies
    ).fit(votes)
    expected = np.array([bayes(row, accuracies, prior, classes) for row in votes.tolist()])
    np.testing.assert_allclose(model.predict_proba(votes), expected[:, 1] if classes == 2 else expected, atol=1e-12)
    assert model.accuracy_.tolist() == list(accuracies)
    restored = WeightedMajority.restore(json.loads(json.dumps(model.state())))
    assert restored == model
    np.testing.assert_array_equal(restored.predict_proba(votes), model.predict_proba(votes))
    assert model.weight_[3] == 0  # in ordering samples, one that is worse than chance is left out


def test_a_general_optimiser_finds_no_better_accuracies():
    votes, _ = planted(2000, [0.9, 0.8, 0.7, 0.6])
    model = WeightedMajority(smoothing=0).fit(votes)

    def loss(b):
        total = 0.0
        for i, j in itertools.combinations(range(4), 2):
            both = votes[(votes[:, i] != 0) & (votes[:, j] != 0)]
            total += len(both) * (2 * np.mean(both[:, i] == both[:, j]) - 1 - b[i] * b[j]) ** 2
        return total

    rng = np.random.default_rng(0)
    found = min((minimize(loss, rng.random(4), method="BFGS") for _ in range(5)), key=lambda result: result.fun)
    best = found.x * np.sign(found.x.sum())
    assert loss(2 * model.accuracy_ - 1) == pytest.approx(found.fun, abs=1e-8)
    np.testing.assert_allclose(model.accuracy_, (best + 1) / 2, atol=1e-4)


@pytest.mark.parametrize("prior", [(0.5, 0.5), (0.8, 0.2), (0.5, 0.3, 0.2)])
def test_recovers_what_was_planted(prior):
    accuracies = np.array([0.95, 0.85, 0.8, 0.7, 0.6])
    votes, truth = planted(50_000, accuracies, prior=prior)
    model = WeightedMajority(classes=len(prior)).fit(votes)
    np.testing.assert_allclose(model.accuracy_, accuracies, atol=0.02)
    np.testing.assert_allclose(model.class_prior_, prior if len(prior) > 2 else prior[1], atol=0.02)
    probability = model.predict_proba(votes)
    decided = np.where(probability > 0.5, 1, -1) if len(prior) == 2 else probability.argmax(axis=1) + 1
    assert (decided == truth).mean() > 0.93
    if len(prior) == 2:  # probabilities are what they say
        for low, high in ((0.0, 0.1), (0.1, 0.4), (0.6, 0.9), (0.9, 1.0)):
            there = (probability >= low) & (probability < high)
            assert (truth[there] == 1).mean() == pytest.approx(probability[there].mean(), abs=0.03)


def test_a_source_worse_than_chance_has_no_influence_and_is_not_turned_around():
    votes, _ = planted(5000, [0.9, 0.8, 0.7, 0.2], 1.0)
    model = WeightedMajority(class_prior=0.5).fit(votes)
    assert model.accuracy_[3] == pytest.approx(0.5, abs=1e-3)
    assert model.weight_[3] == 0
    loud, silent = model.predict_proba([[1, 1, -1, 1], [1, 1, -1, 0]])
    assert loud == pytest.approx(silent)


def test_sources_without_peers_and_sources_without_votes():
    votes, _ = planted(2000, [0.9, 0.8, 0.7], 1.0)
    votes = np.column_stack([votes, np.zeros(2000, np.int8), np.zeros(2000, np.int8)])
    votes[:100, :3] = 0
    votes[:100, 4] = 1
    model = WeightedMajority(class_prior=0.4).fit(votes)
    assert np.isnan(model.accuracy_[3])
    assert model.weight_[3] == 0
    assert model.accuracy_[4] == 0.9
    assert model.predict_proba([[0, 0, 0, 0, 0]])[0] == 0.4
    assert model.predict_proba([[0, 0, 0, 0, 1]])[0] == pytest.approx(0.9 * 0.4 / (0.9 * 0.4 + 0.1 * 0.6))


@pytest.mark.parametrize("votes", [[[1], [-1], [0]], [[1, 1], [-1, -1]], [[1, 1], [1, -1], [1, 0]], [[0, 0], [0, 0]]])
def test_hardly_any_votes_give_finite_numbers(votes):
    model = WeightedMajority().fit(votes)
    probability = model.predict_proba([[1] * len(votes[0]), [-1] * len(votes[0]), [0] * len(votes[0])])
    assert ((probability > 0) & (probability < 1)).all()
    assert probability[0] >= probability[2] >= probability[1]
    assert np.isfinite(model.weight_).all()


def test_two_sources_are_taken_to_be_equally_good():
    votes, _ = planted(5000, [0.9, 0.7], 1.0)
    model = WeightedMajority().fit(votes)
    assert model.accuracy_[0] == pytest.approx(model.accuracy_[1])
    agreed = (votes[:, 0] == votes[:, 1]).mean()
    assert model.accuracy_[0] == pytest.approx((1 + np.sqrt(2 * agreed - 1)) / 2, abs=1e-3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"smoothing": -1}, "smoothing is -1"),
        ({"accuracies": (0.5, 1.0)}, r"an accuracy is 1\.0.*such as 0\.99"),
        ({"correlated": "merge"}, "take 'discount' or 'ignore'"),
        ({"classes": 1}, "from 2 to 127"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        WeightedMajority(**wrong)


def test_accuracies_have_to_fit_the_sources():
    with pytest.raises(ValueError, match="accuracies has 2 entries for 3 sources"):
        WeightedMajority(accuracies=(0.8, 0.7)).fit([[1, 1, -1]])


def test_patterns_that_the_fit_has_not_seen_are_judged_too():
    votes, _ = planted(300, [0.9, 0.8, 0.7])
    patterns, counts = count_patterns(votes)
    model = WeightedMajority().fit_patterns(patterns[:-1], counts[:-1])
    assert model.predict_proba(patterns[-1:])[0] > 0.75  # all three keep


def small_crowds(among=(0.5, 0.7, 0.8, 0.95), groups=40, workers=8, items=20, seed=0):
    """Votes of crowds of which each has items of its own, the (n,) truth, and the (m,) accuracies of all workers."""
    rng = np.random.default_rng(seed)
    truth = rng.choice([-1, 1], groups * items)
    accuracies = rng.choice(among, groups * workers)
    votes = np.zeros((len(truth), len(accuracies)), np.int8)
    for source, accuracy in enumerate(accuracies):
        mine = slice(source // workers * items, (source // workers + 1) * items)
        votes[mine, source] = np.where(rng.random(items) < accuracy, truth[mine], -truth[mine])
    return votes, truth, accuracies


def decided(model, votes):
    """The (n,) class that is more probable; 0 for a tie."""
    return np.sign(np.round(model.fit(votes).predict_proba(votes) - 0.5, 9))


def test_crowds_that_never_meet_are_not_turned_around_one_by_one():
    votes, truth, accuracies = small_crowds()
    model = WeightedMajority()
    right = (decided(model, votes) == truth).mean()
    assert right > (decided(Majority(), votes) == truth).mean() + 0.02
    assert np.corrcoef(model.accuracy_, accuracies)[0, 1] > 0.75


def test_accuracies_found_from_few_votes_are_drawn_together():
    votes, _, accuracies = small_crowds(among=(0.75, 0.8, 0.85))
    drawn = WeightedMajority().fit(votes).accuracy_
    as_found = WeightedMajority(smoothing=0).fit(votes).accuracy_
    assert np.square(drawn - accuracies).mean() < 0.5 * np.square(as_found - accuracies).mean()
    many, _ = planted(50_000, [0.9, 0.8, 0.7, 0.6])
    np.testing.assert_allclose(
        WeightedMajority().fit(many).accuracy_, WeightedMajority(smoothing=0).fit(many).accuracy_, atol=1e-3
    )


def test_rules_that_only_ever_cast_one_vote_are_judged_by_where_they_contradict_each_other():
    rng = np.random.default_rng(5)
    truth = rng.choice([-1, 1], 4000)
    votes = np.zeros((4000, 8), np.int8)
    for rule, precision in enumerate([0.95, 0.9, 0.9, 0.85, 0.95, 0.9, 0.6, 0.6]):
        side = 1 if rule % 2 else -1
        rate = np.where(truth == side, precision, 1 - precision) * 0.5
        votes[:, rule] = np.where(rng.random(4000) < rate, side, 0)
    model = WeightedMajority()
    seen = votes.any(axis=1)
    right = (decided(model, votes) == truth)[seen].mean()
    assert right >= (decided(Majority(), votes) == truth)[seen].mean() + 0.02
    assert model.class_prior_ == 0.5
    assert "equal shares" in model.prior_unknown
    assert max(model.accuracy_[6:]) < min(model.accuracy_[:6])


def test_a_class_prior_about_which_sources_contradict_each_other_is_not_known():
    votes, _ = planted(5000, [0.9, 0.85, 0.8, 0.75], prior=(0.7, 0.3))
    known = WeightedMajority().fit(votes)
    assert known.prior_unknown is None
    assert known.class_prior_ == pytest.approx(0.3, abs=0.02)
    rng = np.random.default_rng(2)
    leaning = votes.copy()
    leaning[:, 2] = np.where((votes[:, 2] == 1) & (rng.random(5000) < 0.4), -1, votes[:, 2])
    model = WeightedMajority().fit(leaning)
    assert model.class_prior_ == 0.5
    assert "contradict" in model.prior_unknown
    assert WeightedMajority(class_prior=0.3).fit(leaning).prior_unknown is None
