"""Light heads from the command line: trained on trusted pairs, then scoring a pool."""

import json

import pyarrow.parquet as pq
import pytest
import torch
import yaml

from chaffinch.jobs.main import main
from chaffinch.scoring.light.checkpoint import load_checkpoint

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

FILES = {"final.pt", "log.jsonl", "pairs.parquet", "results.json", "timings.json"}


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
    assert {path.name for path in training.iterdir()} == FILES
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
        ("train.checkpoint_every=0", "checkpoint_every"),
        ("train.pretrained=epoch_0.pt", "pretrained 'epoch_0.pt' is not a file here: correct the path, or train it"),
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


def test_two_trainings_from_the_same_first_weights(light, tmp_path, capsys):
    """The reference on trusted pairs, the current heads on the pool; epochs are kept of both."""
    reference, current = tmp_path / "out" / "training", tmp_path / "current"
    keep = ["train.checkpoint_every=2", "train.evaluate=null", "--quiet"]
    assert main(["train", str(light), *keep]) == 0
    assert {path.name for path in reference.iterdir()} == FILES | {"epoch_0.pt", "epoch_2.pt", "epoch_4.pt"}
    assert (reference / "epoch_4.pt").read_bytes() == (reference / "final.pt").read_bytes()
    moved = tmp_path / "first.pt"
    (reference / "epoch_0.pt").rename(moved)
    pool = yaml.safe_load(light.read_text())["input"]
    on_the_pool = [f"train.folder={current}", f"train.input={pool}", f"train.pretrained={moved}", *keep]
    assert main(["train", str(light), *on_the_pool]) == 0
    first, others = load_checkpoint(moved), load_checkpoint(current / "final.pt")
    assert (current / "epoch_0.pt").read_bytes() == moved.read_bytes()
    assert others.vocabulary == first.vocabulary
    same = {name for name, value in others.heads.state_dict().items() if value.equal(first.heads.state_dict()[name])}
    assert same == {"centre", "spread"}
    # A moved file is the same training, another one is not; nor is one that did not keep what is wanted now.
    moved.rename(reference / "epoch_0.pt")
    on_the_pool[2] = f"train.pretrained={reference / 'epoch_0.pt'}"
    before = {path.name: path.read_bytes() for path in current.iterdir()}
    assert main(["train", str(light), *on_the_pool]) == 0
    assert {path.name: path.read_bytes() for path in current.iterdir()} == before
    for changed in (f"train.pretrained={reference / 'epoch_2.pt'}", "train.checkpoint_every=1"):
        assert main(["train", str(light), *on_the_pool, changed]) == 1
        assert f"another {changed[6:].partition('=')[0]}: set train.folder" in capsys.readouterr().err


def test_heads_of_another_size_are_no_start(light, tmp_path, capsys):
    assert main(["train", str(light), "train.evaluate=null", "--quiet"]) == 0
    final = tmp_path / "out" / "training" / "final.pt"
    settings = [f"train.pretrained={final}", f"train.folder={tmp_path / 'other'}", "train.hidden=17"]
    assert main(["train", str(light), *settings]) == 2
    assert "train.pretrained: hidden is 17, and 16 in pretrained" in capsys.readouterr().err
