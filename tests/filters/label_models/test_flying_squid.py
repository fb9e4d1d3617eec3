import itertools
import statistics

import numpy as np
import pytest

from chaffinch.filters.label_models.flying_squid import FlyingSquid, triplet_skills

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
each_combination = pytest.mark.parametrize("combine", ["mean", "median"])


@each_combination
@pytest.mark.parametrize("prior", [0.15, 0.5, 0.8])
def test_recovers_the_exact_distribution(combine, prior):
    coverage = np.array([1.0, 0.7, 0.5, 0.9])
    patterns, counts = enumerated([1 - prior, prior], (CONFUSIONS * coverage[:, None, None]).tolist())
    model = FlyingSquid(class_prior=prior, combine=combine).fit_patterns(patterns, counts)
    np.testing.assert_allclose(model.confusion_, CONFUSIONS, atol=1e-6)
    np.testing.assert_allclose(
        model.accuracy_, CONFUSIONS[:, 0, 0] * (1 - prior) + CONFUSIONS[:, 1, 1] * prior, atol=1e-6
    )
    balanced = CONFUSIONS[:, [0, 1], [0, 1]].mean(axis=1)
    np.testing.assert_allclose(model.weight_, np.log(balanced / (1 - balanced)), atol=1e-5)


@each_combination
@pytest.mark.parametrize("k", [2, 3, 4])
def test_recovers_coins_over_classes(combine, k):
    accuracies = np.array([0.9, 0.7, 0.5 + 0.2 * (k == 2), 0.8])
    prior = np.arange(1, k + 1) / np.arange(1, k + 1).sum()
    rates = [[[0.8 * (a if v == y else (1 - a) / (k - 1)) for v in range(k)] for y in range(k)] for a in accuracies]
    patterns, counts = enumerated(prior, rates)
    given_prior = float(prior[1]) if k == 2 else tuple(prior)
    model = FlyingSquid(classes=k, class_prior=given_prior, form="one_coin", combine=combine, correlated="ignore")
    model.fit_patterns(patterns, counts)
    np.testing.assert_allclose(model.accuracy_, accuracies, atol=1e-6)
    np.testing.assert_allclose(model.confusion_, np.array(rates) / 0.8, atol=1e-6)


@each_combination
def test_recovers_on_which_class_sources_speak_up(combine):
    rates = [[[0.0, 0.05], [0.0, 0.4]], [[0.3, 0.0], [0.1, 0.0]], [[0.0, 0.2], [0.0, 0.3]], [[0.5, 0.1], [0.2, 0.3]]]
    patterns, counts = enumerated([0.7, 0.3], rates)
    model = FlyingSquid(class_prior=0.3, voting="informative", combine=combine, correlated="ignore")
    model.fit_patterns(patterns, counts)
    expected = np.array(rates)
    expected[expected.sum(axis=1, keepdims=True).repeat(2, axis=1) == 0] = 1  # votes never seen say nothing
    np.testing.assert_allclose(model.confusion_, expected, atol=1e-6)
    one_sided = FlyingSquid(class_prior=0.3, combine=combine, correlated="ignore").fit_patterns(patterns[:, :3], counts)
    np.testing.assert_allclose(one_sided.confusion_, expected[:3], atol=1e-6)  # chosen without being told


def slow_triplets(votes, i):
    """The paper's formula for one source, row by row: raw moments where both vote, and the rows each rests on."""
    m = len(votes[0])

    def together(a, b):
        rows = [row for row in votes if row[a] and row[b]]
        return sum(row[a] * row[b] for row in rows) / len(rows), len(rows)

    found = []
    for j, k in itertools.combinations([s for s in range(m) if s != i], 2):
        (ij, n_ij), (ik, n_ik), (jk, n_jk) = together(i, j), together(i, k), together(j, k)
        if abs(jk) > 2 / n_jk**0.5:
            found.append((min(1.0, abs(ij * ik / jk) ** 0.5), 1 / (1 / n_ij + 1 / n_ik + 1 / n_jk)))
    return found


@each_combination
def test_agrees_with_the_papers_formula_row_by_row(combine):
    votes, _ = planted(300, [0.9, 0.8, 0.75, 0.7, 0.65], [1.0] * 5, 0.4)
    model = FlyingSquid(form="one_coin", combine=combine, smoothing=1e-9, correlated="ignore").fit(votes)
    for i in range(5):
        roots = [root for root, _ in slow_triplets(votes.tolist(), i)]  # all rest on the same rows
        size = statistics.median(roots) if combine == "median" else statistics.fmean(roots)
        assert model.accuracy_[i] == pytest.approx((1 + size) / 2, abs=1e-5)


