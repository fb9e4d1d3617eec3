"""Mimic scores of light heads from the command line: two trainings, then the pool, of which no picture is opened."""

import io
import json
import os
import shutil
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from chaffinch.jobs.main import main

REFERENCE = """\
input: {folder}/trusted
output: {folder}/reference
scorers:
  colours: {{kind: onnx_detector, weights: {detector}, classes: [red ball, blue box], features: true}}
train:
  {{model: light_clip, input: {folder}/trusted, features: colours.features, epochs: 30, hidden: 16, dimensions: 8,
   checkpoint_every: 10}}
run: {{device: cpu}}
"""
POOL = """\
input: {folder}/pool
output: {folder}/out
scorers:
  colours: {{kind: onnx_detector, weights: {detector}, classes: [red ball, blue box], features: true}}
  alignment:
    kind: mimic_light
    features: colours.features
    weights: [{folder}/current/epoch_0.pt, {folder}/current/epoch_1.pt]
    reference: {folder}/reference/training/final.pt
    bank: 40
filters:
  mimic: {{kind: mimic_steps, column: alignment.mimic_score}}
  reference: {{column: alignment.reference_loss, keep: bottom 40%}}
ensemble: {{label_model: majority}}
train:
  {{model: light_clip, input: {folder}/pool, folder: {folder}/current, features: colours.features, epochs: 2,
   hidden: 16, dimensions: 8, checkpoint_every: 1, pretrained: {folder}/reference/training/epoch_0.pt}}
run: {{device: cpu, max_rejected: 0.5}}
"""


@pytest.fixture
def configs(tmp_path, rendered, colour_detector):
    """A pool of its own, with a config that trains and scores it, and one for the reference."""
    torch.set_num_threads(1)
    for name in ("pool", "trusted"):
        shutil.copytree(rendered / name, tmp_path / name)
    for name, text in (("reference", REFERENCE), ("pool", POOL)):
        (tmp_path / f"{name}.yaml").write_text(text.format(folder=tmp_path, detector=colour_detector()))
    return str(tmp_path / "reference.yaml"), str(tmp_path / "pool.yaml")


def table(tmp_path) -> pa.Table:
    tables = sorted((tmp_path / "out" / "store" / "scores").glob("alignment-*/*.parquet"))
    return pa.concat_tables([pq.read_table(path) for path in tables])


def test_trains_both_and_scores_the_pool_without_its_pictures(configs, tmp_path, capsys):
    reference, pool = configs
    assert main(["train", reference, "--quiet"]) == 0
    assert main(["train", pool, "--quiet"]) == 0
    assert main(["score", pool, "--quiet"]) == 0
    first = table(tmp_path)
    scores = np.array([row for row in first["mimic_score"].to_pylist() if row is not None])
    assert scores.shape[1] == 2
    assert np.isfinite(scores).all()
    assert np.isfinite(first["reference_loss"].drop_null().to_numpy()).all()

    # No picture can be read any more, but a listing sees no change: what is stored is enough.
    for path in (tmp_path / "pool").glob("*.tar"):
        status = path.stat()
        path.write_bytes(blanked(path.read_bytes()))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    shutil.rmtree(next((tmp_path / "out" / "store" / "scores").glob("alignment-*")))
    assert main(["score", pool, "--quiet"]) == 0
    assert table(tmp_path).equals(first)
    assert main(["decide", pool, "--quiet"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert 0 < summary["filters"]["mimic"]["retained"] < 1
    assert len(summary["filters"]["mimic"]["steps_retained"]) == 2

    # Negatives from a store: here it holds the very pairs that the training kept, and the scores are the same.
    assert main(["score", reference, "--quiet", "scorers.captions={}"]) == 0
    assert main(["score", pool, "--quiet", f"scorers.alignment.negatives={tmp_path / 'reference' / 'store'}"]) == 0
    assert table(tmp_path).equals(pa.concat_tables([first, first]))


def test_what_is_missing_is_said_before_anything_runs(configs, tmp_path, capsys):
    reference, pool = configs
    assert main(["score", pool]) == 2
    assert "scorers.alignment: weights" in capsys.readouterr().err
    assert main(["train", reference, "--quiet"]) == 0
    assert main(["train", pool, "--quiet", "train.pretrained=null"]) == 0
    assert main(["score", pool]) == 2
    assert "epoch_0.pt: it knows other words than the reference: train both from" in capsys.readouterr().err


def blanked(archive: bytes) -> bytes:
    """The archive with zeros in place of each picture's bytes."""
    content = bytearray(archive)
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        for member in members:
            if member.name.endswith((".jpg", ".png")):
                content[member.offset_data : member.offset_data + member.size] = bytes(member.size)
    return bytes(content)
