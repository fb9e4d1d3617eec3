"""Intervals: how often they hold the truth, what they rest on, and sources worse than chance."""

import numpy as np
import pytest

from chaffinch.filters.diagnosis.accuracy import measure_accuracy, measure_edges
from chaffinch.filters.diagnosis.refits import gather_refits
from chaffinch.filters.label_models import Alone, DawidSkene, FlyingSquid, Gaussian, Majority, Metal, WeightedMajority
from chaffinch.filters.label_models.auto import Auto
from chaffinch.filters.label_models.evidence import Evidence, SoftVotes, Votes
from chaffinch.filters.label_models.votes import count_patterns
from chaffinch.filters.soft_votes import Moments, soften

ACCURACIES = (0.85, 0.8, 0.75, 0.7)


def prepare(votes, model, work=1e9):
    evidence = Evidence(Votes(*count_patterns(votes)))
    columns = range(votes.shape[1])
    return gather_refits(model.learn(evidence.of(columns)), evidence, columns, work)


def planted(vote, n, seed, prior=0.5, accuracies=ACCURACIES):
    generator = np.random.default_rng(seed)
    truth = generator.random(n) < prior
    return np.stack([vote(generator, truth, accuracy, 0.8) for accuracy in accuracies], 1)


@pytest.mark.parametrize(("accuracies", "work"), [(ACCURACIES, 1e9), (ACCURACIES * 2, 2.5e6)])
def test_intervals_hold_the_truth_about_as_often_as_they_say(vote, accuracies, work):
    held, priors, thinned = [], [], 0
    for seed in range(40):
        votes = planted(vote, 3000, seed, 0.6, accuracies)
        found = measure_accuracy(prepare(votes, DawidSkene(), work), draws=12, seed=seed)
        held += [low <= truth <= high for truth, (low, high) in zip(accuracies, found.interval, strict=True)]
        priors.append(found.prior_interval[0] <= 0.6 <= found.prior_interval[1])
        thinned += "samples each" in found.notes[0]
    assert 0.88 <= np.mean(held) <= 0.995
    assert np.mean(priors) >= 0.82
    assert thinned == (0 if work == 1e9 else 40)


def test_intervals_shrink_with_the_root_of_the_samples(vote):
    small, large = (
        measure_accuracy(prepare(planted(vote, n, 3), DawidSkene())).interval @ np.array([-1, 1]) for n in (2000, 32000)
    )
    assert np.all((small / large > 2.2) & (small / large < 7))


def test_the_edge_is_what_the_posterior_says(vote):
    votes = planted(vote, 500, 0, 0.7)
    model = DawidSkene().fit(votes)
    keep = model.predict_proba(votes)
    found = measure_edges(model, Votes(*count_patterns(votes)))
    for column, edge in zip(votes.T, found, strict=True):
        rows = [(v, p) for v, p in zip(column, keep, strict=True) if v != 0]
        right = np.mean([p if v == 1 else 1 - p for v, p in rows])
        share, good = np.mean([v == 1 for v, _ in rows]), np.mean([p for _, p in rows])
        assert edge == pytest.approx(right - (share * good + (1 - share) * (1 - good)), abs=1e-12)


def test_a_source_worse_than_chance_is_found_and_no_honest_one_is(vote):
    generator = np.random.default_rng(2)
    truth = generator.random(4000) < 0.8
    accuracies = (0.85, 0.8, 0.3, 0.75)
    votes = np.stack([vote(generator, truth, accuracy) for accuracy in accuracies], 1)
    found = measure_accuracy(prepare(votes, DawidSkene()))
    np.testing.assert_array_equal(found.worse_than_chance, [False, False, True, False])


def test_a_source_of_the_majority_class_is_not_worse_than_chance_though_seldom_right(vote):
    generator = np.random.default_rng(3)
    truth = generator.random(6000) < 0.15
    votes = np.stack([vote(generator, truth, accuracy) for accuracy in (0.9, 0.85, 0.8, 0.8)], 1)
    generous = generator.random(6000) < np.where(truth, 0.95, 0.7)  # keeps nearly all: right less than half of the time
    votes = np.column_stack([votes, np.where(generous, 1, -1).astype(np.int8)])
    refits = prepare(votes, DawidSkene())
    assert refits.model.accuracy_[4] < 0.5
    assert not measure_accuracy(refits).worse_than_chance.any()


