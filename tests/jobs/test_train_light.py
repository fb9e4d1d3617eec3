"""Light heads from the command line: trained on trusted pairs, then scoring a pool."""

import json

import pyarrow.parquet as pq
import pytest
import torch

from chaffinch.jobs.main import main

CONFIG = """\
input: {pool}
reference: {trusted}
output: {output}
scorers:
  colours: {{kind: onnx_detector, weights: {detector}, classes: [red ball, blue box], features: true}}
  light: {{kind: light_clip, features: colours.features, weights: {output}/training/final.pt}}
filters:
  match: {{column: light.similarity, keep: above reference 5%}}
train:
  {{model: light_clip, features: colours.features, epochs: 4, hidden: 16, dimensions: 8, evaluate: {{input: {pool}}}}}
run: {{device: cpu, max_rejected: 0.5}}
"""


@pytest.fixture
def light(tmp_path, rendered, colour_detector):
    """A config for the rendered pool."""
    torch.set_num_threads(1)
    path = tmp_path / "light.yaml"
    places = {"pool": rendered / "pool", "trusted": rendered / "trusted", "output": tmp_path / "out"}
    path.write_text(CONFIG.format(**places, detector=colour_detector()))
    return path


def test_trains_on_the_reference_then_scores_the_pool(light, tmp_path, capsys):
    assert main(["train", str(light)]) == 0
    said = capsys.readouterr()
    assert "training: 60 samples" in said.err
    assert "image to text" in said.out
    training = tmp_path / "out" / "training"
    results = json.loads((training / "results.json").read_text())
    assert results["samples"] == 60
    assert results["retrieval"]["pictures"] > 100
    assert sorted(path.name for path in training.iterdir()) == ["final.pt", "log.jsonl", "results.json", "timings.json"]
    kept = {path.name: path.read_bytes() for path in training.iterdir()}
    assert main(["run", str(light), "--quiet"]) == 0
    tables = sorted((tmp_path / "out" / "store" / "scores").glob("light-*/*.parquet"))
    similar = [value for table in tables for value in pq.read_table(table)["similarity"].to_pylist()]
    assert sum(value is not None for value in similar) == results["retrieval"]["pictures"]
    # The same training again is known; from the start it gives the same bytes.
    assert main(["train", str(light)]) == 0
    assert "already trained" in capsys.readouterr().err
    for path in training.iterdir():
        path.unlink()
    assert main(["train", str(light), "--quiet"]) == 0
    again = {path.name: path.read_bytes() for path in training.iterdir()}
    del kept["timings.json"], again["timings.json"]
    assert again == kept


def test_another_training_in_the_folder_is_not_overwritten(light, capsys):
    assert main(["train", str(light), "train.evaluate=null", "--quiet"]) == 0
    assert main(["train", str(light), "train.evaluate=null", "train.epochs=5"]) == 1
    assert "holds a training with another epochs: set train.folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("train.features=colour.features", r"train.features: there is no scorer 'colour'; did you mean 'colours'"),
        ("train.features=colours.boxs", "train.features: scorer colours writes no 'boxs'"),
        ("train.features=light.similarity", "light reads other columns"),
        ("scorers.colours.features=false", "is it told `features: true`?"),
        ("train.epoch=4", "train.epoch"),
        ("train.captions_key=captions", "has no entry 'captions'"),
        ("train.epochs=0", "train"),
        ("train.samples_seen=9", "give samples_seen or epochs, not both"),
        ("train.dropout=1.5", "dropout"),
        ("reference=null", "train.input: is missing: name trusted pairs"),
    ],
)
def test_what_is_wrong_is_named_before_anything_is_measured(light, tmp_path, capsys, setting, said):
    if "light.similarity" in setting:
        (tmp_path / "out" / "training").mkdir(parents=True)
        (tmp_path / "out" / "training" / "final.pt").write_bytes(b"")
    assert main(["train", str(light), setting]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / "training" / "results.json").exists()
