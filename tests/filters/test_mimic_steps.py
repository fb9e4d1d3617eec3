"""Mimic scores at several steps, learned shard by shard and brought together."""

import dataclasses
import itertools
import json
import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chaffinch.filters.binarising import Binariser, binarise
from chaffinch.filters.label_models import Alone, DawidSkene
from chaffinch.filters.mimic_steps import MimicSteps
from chaffinch.filters.ranges import FittedRanges, parse_ranges

KINDS = ("sign", "share", "softmax", "two_means", "mixture")


def make(binariser="sign", **settings):
    share = 0.6 if binariser == "share" else None
    judge = MimicSteps(column="alignment.mimic_score", binariser=binariser, share=share, **settings)
    judge.check()
    return judge


def arrow(scores, kind="fixed"):
    """(n, t) scores as a column of lists; a row of NaN is null."""
    scores = np.asarray(scores, np.float32)
    rows = [None if np.isnan(row).all() else row.tolist() for row in scores]
    return pa.array(rows, pa.list_(pa.float32(), scores.shape[1]) if kind == "fixed" else pa.list_(pa.float32()))


def taught(judge, *shards):
    """After its passes over shards; every statistic goes by pickle, as between workers."""
    passes = 0
    while judge.learns:
        counted = [pickle.loads(pickle.dumps(judge.count({judge.column: shard}))) for shard in shards]
        total = counted[0]
        for part in counted[1:]:
            total = total.merge(part)
        judge = judge.with_learned(judge.fit(total))
        passes += 1
        assert passes <= 3
    return judge.with_learned(json.loads(json.dumps(judge.learned, allow_nan=False)))


def score(judge, column):
    return judge.score({judge.column: column})


def planted(n=3000, steps=4, seed=0):
    """(n, steps) scores, each step with noise of its own, and which samples are good."""
    rng = np.random.default_rng(seed)
    good = rng.random(n) < 0.7
    return rng.normal(np.where(good, 3, -3)[:, None], 1.5, (n, steps)).astype(np.float32), good


def votes(judge, column):
    ranges = FittedRanges(**parse_ranges(judge.keep, judge.drop))
    return ranges.vote(score(judge, column))


@pytest.mark.parametrize("binariser", KINDS)
@pytest.mark.parametrize("aggregate", ["majority", "label_model", "mean"])
def test_planted_samples_are_told_apart(binariser, aggregate):
    scores, good = planted()
    judge = taught(make(binariser, aggregate=aggregate), arrow(scores))
    voted = votes(judge, arrow(scores))
    assert good[voted > 0].mean() > 0.99
    if binariser != "softmax" or aggregate == "mean":  # which keeps the few that weigh more than the mean
        assert (voted[good] > 0).mean() > (0.8 if binariser == "share" else 0.97)


@pytest.mark.parametrize("binariser", KINDS)
def test_the_same_as_in_memory(binariser):
    scores, _ = planted(500)
    scores[::7, 1] = np.nan
    voted = binarise(scores, Binariser(binariser, 0.6 if binariser == "share" else None))
    judge = taught(make(binariser), arrow(scores[:100]), arrow(scores[100:], "plain"))
    expected = (voted > 0).sum(axis=1) / (voted != 0).sum(axis=1)
    np.testing.assert_array_equal(score(judge, arrow(scores)), expected.astype(np.float32))
    for step, column in zip(judge.learned["steps"], voted.T, strict=True):
        assert step["judged"] == (column != 0).sum()
        assert step["retained"] == (column > 0).sum() / step["judged"]
    assert judge.report()["steps_retained"] == [step["retained"] for step in judge.learned["steps"]]


