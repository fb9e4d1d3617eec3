"""Leaving sources out: what is found, what stays, and that it is left out of everything."""

import json
from dataclasses import replace

import numpy as np
import pytest

from chaffinch.filters.cut import Cut
from chaffinch.filters.diagnosis.frequent import list_patterns
from chaffinch.filters.dropped_sources import DroppedSource, DropSources, accuracy_interval
from chaffinch.filters.ensemble import Ensemble
from chaffinch.filters.fitted import Fitted
from chaffinch.filters.label_models import (
    All,
    Alone,
    DawidSkene,
    FlyingSquid,
    Gaussian,
    Majority,
    Metal,
    WeightedMajority,
)
from chaffinch.filters.label_models.evidence import Evidence, Labelled, Votes
from chaffinch.filters.label_models.votes import count_patterns
from chaffinch.filters.ranges import FittedRanges

MODELS = [Majority(), WeightedMajority(), DawidSkene(), Metal(class_prior=0.5), FlyingSquid(class_prior=0.5)]
ONE_ASPECT = ["quality"] * 6


def vote(generator, truth, accuracy):
    return (np.where(generator.random(len(truth)) < accuracy, truth, ~truth) * 2 - 1).astype(np.int8)


def planted(seed=0, n=4000, labels=100, accuracies=(0.85, 0.8, 0.75, 0.7, 0.5, 0.2)):
    """Four good sources, a coin and one whose range is the wrong way round."""
    generator = np.random.default_rng(seed)
    good = generator.random(n) < 0.5
    votes = np.stack([vote(generator, good, accuracy) for accuracy in accuracies], axis=1)
    labelled = Labelled(votes[:labels], good[:labels], np.ones(labels, bool)) if labels else None
    return votes, good, Evidence(Votes(*count_patterns(votes)), labelled=labelled)


def found(labels, seeds=60, **settings):
    """How often each source is left out."""
    left = np.zeros(6)
    for seed in range(seeds):
        left[list(DropSources(**settings).find(planted(seed, 600, labels)[2], range(6)))] += 1
    return left / seeds


def test_with_a_hundred_labels_a_coin_and_a_flipped_source_are_found():
    left = found(100)
    assert left[4] > 0.8  # the interval's low end is above one half for every tenth coin
    assert left[5] == 1
    assert left[:3].max() == 0
    assert left[3] <= 0.05


def test_twenty_labels_cost_few_good_sources():
    left = found(20)
    assert left[5] > 0.9
    assert left[4] > 0.4
    assert left[:2].max() <= 0.05
    assert left[3] < 0.15


@pytest.mark.parametrize("labels", [0, 19])
def test_with_too_few_labels_nothing_is_said_of_any_source(labels):
    assert not found(labels, seeds=5).any()
    assert not found(100, seeds=5, useless=False).any()


def test_a_source_whose_rarer_vote_no_label_shows_is_not_called_useless():
    votes, _, _ = planted()
    good = np.ones(200, bool)
    good[:90] = False
    votes = votes[:200].copy()
    votes[:, 0] = 1
    votes[:4, 0] = -1  # four drops, all of them right
    evidence = Evidence(Votes(*count_patterns(votes)), labelled=Labelled(votes, good, good))
    assert 0 not in DropSources(extreme=None).find(evidence, range(6))
    assert DropSources().find(evidence, range(6))[0].why == "extreme"


@pytest.mark.parametrize(("keep", "left_out"), [(0.05, True), (0.1, False), (0.5, False), (0.9, False), (0.95, True)])
def test_sources_that_nearly_always_say_the_same_are_left_out(keep, left_out):
    votes, _, _ = planted(n=1000, labels=0)
    votes[:, 1] = np.where(np.arange(1000) < 1000 * keep, 1, -1)
    abstaining = np.concatenate([votes, votes])
    abstaining[:1000, 1] = 0  # abstains do not count
    for rows in (votes, abstaining):
        out = DropSources().find(Evidence(Votes(*count_patterns(rows))), range(6))
        assert list(out) == ([1] if left_out else [])
        if left_out:
            assert out[1] == DroppedSource("extreme", keep, 0, None, None)


def test_one_source_always_stays():
    votes = np.ones((1000, 3), np.int8)
    votes[:10, 0] = votes[:50, 1] = votes[:50, 2] = -1
    evidence = Evidence(Votes(*count_patterns(votes)))
    assert sorted(DropSources().find(evidence, range(3))) == [0, 2]
    assert not DropSources().find(evidence, [0])
    silent = Evidence(Votes(*count_patterns(np.zeros((10, 3), np.int8))))
    assert not DropSources().find(silent, range(3))
    votes, _, evidence = planted(accuracies=(0.5, 0.2, 0.3, 0.25, 0.35, 0.1))
    out = DropSources().find(evidence, range(6))
    assert len(out) == 5
    assert 0 not in out


