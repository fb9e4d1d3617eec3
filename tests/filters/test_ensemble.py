import json

import numpy as np
import pytest

from chaffinch.filters.cut import Cut
from chaffinch.filters.ensemble import Ensemble
from chaffinch.filters.fitted import Fitted
from chaffinch.filters.label_models import All, Alone, DawidSkene, Majority, Nothing
from chaffinch.filters.label_models.evidence import Evidence, Votes
from chaffinch.filters.label_models.votes import count_patterns
from chaffinch.filters.ranges import NOTHING, FittedRanges
from chaffinch.filters.statistics import DIGIT_BITS, Histogram, Ranks, sortable

INF = float("inf")
KINDS = {"majority": Majority, "dawid_skene": DawidSkene, "all": All, "none": Nothing, "alone": Alone}


def evidence(votes):
    return Evidence(Votes(*count_patterns(votes)))


def planted(n=4000, seed=0):
    """Votes of five filters: three judge the match, two independent reasons are an aspect each."""
    rng = np.random.default_rng(seed)
    match, language, picture = (rng.random(n) < share for share in (0.6, 0.9, 0.85))
    right = [0.85, 0.8, 0.75, 0.95, 0.95]
    truths = [match, match, match, language, picture]
    votes = np.stack(
        [np.where(rng.random(n) < a, truth, ~truth) * 2 - 1 for a, truth in zip(right, truths, strict=True)], 1
    ).astype(np.int8)
    return votes, match & language & picture


def auc(score, good):
    order = np.argsort(np.argsort(score + 1e-9 * np.random.default_rng(0).random(len(score))))
    positives = good.sum()
    return (order[good].sum() - positives * (positives - 1) / 2) / (positives * (~good).sum())


def test_probabilities_multiply_over_aspects():
    votes, _ = planted()
    aspects = ["match", "match", "match", "language", "picture"]
    models = {"match": DawidSkene(), "language": Alone(), "picture": Alone()}
    ensemble = Ensemble.fit(aspects, models, evidence(votes))
    product = np.ones(len(votes))
    for columns, kind in (((0, 1, 2), DawidSkene), ((3,), Alone), ((4,), Alone)):
        product *= kind().fit(votes[:, columns]).predict_proba(votes[:, columns])
    np.testing.assert_allclose(ensemble.by_votes(votes), product.astype(np.float32), rtol=1e-6)


def test_aspects_order_better_than_one_latent_class_where_keep_is_an_and():
    votes, good = planted()
    aspects = ["match", "match", "match", "language", "picture"]
    models = {"match": DawidSkene(), "language": Alone(), "picture": Alone()}
    apart = Ensemble.fit(aspects, models, evidence(votes)).by_votes(votes)
    together = Ensemble.fit(["quality"] * 5, {"quality": DawidSkene()}, evidence(votes)).by_votes(votes)
    assert auc(apart, good) > auc(together, good) + 0.02


def test_a_sample_alone_has_the_probability_it_has_in_the_pool():
    votes, _ = planted(500)
    ensemble = Ensemble.fit(["quality"] * 5, {"quality": DawidSkene()}, evidence(votes))
    together = ensemble.by_votes(votes)
    alone = np.concatenate([ensemble.by_votes(row[None]) for row in votes])
    np.testing.assert_array_equal(together, alone)
    assert ensemble.by_votes(votes[:0]).shape == (0,)


def test_a_filter_alone_is_taken_at_its_word():
    votes = np.array([[1]] * 90 + [[-1]] * 10 + [[0]] * 5, np.int8)
    model = Alone().fit(votes)
    keep, drop, none = model.predict_proba(np.array([[1], [-1], [0]], np.int8))
    assert keep > 0.99
    assert drop < 0.1
    assert none == pytest.approx(0.9)


@pytest.mark.parametrize("prior", [0.3, 0.7, 0.8, 0.95])
def test_a_filter_alone_and_its_class_prior_agree(prior):
    votes = np.array([[1]] * 75 + [[-1]] * 25, np.int8)
    model = Alone(class_prior=prior).fit(votes)
    assert 0.6 <= model.accuracy_[0] <= 0.99
    if 0.6 < model.accuracy_[0] < 0.99:
        assert model.predict_proba(votes).mean() == pytest.approx(prior, abs=1e-9)
    probability = model.predict_proba(np.array([[-1], [0], [1]], np.int8))
    assert np.all(np.diff(probability) > 0)