@given(
    scores=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 40), st.integers(1, 3)),
        elements=st.floats(width=32) | st.sampled_from([0.0, 1.0, 1.0000001, float("nan")]),
    ),
    binariser=st.sampled_from(KINDS),
    aggregate=st.sampled_from(["majority", "label_model", "mean"]),
    cuts=st.lists(st.integers(0, 40), max_size=3),
    seed=st.integers(0, 9),
)
@settings(deadline=None)
def test_how_the_pool_is_cut_and_ordered_changes_nothing(scores, binariser, aggregate, cuts, seed):
    judge = make(binariser, aggregate=aggregate, test_groups=seed % 2 == 0)
    whole = taught(judge, arrow(scores))
    mixed = np.random.default_rng(seed).permutation(scores)
    edges = sorted({0, len(scores), *(min(cut, len(scores)) for cut in cuts)})
    shards = [arrow(mixed[start:end], "plain") for start, end in itertools.pairwise(edges)]
    parted = taught(judge, pa.nulls(2), *shards)
    assert json.dumps(parted.learned) == json.dumps(whole.learned)
    together = score(whole, arrow(scores))
    alone = [score(parted, arrow(scores[row : row + 1]))[0] for row in range(len(scores))]
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("binariser", KINDS)
@pytest.mark.parametrize("aggregate", ["majority", "label_model", "mean"])
class TestOddColumns:
    """Columns with little or nothing in them."""

    def test_all_null(self, binariser, aggregate):
        column = pa.nulls(3, pa.list_(pa.float32(), 2))
        judge = taught(make(binariser, aggregate=aggregate), column)
        assert np.isnan(score(judge, column)).all()
        assert judge.report() == {"steps_retained": [], "steps_by_sign": {}}

    def test_all_nan(self, binariser, aggregate):
        column = pa.array([[np.nan, None]] * 3, pa.list_(pa.float32(), 2))
        judge = taught(make(binariser, aggregate=aggregate), column)
        assert np.isnan(score(judge, column)).all()
        assert judge.report()["steps_retained"] == [None, None]

    def test_a_plain_number_is_one_step(self, binariser, aggregate):
        scores, _ = planted(steps=1)
        column = pa.array(scores[:, 0], from_pandas=False).take(pa.array([*range(len(scores)), None]))
        judge = taught(make(binariser, aggregate=aggregate), column)
        same = taught(make(binariser, aggregate=aggregate), arrow(scores))
        assert judge.learned["steps"] == same.learned["steps"]
        found = score(judge, column)
        assert np.isnan(found[-1])
        np.testing.assert_array_equal(found[:-1], score(same, arrow(scores)))

    def test_constant(self, binariser, aggregate):
        column = arrow(np.full((9, 2), 0.25))
        found = score(taught(make(binariser, aggregate=aggregate), column), column)
        assert len(set(found.tolist())) == 1
        assert not np.isnan(found).any()


def test_a_slice_scores_its_own_rows():
    scores, _ = planted(40, 3)
    scores[5] = np.nan
    for kind in ("fixed", "plain"):
        column = arrow(scores, kind)
        judge = taught(make(), column)
        np.testing.assert_array_equal(score(judge, column.slice(3, 9)), score(judge, column)[3:12])


def test_a_draw_abstains_and_unseen_steps_do_not_count():
    column = pa.array([[1, -1], [1, None], [np.nan, -1], [2, 2]], pa.list_(pa.float32(), 2))
    judge = taught(make(), column)
    np.testing.assert_array_equal(score(judge, column), np.float32([0.5, 1, 0, 1]))
    assert votes(judge, column).tolist() == [0, 1, -1, 1]


def test_the_mean_is_over_the_steps_seen():
    column = pa.array([[1, -2], [1, None], [np.inf, -np.inf]], pa.list_(pa.float32(), 2))
    judge = taught(make(aggregate="mean"), column)
    np.testing.assert_array_equal(score(judge, column), np.float32([-0.5, 1, np.nan]))
    assert votes(judge, column).tolist() == [-1, 1, 0]


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("class_prior", [None, 0.3])
def test_the_label_model_is_the_one_on_votes(steps, class_prior):
    scores, _ = planted(steps=steps)
    judge = taught(make(aggregate="label_model", class_prior=class_prior), arrow(scores[:1000]), arrow(scores[1000:]))
    voted = binarise(scores)
    model = (DawidSkene if steps > 1 else Alone)(class_prior=class_prior).fit(voted)
    np.testing.assert_array_equal(score(judge, arrow(scores)), model.predict_proba(voted).astype(np.float32))