def test_the_interval_holds_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(1)
    for good, bad, one, other in ((10, 10, 0.5, 0.5), (12, 40, 0.8, 0.3), (50, 50, 0.95, 0.9)):
        drawn = [
            accuracy_interval(generator.binomial(good, one), good, generator.binomial(bad, other), bad)
            for _ in range(3000)
        ]
        low, high = np.array(drawn).T
        truth = 0.5 + (one - other) / 2
        assert 0.84 < (low <= truth).mean() < 0.97
        assert 0.84 < (high >= truth).mean() < 0.97


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.kind)
def test_every_label_model_judges_as_if_they_were_not_there(model):
    votes, good, evidence = planted()
    with_them = Ensemble.fit(ONE_ASPECT, {"quality": replace(model)}, evidence)
    without = Ensemble.fit(ONE_ASPECT, {"quality": replace(model)}, evidence, drop_sources=DropSources())
    assert set(without.dropped) == {4, 5}
    assert without.weights(6)[4:].tolist() == [0, 0]
    assert np.isnan(without.accuracies(6)[4:]).all()
    rest = Ensemble.fit(["quality"] * 4, {"quality": replace(model)}, evidence.of(range(4)))
    np.testing.assert_array_equal(without.by_votes(votes), rest.by_votes(votes[:, :4]))
    unlabelled = slice(100, None)
    errors = [
        np.mean((ensemble.by_votes(votes)[unlabelled] - good[unlabelled]) ** 2) for ensemble in (with_them, without)
    ]
    # Dawid and Skene find the flipped one by themselves and turn it, which a majority cannot.
    assert errors[1] <= errors[0] + (0.03 if errors[0] < 0.13 else -0.01)


def test_one_that_is_left_is_calibrated_by_itself_and_rules_stay_whole():
    evidence = planted()[2]
    columns = [0, 4, 5]
    aspects = ["quality"] * 3
    ensemble = Ensemble.fit(aspects, {"quality": DawidSkene()}, evidence.of(columns), drop_sources=DropSources())
    (left, model) = ensemble.aspects["quality"]
    assert (left, type(model)) == ((0,), Alone)
    rule = Ensemble.fit(aspects, {"quality": All()}, evidence.of(columns), drop_sources=DropSources())
    assert (rule.aspects["quality"][0], dict(rule.dropped)) == ((0, 1, 2), {})
    with pytest.raises(ValueError, match=r"gaussian of the aspect quality.*drop_sources leaves out 2 of its 6 filters"):
        Ensemble.fit(ONE_ASPECT, {"quality": Gaussian()}, evidence, drop_sources=DropSources())  # has no scores


def test_what_is_left_out_has_no_say_in_anything_and_vetoes_keep_theirs():
    votes, _, evidence = planted()
    aspects = [None, *ONE_ASPECT[1:]]
    ensemble = Ensemble.fit(aspects, {"quality": DawidSkene()}, evidence, drop_sources=DropSources())
    assert set(ensemble.dropped) == {4, 5}
    names, ranges = [f"f{index}" for index in range(6)], [FittedRanges((0.0, 1.0), None)] * 6
    fitted = Fitted(names, [True] + [False] * 5, ranges, {}, ensemble, False, Cut(-1.0))
    assert fitted.judges == [1, 2, 3]
    only = np.array([[1, 0, 0, 0, 1, -1], [-1, 1, 1, 1, 0, 0]], np.int8)
    assert fitted.covered(only).tolist() == [False, True]
    assert fitted.vetoed(only).tolist() == [False, True]
    listed = list_patterns(fitted, *count_patterns(votes))
    shown = [one["votes"] for one in listed["patterns"]]
    assert len(shown) == len(set(shown)) == 8
    state = json.loads(json.dumps(fitted.state()))
    again = Fitted.restore(state, lambda kind: {"dawid_skene": DawidSkene}[kind])
    assert again.ensemble.dropped == ensemble.dropped
    assert again.judges == fitted.judges
    scores = [np.linspace(-1, 1, 7, dtype=np.float32)] * 4 + [np.linspace(-9, 9, 7, dtype=np.float32)] * 2
    other = [*scores[:4], -scores[4], -scores[5]]
    np.testing.assert_array_equal(again.soft_scores(scores, 7), fitted.soft_scores(other, 7))
