"""Mimic scores from the command line: a tiny pool, small checkpoints, filters over every column, and what is wrong."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from chaffinch.pipeline.measuring import batches
from chaffinch.scoring import images
from chaffinch.scoring.mimic import Mimic
from chaffinch.scoring.training.architectures import find_architecture

MODEL = "chaffinch-tiny"
COLUMNS = ["mimic_score", "loss", "similarity", "reference_loss", "reference_similarity", "excess_loss"]
FILTERS = {
    "mimic": {"column": "alignment.mimic_score", "keep": [0, None]},
    "expert": {"column": "alignment.reference_loss", "keep": "bottom 60%"},
    "learnable": {"column": "alignment.excess_loss", "keep": "top 70%"},
}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """And no network: whatever would need one fails."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, small_pool):
    """A pool in two shards, trusted pairs, first weights, weights a little later and a reference."""
    folder = tmp_path_factory.mktemp("mimic")
    small_pool(folder / "pool", shards=2, samples=7)
    small_pool(folder / "trusted", shards=1, samples=8)
    torch.manual_seed(0)
    network = find_architecture(MODEL).create()[0]
    generator = torch.Generator().manual_seed(1)
    for name in ("first", "later", "reference"):
        torch.save({"state_dict": network.state_dict()}, folder / f"{name}.pt")
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.2 * parameter.abs().mean() * torch.randn(parameter.shape, generator=generator)
    torch.save({"state_dict": find_architecture(MODEL).create()[0].state_dict()}, folder / "stranger.pt")
    return folder


@pytest.fixture
def config(folder, tmp_path):
    """Writes a config whose mimic scorer has further settings, and returns its path."""

    def write(output="out", filters=FILTERS, clip=False, store=None, **changed) -> str:
        settings = {"kind": "mimic", "model": MODEL, "pretrained": "first.pt", "reference": "reference.pt"}
        settings |= {"negatives": "trusted"} | changed
        for name in ("pretrained", "reference", "negatives"):
            value = settings[name]
            if isinstance(value, list):
                settings[name] = [str(folder / one) for one in value]
            elif "://" not in value:
                settings[name] = str(folder / value)
        content = {
            "input": str(folder / "pool"),
            "output": str(tmp_path / output),
            "store": str(tmp_path / (store or f"{output}-store")),
            "scorers": {"alignment": settings},
            "filters": filters,
            "keep": {"fraction": 0.4},
        }
        if clip:
            content["scorers"]["clip"] = {"model": MODEL, "pretrained": str(folder / "reference.pt")}
            content["filters"] = filters | {"clip": {"column": "clip.similarity", "keep": "top 50%"}}
        path = tmp_path / f"{output}.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return str(path)

    return write


def table(store, scorer="alignment") -> pa.Table:
    (folder,) = [one for one in (store / "scores").iterdir() if one.name.startswith(f"{scorer}-")]
    return pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("*.parquet"))])


def test_a_pool_is_scored_judged_and_emitted_with_a_clip_that_shares_the_decode(
    config, run, tmp_path, snapshot, monkeypatch
):
    path, decoded = config(clip=True), []

    def decode(file):
        decoded.append(file)
        return images.decode(file)

    monkeypatch.setattr(batches, "decode", decode)
    status, _, err = run("run", path)
    assert status == 0, err
    assert len(decoded) == 14  # once, for both and for what is measured of every picture
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["read"], summary["rejected"]) == (14, 0)
    assert 0 < summary["kept"] <= 6
    scores, clip = table(tmp_path / "out-store"), table(tmp_path / "out-store", "clip")
    assert scores.column_names == [*COLUMNS, "reject"]
    numbers = {name: scores[name].to_numpy() for name in COLUMNS}
    assert all(np.isfinite(values).all() for values in numbers.values())
    assert len(set(numbers["mimic_score"].tolist())) == 14
    np.testing.assert_allclose(numbers["excess_loss"], numbers["loss"] - numbers["reference_loss"], atol=1e-6)
    # the same pictures, decoded once, through the same weights
    np.testing.assert_allclose(numbers["reference_similarity"], clip["similarity"].to_numpy(), atol=1e-6)

    decisions = pa.concat_tables([pq.read_table(one) for one in sorted((tmp_path / "out" / "decisions").iterdir())])
    np.testing.assert_array_equal(decisions["vote_mimic"].to_numpy() > 0, numbers["mimic_score"] >= 0)

    before = snapshot(tmp_path / "out-store")
    status, _, err = run("score", path)
    assert status == 0
    assert "all 2 shards are scored" in err
    assert snapshot(tmp_path / "out-store") == before


def test_two_workers_write_the_same_bytes(config, run, tmp_path, digests):
    for name, workers in (("one", 1), ("two", 2)):
        status, _, err = run("score", config(name), f"run.workers={workers}", "run.batch_size=4")
        assert status == 0, err
    one, two = (
        {name: digest for name, digest in digests(tmp_path / f"{count}-store").items() if name.endswith(".parquet")}
        for count in ("one", "two")
    )
    assert one == two
    assert sum("alignment-" in name for name in one) == 2


