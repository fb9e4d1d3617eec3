import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import rankdata

from chaffinch.filters.label_models.clean_vs_pool import FOLDS, CleanVsPool, folds, ramps
from chaffinch.filters.label_models.evidence import Evidence, SoftVotes, Votes
from chaffinch.filters.soft_votes import MISSING, STEPS, Moments, soften

GAPS = np.array([1.0, 1.5, 0.7, 1.2, 0.0])


def planted(n, prior, gaps=GAPS, seed=0):
    """Scores of independent sources that tell the classes apart by so many deviations, and which samples are good."""
    rng = np.random.default_rng(seed)
    good = rng.random(n) < prior
    return rng.standard_normal((n, len(gaps))) + np.outer(good, gaps), good


def trusted(k, seed=99, **settings):
    return planted(k, 1.1, seed=seed, **settings)[0]


def auc(order, good):
    ranks = rankdata(order)
    return (ranks[good].sum() - good.sum() * (good.sum() + 1) / 2) / (good.sum() * (~good).sum())


def some_soft(n, m=4, seed=0, missing=0.2, shift=0.0):
    rng = np.random.default_rng(seed)
    soft = soften(expit(rng.standard_normal((n, m)) + shift))
    return np.where(rng.random((n, m)) < missing, MISSING, soft)


def evidence(pool, reference, moments=None):
    nothing = Votes(np.zeros((0, pool.shape[1]), np.int8), np.zeros(0, np.int64))
    return Evidence(nothing, soft=SoftVotes(moments or Moments.of(pool), pool, reference))


@pytest.mark.parametrize("prior", [0.2, 0.5, 0.8])
def test_recovers_what_was_planted(prior):
    scores, good = planted(8000, prior)
    model = CleanVsPool().fit(scores, reference=trusted(2000))
    probability = model.predict_proba(scores)
    assert auc(probability, good) > auc(scores @ GAPS, good) - 0.004
    assert model.class_prior_ == pytest.approx(prior, abs=0.06)
    assert probability.mean() == pytest.approx(prior, abs=0.06)
    for low, high in [(0.0, 0.1), (0.1, 0.4), (0.4, 0.7), (0.7, 0.9), (0.9, 1.0)]:
        chosen = (probability >= low) & (probability < high)
        assert good[chosen].mean() == pytest.approx(probability[chosen].mean(), abs=0.12)
    assert model.weight_.argmax() == 1
    assert model.weight_[4] < 0.2


@pytest.mark.parametrize(("k", "lost"), [(30, 0.04), (300, 0.012)])
def test_few_known_good_samples_are_enough(k, lost):
    found, intervals = [], []
    for seed in range(4):
        scores, good = planted(4000, 0.4, seed=seed)
        model = CleanVsPool().fit(scores, reference=trusted(k, seed=seed + 50))
        found.append(auc(scores @ GAPS, good) - auc(model.predict_proba(scores), good))
        intervals.append(model.class_prior_interval_)
    assert np.mean(found) < lost
    assert np.mean([low - 0.02 <= 0.4 <= high + 0.02 for low, high in intervals]) >= 0.75
    assert 0.5 / np.sqrt(k) < np.mean(np.diff(intervals)) < 3 / np.sqrt(k)


def test_noise_that_one_source_alone_sees_is_found():
    rng = np.random.default_rng(0)
    kind = rng.choice(3, 6000, p=[0.5, 0.35, 0.15])  # good; bad to three sources; bad to the fourth
    means = np.array([[1.5, 1.5, 1.5, 2.5], [0, 0, 0, 2.5], [1.5, 1.5, 1.5, 0]])
    scores = rng.standard_normal((6000, 4)) + means[kind]
    model = CleanVsPool().fit(scores, reference=rng.standard_normal((300, 4)) + means[0])
    probability = model.predict_proba(scores)
    assert auc(probability[kind != 1], (kind == 0)[kind != 1]) > 0.85
    assert auc(probability[kind != 2], (kind == 0)[kind != 2]) > 0.9
    assert model.class_prior_ == pytest.approx(0.5, abs=0.08)


