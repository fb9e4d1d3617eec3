"""`keep: above labels`, from the config to decisions."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SAMPLES = 400
CONFIG = """\
input: {pool}
output: {output}
store: {store}
filters:
  size: {{column: pictures.shorter_side, keep: [8, null], require: true}}
  match: {{column: metadata.match, keep: above labels}}
  noise: {{column: metadata.noise, drop: above labels, keep: below labels}}
  hard: {{column: metadata.match, drop: below labels, require: true}}
keep: {{probability: 0.5}}
"""


@pytest.fixture(scope="module")
def scene(tmp_path_factory, write_shard, sample):
    """A pool with scores beside it: good ones match better and have less noise; half are good."""
    folder = tmp_path_factory.mktemp("by_labels")
    keys = [f"{number:05d}" for number in range(SAMPLES)]
    (folder / "pool").mkdir()
    write_shard(folder / "pool" / "00000.tar", [part for key in keys for part in sample(key, int(key), f"words {key}")])
    generator = np.random.default_rng(1)
    good = generator.random(SAMPLES) < 0.5
    match, noise = good + generator.normal(0, 0.3, SAMPLES), generator.normal(0, 0.6, SAMPLES) - good
    match[:20] = np.nan
    columns = {"match": pa.array(match, pa.float32()), "noise": pa.array(noise, pa.float32())}
    pq.write_table(pa.table({"key": keys, **columns}), folder / "pool" / "00000.parquet")
    return folder, dict(zip(keys, good.tolist(), strict=True)), dict(zip(keys, match.tolist(), strict=True))


@pytest.fixture
def write(scene, tmp_path):
    def write(text=CONFIG):
        path = tmp_path / "config.yaml"
        path.write_text(text.format(pool=scene[0] / "pool", output=tmp_path / "out", store=scene[0] / "store"))
        return path

    return write


@pytest.fixture
def label(scene, run, write, decisions, tmp_path):
    """(how many, drawn) -> a file of labels; decides by plain shares first, as whoever labels has to."""

    def make(count, drawn="random", wrong=0):
        text = CONFIG.replace("keep: above labels", "keep: top 50%").replace("drop: below labels", "drop: bottom 1%")
        text = text.replace("drop: above labels, keep: below labels", "keep: bottom 50%")
        assert run("run", write(text), "--quiet")[0] == 0
        table = decisions(tmp_path / "out")
        uids = dict(zip(table["key"].to_pylist(), table["uid"].to_pylist(), strict=True))
        keys = sorted(np.random.default_rng(2).choice(sorted(uids), count, replace=False).tolist())
        path = tmp_path / "labels.csv"
        lines = [
            f"{uids[key]},{'yes' if scene[1][key] != (place < wrong) else 'no'},{drawn}"
            for place, key in enumerate(keys)
        ]
        path.write_text("\n".join(["uid,keep,drawn", *lines, ""]))
        return path, {key: uids[key] for key in keys}

    return make


def test_ranges_end_where_labels_part_scores(scene, run, write, label, tmp_path, decisions, parse):
    labels, keys = label(100)
    status, _, said = run("run", write(), f"labels={labels}")
    assert status == 0, said
    state = json.loads((tmp_path / "out" / "fitted.json").read_text())
    ranges, told = state["judgement"]["ranges"], state["labels"]["ranges"]
    good = [scene[1][key] for key in keys if scene[2][key] == scene[2][key]]
    assert (told["match"]["good"], told["match"]["bad"]) == (sum(good), len(good) - sum(good))
    assert told["match"]["unjudged"] == 100 - len(good)
    assert ranges["match"] == {"keep": [told["match"]["ends"][0], None], "drop": None}
    assert ranges["hard"] == {"keep": None, "drop": [None, told["hard"]["ends"][0]]}
    assert 0.1 < told["match"]["ends"][0] < 0.7
    assert ranges["noise"]["keep"][1] <= ranges["noise"]["drop"][0]  # between them labels cannot tell
    assert told["noise"]["good_side"] == "below"
    assert f"filter match: {sum(good)} good and {len(good) - sum(good)} bad samples put its range at 0." in said
    assert "above labels" in parse((tmp_path / "out" / "report.html").read_text()).words
    table = decisions(tmp_path / "out")
    votes = dict(zip(table["key"].to_pylist(), table["vote_match"].to_pylist(), strict=True))
    end = np.float32(told["match"]["ends"][0])
    for key, value in scene[2].items():
        assert votes[key] == (0 if np.isnan(value) else 1 if np.float32(value) >= end else -1)

    # The numbers go on without labels.
    fitted = tmp_path / "fitted.json"
    fitted.write_text(json.dumps(state))
    status, _, said = run("decide", write(), f"fitted={fitted}")
    assert status == 0, said
    assert decisions(tmp_path / "out").equals(table)


def test_picked_labels_count_and_are_named(run, write, label):
    labels, _ = label(60, "picked")
    status, _, said = run("decide", write(), f"labels={labels}")
    assert (status, "(60 labels are of picked samples)" in said) == (0, True)


def test_labels_that_turn_scores_round_are_warned_of(run, write, label):
    labels, _ = label(60, wrong=60)
    status, _, said = run("decide", write(), f"labels={labels}")
    assert status == 0
    assert "warning: filter match: by the labels, good samples lie below and not above (AUC 0.0" in said


def test_too_few_labels_are_refused_with_a_remedy(run, write, label):
    labels, _ = label(15)
    status, _, said = run("decide", write(), f"labels={labels}")
    assert status == 2
    assert "filters.match: keep: above labels needs 10 good and 10 bad samples with a label that it can judge" in said
    assert "15 of 15 labels are of usable samples of this pool); label more with `chaffinch label`" in said


def test_what_labels_cannot_decide_starts_nothing(run, write, tmp_path):
    status, _, said = run("run", write())
    assert (status, "filters.match.keep: 'above labels' needs labels:" in said) == (2, True)
    (tmp_path / "labels.csv").write_text("uid,keep\n" + "0" * 32 + ",yes\n")
    waiting = "scorers: {{deep: {{kind: clip, model: ViT-B-32, pretrained: openai, where: required}}}}\nfilters:"
    status, _, said = run("run", write(CONFIG.replace("filters:", waiting)), f"labels={tmp_path / 'labels.csv'}")
    assert status == 2
    assert "filters.hard.drop: 'below labels' cannot decide what scorers.deep measures with `where: required`" in said
    both = CONFIG.replace("drop: above labels, keep: below labels", "drop: above labels, keep: top 5%")
    status, _, said = run("run", write(both), f"labels={tmp_path / 'labels.csv'}")
    assert (status, "keep: top 5% and drop: above labels overlap" in said) == (2, True)
    assert not (tmp_path / "out").exists()