def test_the_mean_weighs_triplets_by_the_rows_they_rest_on():
    votes, _ = planted(300, [0.9, 0.8, 0.75, 0.7, 0.65], [1.0, 0.6, 0.3, 0.9, 0.5], 0.4)
    model = FlyingSquid(form="one_coin", combine="mean", smoothing=1e-9, correlated="ignore").fit(votes)
    found = slow_triplets(votes.tolist(), 0)
    size = sum(root * weight for root, weight in found) / sum(weight for _, weight in found)
    assert model.accuracy_[0] == pytest.approx((1 + size) / 2, abs=1e-5)


def test_denominators_that_may_be_noise_are_dropped():
    a = np.array([0.8, 0.7, 0.6, 0.5, 0.4])
    common = np.outer(a, a)
    common[3, 4] = common[4, 3] = 0.01  # 100 rows tell nothing from 0 below 0.2
    together = np.full((5, 5), 100.0)
    nothing = np.zeros((5, 5), bool)
    mean, _ = triplet_skills(common, together, nothing, "mean")
    assert mean[0] == pytest.approx(0.8)  # with it, sqrt(0.4 * 0.32 / 0.01) would be one of the six
    common[3, 4] = common[4, 3] = 0.25
    mean, _ = triplet_skills(common, together, nothing, "mean")
    assert mean[0] != pytest.approx(0.8, abs=1e-3)


def test_triplets_with_a_linked_pair_are_left_out_where_there_are_others():
    a = np.array([0.8, 0.7, 0.6, 0.5])
    common = np.outer(a, a)
    common[2, 3] = common[3, 2] = 0.95
    together = np.full((4, 4), 1e6)
    linked = np.zeros((4, 4), bool)
    linked[2, 3] = linked[3, 2] = True
    found, told = triplet_skills(common, together, linked, "mean")
    np.testing.assert_allclose(found, a)
    assert told.all()
    found, told = triplet_skills(common[1:, 1:], together[1:, 1:], linked[1:, 1:], "mean")
    assert told.all()  # three sources have one triplet, linked or not
    assert found[0] == pytest.approx(np.sqrt(0.7 * 0.6 * 0.7 * 0.5 / 0.95))


def test_signs_follow_the_larger_part():
    a = np.array([0.8, -0.7, 0.6, 0.5, -0.2])
    together = np.full((5, 5), 1e6)
    for sign in (1, -1):
        found, _ = triplet_skills(np.outer(sign * a, sign * a), together, np.zeros((5, 5), bool), "median")
        np.testing.assert_allclose(found, a)


ACCURACIES = np.array([0.9, 0.85, 0.8, 0.75, 0.7, 0.65])
COVERAGES = np.array([0.9, 0.5, 0.8, 0.7, 1.0, 0.6])


@each_combination
@pytest.mark.parametrize("chosen", [{}, {"form": "one_coin"}, {"voting": "informative"}])
@pytest.mark.parametrize("prior", [0.2, 0.5])
def test_recovers_what_was_planted(combine, chosen, prior):
    votes, truth = planted(20_000, ACCURACIES, COVERAGES, prior)
    model = FlyingSquid(class_prior=prior, combine=combine, **chosen).fit(votes)
    np.testing.assert_allclose(model.accuracy_, ACCURACIES, atol=0.04)
    probability = model.predict_proba(votes)
    likelihood = [np.where(votes == side, ACCURACIES, np.where(votes == 0, 1, 1 - ACCURACIES)) for side in (-1, 1)]
    drop, keep = likelihood[0].prod(axis=1) * (1 - prior), likelihood[1].prod(axis=1) * prior
    assert np.abs(probability - keep / (keep + drop)).mean() < 0.03
    best = ((keep > drop) == (truth > 0)).mean()
    assert ((probability > 0.5) == (truth > 0)).mean() > best - 0.01


def test_fifty_sources_are_recovered_too():
    accuracies = np.linspace(0.55, 0.9, 50)
    votes, _ = planted(5000, accuracies, np.full(50, 0.5), 0.4)
    model = FlyingSquid(class_prior=0.4).fit(votes)
    np.testing.assert_allclose(model.accuracy_, accuracies, atol=0.06)


def test_near_copies_share_their_say():
    """Ten near copies do not outvote three sources that are each better."""
    votes, truth = planted(4000, [0.85, 0.85, 0.85, 0.6], [1.0] * 4, 0.5)
    rng = np.random.default_rng(3)
    copies = np.where(rng.random((4000, 10)) < 0.95, votes[:, 3:], -votes[:, 3:])
    everyone = np.column_stack([votes[:, :3], copies])
    right = {}
    for how in ("discount", "ignore"):
        model = FlyingSquid(class_prior=0.5, correlated=how).fit(everyone)
        right[how] = ((model.predict_proba(everyone) > 0.5) == (truth > 0)).mean()
    assert right["discount"] > 0.9
    assert right["discount"] > right["ignore"]


SETTINGS = [{}, {"voting": "informative"}, {"form": "one_coin"}, {"combine": "mean"}]
each_setting = pytest.mark.parametrize("chosen", SETTINGS, ids=["plain", "informative", "one_coin", "mean"])