def test_another_batch_size_hardly_changes_a_number_and_other_layers_make_another_table(config, run, tmp_path):
    path = config()
    for changed in ((), ("scorers.alignment.layers=[visual]",), ("scorers.alignment.derivative=central",)):
        assert run("score", path, *changed)[0] == 0
    assert run("score", config("small", store="small"), "run.batch_size=1")[0] == 0
    tables = sorted(one.name for one in (tmp_path / "out-store" / "scores").glob("alignment-*"))
    assert len(tables) == 3
    alone = table(tmp_path / "small")
    (same,) = [one for one in tables if (tmp_path / "small" / "scores" / one).exists()]
    parts = sorted((tmp_path / "out-store" / "scores" / same).glob("*.parquet"))
    together = pa.concat_tables([pq.read_table(one) for one in parts])
    for name in ("mimic_score", "loss", "similarity", "reference_loss", "excess_loss"):
        values = together[name].to_numpy()
        np.testing.assert_allclose(alone[name].to_numpy(), values, rtol=0, atol=1e-5 * max(np.ptp(values), 1))


def test_several_checkpoints_are_steps_that_a_filter_decides_on(config, run, tmp_path):
    filters = {
        "steps": {"kind": "mimic_steps", "column": "alignment.mimic_score"},
        "expert": {"column": "alignment.reference_loss", "keep": "bottom 60%"},
    }
    status, _, err = run("run", config(filters=filters, pretrained=["first.pt", "later.pt"], cosine=True))
    assert status == 0, err
    scores = table(tmp_path / "out-store")
    for name in ("mimic_score", "mimic_cosine", "loss", "similarity", "excess_loss"):
        vectors = scores[name].to_pylist()
        assert len(vectors) == 14
        assert {len(one) for one in vectors} == {2}, name
    assert scores.schema.field("reference_loss").type == pa.float32()
    first = config("single", store="single", filters=FILTERS, cosine=True)
    assert run("score", first)[0] == 0
    single = table(tmp_path / "single")
    np.testing.assert_array_equal(
        np.array(scores["mimic_score"].to_pylist())[:, 0], np.array(single["mimic_score"].to_pylist())
    )


def test_a_vector_is_no_score(config, run):
    status, _, err = run("run", config(pretrained=["first.pt", "later.pt"]))
    assert status == 2
    assert "alignment.mimic_score" in err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"reference": "first.pt"}, "is the current model itself: name weights that were trained for longer"),
        ({"reference": "missing.pt"}, "missing.pt' is not a file here: correct the path"),
        ({"negatives": "nowhere"}, "is no .tar file and no folder of them: name shards of trusted pairs"),
        ({"negatives": "s3://bucket/pairs"}, "are not on the local disk: copy them there"),
        ({"bank": 1}, "bank is 1: give 2 or more negatives"),
        ({"layers": []}, "layers is empty: name some, or leave it out"),
        ({"layers": "visual"}, "layers"),
        ({"derivative": "backward"}, "derivative"),
        ({"derivative": "central", "precision": "bfloat16"}, "derivative central needs precision float32"),
        ({"model": "chaffinch-tny"}, "has no model named 'chaffinch-tny': did you mean chaffinch-tiny"),
        ({"colour": "red"}, "unknown setting"),
    ],
)
def test_settings_that_are_wrong_are_told_with_file_and_line(config, run, tmp_path, changed, message):
    path = config(**changed)
    status, _, err = run("score", path)
    assert status == 2
    (line,) = [one for one in err.splitlines() if message in one]
    assert f"{path}:" in line
    assert "scorers.alignment" in line
    assert not (tmp_path / "out-store").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"reference": "stranger.pt"}, "reference and current model are strangers: the cosine between their weights"),
        ({"layers": ["visaul"]}, "layers: no parameter matches 'visaul'; there are such as visual"),
        ({"negatives": "cut.tar"}, "cut.tar cannot be read to its end"),
    ],
)
def test_weights_and_negatives_that_are_no_use_start_nothing(config, run, folder, tmp_path, changed, message):
    (folder / "cut.tar").write_bytes((folder / "trusted" / "00000000.tar").read_bytes()[:3000])
    status, _, err = run("score", config(**changed))
    assert status == 2
    (line,) = [one for one in err.splitlines() if message in one]
    assert "scorers.alignment cannot be loaded: " in line
    assert not list((tmp_path / "out-store").glob("scores/**/*.parquet"))


def test_a_reference_that_is_no_better_is_told_of_on_standard_error(config, folder, caplog):
    """One of the two pairs has the worse model as its reference."""
    told = []
    for current, reference in (("first.pt", "reference.pt"), ("reference.pt", "first.pt")):
        caplog.clear()
        Mimic(MODEL, *(str(folder / name) for name in (current, reference, "trusted"))).load("cpu")
        if any("is no better than" in one.getMessage() for one in caplog.records):
            told.append(config(pretrained=current, reference=reference))
    (path,) = told
    done = subprocess.run(
        [sys.executable, "-m", "chaffinch.jobs.main", "score", path, "--quiet"],
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = [one for one in done.stderr.splitlines() if one.strip()]
    assert "the reference is no better than" in line
    assert "take a reference that was trained for longer or on cleaner pairs" in line