def test_what_a_fold_learned_is_the_stated_maximum():
    pool, reference = some_soft(300), some_soft(60, seed=1, shift=1.0)
    model = CleanVsPool(class_prior=0.4, penalty=2.0).learn(evidence(pool, reference))
    alike = (Moments.of(pool).correlation(10) ** 2).sum(axis=1)
    kept = pool[folds(pool) != 3]

    def parts(values):
        return np.where(values < -1, values + 1, 0), np.clip(values, -1, 0), np.clip(values, 0, 1), values.clip(1) - 1

    def loss(packed):
        table = packed[1:].reshape(4, 6)  # the slope, four additions, missing
        size = 2.0 / 2 * (alike[:, None] * table**2).sum()
        for soft, is_good in ((kept, False), (reference, True)):
            odds = np.full(len(soft), packed[0])
            for column in range(4):
                there, values = soft[:, column] != MISSING, soft[:, column] / STEPS
                score = table[column, 0] * values
                for slope, part in zip(table[column, 1:5], parts(values), strict=True):
                    score = score + slope * part
                odds += np.where(there, score, table[column, 5])
            labelled = len(reference) / (len(kept) * 0.4) * expit(odds)
            size -= np.log((labelled if is_good else 1) / (1 + labelled)).sum()
        return size

    bounds = [(None, None)] + ([(0, None)] * 5 + [(None, None)]) * 4
    best = minimize(loss, np.zeros(25), method="L-BFGS-B", bounds=bounds, options={"maxfun": 10**6, "ftol": 1e-14})
    table = best.x[1:].reshape(4, 6)
    np.testing.assert_allclose(model.slopes_[3], table[:, :1] + table[:, 1:5], atol=5e-3)
    np.testing.assert_allclose(model.missing_[3], table[:, 5], atol=5e-3)
    assert model.intercept_[3] == pytest.approx(best.x[0], abs=5e-3)


def test_a_row_is_judged_by_the_fit_that_has_not_seen_it():
    pool, reference = some_soft(300), some_soft(40, seed=1, shift=1.0)
    plain = CleanVsPool(class_prior=0.4).learn(evidence(pool, reference))
    strange = np.full((50, 4), -3000, np.int16)
    fold = folds(strange)[0]
    assert (folds(strange) == fold).all()
    wider = CleanVsPool(class_prior=0.4).learn(evidence(np.concatenate([pool, strange]), reference, Moments.of(pool)))
    assert wider.predict_soft(strange)[0] == plain.predict_soft(strange)[0]
    others = [number for number in range(FOLDS) if number != fold]
    assert (wider.slopes_[others] != plain.slopes_[others]).any(axis=(1, 2)).all()
    np.testing.assert_array_equal(wider.slopes_[fold], plain.slopes_[fold])


def test_a_large_pool_is_thinned_evenly():
    pool, reference = some_soft(45_000, m=2, missing=0), some_soft(30, m=2, seed=1, shift=1.0, missing=0)
    order = np.random.default_rng(0).permutation(len(pool))
    straight = CleanVsPool().learn(evidence(pool, reference))
    assert CleanVsPool().learn(evidence(pool[order], reference)).state() == straight.state()
    small = CleanVsPool(class_prior=straight.class_prior_).learn(evidence(pool[:20_000], reference))
    rows = some_soft(200, m=2, seed=5, missing=0)
    np.testing.assert_allclose(small.predict_soft(rows), straight.predict_soft(rows), atol=0.03)


def test_folds_are_alike_in_size_and_depend_on_the_row_alone():
    soft = some_soft(5000)
    found = folds(soft)
    assert np.bincount(found, minlength=FOLDS).min() > 900
    np.testing.assert_array_equal(folds(soft[::-1]), found[::-1])
    np.testing.assert_array_equal(folds(soft[:, [2, 0, 3, 1]]), found)
    assert folds(np.array([[0, 1], [MISSING, 5]], np.int16)).tolist() == [3, 2]  # the same on every machine


