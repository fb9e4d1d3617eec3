"""The whole diagnosis: what leaving a filter out changes, aspects, effective sources, bounds and plain JSON."""

import json
from dataclasses import replace

import numpy as np
import pytest

from chaffinch.filters.diagnosis.diagnosis import describe_filters, diagnose
from chaffinch.filters.diagnosis.influence import leave_out
from chaffinch.filters.diagnosis.keeping import KeepRule
from chaffinch.filters.diagnosis.refits import gather_refits
from chaffinch.filters.ensemble import Ensemble
from chaffinch.filters.label_models import All, Alone, DawidSkene, Majority, Nothing
from chaffinch.filters.label_models.anchored import Anchored
from chaffinch.filters.label_models.evidence import Votes
from chaffinch.filters.label_models.gaussian import Gaussian
from chaffinch.filters.label_models.votes import count_patterns


def run(fitted, evidence, votes, rule):
    return diagnose(fitted, evidence, *count_patterns(votes), rule)


@pytest.fixture(scope="module")
def mixed(vote):
    """Votes of three filters on the match, one on the language, one veto."""
    generator = np.random.default_rng(8)
    match, language, size = (generator.random(3000) < share for share in (0.5, 0.8, 0.9))
    columns = [vote(generator, match, accuracy, 0.9) for accuracy in (0.85, 0.8, 0.7)]
    return np.stack([*columns, vote(generator, language, 0.95), vote(generator, size, 1.0)], 1)


def slowly_left_out(votes, index, share):
    """Which samples change, sample by sample: aspects are fitted to what the veto leaves, ties share what is left."""
    judged = votes[votes[:, 4] != -1]

    def kept(without):
        groups = [[c for c in columns if c != without] for columns in ([0, 1, 2], [3])]
        probability = np.ones(len(votes))
        for columns, model in zip(groups, (DawidSkene(), Alone()), strict=True):
            if columns:
                probability = probability * model.fit(judged[:, columns]).predict_proba(votes[:, columns])
        probability = probability.astype(np.float32)
        covered = votes[:, [c for c in range(4) if c != without]].any(axis=1)
        allowed = covered & ((votes[:, 4] != -1) | (without == 4))
        left, share_kept = share * len(votes), np.zeros(len(votes))
        for value in sorted(set(probability[allowed].tolist()), reverse=True):
            group = allowed & (probability == np.float32(value))
            share_kept[group] = min(max(left / group.sum(), 0), 1)
            left -= share_kept[group].sum()
        return share_kept

    return float(np.abs(kept(None) - kept(index)).mean())


def test_leaving_out_against_a_slow_twin(judge, mixed):
    fitted, evidence = judge(mixed, ["match"] * 3 + ["language", None], {"match": DawidSkene(), "language": Alone()})
    filters, _ = run(fitted, evidence, mixed, KeepRule(0.3))
    for index, name in enumerate(fitted.names):
        assert filters[name]["left_out_changes"] == pytest.approx(slowly_left_out(mixed, index, 0.3), abs=2e-6)
    assert filters["f3"]["left_out_changes"] > 0.01
    assert filters["f4"]["left_out_changes"] > 0.01


def test_with_too_much_work_a_filter_is_silenced_instead(judge, mixed):
    fitted, evidence = judge(mixed, ["match"] * 3 + ["language", None], {"match": DawidSkene(), "language": Alone()})
    hurried = {
        aspect: gather_refits(model, evidence, columns, 1.0)
        for aspect, (columns, model) in fitted.ensemble.aspects.items()
    }
    changes = leave_out(fitted, hurried, KeepRule(0.3), *count_patterns(mixed))
    assert "silenced" in changes[0].note
    silenced = mixed.copy()
    silenced[:, 0] = 0
    rule, (patterns, counts) = KeepRule(0.3), count_patterns(mixed)
    shares = []
    for votes in (mixed, silenced):
        rows = np.array([votes[np.flatnonzero((mixed == row).all(axis=1))[0]] for row in patterns])
        probability = fitted.ensemble.by_votes(rows)
        shares.append(rule.kept(probability, counts, fitted.candidates(rows, probability, fitted.covered(rows))))
    expected = (counts * np.abs(shares[0] - shares[1])).sum() / counts.sum()
    assert changes[0].share == pytest.approx(expected, abs=1e-9)


