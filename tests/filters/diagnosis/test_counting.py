"""What is counted: contributions, agreement, the patterns table, and what a rule keeps; against plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from chaffinch.filters.diagnosis.agreement import Agreement, agree_with_peers
from chaffinch.filters.diagnosis.contributions import count_contributions
from chaffinch.filters.diagnosis.frequent import list_patterns
from chaffinch.filters.diagnosis.keeping import KeepRule, thin
from chaffinch.filters.label_models import DawidSkene, Majority
from chaffinch.filters.label_models.votes import count_patterns

VOTES = arrays(np.int8, st.tuples(st.integers(1, 30), st.integers(2, 5)), elements=st.sampled_from([-1, 0, 1]))


def kappa_of(one, other):
    """Cohen's kappa as its definition says, sample by sample."""
    both = [(a, b) for a, b in zip(one, other, strict=True) if a != 0 and b != 0]
    if not both or len({a for a, _ in both}) < 2 or len({b for _, b in both}) < 2:
        return len(both), None
    agree = sum(a == b for a, b in both) / len(both)
    chance = sum(sum(a == vote for a, _ in both) * sum(b == vote for _, b in both) / len(both) ** 2 for vote in (-1, 1))
    return len(both), (agree - chance) / (1 - chance)


@given(VOTES)
def test_contributions_against_plain_loops(votes):
    n, m = votes.shape
    for column, one in enumerate(count_contributions(*count_patterns(votes))):
        others = [other for other in range(m) if other != column]
        mine = votes[:, column]
        assert one["keep"] == pytest.approx(sum(v == 1 for v in mine) / n)
        assert one["drop"] == pytest.approx(sum(v == -1 for v in mine) / n)
        assert one["coverage"] == pytest.approx(sum(v != 0 for v in mine) / n)
        overlap = sum(row[column] != 0 and any(row[o] != 0 for o in others) for row in votes)
        conflict = sum(row[column] != 0 and any(row[o] == -row[column] for o in others) for row in votes)
        assert one["overlap"] == pytest.approx(overlap / n)
        assert one["conflict"] == pytest.approx(conflict / n)
        assert one["only_drop"] == sum(row[column] == -1 and all(row[o] != -1 for o in others) for row in votes)


@given(VOTES)
def test_kappa_against_plain_loops(votes):
    found = Agreement.of(*count_patterns(votes))
    peers = agree_with_peers(*count_patterns(votes))
    for i in range(votes.shape[1]):
        for j in range(votes.shape[1]):
            common, kappa = kappa_of(votes[:, i], votes[:, j])
            assert found.common[i, j] == common
            assert (kappa is None) == np.isnan(found.kappa[i, j])
            if kappa is not None:
                assert found.kappa[i, j] == pytest.approx(kappa, abs=1e-12)
                both = (votes[:, i] != 0) & (votes[:, j] != 0)
                pearson = np.corrcoef(votes[both, i], votes[both, j])[0, 1]
                assert found.correlation[i, j] == pytest.approx(pearson, abs=1e-12)
        majority = np.sign(votes.sum(axis=1, dtype=int) - votes[:, i])
        common, kappa = kappa_of(votes[:, i], majority)
        assert peers.common[i] == common
        assert (kappa is None) == np.isnan(peers.kappa[i])
        if kappa is not None:
            assert peers.kappa[i] == pytest.approx(kappa, abs=1e-12)


def test_only_what_is_beyond_chance_is_related(vote):
    generator = np.random.default_rng(0)
    truth = generator.random(3000) < 0.5
    votes = np.stack([vote(generator, truth, 0.8), vote(generator, truth, 0.8), vote(generator, truth, 0.5)], 1)
    related = Agreement.of(*count_patterns(votes)).related(0.05)
    assert related[0, 1] > 0.3
    assert not related[2].any()
    few = Agreement.of(*count_patterns(votes[:30])).related(0.05)
    assert few[0, 1] == 0  # 30 samples prove nothing