@given(st.lists(st.floats(-4, 4), min_size=1, max_size=20))
def test_ramps_add_up_to_the_score_and_never_fall(values):
    scores = np.sort(values)
    parts = ramps(scores)
    np.testing.assert_allclose(sum(parts), scores, atol=1e-12)
    assert all((np.diff(part) >= 0).all() for part in parts)
    assert [float(part[0]) for part in ramps(np.zeros(1))] == [0] * 4


def test_within_a_fold_a_better_score_never_lowers_the_probability():
    pool, reference = some_soft(300), some_soft(40, seed=1, shift=1.0)
    model = CleanVsPool(class_prior=0.4).learn(evidence(pool, reference))
    row = np.repeat(pool[:1], 400, axis=0)
    for column in range(4):
        row[:, column] = np.linspace(-3800, 3800, 400)
        fold, probability = folds(row), model.predict_soft(row)
        assert all((np.diff(probability[fold == number]) >= 0).all() for number in range(FOLDS))


def test_what_only_looks_like_the_reference_does_not_count():
    """The reference is of one brightness, the pool of all. Its being so is no reason to drop what is brighter."""
    rng = np.random.default_rng(0)
    scores, good = planted(4000, 0.5, GAPS[:3])
    reference = np.column_stack([trusted(300, gaps=GAPS[:3]), rng.normal(-0.5, 0.1, 300)])
    model = CleanVsPool().fit(np.column_stack([scores, rng.standard_normal(4000)]), reference=reference)
    probability = model.predict_proba(np.column_stack([scores, rng.standard_normal(4000)]))
    assert auc(probability, good) > auc(scores @ GAPS[:3], good) - 0.06


def test_a_turned_source_is_named_and_not_heard():
    gaps = np.append(GAPS[:3], -1.0)
    scores, _ = planted(3000, 0.5, gaps)
    model = CleanVsPool().fit(scores, reference=trusted(100, gaps=gaps))
    assert model.turned_.tolist() == [False, False, False, True]
    assert model.weight_[3] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("place", [0, 2, 5])
def test_a_copied_source_changes_no_bit(place):
    scores, reference = planted(600, 0.4)[0], trusted(40)
    scores[:90, 1] = np.nan
    plain = CleanVsPool().fit(scores, reference=reference)
    wider, more = (np.insert(values, place, values[:, 1], axis=1) for values in (scores, reference))
    model = CleanVsPool().fit(wider, reference=more)
    np.testing.assert_array_equal(model.predict_proba(wider), plain.predict_proba(scores))
    assert model.weight_[place] == pytest.approx(plain.weight_[1] / 2)


def test_ten_near_copies_are_worth_no_more_than_one():
    scores, _ = planted(3000, 0.5, GAPS[:4])
    reference = trusted(30, gaps=GAPS[:4])
    rng = np.random.default_rng(1)

    def crowd(values):
        return np.column_stack([values[:, :1] + 0.05 * rng.standard_normal((len(values), 10)), values[:, 1:]])

    plain = CleanVsPool().fit(scores, reference=reference).weight_
    model = CleanVsPool().fit(crowd(scores), reference=crowd(reference))
    assert model.weight_[:10].sum() == pytest.approx(plain[0], abs=0.15)
    against = np.array([[-1.5] * 10 + [2.5, 1.7, 2.2]])
    assert model.predict_proba(against)[0] > 0.5


@pytest.mark.parametrize("where", ["pool", "reference", "both"])
def test_a_source_that_is_missing_on_one_side_is_not_heard(where):
    scores, reference = planted(600, 0.4)[0], trusted(40)
    plain = CleanVsPool().fit(scores, reference=reference)
    extra = [np.full(len(values), np.nan) for values in (scores, reference)]
    if where != "both":
        side = where == "pool"
        extra[side] = np.random.default_rng(0).standard_normal(len(extra[side]))
    wider, more = np.column_stack([scores, extra[0]]), np.column_stack([reference, extra[1]])
    model = CleanVsPool().fit(wider, reference=more)
    np.testing.assert_array_equal(model.predict_proba(wider), plain.predict_proba(scores))
    assert model.weight_[5] == 0


