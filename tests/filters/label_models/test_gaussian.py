import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, rankdata

from chaffinch.filters.label_models.evidence import Evidence, SoftVotes, Votes
from chaffinch.filters.label_models.gaussian import Gaussian
from chaffinch.filters.soft_votes import MISSING, STEPS, Moments, soften


def planted(n, gaps, prior, blocks=(), seed=0):
    """Scores of sources that tell the classes apart by so many deviations, and whether each sample is good."""
    rng = np.random.default_rng(seed)
    good = rng.random(n) < prior
    noise = rng.standard_normal((n, len(gaps)))
    for columns, share in blocks:
        noise[:, columns] = np.sqrt(share) * rng.standard_normal((n, 1)) + np.sqrt(1 - share) * noise[:, columns]
    return noise + np.outer(good, gaps), good


def auc(order, good):
    ranks = rankdata(order)
    return (ranks[good].sum() - good.sum() * (good.sum() + 1) / 2) / (good.sum() * (~good).sum())


def soft_of(scores):
    """Soft votes as a pool's own ranks give them."""
    columns = []
    for column in scores.T:
        known = ~np.isnan(column)
        ranks = np.full(len(column), np.nan)
        ranks[known] = (rankdata(column[known]) - 0.5) / known.sum()
        columns.append(soften(ranks))
    return np.stack(columns, 1)


def evidence(soft):
    nothing = Votes(np.zeros((0, soft.shape[1]), np.int8), np.zeros(0, np.int64))
    return Evidence(nothing, soft=SoftVotes(Moments.of(soft), soft[:0], soft[:0]))


GAPS = [1.0, 1.4, 0.7, 1.2]


@pytest.mark.parametrize("prior", [0.2, 0.5, 0.7])
def test_recovers_what_was_planted(prior):
    scores, good = planted(20_000, GAPS, prior)
    model = Gaussian(class_prior=prior).fit(scores)
    probability = model.predict_proba(scores)
    best = auc(scores @ GAPS, good)  # the linear discriminant of the planted densities
    assert auc(probability, good) > best - 0.002
    alone = ((scores > np.array(GAPS) / 2) == good[:, None]).mean(axis=0)
    np.testing.assert_allclose(model.accuracy_, alone, atol=0.04)
    assert np.argsort(model.weight_).tolist() == [2, 0, 3, 1]
    for low, high in [(0.05, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 0.95)]:
        chosen = (probability >= low) & (probability < high)
        assert good[chosen].mean() == pytest.approx(probability[chosen].mean(), abs=0.06)


def test_is_bayes_rule_for_two_normal_densities():
    scores, _ = planted(2000, GAPS, 0.3)
    model = Gaussian(class_prior=0.3).fit(scores)
    soft = soft_of(scores[:200])
    keep = multivariate_normal(model.mean_ + 0.7 * model.gap_, model.within_).pdf(soft / STEPS)
    drop = multivariate_normal(model.mean_ - 0.3 * model.gap_, model.within_).pdf(soft / STEPS)
    np.testing.assert_allclose(model.predict_soft(soft), 0.3 * keep / (0.3 * keep + 0.7 * drop), rtol=1e-6)


def test_what_is_missing_is_integrated_out():
    scores, _ = planted(2000, GAPS, 0.3)
    model = Gaussian(class_prior=0.3).fit(scores)
    soft = soft_of(scores[:200])
    soft[:, [0, 2]] = MISSING
    there = [1, 3]
    parts = model.gap_[there], model.within_[np.ix_(there, there)], soft[:, there] / STEPS
    keep = multivariate_normal(model.mean_[there] + 0.7 * parts[0], parts[1]).pdf(parts[2])
    drop = multivariate_normal(model.mean_[there] - 0.3 * parts[0], parts[1]).pdf(parts[2])
    np.testing.assert_allclose(model.predict_soft(soft), 0.3 * keep / (0.3 * keep + 0.7 * drop), rtol=1e-6)


def test_loadings_are_those_of_the_covariances():
    """g_i g_j / (sd_i sd_j) is the correlation of i and j, for all pairs of independent sources."""
    scores, _ = planted(50_000, GAPS, 0.5)
    model = Gaussian(class_prior=0.5).fit(scores)
    g = model.gap_ / 2  # d sqrt(p (1 - p))
    correlation = np.corrcoef(soft_of(scores).T.astype(float))
    off = ~np.eye(4, dtype=bool)
    np.testing.assert_allclose(np.outer(g, g)[off], correlation[off], atol=0.02)


