"""None, twenty and a hundred labels on the rendered pool: each way to use them is sensible, and says what it did."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chaffinch.jobs.main import main

CONFIG = """\
input: {pool}
output: {output}
store: {store}
metadata: {folder}/columns/*.parquet
filters:
  size: {{column: pictures.shorter_side, keep: [64, null], require: true}}
  words: {{column: captions.words, keep: [4, null], drop: [null, 2]}}
  match: {{column: metadata.match, keep: %(range)s}}
  boxes: {{column: metadata.boxes, keep: %(range)s}}
  coin: {{column: metadata.coin, keep: top 50%%}}
  flipped: {{column: metadata.flipped, keep: %(side)s 50%%}}
ensemble: {{label_model: %(model)s, drop_sources: %(drop)s}}
keep: {{probability: 0.5}}
run: {{max_rejected: 0.2}}
"""
DRAWS = 3
NOISE = 0.02  # about one standard error of an F1 on the samples without a label


@pytest.fixture(scope="module")
def scene(rendered, tmp_path_factory):
    """The pool with planted scores: two see what is good, one tosses coins, one has its range the wrong way round."""
    folder = tmp_path_factory.mktemp("few")
    (folder / "columns").mkdir()
    told = pq.read_table(rendered / "pool" / "truth.parquet").to_pylist()
    good = {(row["shard"], row["key"]): row["keep"] for row in told}
    plain = folder / "plain.yaml"
    plain.write_text(
        f"input: {rendered / 'pool'}\noutput: {folder / 'plain'}\nstore: {folder / 'store'}\n"
        "filters: {size: {column: pictures.shorter_side, keep: [64, null], require: true}, words: {column: "
        "captions.words, keep: [4, null]}}\nrun: {max_rejected: 0.2}\n"
    )
    assert main(["score", str(plain), "--quiet"]) == 0
    assert main(["decide", str(plain), "--quiet"]) == 0
    shards = json.loads((folder / "plain" / "summary.json").read_text())["shards"]
    generator, truth, uids = np.random.default_rng(9), {}, []
    for shard in shards:
        rows = pq.read_table(folder / "plain" / "decisions" / f"{shard}.parquet").to_pylist()
        for row in rows:
            uids.append((row["uid"], good[shard, row["key"]]))
            if not (row["reason"] or "").startswith(("rejected", "dropped: required")):
                truth[row["uid"]] = good[shard, row["key"]]
    said = np.array([is_good for _, is_good in uids], float)
    columns = {
        "match": said + generator.normal(0, 0.4, len(said)),
        "boxes": said + generator.normal(0, 0.5, len(said)),
        "coin": generator.random(len(said)),
        "flipped": generator.normal(0, 0.6, len(said)) - said,
    }
    table = {name: pa.array(values, pa.float32()) for name, values in columns.items()}
    pq.write_table(pa.table({"uid": [uid for uid, _ in uids], **table}), folder / "columns" / "0.parquet")
    return folder, rendered / "pool", truth


@pytest.fixture(scope="module")
def measure(scene):
    """(labels, range, drop_sources, label model, side of `flipped`) -> error of P(keep) and F1, means over draws of
    labels, and every fitted.json."""
    folder, pool, truth = scene
    known: dict = {}

    def decide(labels, bounds, drop, model, side, draw):
        chosen = np.random.default_rng(draw).permutation(sorted(truth))[:labels].tolist()
        path, output = folder / "config.yaml", folder / "out"
        text = CONFIG % {"range": bounds, "drop": drop, "model": model, "side": side}
        path.write_text(text.format(pool=pool, output=output, store=folder / "store", folder=folder))
        settings = []
        if labels:
            lines = [f"{uid},{'yes' if truth[uid] else 'no'},random" for uid in chosen]
            (folder / "labels.csv").write_text("\n".join(["uid,keep,drawn", *lines, ""]))
            settings = [f"labels={folder / 'labels.csv'}"]
        assert main(["decide", str(path), "--quiet", *settings]) == 0
        state = json.loads((output / "fitted.json").read_text())
        rows = [
            row
            for shard in json.loads((output / "summary.json").read_text())["shards"]
            for row in pq.read_table(output / "decisions" / f"{shard}.parquet").to_pylist()
            if row["uid"] in truth and row["probability"] is not None  # repeats of a uid are rejected
        ]
        return rows, state

    def compare(rows, draw):
        held_out = set(np.random.default_rng(draw).permutation(sorted(truth))[100:].tolist())
        rows = [row for row in rows if row["uid"] in held_out]
        error = np.mean([(row["probability"] - truth[row["uid"]]) ** 2 for row in rows])
        both = sum(row["keep"] and truth[row["uid"]] for row in rows)
        return error, 2 * both / max(sum(row["keep"] for row in rows) + sum(truth[row["uid"]] for row in rows), 1)

    def call(labels, bounds="top 50%", drop="false", model="majority", side="top"):
        key = (labels, bounds, drop, model, side)
        if key not in known:
            found = [decide(*key, draw) for draw in range(DRAWS if labels else 1)]
            figures = [compare(found[draw if labels else 0][0], draw) for draw in range(DRAWS)]
            known[key] = (*np.mean(figures, axis=0).tolist(), [state for _, state in found])
        return known[key]

    return call


@pytest.mark.parametrize("model", ["majority", "dawid_skene"])
def test_twenty_labels_do_no_harm_and_a_hundred_help(measure, model):
    none, twenty, hundred = (measure(labels, "top 8%", model=model)[:2] for labels in (0, 20, 100))
    assert twenty[0] < none[0] + NOISE
    assert twenty[1] > none[1] - NOISE
    assert hundred[0] <= twenty[0] + NOISE / 2
    ranges = measure(100, "above labels", model=model)[:2]
    assert ranges[0] < hundred[0] - NOISE
    assert ranges[1] > hundred[1] + NOISE


@pytest.mark.parametrize("labels", [0, 20])
def test_leaving_sources_out_costs_no_more_than_noise(measure, labels):
    whole, weeded = (measure(labels, drop=drop)[:2] for drop in ("false", "true"))
    assert weeded[0] < whole[0] + NOISE
    assert weeded[1] > whole[1] - NOISE


def test_a_label_model_that_weighs_sources_gains_more_by_turning_one_round_than_by_leaving_it_out(measure):
    for labels in (20, 100):
        whole, weeded, turned = (
            measure(labels, drop=drop, model="dawid_skene", side=side)[:2]
            for drop, side in (("false", "top"), ("true", "top"), ("true", "bottom"))
        )
        assert turned[0] < whole[0] + NOISE
        assert turned[0] < weeded[0] - NOISE / 2


def test_a_hundred_labels_find_what_is_useless_and_what_is_turned_round(measure):
    error, f1, states = measure(100, drop="true")
    before = measure(100)
    assert error < before[0] - NOISE
    assert f1 > before[1] + NOISE
    for state in states:
        described = state["filters"]
        assert described["flipped"]["dropped_source"]["why"] == "useless"
        assert described["flipped"]["dropped_source"]["interval"][1] < 0.5
        assert described["flipped"]["weight"] == 0
        assert not {"match", "boxes"} & {name for name in described if "dropped_source" in described[name]}
    assert sum("dropped_source" in state["filters"]["coin"] for state in states) >= DRAWS - 1


def test_without_labels_only_extremes_are_left_out_and_by_default_nothing(measure):
    for state in measure(0)[2] + measure(0, drop="{{extreme: null}}")[2] + measure(100)[2]:
        assert not any("dropped_source" in found for found in state["filters"].values())
    (state, *_) = measure(0, "top 8%", "{{extreme: 0.1}}")[2]
    left = {
        name: found["dropped_source"]["why"] for name, found in state["filters"].items() if "dropped_source" in found
    }
    assert left["match"] == left["boxes"] == "extreme"


def test_all_of_it_is_told(scene, measure, capsys, parse):
    folder = scene[0]
    measure(100, drop="true")
    path = folder / "config.yaml"
    labels = np.random.default_rng(0).permutation(sorted(scene[2]))[:100].tolist()
    lines = [f"{uid},{'yes' if scene[2][uid] else 'no'},random" for uid in labels]
    (folder / "told.csv").write_text("\n".join(["uid,keep,drawn", *lines, ""]))
    arguments = [f"labels={folder / 'told.csv'}", "ensemble.drop_sources=true"]
    assert main(["decide", str(path), *arguments]) == 0
    said = capsys.readouterr()
    assert "warning: filter flipped is left out (ensemble.drop_sources): on 100 samples with a label" in said.err
    assert ", worse than chance: its range may be the wrong way round" in said.err
    row = next(line for line in said.out.splitlines() if line.startswith("flipped "))
    assert row.split()[-2:] == ["n/a", "0.00"]
    assert main(["report", str(path), *arguments, "--quiet"]) == 0
    page = parse((folder / "out" / "report.html").read_text())
    assert "filter flipped is left out (ensemble.drop_sources)" in page.words
