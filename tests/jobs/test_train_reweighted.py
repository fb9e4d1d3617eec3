"""Re-weighted training from the command line, and its log as a column that filters judge by."""

import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from chaffinch.jobs import training_run
from chaffinch.jobs.demo.pool import write_clean
from chaffinch.jobs.main import main
from chaffinch.pipeline.samples import index_shard
from chaffinch.pipeline.shards import find_shards

SMALLEST = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}
PLAIN = """\
input: {folder}/pool
output: {output}
train:
  model: {folder}/smallest.json
  samples_seen: {seen}
  batch_size: 12
  learning_rate: 0.002
  checkpoint_every: 3
  checkpoint_first: true
  workers: 2
"""
REWEIGHTED = (
    PLAIN
    + """\
  reweight:
    reference: {folder}/reference/training/final.pt
    temperature: 0.5
    scores: standardised
"""
)
KEPT = (
    "log.jsonl",
    "results.json",
    "final.pt",
    "step_0.pt",
    "step_3.pt",
    "step_6.pt",
    "resume.pt",
    "mimic/visits.parquet",
)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pool of 30 scenes, and a reference that has learnt them for longer than any test does."""
    place = tmp_path_factory.mktemp("reweighted")
    write_clean(place / "pool", samples=30, shard_size=20, seed=1)
    (place / "smallest.json").write_text(json.dumps(SMALLEST))
    (place / "reference.yaml").write_text(PLAIN.format(folder=place, output=place / "reference", seen=600))
    assert main(["train", str(place / "reference.yaml"), "--quiet"]) == 0
    return place


@pytest.fixture
def config(folder, tmp_path):
    def write(output="out", seen=96):
        path = tmp_path / f"{output}.yaml"
        path.write_text(REWEIGHTED.format(folder=folder, output=tmp_path / output, seen=seen))
        return str(path)

    return write


class Stop(KeyboardInterrupt):
    """The user's Ctrl-C."""


def files(place):
    return {name: hashlib.sha256((place / name).read_bytes()).hexdigest() for name in KEPT}


@pytest.mark.parametrize("stop", [2, 5, 7])
def test_a_stopped_training_goes_on_to_the_same_bytes_and_visits(config, tmp_path, monkeypatch, stop):
    assert main(["train", config("whole"), "--quiet"]) == 0

    def show(self, step):
        if step.step == stop:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(training_run.Progress, "show", show)
        assert main(["train", config("stopped"), "--quiet"]) == 130
    assert main(["train", config("stopped"), "--quiet"]) == 0
    assert files(tmp_path / "stopped" / "training") == files(tmp_path / "whole" / "training")


def test_the_first_weights_are_those_of_the_reference_and_plain_training(folder, config, tmp_path):
    assert main(["train", config(), "--quiet"]) == 0
    first, other = (
        torch.load(place / "training" / "step_0.pt", weights_only=True)
        for place in (folder / "reference", tmp_path / "out")
    )
    assert (first["step"], first["epoch"]) == (0, 0.0)
    assert all(torch.equal(value, other["state_dict"][name]) for name, value in first["state_dict"].items())
    log = [json.loads(line) for line in (tmp_path / "out" / "training" / "log.jsonl").read_text().splitlines()]
    assert log[0]["weighing"]["distance"] > log[-1]["weighing"]["distance"] > 0
    assert 1 <= log[0]["weighing"]["effective"] < 12
    results = json.loads((tmp_path / "out" / "training" / "results.json").read_text())
    assert results["weighing"] == log[-1]["weighing"]