def test_missing_scores_are_no_hindrance():
    scores, good = planted(20_000, GAPS, 0.4)
    holes = np.random.default_rng(1).random(scores.shape) < 0.4
    model = Gaussian(class_prior=0.4).fit(np.where(holes, np.nan, scores))
    np.testing.assert_allclose(model.gap_, Gaussian(class_prior=0.4).fit(scores).gap_, atol=0.08)
    probability = model.predict_proba(np.where(holes, np.nan, scores))
    assert probability.mean() == pytest.approx(0.4, abs=0.02)
    there = np.where(holes, 0, (scores - 0.4 * np.array(GAPS)) * GAPS)
    assert auc(probability, good) > auc(there.sum(axis=1), good) - 0.002
    everything_missing = holes.all(axis=1)
    assert everything_missing.any()
    assert set(probability[everything_missing]) == {0.4}


@pytest.mark.parametrize("alike", [0.6, 0.95, 0.999])
def test_ten_near_copies_do_not_outvote_three_others(alike):
    gaps = [1.0] * 10 + [1.2, 1.0, 0.8]
    scores, good = planted(10_000, gaps, 0.5, [(list(range(10)), alike)])
    model = Gaussian().fit(scores)
    within = np.cov((scores - np.outer(good, gaps)).T)
    assert auc(model.predict_proba(scores), good) > auc(scores @ np.linalg.solve(within, gaps), good) - 0.003
    against = np.array([[-1.0] * 10 + [2.2, 2.0, 1.8]])  # the ten say drop, the three say keep
    assert model.predict_proba(against)[0] > 0.5


@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_copied_source_changes_no_bit(place):
    scores, _ = planted(1000, GAPS, 0.4)
    scores[:100, 0] = np.nan
    plain = Gaussian().fit(scores)
    wider = np.insert(scores, place, scores[:, 1] ** 3, axis=1)  # equal ranks: equal soft votes
    model = Gaussian().fit(wider)
    np.testing.assert_array_equal(model.predict_proba(wider), plain.predict_proba(scores))
    first, second = sorted([place, 1 if place > 1 else 2])
    assert model.weight_[[first, second]] == pytest.approx(plain.weight_[1] / 2)
    assert model.copy_of_[[first, second]].tolist() == [first, first]


def test_a_turned_source_is_named_and_left_out():
    scores, _ = planted(5000, [*GAPS, -1.0], 0.4)
    model = Gaussian().fit(scores)
    assert model.turned_.tolist() == [False] * 4 + [True]
    assert model.weight_[4] == 0
    assert model.accuracy_[4] < 0.5
    changed = scores.copy()
    changed[:, 4] = -scores[:, 4]
    np.testing.assert_array_equal(model.predict_proba(changed), model.predict_proba(scores))


@given(st.integers(0, 3), st.floats(-3, 3), st.floats(0, 3))
@settings(max_examples=30)
def test_a_better_score_never_lowers_the_probability(column, value, more):
    scores, _ = planted(400, GAPS, 0.4, [([0, 1], 0.9)], seed=3)
    model = Gaussian().fit(scores)
    row = scores[:1].copy()
    row[0, column] = value
    better = row.copy()
    better[0, column] = value + more
    assert model.predict_proba(better)[0] >= model.predict_proba(row)[0]


def test_neither_rows_nor_shards_nor_neighbours_change_a_bit():
    soft = soft_of(np.where(np.random.default_rng(1).random((900, 4)) < 0.2, np.nan, planted(900, GAPS, 0.4)[0]))
    whole = Gaussian().learn(evidence(soft))
    order = np.random.default_rng(2).permutation(900)
    parts = Moments.of(soft[order][:100]).merge(Moments.of(soft[order][100:]))
    split = Gaussian().learn(Evidence(evidence(soft).votes, soft=SoftVotes(parts, soft[:0], soft[:0])))
    assert split.state() == whole.state()
    probability = whole.predict_soft(soft)
    np.testing.assert_array_equal(whole.predict_soft(soft[order]), probability[order])
    np.testing.assert_array_equal([whole.predict_soft(soft[row : row + 1])[0] for row in range(50)], probability[:50])
    assert whole.predict_soft(soft[:0]).shape == (0,)


