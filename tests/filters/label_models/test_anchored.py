import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaffinch.filters.label_models import DawidSkene
from chaffinch.filters.label_models.anchored import Anchored
from chaffinch.filters.label_models.evidence import Evidence, Votes
from chaffinch.filters.label_models.votes import count_patterns

KEEP = np.array([0.95, 0.9, 0.97, 0.85, 0.98])  # P(votes keep | keep)
DROP = np.array([0.4, 0.3, 0.5, 0.2, 0.7])


def planted(n, prior, coverage=0.8, seed=0, keep=KEEP, drop=DROP):
    """Votes of independent sources, and whether each sample is good."""
    rng = np.random.default_rng(seed)
    good = rng.random(n) < prior
    votes = np.where(rng.random((n, len(keep))) < np.where(good[:, None], keep, drop), 1, -1)
    return (votes * (rng.random(votes.shape) < coverage)).astype(np.int8), good


def trusted(k, seed=100, **settings):
    return planted(k, 1.1, seed=seed, **settings)[0]


def bayes(votes, prior, keep=KEEP, drop=DROP):
    """P(keep) with the numbers that were planted, multiplied out."""
    joint = [
        share * np.where(votes == 1, p, np.where(votes == -1, 1 - p, 1)).prod(axis=1)
        for share, p in ((prior, keep), (1 - prior, drop))
    ]
    return joint[0] / (joint[0] + joint[1])


