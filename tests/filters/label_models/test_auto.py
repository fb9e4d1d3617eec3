"""The automatic choice: which model is taken, why, and that it then is that model."""

import json

import numpy as np
import pytest

from chaffinch.filters.label_models.anchored import Anchored
from chaffinch.filters.label_models.auto import Auto
from chaffinch.filters.label_models.dawid_skene import DawidSkene
from chaffinch.filters.label_models.evidence import Evidence, Labelled, Votes
from chaffinch.filters.label_models.flying_squid import FlyingSquid
from chaffinch.filters.label_models.learned import own_order
from chaffinch.filters.label_models.majority import Majority
from chaffinch.filters.label_models.metal import Metal
from chaffinch.filters.label_models.votes import count_patterns
from chaffinch.filters.label_models.weighted_majority import WeightedMajority


def draw(rng, truth, accuracies, coverage=1.0):
    """Votes of sources that err independently given the truth."""
    right = rng.random((len(truth), len(accuracies))) < accuracies
    votes = np.where(right, truth[:, None], -truth[:, None])
    return np.where(rng.random(votes.shape) < coverage, votes, 0).astype(np.int8)


def evidence(votes, reference=None, labelled=None):
    trusted = None if reference is None else Votes(*count_patterns(reference))
    return Evidence(Votes(*count_patterns(votes)), trusted, None, labelled)


def duplicates_in_quality(seed, samples=3000):
    """Keep is an AND: four sources see one defect; copies look clean to all but one, and are bad."""
    rng = np.random.default_rng(seed)
    clean, copy = rng.random(samples) < 0.6, rng.random(samples) < 0.3
    copy &= clean
    votes = draw(rng, np.where(clean, 1, -1), [0.85, 0.8, 0.8, 0.75])
    finder = draw(rng, np.where(copy, -1, 1), [0.98])
    good = clean & ~copy
    return np.concatenate([votes, finder], axis=1), good


def test_it_is_the_model_that_it_has_chosen_also_after_json():
    rng = np.random.default_rng(1)
    votes = draw(rng, np.where(rng.random(2000) < 0.4, 1, -1), [0.8, 0.75, 0.7, 0.85], 0.7)
    model = Auto(class_prior=0.4).fit(votes)
    assert model.reasons_[0].startswith("dawid_skene foretells votes held out best")
    np.testing.assert_array_equal(
        model.predict_proba(votes), DawidSkene(class_prior=0.4).fit(votes).predict_proba(votes)
    )
    again = Auto.restore(json.loads(json.dumps(model.state())))
    np.testing.assert_array_equal(again.predict_proba(votes), model.predict_proba(votes))
    np.testing.assert_array_equal(model.weight_, model.chosen.weight_)


def test_every_candidate_is_held_to_the_same_measure():
    """Against plain loops: each third of the samples foretold by a model fitted to the rest."""
    rng = np.random.default_rng(2)
    votes = draw(rng, np.where(rng.random(60) < 0.5, 1, -1), [0.8, 0.7, 0.75], 0.8)
    patterns, counts = count_patterns(votes)
    # Every third sample is held out, in an order in which it does not matter where sources stand.
    patterns, counts = count_patterns(votes[:, own_order(patterns, counts)])
    rows = np.repeat(patterns, counts, axis=0)
    told = dict(line.split(": ") for line in Auto().fit(votes).reasons_[1:])
    candidates = {
        "dawid_skene": DawidSkene(),
        "dawid_skene, one_coin": DawidSkene(form="one_coin"),
        "weighted_majority": WeightedMajority(),
        "metal": Metal(),
        "flying_squid": FlyingSquid(),
        "majority": Majority(),
    }
    assert set(told) == set(candidates)
    for name, model in candidates.items():
        loss = 0.0
        for part in range(3):
            rest, held_out = rows[np.arange(60) % 3 != part], rows[np.arange(60) % 3 == part]
            keep = model.fit(rest).predict_proba(rest)
            by_class = np.stack([1 - keep, keep])
            prior = (by_class.sum(axis=1) + 0.5) / (len(rest) + 1)
            table = np.zeros((3, 2, 2))
            for source in range(3):
                for number in range(2):
                    for symbol, vote in enumerate((-1, 1)):
                        table[source, number, symbol] = by_class[number, rest[:, source] == vote].sum() + 0.5
                table[source] /= table[source].sum(axis=1, keepdims=True)
            for row in held_out:
                loss -= np.log(
                    sum(
                        prior[number]
                        * np.prod([table[source, number, int(vote > 0)] for source, vote in enumerate(row) if vote])
                        for number in range(2)
                    )
                )
        assert told[name] == f"{loss / 60:.4f} nats a sample", name