def test_equal_votes_give_equal_intervals(vote):
    votes = planted(vote, 800, 1)
    one = measure_accuracy(prepare(votes, DawidSkene()))
    other = measure_accuracy(prepare(np.random.default_rng(0).permutation(votes), DawidSkene()))
    np.testing.assert_array_equal(one.interval, other.interval)
    assert one.prior_interval == other.prior_interval


def test_what_was_not_learned_has_no_interval_and_says_why(vote):
    votes = planted(vote, 300, 1)
    rule = measure_accuracy(prepare(votes, Majority()))
    assert np.isnan(rule.interval).all()
    assert "rule" in rule.notes[0]
    alone = measure_accuracy(prepare(votes[:, :1], Alone()))
    assert np.isnan(alone.interval).all()
    assert not alone.worse_than_chance.any()
    pair = measure_accuracy(prepare(votes[:, :2], DawidSkene()))
    assert np.isnan(pair.interval).all()
    assert "two filters" in pair.notes[0]
    copied = measure_accuracy(prepare(votes[:, [0, 1, 1]], DawidSkene()))
    assert np.isnan(copied.interval).all()
    hurried = measure_accuracy(prepare(planted(vote, 3000, 1), DawidSkene(), work=10))
    assert np.isnan(hurried.interval).all()
    assert "too long" in hurried.notes[0]


@pytest.mark.parametrize("model", [DawidSkene(), DawidSkene(form="one_coin"), WeightedMajority()])
def test_a_class_prior_that_votes_tell_is_estimated_and_the_interval_says_how_well(vote, model):
    found = measure_accuracy(prepare(planted(vote, 2000, 3, 0.7), model))
    low, high = found.prior_interval
    assert 0.6 < low < 0.7 < high < 0.8
    assert found.prior_note == found.notes[0]
    few = measure_accuracy(prepare(planted(vote, 100, 3, 0.7), model))
    assert few.prior_interval[1] - few.prior_interval[0] > 2 * (high - low)


@pytest.mark.parametrize(
    ("model", "sources", "reason"),
    [
        (Metal(), 4, "pairs of votes do not tell it"),
        (FlyingSquid(), 4, "pairs of votes do not tell it"),
        (Alone(), 1, "one filter does not tell it"),
        (DawidSkene(), 2, "two filters do not determine it"),
        (WeightedMajority(), 2, "two filters do not determine it"),
        (DawidSkene(class_prior=0.6), 4, "given"),
        (Majority(), 4, "does not estimate it"),
    ],
)
def test_a_class_prior_that_votes_do_not_tell_has_no_interval_but_a_reason(vote, model, sources, reason):
    found = measure_accuracy(prepare(planted(vote, 300, 1)[:, :sources], model))
    assert found.prior_interval is None
    assert reason in found.prior_note


def test_scores_have_no_interval_but_a_class_prior_may(vote):
    scores = np.random.default_rng(0).uniform(size=(200, 3)) + np.random.default_rng(1).uniform(size=(200, 1))
    soft = np.stack([soften(column / 2) for column in scores.T], 1)
    evidence = Evidence(Votes(*count_patterns(np.sign(soft))), soft=SoftVotes(Moments.of(soft), soft, soft[:0]))
    found = measure_accuracy(gather_refits(Gaussian().learn(evidence), evidence, range(3), 1e9))
    assert (found.prior_interval, "one half is taken" in found.prior_note) == (None, True)


def test_of_an_automatic_choice_what_was_chosen_is_fitted_again(vote):
    votes = planted(vote, 300, 1)
    refits = prepare(votes, Auto())
    chosen = prepare(votes, type(refits.model)(class_prior=refits.model.class_prior))
    assert refits.model.kind != "auto"
    np.testing.assert_array_equal(measure_accuracy(refits).interval, measure_accuracy(chosen).interval)


def test_refits_leave_the_fitted_model_as_it_was(vote):
    refits = prepare(planted(vote, 500, 1), DawidSkene())
    before = refits.model.state()
    measure_accuracy(refits)
    refits.of_votes(refits.evidence.votes.patterns, refits.evidence.votes.counts, [0, 1, 2])
    assert refits.model.state() == before
