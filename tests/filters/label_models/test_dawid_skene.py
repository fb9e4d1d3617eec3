import itertools

import numpy as np
import pytest
from scipy.optimize import minimize

from chaffinch.filters.label_models import DawidSkene
from chaffinch.filters.label_models.votes import count_patterns

FORMS = [
    pytest.param({"form": form, "abstain": abstain}, id=f"{form}-{abstain}")
    for form in ("confusion", "one_coin")
    for abstain in ("missing", "symbol")
]


def planted(n, accuracies, coverages, prior, seed=0):
    """Votes of independent sources: (n, m) in -1, 0, +1, and the (n,) truth in -1, +1."""
    rng = np.random.default_rng(seed)
    truth = np.where(rng.random(n) < prior, 1, -1)
    right = rng.random((n, len(accuracies))) < accuracies
    votes = np.where(right, truth[:, None], -truth[:, None])
    return (votes * (rng.random(votes.shape) < coverages)).astype(np.int8), truth


def planted_classes(n, accuracies, prior, coverage=0.8, seed=0):
    """Votes 1..k of sources that spread their errors evenly, and the (n,) truth in 1..k."""
    rng = np.random.default_rng(seed)
    k, m = len(prior), len(accuracies)
    truth = rng.choice(k, n, p=prior)
    wrong = (truth[:, None] + rng.integers(1, k, (n, m))) % k
    votes = np.where(rng.random((n, m)) < accuracies, truth[:, None], wrong) + 1
    return votes * (rng.random((n, m)) < coverage), truth + 1


def class_of(vote, classes):
    """The class voted for, None for an abstain."""
    if vote == 0:
        return None
    return (0 if vote < 0 else 1) if classes == 2 else vote - 1


def joint(votes, prior, confusion, abstain):
    """P(class, votes) of one row, multiplied out in plain Python."""
    k = len(prior)
    out = []
    for y in range(k):
        p = prior[y]
        for j, vote in enumerate(votes):
            symbol = class_of(vote, k)
            if symbol is None:
                p *= confusion[j][y][k] if abstain == "symbol" else 1.0
            else:
                p *= confusion[j][y][symbol]
        out.append(p)
    return out


def slow_em(votes, steps, classes=2, form="confusion", abstain="missing", smoothing=1.0, prior=None):
    """The textbook's loops over samples, sources and classes, for `steps` steps after the majority."""
    n, m, k = len(votes), len(votes[0]), classes
    s = k + (abstain == "symbol")
    posterior = []
    for row in votes:
        ballots = [sum(class_of(vote, k) == y for vote in row) for y in range(k)]
        flat = prior or [1 / k] * k
        posterior.append([b / sum(ballots) for b in ballots] if sum(ballots) else flat)
    shares, confusion = [], []
    for step in range(steps + 1):
        if step:
            posterior = [joint(row, shares, confusion, abstain) for row in votes]
            posterior = [[p / sum(row) for p in row] for row in posterior]
        if prior is None:
            counted = [i for i in range(n) if abstain == "symbol" or any(votes[i])]
            mass = [sum(posterior[i][y] for i in counted) + smoothing / k for y in range(k)]
            shares = [value / sum(mass) for value in mass]
        else:
            shares = prior
        confusion = []
        for j in range(m):
            table = [[smoothing / s] * s for _ in range(k)]
            for i in range(n):
                symbol = class_of(votes[i][j], k)
                if symbol is None and abstain == "missing":
                    continue
                for y in range(k):
                    table[y][k if symbol is None else symbol] += posterior[i][y]
            if form == "one_coin":
                right = sum(table[y][y] for y in range(k))
                cast = sum(sum(table[y][:k]) for y in range(k))
                for y in range(k):
                    coverage = sum(table[y][:k]) / sum(table[y])
                    abstains = table[y][k:]
                    spread = (1 - right / cast) / (k - 1)
                    table[y] = [
                        *(coverage * (right / cast if v == y else spread) * sum(table[y]) for v in range(k)),
                        *abstains,
                    ]
            confusion.append([[value / sum(row) for value in row] for row in table])
    posterior = [joint(row, shares, confusion, abstain) for row in votes]
    return shares, confusion, [[p / sum(row) for p in row] for row in posterior]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("prior", [None, 0.3])
