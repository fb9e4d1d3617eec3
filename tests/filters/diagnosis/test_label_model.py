"""The diagnosis of one label model by itself: planted sources, counts by loops, and something to read."""

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from chaffinch.filters.diagnosis import diagnose_model
from chaffinch.filters.label_models import Anchored, Auto, DawidSkene, Gaussian, Majority, Metal

ACCURACIES = np.array([0.9, 0.8, 0.75, 0.7, 0.65])
COVERAGE = np.array([1.0, 0.8, 0.6, 0.9, 0.5])


def planted(seed=0, n=4000, prior=0.4):
    rng = np.random.default_rng(seed)
    truth = np.where(rng.random(n) < prior, 1, -1)
    right = rng.random((n, 5)) < ACCURACIES
    votes = np.where(right, truth[:, None], -truth[:, None]) * (rng.random((n, 5)) < COVERAGE)
    return votes.astype(np.int8), truth


def conflicts_by_loops(votes):
    return [
        np.mean([row[source] != 0 and any(v not in (0, row[source]) for v in row) for row in votes.tolist()])
        for source in range(votes.shape[1])
    ]


def test_planted_sources_are_found_with_intervals():
    votes, _ = planted()
    found = diagnose_model(DawidSkene().fit(votes), votes)
    for source, accuracy, coverage in zip(found.sources, ACCURACIES, COVERAGE, strict=True):
        low, high = source.interval
        assert low - 0.02 < accuracy < high + 0.02
        assert 0.005 < high - low < 0.15
        assert source.coverage == pytest.approx(coverage, abs=0.03)
        assert not source.worse_than_chance
    low, high = found.class_prior_interval
    assert low - 0.02 < 0.4 < high + 0.02
    assert found.effective_sources == 5
    assert found.correlated == ()
    assert found.uncovered == (votes == 0).all(axis=1).mean()
    assert [source.conflict for source in found.sources] == pytest.approx(conflicts_by_loops(votes))
    assert found.log_likelihood_per_sample < 0
    assert found == diagnose_model(DawidSkene().fit(votes), votes)


def test_copies_are_named_and_count_once():
    votes, _ = planted(n=1000)
    table = pd.DataFrame(votes, columns=list("abcde")).assign(again=votes[:, 0])
    found = diagnose_model(DawidSkene(class_prior=0.4).fit(table), table)
    assert ("a", "again", 1.0) in found.correlated
    assert found.effective_sources == pytest.approx(5, abs=0.01)
    assert found.class_prior == 0.4
    assert found.class_prior_note == "given"
    text = str(found)
    assert "a and again (1.00)" in text
    assert "class prior 0.400 (given)" in text
    assert [line.split()[0] for line in text.split("95% interval    weight\n")[1].splitlines()[:6]] == [
        *"abcde",
        "again",
    ]


def test_a_source_that_errs_more_often_than_not_is_named():
    votes, truth = planted(n=6000)
    votes[:, 4] = np.where(np.random.default_rng(1).random(6000) < 0.7, -truth, truth)
    found = diagnose_model(DawidSkene().fit(votes), votes)
    assert [source.worse_than_chance for source in found.sources] == [False] * 4 + [True]
    assert str(found).count("worse than chance") == 1


def test_a_rule_that_ever_votes_one_way_is_not_called_worse_than_chance():
    rng = np.random.default_rng(5)
    good = rng.random(800) < 0.5
    fires = rng.random((800, 6)) < np.where(good[:, None] == (np.arange(6) % 2 == 0), 0.5, 0.1)
    votes = fires * np.where(np.arange(6) % 2 == 0, 1, -1)
    found = diagnose_model(Metal().fit(votes), votes)
    assert not any(source.worse_than_chance for source in found.sources)


def test_what_a_model_does_not_estimate_is_left_out():
    votes, _ = planted(n=300)
    found = diagnose_model(Majority().fit(votes), votes)
    assert all(source.accuracy is None and source.interval is None for source in found.sources)
    assert found.class_prior is None
    assert "a rule that does not estimate it" in str(found)
    json.dumps(asdict(found), allow_nan=False)


def test_many_classes_have_conflicts_and_no_intervals():
    rng = np.random.default_rng(2)
    truth = rng.integers(1, 4, 600)
    votes = np.where(rng.random((600, 4)) < 0.7, truth[:, None], rng.integers(0, 4, (600, 4)))
    found = diagnose_model(DawidSkene(classes=3).fit(votes), votes)
    assert [source.conflict for source in found.sources] == pytest.approx(conflicts_by_loops(votes))
    assert sum(found.class_prior) == pytest.approx(1)
    assert all(source.accuracy > 0.6 and source.interval is None for source in found.sources)
    assert "for two classes only" in str(found)
    assert diagnose_model(Majority(classes=3).fit(votes), votes).effective_sources > 2


def test_the_automatic_choice_tells_its_reason():
    votes, _ = planted(n=500)
    model = Auto().fit(votes)
    found = diagnose_model(model, votes)
    assert found.label_model == model.chosen.kind
    assert found.reasons == tuple(model.reasons_)
    assert model.reasons_[0] in str(found)


def test_a_reference_brings_intervals_of_its_own():
    votes, truth = planted(n=2000)
    model = Anchored().fit(votes[200:], reference=votes[truth == 1][:150])
    found = diagnose_model(model, votes[200:])
    assert [source.interval for source in found.sources] == [tuple(row) for row in model.accuracy_interval_.tolist()]
    assert found.class_prior_interval == tuple(model.class_prior_interval_)


def test_a_model_of_scores_tells_what_it_knows():
    votes, _ = planted(n=2000)
    scores = votes + np.random.default_rng(3).standard_normal(votes.shape)
    scores[:100] = np.nan
    found = diagnose_model(Gaussian(class_prior=0.4).fit(scores), scores)
    assert found.uncovered == 0.05
    assert [source.coverage for source in found.sources] == [0.95] * 5
    assert all(source.conflict is None and source.accuracy > 0.5 for source in found.sources)
    assert "gaussian judges by scores" in str(found)


def test_nothing_at_all_can_be_diagnosed():
    for shape in [(0, 3), (5, 3), (0, 0)]:
        votes = np.zeros(shape, np.int8)
        found = diagnose_model(DawidSkene().fit(votes), votes)
        assert len(found.sources) == shape[1]
        assert str(found)


def test_what_does_not_fit_is_refused():
    votes, _ = planted(n=50)
    with pytest.raises(ValueError, match="has not been fitted"):
        diagnose_model(DawidSkene(), votes)
    with pytest.raises(ValueError, match="there are 4 sources, but the model was fitted on 5"):
        diagnose_model(DawidSkene().fit(votes), votes[:, :4])