def test_the_log_is_a_column_for_filters_without_a_second_pass(folder, config, tmp_path):
    """72 visits of 30 samples: three lists' worth, the last one not full."""
    assert main(["train", config(seen=72), "--quiet"]) == 0
    log = pq.read_table(tmp_path / "out" / "training" / "mimic" / "visits.parquet")
    shards = find_shards(str(folder / "pool"))
    uids = [uid for shard in shards for uid in index_shard(shard)["uid"].to_pylist()]
    assert log["uid"].to_pylist() == uids
    assert log.schema.field("mimic_score").type == pa.list_(pa.float32())
    scores = np.array(log["mimic_score"].to_pylist())
    assert scores.shape == (30, 3)
    assert np.isnan(scores).sum() == 18
    assert np.isnan(scores[:, :2]).sum() == 0
    np.testing.assert_array_equal(np.array(log["visits"]), (~np.isnan(scores)).sum(axis=1))
    np.testing.assert_allclose(np.array(log["mimic_mean"]), np.nanmean(scores, axis=1), rtol=1e-5)
    weights = np.array(log["weight"].to_pylist())
    assert np.nansum(weights) == pytest.approx(72, rel=1e-4)  # of every batch 12

    judging = tmp_path / "judge.yaml"
    judging.write_text(
        f"input: {folder / 'pool'}\noutput: {tmp_path / 'judged'}\nstore: {tmp_path / 'store'}\n"
        f"metadata: {tmp_path}/out/training/mimic/*.parquet\n"
        "filters:\n"
        "  mean: {column: metadata.mimic_mean, keep: top 50%, drop: bottom 50%, aspect: mimic}\n"
        "  steps: {kind: mimic_steps, column: metadata.mimic_score, aspect: mimic}\n"
        "ensemble: {label_model: majority}\n"
        "keep: {fraction: 0.5}\n"
    )
    assert main(["run", str(judging), "--quiet"]) == 0
    decided = pa.concat_tables(
        [pq.read_table(tmp_path / "judged" / "decisions" / f"{shard.name}.parquet") for shard in shards]
    )
    mean = np.array(log["mimic_mean"])
    np.testing.assert_array_equal(np.array(decided["vote_mean"]), np.where(mean >= np.sort(mean)[15], 1, -1))
    share = np.nanmean(np.where(np.isnan(scores), np.nan, scores >= 0), axis=1)
    np.testing.assert_array_equal(np.array(decided["vote_steps"]), np.sign(share - 0.5))
    assert sum(decided["keep"].to_pylist()) == 15


def test_a_log_can_be_left_out_and_is_not_resumed_without(config, tmp_path, capsys):
    path = config()
    assert main(["train", path, "train.reweight.log=false", f"train.folder={tmp_path / 'bare'}", "--quiet"]) == 0
    assert not (tmp_path / "bare" / "mimic").exists()
    assert main(["train", path, "--quiet"]) == 0
    assert main(["train", path, "train.reweight.temperature=1"]) == 1
    assert "holds a training with another reweight" in capsys.readouterr().err
    log = tmp_path / "out" / "training" / "mimic" / "visits.parquet"
    log.write_bytes(b"damaged")
    assert main(["train", path]) == 1
    assert "visits.parquet cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("temperature=0", "train: reweight.temperature is 0"),
        ("temperature=-1", "it has to be more than 0"),
        ("temperature=.nan", "reweight.temperature is nan"),
        ("layers=[]", "reweight.layers is empty"),
        ("layers=[visual.porj]", "train.reweight.layers: no parameter matches 'visual.porj'"),
        ("scores=best", "not 'best'"),
        ("scroes=raw", "unknown setting; did you mean 'scores'?"),
        ("reference=missing.pt", "reweight.reference: 'missing.pt' is not a file here"),
        ("reference={out}/first.pt", "train.reweight.reference: reference and current model have the same weights"),
        ("reference={out}/other.pt", "train.reweight.reference: visual.proj has the shape [32, 16] in the current"),
        ("reference={out}/nan.pt", "train.reweight.reference: the reference has weights that are no finite numbers"),
        ("reference={out}/stranger.pt", "train.reweight.reference: reference and current model are strangers"),
    ],
)
def test_what_is_wrong_with_a_reweighting_is_told_at_its_place(folder, config, tmp_path, capsys, setting, message):
    final = torch.load(folder / "reference" / "training" / "final.pt", weights_only=True)["state_dict"]
    first = torch.load(folder / "reference" / "training" / "step_0.pt", weights_only=True)["state_dict"]
    torch.save(first, tmp_path / "first.pt")
    torch.save(final | {"visual.proj": torch.zeros(32, 20)}, tmp_path / "other.pt")
    torch.save(final | {"visual.proj": torch.full((32, 16), torch.nan)}, tmp_path / "nan.pt")
    generator = torch.Generator().manual_seed(5)
    strange = {name: torch.randn(value.shape, generator=generator) for name, value in final.items()}
    torch.save(strange, tmp_path / "stranger.pt")
    name, _, value = setting.partition("=")
    value = value.replace("{out}", str(tmp_path))
    path = config()
    assert main(["train", path, f"train.reweight.{name}={value}"]) == 2
    assert message in capsys.readouterr().err


def test_errors_carry_the_line(config, tmp_path, capsys):
    path = tmp_path / "out.yaml"
    config()
    path.write_text(path.read_text().replace("    scores: standardised", "    layers: [visual.porj]"))
    assert main(["train", str(path)]) == 2
    assert "out.yaml:14: train.reweight.layers: no parameter matches" in capsys.readouterr().err
