"""Filters that stand in the wrong aspect are found, with the aspect that they should have."""

import numpy as np
import pytest

from chaffinch.filters.diagnosis.agreement import Agreement
from chaffinch.filters.diagnosis.belonging import check_aspect, measure_raises
from chaffinch.filters.diagnosis.grouping import group_filters
from chaffinch.filters.label_models import All, DawidSkene, Majority
from chaffinch.filters.label_models.evidence import Votes
from chaffinch.filters.label_models.votes import count_patterns


def check(votes, names, model, worse=None, taken=("quality",)):
    counted = Votes(*count_patterns(votes))
    worse = np.zeros(len(names), bool) if worse is None else worse
    return check_aspect(names, "quality", taken, model.fit(votes), counted, worse)


@pytest.mark.parametrize("model", [DawidSkene, Majority])
def test_a_duplicate_filter_among_filters_of_the_match_is_sent_to_its_own_aspect(and_pool, model):
    votes, names = and_pool
    standing = check(votes, names, model())
    assert [one.filter for one in standing.findings] == ["duplicates"]
    (finding,) = standing.findings
    assert "give it `aspect: duplicates`" in finding.remedy
    assert "`require: true`" in finding.remedy
    assert standing.proposed == {"quality": names[:4], "duplicates": ["duplicates"]}
    assert "disagrees" in finding.problems
    assert ("raises" in finding.problems) == (model is DawidSkene)  # a majority follows it; a class turns it around


def test_where_all_judge_the_same_nothing_is_found(vote):
    for seed in range(10):
        generator = np.random.default_rng(seed)
        truth = generator.random(4000) < 0.7
        votes = np.stack([vote(generator, truth, accuracy, 0.7) for accuracy in (0.85, 0.8, 0.75, 0.7, 0.7)], 1)
        standing = check(votes, list("abcde"), DawidSkene())
        assert not standing.findings
        assert not standing.proposed


def test_two_groups_are_told_apart(vote):
    generator = np.random.default_rng(0)
    match, language = generator.random(5000) < 0.5, generator.random(5000) < 0.6
    truths = [match, language, match, language, match]
    votes = np.stack([vote(generator, truth, 0.85) for truth in truths], 1)
    assert group_filters(Agreement.of(*count_patterns(votes))) == [[0, 2, 4], [1, 3]]
    standing = check(votes, ["clip", "words", "l14", "letters", "boxes"], DawidSkene())
    assert standing.proposed == {"quality": ["clip", "l14", "boxes"], "words": ["words", "letters"]}
    assert [one.filter for one in standing.findings] == ["words", "letters"]
    assert "`aspect: words` together with letters" in standing.findings[0].remedy


def test_filters_without_anything_in_common_each_get_an_aspect(vote):
    generator = np.random.default_rng(0)
    votes = np.stack([vote(generator, generator.random(8000) < 0.7, 0.9) for _ in range(3)], 1)
    standing = check(votes, ["a", "b", "quality"], DawidSkene(), taken=("quality", "b"))
    assert [one.filter for one in standing.findings] == ["a", "b", "quality"]
    assert list(standing.proposed) == ["quality", "b_apart", "quality_apart"]


def test_ranges_the_wrong_way_round_are_suspected(vote):
    generator = np.random.default_rng(1)
    truth = generator.random(4000) < 0.6
    votes = np.stack([vote(generator, truth, accuracy) for accuracy in (0.85, 0.8, 0.2, 0.75)], 1)
    standing = check(votes, list("abcd"), DawidSkene(), np.array([False, False, True, False]))
    (finding,) = standing.findings
    assert finding.filter == "c"
    assert {"raises", "worse_than_chance", "disagrees"} <= set(finding.problems)
    assert finding.remedy.endswith("or swap its `keep:` and `drop:`, if they are the wrong way round")


def test_a_filter_that_leaves_the_largest_group_goes_alone(and_pool):
    votes, names = and_pool
    model = DawidSkene().fit(votes[:, :4])
    model.turned_ = np.array([False, True, False, True])  # as a reference would say it
    standing = check_aspect(
        names[:4], "quality", ["quality"], model, Votes(*count_patterns(votes[:, :4])), np.zeros(4, bool)
    )
    assert [one.problems for one in standing.findings] == [("turned",), ("turned",)]
    assert standing.proposed == {"quality": ["clip", "boxes"], "l14": ["l14"], "words": ["words"]}
    assert "`aspect: l14`" in standing.findings[0].remedy


def test_filters_that_cast_one_kind_of_vote_are_named(vote):
    generator = np.random.default_rng(1)
    truth = generator.random(2000) < 0.6
    votes = np.stack([vote(generator, truth, accuracy) for accuracy in (0.85, 0.8, 0.75)] * 2, 1)
    votes[:, 3] = np.minimum(votes[:, 3], 0)
    votes[:, 4] = np.maximum(votes[:, 4], 0)
    votes[:, 5] = 0
    found = {one.filter: one for one in check(votes, list("abcdef"), DawidSkene()).findings}
    assert {name: one.problems for name, one in found.items()} == {
        "d": ("never_keeps",),
        "e": ("never_drops",),
        "f": ("silent",),
    }
    assert "`keep:` range" in found["d"].remedy
    assert "`drop:` range" in found["e"].remedy
    rule = check(votes, list("abcdef"), All())
    assert [one.filter for one in rule.findings] == ["f"]


def test_raises_against_plain_loops(and_pool):
    votes = and_pool[0][:400]
    model = DawidSkene().fit(votes)
    found = measure_raises(model, Votes(*count_patterns(votes)))
    for index in range(votes.shape[1]):
        raised = []
        for row in votes[votes[:, index] == -1]:
            silent = row.copy()
            silent[index] = 0
            raised.append(float(model.predict_proba(row[None])[0] - model.predict_proba(silent[None])[0]))
        assert found[index] == pytest.approx(np.mean(raised), abs=1e-12)


def test_few_samples_say_nothing(vote):
    generator = np.random.default_rng(4)
    votes = np.stack([vote(generator, generator.random(60) < 0.5, 0.9) for _ in range(3)], 1)
    problems = {problem for one in check(votes, list("abc"), Majority()).findings for problem in one.problems}
    assert not problems & {"apart", "disagrees"}