def test_a_copied_filter_is_one_source_and_can_be_left_out(judge, mixed):
    votes = np.column_stack([mixed[:, :3], mixed[:, 0]])
    fitted, evidence = judge(votes, ["match"] * 4, {"match": DawidSkene()}, ["clip", "l14", "words", "again"])
    filters, diagnosis = run(fitted, evidence, votes, KeepRule(0.4))
    aspect = diagnosis["aspects"]["match"]
    assert aspect["effective_sources"] == pytest.approx(3, abs=1e-3)
    assert aspect["correlated"] == [{"filters": ["clip", "again"], "excess_correlation": 1.0}]
    assert filters["again"]["left_out_changes"] == pytest.approx(0, abs=1e-6)
    assert filters["clip"]["left_out_changes"] == pytest.approx(0, abs=1e-6)
    matrix = diagnosis["agreement"]
    assert matrix["kappa"][0][3] == 1.0
    assert matrix["common"][0][3] == (mixed[:, 0] != 0).sum()


def test_aspects_tell_prior_likelihood_and_what_is_uncovered(judge, mixed):
    models = {"match": DawidSkene(), "language": Alone(class_prior=0.8)}
    fitted, evidence = judge(mixed, ["match"] * 3 + ["language", None], models)
    _, diagnosis = run(fitted, evidence, mixed, KeepRule(None, 0.5))
    match, language = diagnosis["aspects"]["match"], diagnosis["aspects"]["language"]
    model = fitted.ensemble.aspects["match"][1]
    judged = mixed[mixed[:, 4] != -1]
    assert match["samples"] == len(judged)
    assert match["class_prior"] == pytest.approx(model.class_prior_, abs=1e-6)
    assert match["class_prior_interval"][0] < match["class_prior"] < match["class_prior_interval"][1]
    assert match["log_likelihood_per_sample"] == pytest.approx(model.log_likelihood_ / len(judged), abs=1e-6)
    assert match["uncovered"] == pytest.approx((~judged[:, :3].any(axis=1)).mean(), abs=1e-6)
    assert language["class_prior_given"]
    assert language["class_prior_interval"] is None


def test_the_aspects_check_is_part_of_it_and_warns_once_a_filter(judge, and_pool):
    votes, names = and_pool
    fitted, evidence = judge(votes, ["quality"] * 5, {"quality": DawidSkene()}, names)
    filters, diagnosis = run(fitted, evidence, votes, KeepRule(0.4))
    (finding,) = diagnosis["findings"]
    assert (finding["filter"], finding["aspect"]) == ("duplicates", "quality")
    assert "`aspect: duplicates`" in finding["remedy"]
    assert filters["duplicates"]["worse_than_chance"]
    assert not filters["clip"]["worse_than_chance"]
    # The remedy is one: with it nothing is found any more.
    models = {"quality": DawidSkene(), "duplicates": Alone()}
    mended, evidence = judge(votes, ["quality"] * 4 + ["duplicates"], models, names)
    assert not run(mended, evidence, votes, KeepRule(0.4))[1]["findings"]


def test_equal_input_gives_equal_json_and_it_is_strict(judge, and_pool):
    votes, names = and_pool
    told = []
    for order in (slice(None), slice(None, None, -1)):
        fitted, evidence = judge(votes[order], ["quality"] * 5, {"quality": DawidSkene()}, names)
        told.append(json.dumps(run(fitted, evidence, votes[order], KeepRule(0.4)), allow_nan=False))
    assert told[0] == told[1]


@pytest.mark.parametrize("model", [All, Nothing, Majority])
def test_plain_rules_are_not_asked_for_what_they_do_not_know(judge, mixed, model):
    fitted, evidence = judge(mixed, ["match"] * 4 + [None], {"match": model()})
    filters, diagnosis = run(fitted, evidence, mixed, KeepRule(0.5))
    json.dumps([filters, diagnosis], allow_nan=False)
    assert filters["f0"]["accuracy_interval"] is None
    assert "rule" in filters["f0"]["accuracy_note"]
    assert filters["f0"]["left_out_changes"] is not None
    assert diagnosis["aspects"]["match"]["log_likelihood_per_sample"] is None