@pytest.mark.parametrize("vote", [-1, 1])
@pytest.mark.parametrize("voting", ["missing", "informative"])
def test_a_source_that_always_votes_the_same_has_no_influence(vote, voting):
    votes, _ = planted(300, ACCURACIES[:4], [1.0] * 4, 0.4)
    wider = np.column_stack([votes, np.full(300, vote)])
    model, without = (FlyingSquid(class_prior=0.4, voting=voting).fit(given) for given in (wider, votes))
    np.testing.assert_allclose(model.predict_proba(wider), without.predict_proba(votes), atol=1e-12)
    assert model.weight_[4] == 0


def test_a_source_without_triplets_is_taken_to_be_right_nine_times_in_ten():
    votes, _ = planted(2000, [0.9, 0.8, 0.8, 0.7], [1.0] * 4, 0.5)
    votes[:1900, 3] = 0
    votes[1900:, :3] = 0  # the fourth votes where the others do not
    model = FlyingSquid(class_prior=0.5).fit(votes)
    assert model.accuracy_[3] == 0.9
    assert model.predict_proba([[0, 0, 0, 1]])[0] == pytest.approx(0.9)
    np.testing.assert_allclose(model.accuracy_[:3], [0.9, 0.8, 0.8], atol=0.04)


@pytest.mark.parametrize(
    "votes",
    [
        [[1], [-1]],
        [[1, 1], [-1, -1], [1, -1]],
        np.zeros((9, 3)),
        [[1, 1, 1], [-1, -1, -1]],  # one opinion, three times
        [[1, 1, 0], [-1, 1, 0], [0, 1, 1], [0, 1, -1]],  # the first and the third never meet
        np.zeros((0, 3)),
    ],
)
def test_fewer_than_three_that_vote_together_are_refused(votes):
    with pytest.raises(ValueError, match=r"need three sources that vote on the same samples.*dawid_skene"):
        FlyingSquid().fit(np.array(votes))


@each_setting
@pytest.mark.parametrize("prior", [1e-6, 0.5, 1 - 1e-6])
def test_hard_cases_stay_finite(chosen, prior):
    agreed = np.repeat([[1, 1, 1], [-1, -1, -1]], 50, axis=0)
    nearly = np.vstack([agreed, [[1, 1, -1], [1, -1, 1], [1, 0, 0]]])
    scattered = np.array(list(itertools.product([-1, 1], repeat=3)))  # nothing in common
    constant = np.column_stack([scattered, np.ones(8)])
    for votes in (nearly, scattered, constant):
        model = FlyingSquid(class_prior=prior, **chosen).fit(votes)
        probability = model.predict_proba(np.array(list(itertools.product([-1, 0, 1], repeat=votes.shape[1]))))
        assert np.isfinite(probability).all()
        assert ((probability >= 0) & (probability <= 1)).all()
        assert np.isfinite(model.weight_).all()
        assert (model.weight_ >= 0).all()


def test_sources_with_nothing_in_common_leave_the_prior():
    votes = np.array(list(itertools.product([-1, 1], repeat=3)) * 100)
    np.testing.assert_allclose(FlyingSquid(class_prior=0.3).fit(votes).predict_proba(votes), 0.3, atol=1e-9)


def test_sources_worse_than_chance_keep_their_sign_and_weigh_nothing():
    votes, _ = planted(5000, [0.9, 0.85, 0.8, 0.75, 0.2], [1.0] * 5, 0.5)
    model = FlyingSquid(class_prior=0.5).fit(votes)
    assert model.accuracy_[4] == pytest.approx(0.2, abs=0.03)
    assert model.weight_[4] == 0


def test_a_row_of_abstains_has_exactly_the_prior():
    votes, _ = planted(500, ACCURACIES, COVERAGES, 0.3)
    assert FlyingSquid(class_prior=0.3).fit(votes).predict_proba(np.zeros((1, 6)))[0] == 0.3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"combine": "mode"}, "take 'mean' or 'median'"),
        ({"classes": 3, "form": "confusion"}, "triplets of 3 classes determine one accuracy"),
        ({"classes": 3, "voting": "informative"}, "triplets of 3 classes determine one accuracy"),
        ({"form": "one_coin", "voting": "informative"}, "a source is no coin"),
        ({"smoothing": float("nan")}, "0 or more"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        FlyingSquid(**wrong)


def test_a_source_that_never_agrees_among_many_classes_has_finite_posteriors():
    """Two that agree a little oftener than chance, and one never with them: triplets say worse than never right."""
    rng = np.random.default_rng(21)
    one = rng.integers(1, 6, 3000)
    other = np.where(rng.random(3000) < 0.3, one, rng.integers(1, 6, 3000))
    never = np.array([rng.choice(list({1, 2, 3, 4, 5} - {a, b})) for a, b in zip(one, other, strict=True)])
    votes = np.column_stack([one, other, never])
    proba = FlyingSquid(classes=5, correlated="ignore").fit(votes).predict_proba(votes)
    assert np.isfinite(proba).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1)
