"""Mimic scores of labelled pictures by two heads over stored features, from the command line to a decision."""

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from chaffinch.scoring.alignment.linear import align_head
from chaffinch.scoring.head_weights import read_layers
from chaffinch.scoring.onnx_detector import OnnxDetector


@pytest.fixture
def config(tmp_path, small_pool, colour_detector):
    """24 samples in two shards, two of them without a label, and heads of three classes over a detector's features."""
    pool = small_pool(tmp_path / "pool", shards=2, samples=12)
    for number, tar in enumerate(sorted(pool.glob("*.tar"))):
        keys = [f"{number:08d}{row:04d}" for row in range(12)]
        labels = [row % 3 if row != 5 else None for row in range(12)]
        pq.write_table(pa.table({"key": keys, "label": labels}), tar.with_suffix(".parquet"))
    yolox = {"kind": "onnx_detector", "weights": str(colour_detector()), "classes": ["ball", "box"], "features": True}
    content = {
        "input": str(pool),
        "output": str(tmp_path / "out"),
        "store": str(tmp_path / "store"),
        "scorers": {
            "yolox": yolox,
            "head": {
                "kind": "mimic_head",
                "embedding": "yolox.features",
                "label": "metadata.label",
                "weights": [str(tmp_path / "step0.pt"), str(tmp_path / "step1.pt")],
                "reference": str(tmp_path / "reference.pt"),
            },
        },
        "filters": {"mimic": {"kind": "mimic_steps", "column": "head.mimic_score"}},
        "ensemble": {"label_model": "majority"},
        "keep": {"probability": 0.5},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(autouse=True)
def heads(tmp_path, colour_detector):
    detector = OnnxDetector(str(colour_detector()), ("ball", "box"), features=True)
    dimensions = detector.columns["features"].list_size
    torch.manual_seed(0)
    for name in ("step0", "step1", "reference"):
        torch.save(torch.nn.Linear(dimensions, 3).state_dict(), tmp_path / f"{name}.pt")


def table(tmp_path, scorer):
    (folder,) = (tmp_path / "store" / "scores").glob(f"{scorer}-*")
    return pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("*.parquet"))])


def vectors(column):
    return np.array(column.to_pylist(), np.float64)


def test_labels_beside_the_shards_and_stored_features_make_a_decision(config, run, tmp_path):
    status, _, err = run("run", config)
    assert status == 0, err
    features, head = table(tmp_path, "yolox")["features"], table(tmp_path, "head")
    labels = np.array([row % 3 if row != 5 else -1 for row in range(12)] * 2)
    assert head["mimic_score"].is_valid().to_pylist() == (labels >= 0).tolist()
    rows = vectors(features)[labels >= 0]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    layers = {name: read_layers(tmp_path / f"{name}.pt", "relu")[0] for name in ("step0", "step1", "reference")}
    for step in (0, 1):
        expected = align_head(rows, labels[labels >= 0], layers[f"step{step}"], layers["reference"])
        stored = vectors(head["mimic_score"].drop_null())[:, step]
        np.testing.assert_allclose(stored, expected.mimic_score, rtol=0, atol=1e-5)
    decisions = pa.concat_tables([pq.read_table(path) for path in sorted((tmp_path / "out" / "decisions").glob("*"))])
    share = (vectors(head["mimic_score"].drop_null()) >= 0).mean(axis=1)
    kept = np.array(decisions["keep"].to_pylist())[labels >= 0]
    assert kept[share == 1].all()
    assert not kept[share == 0].any()
    assert 0 < kept.sum() < len(kept)


def test_other_heads_open_no_shard(config, run, tmp_path):
    assert run("score", config)[0] == 0
    for path in (tmp_path / "pool").glob("*.tar"):
        status = path.stat()
        path.write_bytes(bytes(status.st_size))  # nothing can be read any more, but a listing sees no change
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    status, _, err = run("score", config, f"scorers.head.weights={tmp_path / 'step1.pt'}")
    assert status == 0, err
    folders = list((tmp_path / "store" / "scores").glob("head-*"))
    assert len(folders) == 2


def test_labels_that_are_texts_are_refused_before_anything_is_read(config, run, tmp_path):
    for path in (tmp_path / "pool").glob("*.parquet"):
        content = pq.read_table(path)
        pq.write_table(content.set_column(1, "label", content["label"].cast(pa.string())), path)
    status, _, err = run("score", config)
    assert status == 2
    assert "metadata.label holds string, not numbers of classes" in err
    assert not (tmp_path / "store" / "scores").exists()
