"""The examples that train before they curate, at small size: rendered scenes in place of photos, a small CLIP."""

import json
import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from chaffinch.jobs.demo.pool import write_clean, write_pool
from chaffinch.jobs.main import main
from chaffinch.scoring.training.architectures import find_architecture

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = 48
SHORT = ["train.batch_size=16", "train.epochs=1", "run.max_rejected=0.5", "--quiet"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A noisy pool and trusted scenes."""
    folder = tmp_path_factory.mktemp("scenes")
    write_pool(folder / "pool", samples=SAMPLES, shard_size=SAMPLES)
    write_clean(folder / "trusted", samples=24)
    return folder


def call(command, example, *settings):
    assert main([command, str(ROOT / "examples" / f"{example}.yaml"), *settings, *SHORT]) == 0


def check(output, steps):
    """Every sample is accounted for, something is kept, and there is a score for each step."""
    summary = json.loads((output / "summary.json").read_text())
    assert summary["read"] == SAMPLES == summary["kept"] + summary["dropped"] + summary["rejected"]
    assert 0 < summary["kept"] < SAMPLES
    assert len(list((output / "shards").glob("*.tar"))) == 1
    (file,) = (output / "store" / "scores").glob("back-*/*.parquet")
    scores = pq.read_table(file)["mimic_score"].drop_null().to_pylist()
    assert len(scores) == SAMPLES - summary["rejected"] + repeated(output)
    assert all(len(row) == steps and all(map(math.isfinite, row)) if steps else math.isfinite(row) for row in scores)


def repeated(output):
    """How many samples were measured and then rejected."""
    (file,) = (output / "decisions").glob("*.parquet")
    return sum(reason == "rejected: uid is repeated" for reason in pq.read_table(file)["reason"].to_pylist())


def test_a_model_that_has_seen_the_pool_is_led_back(scenes, tmp_path):
    torch.manual_seed(0)
    network, _, _ = find_architecture("chaffinch-tiny").create()
    torch.save(network.state_dict(), tmp_path / "reference.pt")
    settings = [
        f"output={tmp_path}",
        f"input={scenes / 'pool'}",
        f"reference={scenes / 'trusted'}",
        f"train.input={scenes / 'pool'}",
        "train.model=chaffinch-tiny",
        f"train.pretrained={tmp_path / 'reference.pt'}",
        "scorers.back.model=chaffinch-tiny",
        f"scorers.back.pretrained={tmp_path / 'training' / 'final.pt'}",
        f"scorers.back.reference={tmp_path / 'reference.pt'}",
        f"scorers.back.negatives={scenes / 'trusted'}",
        "scorers.back.bank=16",
        "filters.mimic.keep=top 50%",  # of a model without any training
    ]
    call("train", "mimic", *settings)
    call("run", "mimic", *settings)
    check(tmp_path, steps=None)


def test_a_reference_leads_another_model_through_the_pool(scenes, tmp_path):
    reference = tmp_path / "reference"
    call(
        "train",
        "grad_mimic",
        f"output={tmp_path}",
        f"train.folder={reference}",
        f"train.input={scenes / 'trusted'}",
        "train.pretrained=null",
        "train.reweight=null",
    )
    steps = [reference / "step_0.pt", *(tmp_path / "training" / f"step_{number}.pt" for number in (1, 2))]
    settings = [
        f"output={tmp_path}",
        f"input={scenes / 'pool'}",
        f"train.input={scenes / 'pool'}",
        f"train.pretrained={reference / 'step_0.pt'}",
        f"train.reweight.reference={reference / 'final.pt'}",
        "train.checkpoint_every=1",
        f"scorers.back.pretrained=[{','.join(map(str, steps))}]",
        f"scorers.back.reference={reference / 'final.pt'}",
        f"scorers.back.negatives={scenes / 'trusted'}",
        "scorers.back.bank=16",
    ]
    call("train", "grad_mimic", *settings)
    call("run", "grad_mimic", *settings)
    check(tmp_path, steps=3)
    visits = pq.read_table(tmp_path / "training" / "mimic" / "visits.parquet")
    assert {1} <= set(visits["visits"].to_pylist()) <= {0, 1, 2}  # 0: its picture cannot be decoded
