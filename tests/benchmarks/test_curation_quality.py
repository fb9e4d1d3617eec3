"""The yardstick's own measures, against twins that go through every pair and every way to break a tie."""

import importlib.util
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def beside():
    """The benchmarks are scripts: they find one another because they lie in one folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        before = set(sys.modules)
        yield
        for name in set(sys.modules) - before:
            if name.startswith("quality_") or name == "measuring":
                del sys.modules[name]


def script(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def metrics(beside):
    return script("quality_metrics")


@st.composite
def pools(draw):
    """A few samples with ties, some that are never kept, and a group of copies."""
    size = draw(st.integers(4, 7))
    order = np.array(draw(st.lists(st.sampled_from([-np.inf, 0.0, 1.0, 2.0]), min_size=size, max_size=size)))
    good = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    good[:2] = [True, False]
    kinds = np.array([draw(st.sampled_from(["blank", "copy"])) for _ in range(size)])
    kinds[good] = "clean"
    copies = [np.array([0, 1, 2])] if draw(st.booleans()) else []
    return order, good, kinds, copies


def pairwise_auc(order, good, bad):
    pairs = [(first > second) + 0.5 * (first == second) for first in order[good] for second in order[bad]]
    return np.mean(pairs) if pairs else 0.0


def settled_by_hand(order, good, kinds, copies):
    """Swaps the last good row of a group with the best noisy one, until that is no better."""
    good, kinds = good.copy(), kinds.copy()
    for rows in copies:
        while good[rows].any() and not good[rows].all():
            last = min((row for row in rows if good[row]), key=lambda row: order[row])
            best = max((row for row in rows if not good[row]), key=lambda row: order[row])
            if order[best] <= order[last]:
                break
            good[[last, best]], kinds[[last, best]] = good[[best, last]], kinds[[best, last]]
    return good, kinds


def kept_in_every_way(order, many):
    """The kept rows, for every way to break the ties."""
    ways = []
    for way in itertools.permutations(range(len(order))):
        if all(order[one] >= order[other] for one, other in itertools.pairwise(way)):
            ways.append([row for row in way[:many] if order[row] != -np.inf])
    return ways


@settings(max_examples=60, deadline=None)
@given(pool=pools())
def test_measures_are_those_of_all_pairs_and_all_ways_to_break_ties(metrics, pool):
    order, good, kinds, copies = pool
    found = metrics.measure(order, metrics.Truth(good, kinds, copies), np.ones((1, len(order)), np.int64))
    good, kinds = settled_by_hand(order, good, kinds, copies)
    assert found.auc[0] == pytest.approx(pairwise_auc(order, good, ~good))
    ways = kept_in_every_way(order, good.sum())
    right = np.mean([good[way].sum() for way in ways])
    assert found.precision[0] == pytest.approx(right / max(len(ways[0]), 1))
    assert found.recall[0] == pytest.approx(right / good.sum())
    assert found.f1[0] == pytest.approx(2 * right / (len(ways[0]) + good.sum()))
    for kind in set(kinds[~good]):
        mine = (kinds == kind) & ~good
        lost = np.mean([1 - mine[way].sum() / mine.sum() for way in ways])
        assert found.caught[kind][0] == pytest.approx(lost)
        assert found.aucs[kind][0] == pytest.approx(pairwise_auc(order, good, mine))


@settings(max_examples=60, deadline=None)
@given(pool=pools(), seed=st.integers(0, 99))
def test_weights_mean_what_writing_a_sample_more_often_means(metrics, pool, seed):
    order, good, kinds, _ = pool
    truth = metrics.Truth(good, kinds)
    weights = metrics.resample(truth, 1, seed)
    if not (weights[1] @ good and weights[1] @ ~good):
        return
    repeated = np.repeat(np.arange(len(order)), weights[1])
    found = metrics.measure(order, truth, weights)
    twin = metrics.measure(
        order[repeated], metrics.Truth(good[repeated], kinds[repeated]), np.ones((1, len(repeated)), np.int64)
    )
    for name in ("auc", "precision", "recall", "f1"):
        assert getattr(found, name)[1] == pytest.approx(getattr(twin, name)[0])
    for kind in set(kinds[repeated][~good[repeated]]):
        assert found.caught[kind][1] == pytest.approx(twin.caught[kind][0])


def test_the_first_copy_counts_as_the_good_one_and_numbers_stay(metrics):
    truth = metrics.Truth(
        np.array([True, False, False, False]), np.array(["clean", "copy", "copy", "blank"]), [np.array([0, 1, 2])]
    )
    settled = truth.settle(np.array([1.0, 3.0, 2.0, 9.0]))
    assert settled.good.tolist() == [False, True, False, False]
    assert sorted(settled.kinds[~settled.good]) == ["blank", "copy", "copy"]
    assert truth.settle(np.zeros(4)).good.tolist() == truth.good.tolist()
    assert metrics.groups_right(np.array([False, True, False, True]), truth) == 1
    assert metrics.groups_right(np.array([True, True, False, False]), truth) == 0


def test_copies_are_drawn_together_and_seeds_repeat(metrics):
    truth = metrics.Truth(
        np.array([True, False] * 50), np.array(["clean", "copy"] * 50), [np.array([0, 1]), np.array([2, 3, 5])]
    )
    weights = metrics.resample(truth, 200, 7)
    assert (weights[0] == 1).all()
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 2] == weights[:, 5]).all()
    assert np.array_equal(weights, metrics.resample(truth, 200, 7))
    assert weights[1:].mean() == pytest.approx(1, abs=0.05)


def test_everything_possible_is_kept_where_no_share_is_asked_for(metrics):
    truth = metrics.Truth(np.array([True, True, False, False]), np.array(["clean", "clean", "blank", "blank"]))
    order = np.array([1.0, -np.inf, 1.0, -np.inf])
    found = metrics.measure(order, truth, np.ones((1, 4), np.int64), as_many_as_good=False)
    assert (found.precision[0], found.recall[0], found.caught["blank"][0]) == (0.5, 0.5, 0.5)


def test_intervals_cover_the_truth_about_as_often_as_they_say(metrics):
    """An AUC of a known size, 40 pools of 200 samples each."""
    covered = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        good = rng.random(200) < 0.5
        truth = metrics.Truth(good, np.where(good, "clean", "noise"))
        order = rng.normal(size=200) + good  # P(N(1, 1) > N(0, 1)) = Phi(1 / sqrt 2)
        _, low, high = metrics.interval(metrics.measure(order, truth, metrics.resample(truth, 200, seed)).auc)
        covered += low <= 0.7602 <= high
    assert covered >= 33


def test_the_oracle_finds_planted_coefficients(metrics):
    sources = script("quality_sources")
    rng = np.random.default_rng(0)
    features = rng.normal(size=(20_000, 3))
    good = rng.random(20_000) < 1 / (1 + np.exp(-(0.5 + features @ [1.0, -2.0, 0.0])))
    assert sources.fit_logistic(features, good) == pytest.approx([0.5, 1.0, -2.0, 0.0], abs=0.08)


def test_truth_is_joined_by_shard_and_key(metrics, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    quality = script("curation_quality")
    rows = [
        {"shard": "1", "key": "b", "keep": False, "kind": "duplicate", "image": "x"},
        {"shard": "0", "key": "a", "keep": True, "kind": "clean", "image": "x"},
        {"shard": "1", "key": "a", "keep": False, "kind": "broken_json", "image": "x"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "truth.parquet")
    shards, keys = np.array(["0", "0", "1", "1"]), np.array(["a", "b", "a", "b"])
    truth, about = quality.read_truth(str(tmp_path / "truth.parquet"), shards, keys, ["duplicate"])
    assert about.tolist() == [True, False, True, True]
    assert truth.good.tolist() == [True, False, False]
    assert truth.kinds.tolist() == ["clean", "broken", "duplicate"]
    assert [group.tolist() for group in truth.copies] == [[0, 2]]  # the broken one is no copy, though of one picture
    with pytest.raises(ValueError, match="of this pool"):
        quality.read_truth(str(tmp_path / "truth.parquet"), shards[1:], keys[1:], ["duplicate"])