def test_a_rule_keeps_as_many_as_it_says_and_shares_the_cut():
    probability = np.array([0.9, 0.5, 0.5, 0.2], np.float32)
    counts, allowed = np.array([10, 30, 10, 50]), np.ones(4, bool)
    np.testing.assert_allclose(KeepRule(0.3).kept(probability, counts, allowed), [1, 0.5, 0.5, 0])
    np.testing.assert_allclose(KeepRule(0.05).kept(probability, counts, allowed), [0.5, 0, 0, 0])
    np.testing.assert_allclose(KeepRule(1.0).kept(probability, counts, allowed), [1, 1, 1, 1])
    np.testing.assert_allclose(KeepRule(None, 0.5).kept(probability, counts, allowed), [1, 1, 1, 0])
    allowed[0] = False
    np.testing.assert_allclose(KeepRule(0.2).kept(probability, counts, allowed), [0, 0.5, 0.5, 0])


@given(st.lists(st.integers(1, 500), min_size=1, max_size=40), st.integers(1, 200))
def test_thinning_takes_each_pattern_by_its_share(counts, samples):
    counts = np.array(counts)
    patterns = np.arange(len(counts), dtype=np.int8)[:, None]
    found, number = thin(patterns, counts, samples)
    total = counts.sum()
    assert number.sum() == min(samples, total)
    if samples < total:
        expected = counts[found[:, 0]] * samples / total
        assert np.all(np.abs(number - expected) < 1 + 1e-9)


def test_the_table_of_patterns_is_bounded_and_adds_up(judge, vote):
    generator = np.random.default_rng(1)
    truth = generator.random(2000) < 0.6
    votes = np.stack([vote(generator, truth, 0.7, 0.7) for _ in range(6)], 1)
    votes[:, 5] = vote(generator, truth, 0.95)
    fitted, _ = judge(votes, ["quality"] * 5 + [None], {"quality": DawidSkene()})
    patterns, counts = count_patterns(votes)
    table = list_patterns(fitted, patterns, counts, most=10)
    judged = votes[votes[:, 5] != -1]
    assert table["filters"] == [f"f{index}" for index in range(5)]
    assert table["ruled_out"] == len(votes) - len(judged)
    assert len(table["patterns"]) == 10
    samples = [one["samples"] for one in table["patterns"]]
    assert samples == sorted(samples, reverse=True)
    assert sum(samples) + table["rest"]["samples"] == len(judged)
    signs = {"+": 1, "-": -1, "0": 0}
    for one in table["patterns"]:
        row = np.array([signs[sign] for sign in one["votes"]])
        assert one["samples"] == (judged[:, :5] == row).all(axis=1).sum()
        assert one["probability"] == pytest.approx(fitted.ensemble.by_votes(np.append(row, 0)[None])[0], abs=1e-6)
    silent = ~judged[:, :5].any(axis=1)
    assert table["uncovered"]["samples"] == silent.sum() > 0
    prior = fitted.ensemble.aspects["quality"][1].class_prior_
    assert table["uncovered"]["probability"] == pytest.approx(prior, abs=1e-6)
    whole = list_patterns(fitted, patterns, counts)
    mean = fitted.ensemble.by_votes(judged).mean()
    told = sum(one["samples"] * one["probability"] for one in whole["patterns"])
    assert told + whole["rest"]["samples"] * (whole["rest"]["probability"] or 0) == pytest.approx(
        mean * len(judged), rel=1e-5
    )


def test_rows_of_a_rule_are_listed_too(judge):
    votes = np.array([[1, -1], [1, 1], [0, 0]], np.int8)
    fitted, _ = judge(votes, ["a", "a"], {"a": Majority()})
    found = {one["votes"]: one["probability"] for one in list_patterns(fitted, *count_patterns(votes))["patterns"]}
    assert found == {"+-": 0.5, "++": 1.0, "00": 0.5}