def test_steps_are_chosen_by_the_first_and_the_last():
    scores, _ = planted(steps=5)
    for steps, chosen in (
        ((0, 2), slice(0, 3)),
        ((2, None), slice(2, 5)),
        ((None, 1), slice(0, 2)),
        ((1, 9), slice(1, 5)),
    ):
        judge = taught(make(steps=steps), arrow(scores))
        same = taught(make(), arrow(scores[:, chosen]))
        assert judge.learned["steps"] == same.learned["steps"]
        np.testing.assert_array_equal(score(judge, arrow(scores)), score(same, arrow(scores[:, chosen])))
    with pytest.raises(ValueError, match=r"steps: \[5, None\]: column .* has but 5, counted from 0"):
        taught(make(steps=(5, None)), arrow(scores))


def test_a_step_with_one_group_is_reported():
    scores, _ = planted()
    scores[:, 2] = np.random.default_rng(9).normal(size=len(scores))
    judge = taught(make("two_means"), arrow(scores))
    assert judge.report()["steps_by_sign"] == {"2": "one group"}
    assert [step["kind"] for step in judge.learned["steps"]] == ["two_means", "two_means", "sign", "two_means"]


@pytest.mark.parametrize(
    ("binariser", "passes"), [("sign", 1), ("softmax", 2), ("mixture", 2), ("share", 3), ("two_means", 3)]
)
def test_passes_are_as_few_as_need_be(binariser, passes):
    scores, _ = planted()
    column = arrow(scores + 10)  # no wide gap between the groups' bins, as there is around 0
    judge = make(binariser)
    for _ in range(passes):
        assert judge.learns
        judge = judge.with_learned(judge.fit(judge.count({judge.column: column})))
    assert not judge.learns


def test_numbers_learned_with_other_settings_are_of_no_use():
    scores, _ = planted()
    judge = taught(make("share"), arrow(scores))
    assert not dataclasses.replace(judge, keep=(0.8, None)).with_learned(judge.learned).learns
    for changes in ({"share": 0.5}, {"aggregate": "mean"}, {"steps": (0, 1)}, {"binariser": "sign", "share": None}):
        assert dataclasses.replace(judge, **changes).with_learned(judge.learned).learns


def test_scores_of_other_steps_are_refused():
    scores, _ = planted()
    judge = taught(make(), arrow(scores))
    with pytest.raises(ValueError, match="has 2 steps here, but rules were learned for 4"):
        score(judge, arrow(scores[:, :2]))
    with pytest.raises(ValueError, match="has 2 and 4 steps in different shards"):
        taught(make("two_means"), arrow(scores), arrow(scores[:, :2]), arrow(scores))
    with pytest.raises(ValueError, match="lists of 1 and of 2 scores"):
        taught(make(), pa.array([[1.0], [1.0, 2.0]]))
    with pytest.raises(ValueError, match="has not learned"):
        score(make(), arrow(scores))


@pytest.mark.parametrize("kind", [pa.string(), pa.list_(pa.string()), pa.list_(pa.list_(pa.float32())), pa.bool_()])
def test_columns_without_scores_are_refused(kind):
    with pytest.raises(ValueError, match=r"alignment\.mimic_score.*name one with a mimic score"):
        make().check_columns({"alignment.mimic_score": kind})


@pytest.mark.parametrize(
    "kind",
    [
        pa.float64(),
        pa.float16(),
        pa.int32(),
        pa.null(),
        pa.list_(pa.float32(), 3),
        pa.large_list(pa.float64()),
        pa.list_(pa.null()),
    ],
)
def test_numbers_and_lists_of_them_are_taken(kind):
    make().check_columns({"alignment.mimic_score": kind})


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"column": "mimic_score"}, "of the form"),
        ({"steps": (3, 1)}, "holds no step"),
        ({"steps": (-1, None)}, "holds no step"),
        ({"binariser": "share"}, "needs share:"),
        ({"share": 0.5}, "is for binariser: share"),
        ({"class_prior": 0.5}, "class_prior is for aggregate: label_model"),
        ({"class_prior": 1.5, "aggregate": "label_model"}, "class_prior is 1.5"),
    ],
)
def test_settings_are_checked(settings, problem):
    with pytest.raises(ValueError, match=problem):
        MimicSteps(**({"column": "alignment.mimic_score"} | settings)).check()


def test_ranges_go_with_the_aggregate_unless_given():
    assert (make().keep, make().drop) == ((0.501, None), (None, 0.499))
    assert (make(aggregate="mean").keep, make(aggregate="mean").drop) == ((0.0, None), None)
    assert (make(drop=(None, 0.2)).keep, make(keep="top 30%").drop) == (None, None)