@pytest.mark.parametrize("prior", [0.1, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("given_prior", [True, False])
def test_recovers_what_was_planted(prior, given_prior):
    votes, good = planted(20_000, prior)
    model = Anchored(class_prior=prior if given_prior else None).fit(votes, reference=trusted(2000))
    assert model.class_prior_ == pytest.approx(prior, abs=0.03)
    np.testing.assert_allclose(model.likelihood_[:, 1, 1], KEEP, atol=0.02)
    np.testing.assert_allclose(model.likelihood_[:, 0, 1], DROP, atol=0.08)
    np.testing.assert_allclose(model.accuracy_, prior * KEEP + (1 - prior) * (1 - DROP), atol=0.04)
    probability = model.predict_proba(votes)
    assert np.abs(probability - bayes(votes, prior)).mean() < 0.02
    for low, high in [(0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1)]:
        chosen = (probability >= low) & (probability < high)
        if chosen.sum() > 300:
            assert good[chosen].mean() == pytest.approx(probability[chosen].mean(), abs=0.07)


def test_is_bayes_rule_with_what_was_learned():
    votes, _ = planted(3000, 0.4)
    model = Anchored().fit(votes, reference=trusted(200))
    assert not (model.excess_correlation_ - np.eye(5)).any()
    every = np.array(list(itertools.product([-1, 0, 1], repeat=5)))
    expected = bayes(every, model.class_prior_, model.likelihood_[:, 1, 1], model.likelihood_[:, 0, 1])
    np.testing.assert_allclose(model.predict_proba(every), expected, rtol=1e-9)


@pytest.mark.parametrize("prior", [0.2, 0.5])
@pytest.mark.parametrize("k", [30, 300])
def test_intervals_say_how_much_a_reference_is_worth(prior, k):
    inside, widths, right = [], [], prior * KEEP + (1 - prior) * (1 - DROP)
    accurate = []
    for seed in range(8):
        model = Anchored().fit(planted(4000, prior, seed=seed)[0], reference=trusted(k, seed=seed + 100))
        low, high = model.class_prior_interval_
        inside.append(low <= prior <= high)
        widths.append(high - low)
        ends = model.accuracy_interval_
        accurate.append(((ends[:, 0] <= right) & (right <= ends[:, 1])).mean())
        assert low <= model.class_prior_ <= high
    assert np.mean(inside) >= 0.7  # of 95% intervals, in 8 draws
    assert np.mean(accurate) >= 0.75
    assert 0.3 / np.sqrt(k) < np.mean(widths) < 2.5 / np.sqrt(k)


def test_the_estimate_leans_to_the_careful_side():
    found = [
        Anchored().fit(planted(4000, 0.5, seed=seed)[0], reference=trusted(40, seed=seed + 50)).class_prior_
        for seed in range(10)
    ]
    assert 0.4 < np.mean(found) < 0.51


def test_a_source_that_alone_sees_some_noise_keeps_its_due():
    """Noise of two kinds: three sources see the one, one source the other; agreement would turn that one around."""
    rng = np.random.default_rng(0)
    kind = rng.choice(3, 6000, p=[0.5, 0.35, 0.15])
    p = np.array([[0.95, 0.95, 0.95, 0.98], [0.2, 0.2, 0.2, 0.98], [0.98, 0.98, 0.98, 0.05]])
    votes = np.where(rng.random((6000, 4)) < p[kind], 1, -1)
    good = np.where(rng.random((300, 4)) < p[np.zeros(300, int)], 1, -1)
    second = np.array([[1, 1, 1, -1]])
    model = Anchored().fit(votes, reference=good)
    assert model.predict_proba(second)[0] < 0.5 < 0.9 < DawidSkene().fit(votes).predict_proba(second)[0]
    assert model.class_prior_ == pytest.approx(0.5, abs=0.04)  # though three sources conspire, if there were one class
    assert model.heard_.all()


def test_a_source_that_is_turned_is_named_and_not_heard():
    keep, drop = np.append(KEEP, 0.4), np.append(DROP, 0.9)
    votes, _ = planted(5000, 0.4, keep=keep, drop=drop)
    reference = trusted(100, keep=keep, drop=drop)
    model = Anchored().fit(votes, reference=reference)
    assert model.turned_.tolist() == [False] * 5 + [True]
    assert model.weight_[5] == 0
    assert model.accuracy_[5] < 0.5
    plain = Anchored().fit(votes[:, :5], reference=reference[:, :5])
    np.testing.assert_allclose(model.predict_proba(votes), plain.predict_proba(votes[:, :5]), atol=0.04)


def test_a_source_that_knows_nothing_changes_little_and_is_not_accused():
    keep, drop = np.append(KEEP, 0.5), np.append(DROP, 0.5)
    votes, _ = planted(5000, 0.4, keep=keep, drop=drop)
    model = Anchored().fit(votes, reference=trusted(100, keep=keep, drop=drop))
    assert not model.turned_.any()
    assert model.weight_[5] < 0.3


@pytest.mark.parametrize("place", [0, 2, 5])
def test_a_copied_source_changes_no_bit(place):
    votes, reference = planted(2000, 0.4)[0], trusted(50)
    plain = Anchored().fit(votes, reference=reference)
    wider = np.insert(votes, place, votes[:, 1], axis=1)
    model = Anchored().fit(wider, reference=np.insert(reference, place, reference[:, 1], axis=1))
    np.testing.assert_array_equal(model.predict_proba(wider), plain.predict_proba(votes))
    assert model.class_prior_ == plain.class_prior_
    assert model.weight_[place] == pytest.approx(plain.weight_[1] / 2)


def test_ten_near_copies_do_not_outvote_three_others():
    rng = np.random.default_rng(0)

    def voted(good):
        votes = np.where(rng.random((len(good), 4)) < np.where(good[:, None], 0.85, 0.15), 1, -1)
        slips = np.where(rng.random((len(good), 10)) < 0.01, -1, 1)
        return np.concatenate([votes[:, :1] * slips, votes[:, 1:]], axis=1)

    votes = voted(rng.random(5000) < 0.5)
    model = Anchored().fit(votes, reference=voted(np.ones(100, bool)))
    ten, three = np.array([[1] * 10 + [-1] * 3]), np.array([[-1] * 10 + [1] * 3])
    assert model.predict_proba(ten)[0] < 0.3
    assert model.predict_proba(three)[0] > 0.7
    assert model.weight_[:10].sum() < 2 * model.weight_[10:].mean()


def test_an_abstain_that_tells_is_heard_as_a_symbol():
    rng = np.random.default_rng(1)
    votes, good = planted(5000, 0.5)
    hint = np.where(rng.random(5000) < np.where(good, 0.9, 0.2), 1, 0)
    reference = np.column_stack([trusted(300), np.where(rng.random(300) < 0.9, 1, 0)])
    wider = np.column_stack([votes, hint])
    symbol = Anchored(abstain="symbol").fit(wider, reference=reference)
    missing = Anchored().fit(wider, reference=reference)
    np.testing.assert_allclose(symbol.likelihood_[5, :, 1], [0.2, 0.9], atol=0.08)
    silent = np.array([[0, 0, 0, 0, 0, 0]])
    assert symbol.predict_proba(silent)[0] < 0.25
    assert missing.predict_proba(silent)[0] == missing.class_prior_
    assert symbol.class_prior_ == pytest.approx(0.5, abs=0.06)


@given(seed=st.integers(0, 1000), cut=st.integers(0, 800), symbol=st.booleans())
@settings(max_examples=8)
def test_neither_rows_nor_shards_nor_neighbours_change_a_bit(seed, cut, symbol):
    votes, reference = planted(800, 0.4)[0], trusted(40)
    order = np.random.default_rng(seed).permutation(800)
    settings = {"abstain": "symbol" if symbol else "missing"}
    whole = Anchored(**settings).fit(votes, reference=reference)
    parts = [count_patterns(part) for part in (votes[order][:cut], votes[order][cut:])]
    pool = Votes(*(np.concatenate(values) for values in zip(*parts, strict=True)))
    split = Anchored(**settings).learn(Evidence(pool, Votes(*count_patterns(reference[::-1]))))
    assert split.state() == whole.state()
    np.testing.assert_array_equal(whole.predict_proba(votes[order]), whole.predict_proba(votes)[order])
    assert whole.predict_proba(votes[seed % 800 :][:1])[0] == whole.predict_proba(votes)[seed % 800]


@pytest.mark.parametrize("abstain", ["missing", "symbol"])
@pytest.mark.parametrize("m", [5, 1, 0])
def test_a_trip_through_json_changes_no_bit(abstain, m):
    votes, reference = planted(500, 0.4)[0][:, :m].copy(), trusted(40)[:, :m]
    votes[:, 2:3] = 0  # a source without an accuracy
    model = Anchored(abstain=abstain).fit(votes, reference=reference)
    restored = Anchored.restore(json.loads(json.dumps(model.state(), allow_nan=False)))
    unseen = np.random.default_rng(1).integers(-1, 2, (50, m))
    np.testing.assert_array_equal(restored.predict_proba(unseen), model.predict_proba(unseen))
    assert restored.state() == model.state()
    assert restored == model


def test_one_source_alone_cannot_tell_the_prior_and_says_so():
    votes, reference = planted(2000, 0.4, 1.0)[0][:, :1], trusted(100, coverage=1.0)[:, :1]
    model = Anchored().fit(votes, reference=reference)
    low, high = model.class_prior_interval_
    assert low == 0
    assert high > model.class_prior_bound_ > 0.6  # (.4 * .95 + .6 * .4) / .95
    assert model.class_prior_ < model.class_prior_bound_
    assert (np.diff(model.predict_proba(np.array([[-1], [0], [1]]))) > 0).all()


@pytest.mark.parametrize("votes", [np.zeros((50, 3)), np.ones((50, 3)), -np.ones((50, 3)), np.zeros((0, 3))])
@pytest.mark.parametrize("reference", [np.zeros((20, 3)), np.ones((20, 3)), -np.ones((20, 3))])
@pytest.mark.parametrize("prior", [None, 0.3])
def test_degenerate_votes_get_finite_answers(votes, reference, prior):
    model = Anchored(class_prior=prior).fit(votes, reference=reference)
    probability = model.predict_proba(np.array([[1, 1, 1], [-1, -1, -1], [0, 0, 0], [1, 0, -1]]))
    assert ((probability > 0) & (probability < 1)).all()
    assert probability[2] == model.class_prior_
    assert probability[1] <= probability[0]
    assert np.isfinite(model.weight_).all()
    assert (model.weight_ >= 0).all()


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (None, "has none: give 10 or more as `reference:`"),
        (np.ones((9, 5)), "has 9: give 10 or more"),
        (np.ones((20, 4)), "reference has votes of 4 sources, the pool of 5"),
        (np.full((20, 5), 0.5), "votes must be whole numbers"),
        (np.full((20, 5), 3), "a vote is 3"),
    ],
)
def test_a_reference_that_will_not_do_is_refused(reference, message):
    with pytest.raises(ValueError, match=message):
        Anchored().fit(planted(50, 0.5)[0], reference=reference)


def test_counted_votes_alone_are_refused():
    with pytest.raises(ValueError, match="`reference:`"):
        Anchored().fit_patterns(*count_patterns(planted(50, 0.5)[0]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"smoothing": 0}, "must be above 0"),
        ({"abstain": "none"}, "take 'missing' or 'symbol'"),
        ({"class_prior": (0.5, 0.5)}, "2 shares, but there are two classes"),
        ({"class_prior": 1.0}, "strictly between 0 and 1"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Anchored(**wrong)