@pytest.mark.parametrize(
    ("votes", "aspects"),
    [
        (np.zeros((0, 2), np.int8), ["a", "a"]),
        (np.zeros((5, 2), np.int8), ["a", "a"]),
        (np.ones((5, 2), np.int8), ["a", "a"]),
        (-np.ones((5, 2), np.int8), [None, None]),
        (np.array([[1], [-1], [0]], np.int8), ["a"]),
        (np.zeros((4, 0), np.int8), []),
    ],
)
def test_degenerate_pools_are_diagnosed_too(judge, votes, aspects):
    members = [aspect for aspect in aspects if aspect]
    models = {"a": DawidSkene()} if members else {"quality": Nothing()}
    fitted, evidence = judge(votes, aspects, models)
    filters, diagnosis = run(fitted, evidence, votes, KeepRule(0.5))
    json.dumps([filters, diagnosis, describe_filters(fitted, *count_patterns(votes))], allow_nan=False)
    assert set(filters) == set(fitted.names)


def test_many_patterns_are_diagnosed_on_some_samples(judge, vote):
    generator = np.random.default_rng(0)
    truth = generator.random(12_000) < 0.5
    votes = np.stack([vote(generator, truth, 0.65, 0.5) for _ in range(24)], 1)
    fitted, evidence = judge(votes, ["quality"] * 24, {"quality": DawidSkene()})
    filters, diagnosis = run(fitted, evidence, votes, KeepRule(0.5))
    found = filters["f0"]
    assert "samples each" in found["accuracy_note"]
    assert "10000 samples" in found["left_out_note"]
    assert found["accuracy_interval"][0] < 0.65 < found["accuracy_interval"][1]
    assert len(diagnosis["patterns"]["patterns"]) == 256
    assert not diagnosis["findings"]


def test_a_model_with_a_reference_says_itself_how_sure_it_is(judge, mixed, vote):
    generator = np.random.default_rng(0)
    good = np.ones(300, bool)
    columns = [vote(generator, good, accuracy, 0.9) for accuracy in (0.85, 0.8, 0.7, 0.95, 1.0)]
    reference = Votes(*count_patterns(np.stack(columns, 1)))
    fitted, evidence = judge(mixed, ["match"] * 3 + ["language", None], {"match": Majority(), "language": Alone()})
    evidence = replace(evidence, reference=reference)
    models = {"match": Anchored(), "language": Alone()}
    fitted = replace(fitted, ensemble=Ensemble.fit(["match"] * 3 + ["language", None], models, evidence))
    filters, diagnosis = run(fitted, evidence, mixed, KeepRule(0.3))
    model = fitted.ensemble.aspects["match"][1]
    assert filters["f0"]["accuracy_interval"] == pytest.approx(model.accuracy_interval_[0].tolist(), abs=1e-6)
    assert "anchored" in filters["f0"]["accuracy_note"]
    assert diagnosis["aspects"]["match"]["class_prior_interval"] == pytest.approx(
        model.class_prior_interval_.tolist(), abs=1e-6
    )
    assert filters["f0"]["left_out_changes"] > 0.01
    assert not diagnosis["findings"]


def test_what_scores_decide_is_left_out_with_a_reason(judge, mixed):
    fitted, evidence = judge(mixed, ["match"] * 4 + [None], {"match": Majority()})
    generator = np.random.default_rng(0)
    match = generator.random(500) < 0.5
    scores = [match + generator.normal(0, 0.7, 500) for _ in range(4)]
    model = Gaussian().fit(np.stack(scores, 1))
    fitted = replace(fitted, ensemble=Ensemble({"match": ((0, 1, 2, 3), model)}))
    filters, diagnosis = run(fitted, evidence, mixed, KeepRule(0.3))
    json.dumps([filters, diagnosis], allow_nan=False)
    assert "scores" in filters["f0"]["accuracy_note"]
    assert filters["f0"]["left_out_changes"] is None
    assert "scores" in filters["f0"]["left_out_note"]
    assert diagnosis["patterns"]["patterns"][0]["probability"] is None
    assert diagnosis["patterns"]["uncovered"]["probability"] is None
    assert diagnosis["agreement"]["kappa"][0][1] > 0.2