def test_a_missing_score_counts_as_far_as_it_tells():
    scores, good = planted(4000, 0.5, GAPS[:3])
    hidden = np.random.default_rng(1).random(4000) < np.where(good, 0.1, 0.6)  # bad ones cannot be judged
    scores[hidden, 2] = np.nan
    reference = trusted(300, gaps=GAPS[:3])
    reference[np.random.default_rng(2).random(300) < 0.1, 2] = np.nan
    model = CleanVsPool().fit(scores, reference=reference)
    assert (model.missing_[:, 2] < -0.5).all()
    assert auc(model.predict_proba(scores), good) > auc(np.nan_to_num(scores) @ GAPS[:3], good)


@given(seed=st.integers(0, 1000))
@settings(max_examples=5)
def test_neither_rows_nor_neighbours_change_a_bit(seed):
    pool, reference = some_soft(300), some_soft(40, seed=1, shift=1.0)
    rng = np.random.default_rng(seed)
    order = rng.permutation(300)
    whole = CleanVsPool().learn(evidence(pool, reference))
    turned = CleanVsPool().learn(evidence(pool[order], reference[rng.permutation(40)]))
    assert turned.state() == whole.state()
    np.testing.assert_array_equal(whole.predict_soft(pool[order]), whole.predict_soft(pool)[order])
    assert whole.predict_soft(pool[seed % 300 :][:1])[0] == whole.predict_soft(pool)[seed % 300]
    assert whole.predict_soft(pool[:0]).shape == (0,)


@pytest.mark.parametrize("m", [4, 1, 0])
def test_a_trip_through_json_changes_no_bit(m):
    pool, reference = some_soft(200)[:, :m], some_soft(40, seed=1)[:, :m]
    model = CleanVsPool().learn(evidence(pool, reference))
    restored = CleanVsPool.restore(json.loads(json.dumps(model.state(), allow_nan=False)))
    np.testing.assert_array_equal(restored.predict_soft(pool), model.predict_soft(pool))
    assert restored.state() == model.state()
    assert restored == model


def test_a_sample_without_scores_has_the_prior():
    scores, reference = planted(500, 0.4)[0], trusted(40)
    model = CleanVsPool(class_prior=0.3).fit(scores, reference=reference)
    assert model.predict_proba(np.full((1, 5), np.nan)).tolist() == [0.3]
    assert model.class_prior_interval_.tolist() == [0.3, 0.3]


@pytest.mark.parametrize("pool", [np.zeros((50, 2)), np.full((50, 2), np.nan), planted(3, 0.5)[0][:, :2]])
@pytest.mark.parametrize("reference", [np.zeros((20, 2)), np.full((20, 2), np.nan), trusted(20)[:, :2]])
def test_degenerate_scores_get_finite_answers(pool, reference):
    model = CleanVsPool().fit(pool, reference=reference)
    probability = model.predict_proba(np.array([[1.0, 1], [-9, -9], [np.nan, np.nan]]))
    assert ((probability > 0) & (probability < 1)).all()
    assert probability[2] == model.class_prior_
    assert np.isfinite(model.weight_).all()


@pytest.mark.parametrize(
    ("pool", "reference", "message"),
    [
        (np.ones((50, 3)), None, "has none: give 10 or more as `reference:`"),
        (np.ones((50, 3)), np.ones((9, 3)), "has 9: give 10 or more"),
        (np.ones((50, 3)), np.ones((20, 2)), "reference has scores of 2 sources, the pool of 3"),
        (np.ones((0, 3)), np.ones((20, 3)), "no sample of it is left"),
    ],
)
def test_too_little_to_learn_from_is_refused(pool, reference, message):
    with pytest.raises(ValueError, match=message):
        CleanVsPool().fit(pool, reference=reference)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"penalty": 0}, "must be above 0"),
        ({"penalty": float("nan")}, "must be above 0"),
        ({"class_prior": (0.5, 0.5)}, "2 shares, but there are two classes"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        CleanVsPool(**wrong)


def test_votes_alone_are_refused():
    with pytest.raises(ValueError, match="judges scores, but was given votes alone"):
        CleanVsPool().learn(Evidence(Votes(np.zeros((1, 3), np.int8), np.ones(1, np.int64))))