@pytest.mark.parametrize("steps", [0, 1, 7])
def test_agrees_with_plain_loops(form, prior, steps):
    votes, _ = planted(60, [0.9, 0.8, 0.7, 0.6], [0.9, 0.7, 0.8, 1.0], 0.4)
    model = DawidSkene(class_prior=prior, max_iterations=steps, tolerance=0, **form).fit(votes)
    shares, confusion, posterior = slow_em(votes.tolist(), steps, prior=prior and [1 - prior, prior], **form)
    assert model.iterations_ == steps
    np.testing.assert_allclose(model.confusion_, confusion, rtol=1e-10)
    np.testing.assert_allclose(model.class_prior_, shares[1], rtol=1e-10)
    voted = votes.any(axis=1)
    np.testing.assert_allclose(model.predict_proba(votes)[voted], np.array(posterior)[voted, 1], rtol=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_agrees_with_plain_loops_over_classes(form):
    votes, _ = planted_classes(60, [0.9, 0.7, 0.6], [0.5, 0.3, 0.2])
    model = DawidSkene(classes=3, max_iterations=5, tolerance=0, **form).fit(votes)
    shares, confusion, posterior = slow_em(votes.tolist(), 5, classes=3, **form)
    np.testing.assert_allclose(model.confusion_, confusion, rtol=1e-10)
    np.testing.assert_allclose(model.class_prior_, shares, rtol=1e-10)
    voted = votes.any(axis=1)
    np.testing.assert_allclose(model.predict_proba(votes)[voted], np.array(posterior)[voted], rtol=1e-10)


def stated_objective(votes, prior, confusion, smoothing, abstain, prior_is_free):
    """The docstring's three sums: the first alone, and all of them."""
    likelihood = sum(np.log(sum(joint(row, prior, confusion, abstain))) for row in votes)
    total = likelihood + smoothing / len(confusion[0][0]) * np.sum(np.log(confusion))
    return likelihood, total + (smoothing / len(prior) * np.sum(np.log(prior)) if prior_is_free else 0.0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("prior", [None, 0.3])
def test_the_objective_is_the_one_stated_and_never_falls(form, prior):
    votes, _ = planted(80, [0.9, 0.7, 0.65], [0.8, 0.8, 0.8], 0.4, seed=3)
    reached = []
    for steps in range(12):
        model = DawidSkene(class_prior=prior, max_iterations=steps, tolerance=0, **form).fit(votes)
        shares = [1 - model.class_prior_, model.class_prior_]
        likelihood, objective = stated_objective(
            votes.tolist(), shares, model.confusion_.tolist(), 1.0, form["abstain"], prior is None
        )
        assert model.log_likelihood_ == pytest.approx(likelihood, rel=1e-10)
        assert model.objective_ == pytest.approx(objective, rel=1e-10)
        reached.append(model.objective_)
    assert np.all(np.diff(reached) >= -1e-9)
    assert reached[-1] > reached[0]


def test_brute_force_finds_no_better_model():
    """A general optimiser, started in many places on the side of better-than-chance sources."""
    votes, _ = planted(40, [0.9, 0.8, 0.7], [1.0, 1.0, 0.8], 0.5, seed=1)
    patterns, counts = count_patterns(votes)
    model = DawidSkene(class_prior=0.5, tolerance=1e-14, max_iterations=5000).fit(votes)

    def unpack(logits):
        right = (1 / (1 + np.exp(-logits))).reshape(3, 2)  # P(drop | drop) and P(keep | keep)
        return np.array([[[a, 1 - a], [1 - b, b]] for a, b in right])

    def loss(logits):
        confusion = unpack(logits)
        likelihood = counts @ [np.log(sum(joint(row, [0.5, 0.5], confusion, "missing"))) for row in patterns.tolist()]
        return -(likelihood + 0.5 * np.log(confusion).sum())

    rng = np.random.default_rng(0)
    found = min((minimize(loss, rng.uniform(0, 3, 6)) for _ in range(4)), key=lambda result: result.fun)
    assert model.objective_ == pytest.approx(-found.fun, abs=1e-5)
    np.testing.assert_allclose(model.confusion_, unpack(found.x), atol=1e-2)


ACCURACIES = np.array([0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6])
COVERAGES = np.array([0.9, 0.5, 0.8, 0.7, 1.0, 0.6, 0.9, 0.4])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("given_prior", [True, False])
def test_recovers_what_was_planted(form, given_prior):
    votes, truth = planted(20_000, ACCURACIES, COVERAGES, 0.3)
    model = DawidSkene(class_prior=0.3 if given_prior else None, **form).fit(votes)
    assert model.converged_
    np.testing.assert_allclose(model.accuracy_, ACCURACIES, atol=0.02)
    assert model.class_prior_ == pytest.approx(0.3, abs=0.015)
    assert np.all(np.diff(model.weight_) < 0)  # in the order of the accuracies
    probability = model.predict_proba(votes)
    assert ((probability > 0.5) == (truth > 0)).mean() > 0.96
    # What Bayes' rule says with the numbers that were planted, multiplied out.
    likelihood = [np.where(votes == side, ACCURACIES, np.where(votes == 0, 1, 1 - ACCURACIES)) for side in (-1, 1)]
    drop, keep = likelihood[0].prod(axis=1) * 0.7, likelihood[1].prod(axis=1) * 0.3
    assert np.abs(probability - keep / (keep + drop)).mean() < 0.01


def test_recovers_sources_that_err_towards_one_class():
    rng = np.random.default_rng(0)
    truth = rng.random(20_000) < 0.4
    keep = np.array([[0.1, 0.7], [0.3, 0.95], [0.02, 0.5], [0.4, 0.9]])  # P(votes keep | drop), P(votes keep | keep)
    votes = np.where(rng.random((20_000, 4)) < np.where(truth[:, None], keep[:, 1], keep[:, 0]), 1, -1)
    model = DawidSkene().fit(votes)
    np.testing.assert_allclose(model.confusion_[:, :, 1], keep, atol=0.03)
    assert model.class_prior_ == pytest.approx(0.4, abs=0.03)


def test_abstains_that_tell_are_heard_only_as_symbols():
    """A source that votes on good samples only says something by voting at all."""
    votes, truth = planted(20_000, ACCURACIES[:4], [0.8] * 4, 0.5)
    hint = np.where(np.random.default_rng(1).random(20_000) < np.where(truth > 0, 0.9, 0.2), 1, 0)
    votes = np.column_stack([votes, hint])
    symbol = DawidSkene(class_prior=0.5, abstain="symbol").fit(votes)
    missing = DawidSkene(class_prior=0.5).fit(votes)
    np.testing.assert_allclose(symbol.confusion_[4, :, 2], [0.8, 0.1], atol=0.02)
    assert missing.weight_[4] == 0  # it never votes drop
    alone = np.array([[0, 0, 0, 0, 1]])
    assert symbol.predict_proba(alone)[0] > 0.75
    assert missing.predict_proba(alone)[0] == pytest.approx(0.5)


def test_recovers_classes():
    prior = np.array([0.5, 0.3, 0.15, 0.05])
    votes, truth = planted_classes(10_000, [0.9, 0.8, 0.7, 0.6, 0.5], prior)
    model = DawidSkene(classes=4).fit(votes)
    posterior = model.predict_proba(votes)
    assert posterior.shape == (10_000, 4)
    np.testing.assert_allclose(posterior.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(model.accuracy_, [0.9, 0.8, 0.7, 0.6, 0.5], atol=0.03)
    np.testing.assert_allclose(model.class_prior_, prior, atol=0.02)
    assert (posterior.argmax(axis=1) + 1 == truth).mean() > 0.9


each_form = pytest.mark.parametrize("form", FORMS)


@pytest.mark.parametrize("abstain", ["missing", "symbol"])
@pytest.mark.parametrize("vote", [-1, 1])
def test_a_source_that_always_votes_the_same_has_no_influence(abstain, vote):
    votes, _ = planted(300, ACCURACIES[:4], [1.0] * 4, 0.4)
    wider = np.column_stack([votes, np.full(300, vote)])
    model = DawidSkene(abstain=abstain).fit(wider)
    np.testing.assert_array_equal(
        model.predict_proba(wider), DawidSkene(abstain=abstain).fit(votes).predict_proba(votes)
    )
    assert model.weight_[4] == 0
    assert 0 < model.accuracy_[4] < 1


@each_form
@pytest.mark.parametrize("votes", [[[1], [-1], [0], [1]], [[1], [1]], [[-1], [0]]])
def test_one_source_alone_is_taken_to_be_right_nine_times_in_ten(form, votes):
    model = DawidSkene(class_prior=0.4, **form).fit(votes)
    keep, drop, none = model.predict_proba([[1], [-1], [0]])
    assert keep == pytest.approx(0.9 * 0.4 / (0.9 * 0.4 + 0.1 * 0.6))
    assert drop == pytest.approx(0.1 * 0.4 / (0.1 * 0.4 + 0.9 * 0.6))
    assert none == 0.4
    assert model.accuracy_.tolist() == [0.9]
    assert model.weight_[0] == pytest.approx(np.log(9))


def test_a_source_without_peers_does_not_teach_itself():
    votes, truth = planted(2000, [0.9, 0.8, 0.8], [1, 1, 1], 0.5)
    votes[:1000, 2] = 0
    votes[1000:, :2] = 0  # the third votes where the others do not
    votes = np.column_stack([votes, np.where(votes[:, 2] == 0, truth, 0)])  # and the fourth where it does not
    model = DawidSkene(class_prior=0.5).fit(votes)
    assert model.accuracy_[2] == 0.9
    assert model.predict_proba([[0, 0, 1, 0]])[0] == pytest.approx(0.9)
    assert model.accuracy_[3] > 0.95
    assert model.accuracy_[:2] == pytest.approx([0.9, 0.8], abs=0.03)


@each_form
@pytest.mark.parametrize("prior", [None, 0.2])
def test_nothing_but_abstains_leaves_the_prior(form, prior):
    model = DawidSkene(class_prior=prior, **form).fit(np.zeros((9, 3)))
    assert model.predict_proba(np.zeros((2, 3))).tolist() == [prior or 0.5] * 2
    assert np.isnan(model.accuracy_).all()
    assert model.weight_.tolist() == [0, 0, 0]
    assert model.log_likelihood_ == 0
    assert model.iterations_ == 0


@each_form
def test_a_row_of_abstains_has_exactly_the_prior_beside_others_too(form):
    votes, _ = planted(500, ACCURACIES, COVERAGES, 0.3)
    assert DawidSkene(class_prior=0.3, **form).fit(votes).predict_proba(np.zeros((1, 8)))[0] == 0.3


@each_form
def test_patterns_that_the_fit_has_not_seen_are_judged_like_others(form):
    votes, _ = planted(600, ACCURACIES[:4], [0.7] * 4, 0.5)
    seen = (votes == 0).any(axis=1)  # never all four
    model = DawidSkene(class_prior=0.5, **form).fit(votes[seen])
    unseen = np.array(list(itertools.product([-1, 1], repeat=4)))
    probability = model.predict_proba(unseen)
    assert np.isfinite(probability).all()
    assert probability[-1] > 0.9  # all keep
    assert probability[0] < 0.1  # all drop


def test_sources_worse_than_chance_are_turned_around_not_followed():
    votes, truth = planted(5000, [0.9, 0.85, 0.8, 0.75, 0.2], [1.0] * 5, 0.5)
    model = DawidSkene(class_prior=0.5).fit(votes)
    assert model.accuracy_[4] == pytest.approx(0.2, abs=0.03)
    assert model.weight_[4] == 0  # in ordering samples it is left out
    others = DawidSkene(class_prior=0.5).fit(votes[:, :4])
    right = ((model.predict_proba(votes) > 0.5) == (truth > 0)).mean()
    assert right > ((others.predict_proba(votes[:, :4]) > 0.5) == (truth > 0)).mean()


def test_sources_that_never_differ_are_one():
    votes = np.repeat([[1, 1, 1], [-1, -1, -1]], 50, axis=0)
    model = DawidSkene(class_prior=0.5).fit(votes)
    np.testing.assert_allclose(model.predict_proba([[1, 1, 1], [-1, -1, -1], [1, 0, 1]]), [0.9, 0.1, 0.9])
    assert model.predict_proba([[1, -1, 1]])[0] == 0.5  # they contradict each other: nobody has said anything
    np.testing.assert_allclose(model.weight_, np.log(9) / 3)
    assert model.copy_of_.tolist() == [0, 0, 0]
    assert (model.excess_correlation_ == 1).all()


def test_unanimous_sources_stay_finite():
    votes = np.repeat([[1, 1, 1], [-1, -1, -1]], 50, axis=0)
    for smoothing in (1.0, 1e-9, 1e-300):
        model = DawidSkene(smoothing=smoothing, correlated="ignore").fit(votes)
        probability = model.predict_proba(np.array([[1, 1, 1], [-1, -1, -1], [1, -1, 1]]))
        assert np.isfinite(probability).all()
        assert probability[0] > 0.99
        assert probability[1] < 0.01
        assert np.isfinite(model.weight_).all()


def test_a_prior_that_is_given_stays():
    votes, _ = planted(2000, ACCURACIES, COVERAGES, 0.3)
    low, high = (DawidSkene(class_prior=prior).fit(votes) for prior in (0.1, 0.6))
    assert (low.class_prior_, high.class_prior_) == (0.1, 0.6)
    assert low.predict_proba(votes).mean() < high.predict_proba(votes).mean()


def test_it_says_when_it_has_not_arrived():
    votes, _ = planted(500, ACCURACIES, COVERAGES, 0.3)
    assert not DawidSkene(max_iterations=1).fit(votes).converged_
    assert DawidSkene().fit(votes).converged_


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"smoothing": 0}, "smoothing is 0, but must be above 0.*1e-6"),
        ({"form": "coin"}, "take 'confusion' or 'one_coin'"),
        ({"abstain": "none"}, "take 'missing' or 'symbol'"),
        ({"max_iterations": -1}, "0 or more"),
        ({"tolerance": float("nan")}, "0 or more"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        DawidSkene(**wrong)


@pytest.mark.parametrize("prior", [0.3, 0.5])
def test_rules_that_only_ever_cast_one_vote_are_learned_from_where_they_speak_up(prior):
    rng = np.random.default_rng(4)
    good = rng.random(6000) < prior
    on, off = np.array([0.5, 0.4, 0.3, 0.3, 0.4, 0.25]), np.array([0.1, 0.05, 0.05, 0.1, 0.1, 0.2])
    for_keep = np.arange(6) % 2 == 0
    fires = rng.random((6000, 6)) < np.where(good[:, None] == for_keep, on, off)
    votes = (fires * np.where(for_keep, 1, -1)).astype(np.int8)
    model = DawidSkene().fit(votes)
    assert model.abstain_ == "symbol"
    assert model.class_prior_ == pytest.approx(prior, abs=0.06)
    for source, (speaks_up, errs) in enumerate(zip(on, off, strict=True)):
        vote = int(for_keep[source])
        assert model.confusion_[source, vote, vote] == pytest.approx(speaks_up, abs=0.06)
        assert model.confusion_[source, 1 - vote, vote] == pytest.approx(errs, abs=0.06)
    assert ((model.predict_proba(votes) > 0.5) == good).mean() > 0.75
    assert DawidSkene.restore(model.state()).abstain_ == "symbol"
    both = np.where(good, 1, -1)[:, None] * rng.choice([1, 1, 1, -1], (6000, 3))
    assert DawidSkene().fit(np.column_stack([votes[:, :2], both])).abstain_ == "missing"
