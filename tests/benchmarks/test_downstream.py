"""Downstream in miniature, as a whole: what would make the comparison unfair, or its repetition another one."""

import dataclasses
import importlib.util
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SAMPLES, SEEN, PAIRS = 220, 128, 30


@pytest.fixture(scope="module")
def downstream():
    """The benchmarks are scripts: they find one another because they lie in one folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        before = set(sys.modules)
        spec = importlib.util.spec_from_file_location("downstream", BENCHMARKS / "downstream.py")
        module = sys.modules["downstream"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
        for name in set(sys.modules) - before:
            if name.startswith(("quality_", "downstream")) or name in ("measuring", "curation_quality"):
                del sys.modules[name]


@pytest.fixture(scope="module")
def run(downstream, tmp_path_factory):
    """Runs the whole script on a small rendered pool; returns the content of its result."""
    folder = tmp_path_factory.mktemp("downstream")

    def once():
        words = f"downstream.py --rendered --work {folder} --samples {SAMPLES} --pairs {PAIRS} --samples-seen {SEEN}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [*words.split(), "--seeds", "0", "1"])
            patch.setattr(downstream.measuring, "RESULTS", folder)
            downstream.main()
        return json.loads((folder / "downstream-rendered-scratch.json").read_text())

    once.work = folder / f"rendered-{SAMPLES}-100-{PAIRS}"
    return once


@pytest.fixture(scope="module")
def result(run):
    return run()


@pytest.fixture(scope="module")
def curated(downstream, run, result):
    config, truth = str(run.work / "demo.yaml"), str(run.work / "pool" / "truth.parquet")
    return downstream.curate(config, truth, [f"output={run.work}/curated", f"store={run.work}/store"])


def test_all_have_seen_as_many_samples_and_sizes_are_those_of_what_is_kept(result):
    subsets, pool = result["figures"]["subsets"], result["figures"]["pool"]
    assert {one["samples_seen"] for one in subsets.values()} == {SEEN}
    assert {run["samples_seen"] for one in subsets.values() for run in one["runs"].values()} == {SEEN}
    sizes = {name: one["samples"] for name, one in subsets.items()}
    assert sizes.pop("everything") == pool["usable"] < SAMPLES
    assert sizes.pop("oracle") == round(subsets["oracle"]["samples"] * subsets["oracle"]["clean"])  # nothing else
    assert sizes.pop("intersection") <= pool["kept"]
    assert set(sizes.values()) == {pool["kept"]}
    assert subsets["oracle"]["clean"] == 1 > subsets["everything"]["clean"]


def test_seeds_differ(result):
    for name, one in result["figures"]["subsets"].items():
        first, second = one["runs"].values()
        assert first["loss"] != second["loss"], name


def test_what_was_done_is_not_done_again_and_what_is_lost_comes_out_the_same(run, result, snapshot):
    trainings = run.work / "trainings"
    before = snapshot(trainings)
    assert run() == result | {"machine": result["machine"] | {"load_before": pytest.approx(0, abs=1000)}}
    assert snapshot(trainings) == before
    lost = sorted(trainings.glob("*/outcome.json"))[1]
    lost.unlink()
    assert run()["figures"] == result["figures"]
    after = snapshot(trainings)
    assert after.keys() == before.keys()
    assert {Path(name).parent.name for name in after if after[name] != before[name]} == {lost.parent.name}


def test_shards_hold_the_subset_and_nothing_else(downstream, curated, run):
    for name, subset in downstream.choose(curated, "match", 0).items():
        shards = run.work / "subsets" / downstream.digest(curated, subset) / "shards"
        uids = []
        for path in sorted(shards.glob("*.tar")):
            with tarfile.open(path) as tar:
                uids += [json.load(tar.extractfile(one))["uid"] for one in tar if one.name.endswith(".json")]
        assert sorted(uids) == sorted(curated.uids[subset.rows]), name


def test_ours_is_what_the_product_keeps_and_the_oracle_what_is_true(downstream, curated, run):
    truth = pq.read_table(run.work / "pool" / "truth.parquet")
    known = {
        (shard, key): keep
        for shard, key, keep in zip(*(truth[name].to_pylist() for name in ("shard", "key", "keep")), strict=True)
    }
    kept, good = set(), set()
    for path in sorted((run.work / "curated" / "decisions").glob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            if row["keep"]:
                kept.add(row["uid"])
            if known[path.stem, row["key"]] and not (row["reason"] or "").startswith("rejected"):
                good.add(row["uid"])
    subsets = downstream.choose(curated, "match", 0)
    assert set(curated.uids[subsets["our ensemble"].rows]) == kept
    assert set(curated.uids[subsets["oracle"].rows]) == good


def test_nobody_is_tried_on_what_was_trained_on_or_measured_by(downstream, curated, run, tmp_path):
    learner = downstream.LEARNERS["scratch"](SEEN)
    subsets = downstream.choose(curated, "match", 0)
    for leak in ("pool", "trusted"):
        with pytest.raises(ValueError, match="pictures of the evaluation are in the pool or the reference"):
            downstream.outcomes(curated, subsets, learner, [0], str(run.work / leak), tmp_path, print)
    assert not any(tmp_path.iterdir())  # nothing was trained


def test_another_number_of_samples_seen_is_refused(downstream, curated, run, tmp_path):
    learner = downstream.LEARNERS["scratch"](SEEN - 10)
    subsets = {"oracle": downstream.choose(curated, "match", 0)["oracle"]}
    with pytest.raises(RuntimeError, match=f"oracle has seen {SEEN} samples, not {SEEN - 10}"):
        downstream.outcomes(curated, subsets, learner, [0], str(run.work / "evaluation"), tmp_path, print)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.booleans(), st.booleans(), st.integers(0, 3), st.sampled_from([-1, 0, 1])), min_size=3, max_size=30
    ),
    many=st.integers(1, 30),
    seed=st.integers(0, 9),
)
def test_subsets_follow_their_orders(downstream, curated, rows, many, seed):
    usable, good, scores, votes = map(np.array, zip(*rows, strict=True))
    kept = np.zeros(len(rows), bool)
    kept[np.flatnonzero(usable)[:many]] = True
    orders = {"clip": np.where(usable, scores.astype(float), -np.inf), "best": np.where(usable, good * 1.0, -np.inf)}
    pool = dataclasses.replace(
        curated, usable=usable, good=good, kept=kept, orders=orders, votes=votes[:, None], aucs={"clip": 0.5, "best": 1}
    )
    subsets, size = downstream.choose(pool, "clip", seed), kept.sum()
    for name, subset in subsets.items():
        assert usable[subset.rows].all(), name
        assert (np.diff(subset.rows) > 0).all(), name  # nobody twice
    for name, order in (("CLIP score", orders["clip"]), ("best filter", orders["best"])):
        taken = subsets[name].rows
        left = np.setdiff1d(np.flatnonzero(usable), taken)
        assert len(taken) == size
        assert order[taken].min(initial=np.inf) >= order[left].max(initial=-np.inf)
    agreed = usable & (votes != -1)
    assert len(subsets["intersection"].rows) == min(size, agreed.sum())
    assert agreed[subsets["intersection"].rows].all()
    assert subsets["intersection"].found == agreed.sum()
    assert len(subsets["random"].rows) == size
    with pytest.raises(ValueError, match="no filter is called 'other'; there are clip, best"):
        downstream.choose(pool, "other", seed)


def test_the_random_subset_is_another_with_another_seed(downstream, curated):
    first, again, other = (downstream.choose(curated, "match", seed)["random"].rows.tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_spread_is_that_between_seeds(downstream):
    assert downstream.pair([0.1, 0.2, 0.3]) == [0.2, 0.1]
    assert downstream.pair([0.5]) == [0.5, 0.0]