def test_enough_labels_choose_and_few_do_not():
    votes, good = duplicates_in_quality(3)
    best = max((Majority(), DawidSkene()), key=lambda model: _log_likelihood(model.fit(votes), votes, good))
    chosen = np.random.default_rng(3).choice(len(votes), 400, replace=False)
    labelled = Labelled(votes[chosen], good[chosen], np.ones(400, bool))
    model = Auto().learn(evidence(votes, labelled=labelled))
    assert "400 labels" in model.reasons_[0]
    assert _log_likelihood(model, votes, good) >= _log_likelihood(best, votes, good) - 0.01
    few = Labelled(votes[chosen[:19]], good[chosen[:19]], np.ones(19, bool))
    assert "votes held out" in Auto().learn(evidence(votes, labelled=few)).reasons_[0]
    one_kind = Labelled(votes[good][:50], good[good][:50], np.ones(50, bool))
    assert "votes held out" in Auto().learn(evidence(votes, labelled=one_kind)).reasons_[0]


def _log_likelihood(model, votes, good):
    proba = np.clip(model.predict_proba(votes), 1e-3, 1 - 1e-3)
    return float(np.log(np.where(good, proba, 1 - proba)).mean())


def test_with_a_reference_the_model_that_is_anchored_in_it_is_tried_first():
    votes, good = duplicates_in_quality(4)
    reference, pool = votes[good][:300], np.concatenate([votes[good][300:], votes[~good]])
    model = Auto().learn(evidence(pool, reference))
    assert isinstance(model.chosen, Anchored)
    assert model.reasons_[1].startswith("anchored: ")


def test_candidates_that_cannot_be_fitted_are_left_out_and_named():
    votes = np.array([[1, -1], [1, 1], [-1, -1]] * 20)
    model = Auto().fit(votes)
    assert any(line.startswith("flying_squid: left out: ") for line in model.reasons_)
    alone = Auto(class_prior=0.5).fit(np.array([[1], [-1], [1]]))
    assert alone.predict_proba(np.array([[1]]))[0] > 0.5
    nothing = Auto(class_prior=0.3).fit(np.zeros((4, 3)))
    assert nothing.predict_proba(np.zeros((1, 3)))[0] == pytest.approx(0.3)


def test_many_classes_and_any_order_of_samples():
    rng = np.random.default_rng(5)
    truth = rng.integers(1, 4, 1500)
    votes = np.where(rng.random((1500, 5)) < 0.7, truth[:, None], rng.integers(1, 4, (1500, 5)))
    model = Auto(classes=3).fit(votes)
    proba = model.predict_proba(votes)
    assert proba.shape == (1500, 3)
    assert (proba.argmax(axis=1) + 1 == truth).mean() > 0.85
    again = Auto(classes=3).fit(votes[::-1])
    assert again.reasons_ == model.reasons_
    np.testing.assert_array_equal(again.predict_proba(votes), proba)


def test_a_second_fit_forgets_the_model_of_the_first():
    rng = np.random.default_rng(6)
    first, second = (draw(rng, rng.choice([-1, 1], 400), [0.9, 0.8, 0.7, 0.7]) for _ in range(2))
    model = Auto().fit(first)
    model.predict_proba(first)
    np.testing.assert_array_equal(model.fit(second).predict_proba(second), Auto().fit(second).predict_proba(second))