def test_alone_is_for_one():
    with pytest.raises(ValueError, match="one filter, not for 2"):
        Alone().fit(np.ones((3, 2), np.int8))


def fitted(**changes):
    votes, _ = planted(300)
    rng = np.random.default_rng(5)
    scores = rng.normal(size=300).astype(np.float32)
    ranks = Ranks.from_histogram(Histogram.of((sortable(scores) >> DIGIT_BITS).astype(np.int64)))
    settings = {
        "names": ["size", "clip", "area"],
        "required": [True, False, False],
        "ranges": [
            FittedRanges((64.0, INF), None),
            FittedRanges((0.5, INF), (-INF, -0.5)),
            FittedRanges((-1.0, 1.0), None),
        ],
        "ranks": {"clip": ranks},
        "ensemble": Ensemble.fit([None, "quality", "quality"], {"quality": DawidSkene()}, evidence(votes[:, :3])),
        "uncovered": False,
        "cut": Cut(0.25, 17, 2**64 - 5),
    }
    return Fitted(**(settings | changes))


def test_fitted_numbers_survive_json_to_the_bit():
    before = fitted(
        ranges=[FittedRanges(NOTHING, (-INF, 0.1)), FittedRanges((0.1, INF), None), FittedRanges(None, (0.0, 1.0))]
    )
    after = Fitted.restore(json.loads(json.dumps(before.state())), KINDS.__getitem__)
    rng = np.random.default_rng(6)
    scores = [rng.normal(size=50).astype(np.float32) for _ in range(3)]
    votes = before.votes(scores, 50)
    np.testing.assert_array_equal(votes, after.votes(scores, 50))
    np.testing.assert_array_equal(before.soft_scores(scores, 50), after.soft_scores(scores, 50))
    np.testing.assert_array_equal(before.ensemble.by_votes(votes), after.ensemble.by_votes(votes))
    assert before.cut == after.cut


def test_a_veto_and_an_uncovered_sample_are_no_candidates():
    one = fitted()
    votes = np.array([[1, 1, 0], [-1, 1, 1], [1, 0, 0], [0, 0, 1]], np.int8)
    probability = np.full(4, 0.9, np.float32)
    assert one.candidates(votes, probability, one.covered(votes)).tolist() == [True, False, False, True]
    lenient = fitted(uncovered=True)
    assert lenient.candidates(votes, probability, one.covered(votes)).tolist() == [True, False, True, True]


def test_rules_are_final():
    rule = Ensemble.fit([None, "quality", "quality"], {"quality": All()}, evidence(np.array([[1, 1, 1]])))
    votes = np.array([[1, 1, 1], [1, -1, 1]], np.int8)
    one = fitted(ensemble=rule)
    assert one.candidates(votes, rule.by_votes(votes), one.covered(votes)).tolist() == [True, False]
    everything = Ensemble.fit([None, "quality", "quality"], {"quality": Nothing()}, evidence(np.array([[1, 1, 1]])))
    covered = fitted(ensemble=everything)
    votes = np.array([[1, 0, 0], [-1, 0, 0]], np.int8)
    assert covered.candidates(votes, everything.by_votes(votes), covered.covered(votes)).tolist() == [True, False]


def test_soft_scores_rise_with_what_each_filter_prefers():
    one = fitted()
    clip = np.array([-2, -1, 0, 1, 2], np.float32)
    inside = np.zeros(5, np.float32)
    soft = one.soft_scores([inside, clip, inside], 5)
    assert np.all(np.diff(soft.astype(np.int64)) > 0)
    outside = one.soft_scores([inside, clip, np.full(5, 9, np.float32)], 5)
    assert np.all(outside < soft)
    unknown = one.soft_scores([inside, np.full(5, np.nan, np.float32), inside], 5)
    assert np.all(unknown == 2**32 - 1)