def test_a_trip_through_json_changes_no_bit():
    soft = soft_of(np.insert(planted(500, GAPS, 0.4)[0], 2, np.nan, axis=1))
    model = Gaussian(class_prior=0.4).learn(evidence(soft))
    restored = Gaussian.restore(json.loads(json.dumps(model.state(), allow_nan=False)))
    np.testing.assert_array_equal(restored.predict_soft(soft), model.predict_soft(soft))
    assert restored.state() == model.state()
    assert restored == model


def test_the_order_of_samples_does_not_depend_on_the_prior():
    scores, _ = planted(500, GAPS, 0.4)
    low, high = (Gaussian(class_prior=prior).fit(scores) for prior in (0.2, 0.6))
    np.testing.assert_array_equal(np.argsort(low.predict_proba(scores)), np.argsort(high.predict_proba(scores)))
    assert low.predict_proba(scores).mean() < high.predict_proba(scores).mean()
    assert low.class_prior_interval_.tolist() == [0.2, 0.2]
    unknown = Gaussian().fit(scores)
    assert (unknown.class_prior_, unknown.class_prior_interval_.tolist()) == (0.5, [0.0, 1.0])


def test_few_samples_leave_it_finite():
    for seed in range(5):
        scores, good = planted(25, [1.0] * 12, 0.5, seed=seed)
        probability = Gaussian().fit(scores).predict_proba(scores)
        assert ((probability >= 0) & (probability <= 1)).all()
        assert auc(probability, good) > 0.8


@pytest.mark.parametrize(
    "scores",
    [
        np.zeros((50, 4)),
        np.full((50, 4), np.nan),
        planted(50, [1, 1], 0.5)[0],
        planted(50, [1], 0.5)[0],
        planted(9, GAPS, 0.5)[0],
        np.repeat(planted(50, [1], 0.5)[0], 5, axis=1),
        np.zeros((0, 4)),
    ],
)
def test_too_little_to_learn_from_is_refused(scores):
    with pytest.raises(ValueError, match=r"three or more sources.*add sources, or take\s+dawid_skene"):
        Gaussian().fit(scores)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="2 shares, but there are two classes"):
        Gaussian(class_prior=(0.5, 0.5)).fit(planted(50, GAPS, 0.5)[0])
    with pytest.raises(ValueError, match="judges scores, but was given votes alone"):
        Gaussian().learn(Evidence(Votes(np.zeros((1, 3), np.int8), np.ones(1, np.int64))))
    with pytest.raises(ValueError, match="judges scores, not votes"):
        Gaussian().fit_patterns(np.zeros((1, 3), np.int8), np.ones(1))
    with pytest.raises(ValueError, match="judges scores, not votes"):
        Gaussian().predict_patterns(np.zeros((1, 3), np.int8))
    with pytest.raises(ValueError, match="has not been fitted to scores"):
        Gaussian().predict_proba(np.zeros((1, 4)))
    model = Gaussian().fit(planted(50, GAPS, 0.5)[0])
    with pytest.raises(ValueError, match="scores have 3 sources, but the fit had 4"):
        model.predict_proba(np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"not of shape \(4,\)"):
        model.fit(np.zeros(4))


def test_votes_are_scores_whose_abstains_are_missing():
    rng = np.random.default_rng(12)
    truth = np.where(rng.random(3000) < 0.5, 1, -1)
    right = rng.random((3000, 5)) < [0.9, 0.8, 0.75, 0.7, 0.85]
    votes = np.where(rng.random((3000, 5)) < 0.7, np.where(right, truth[:, None], -truth[:, None]), 0)
    model = Gaussian(class_prior=0.5).fit(votes)
    proba = model.predict_proba(votes)
    as_scores = np.where(votes == 0, np.nan, votes.astype(float))
    np.testing.assert_array_equal(proba, Gaussian(class_prior=0.5).fit(as_scores).predict_proba(as_scores))
    assert ((proba > 0.5) == (truth > 0)).mean() > 0.87
    assert model.predict_proba([[0, 0, 0, 0, 0]])[0] == 0.5
    counts = Gaussian(class_prior=0.5).fit(rng.integers(0, 9, (200, 3)))
    together = counts.predict_proba([[1, 0, 1], [8, 8, 8]])
    assert counts.predict_proba([[1, 0, 1]])[0] == together[0]  # counts stay counts, whoever they come with
