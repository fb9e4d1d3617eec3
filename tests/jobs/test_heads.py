"""Heads over what a CLIP has stored: they are measured, changed and decided by without its pictures."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from chaffinch.jobs.main import main

MATCHER = str(Path(__file__).parents[2] / "jobs" / "demo" / "matcher.pt")
PAIR = {"kind": "prompt_pair", "embedding": "clip.image_embedding", "model": "chaffinch-tiny", "pretrained": MATCHER}


def save_head(path: Path, seed: int, dimensions: int = 128) -> str:
    torch.manual_seed(seed)
    torch.save(torch.nn.Linear(dimensions, 1).state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def measured(rendered, tmp_path_factory):
    """A folder with a pool, a CLIP and two heads over it, measured and decided."""
    folder = tmp_path_factory.mktemp("measured")
    shutil.copytree(rendered / "pool", folder / "pool")
    content = {
        "input": str(folder / "pool"),
        "output": str(folder / "out"),
        "store": str(folder / "store"),
        "scorers": {
            "clip": {"model": "chaffinch-tiny", "pretrained": MATCHER, "embeddings": True},
            "aesthetic": {
                "kind": "linear_head",
                "embedding": "clip.image_embedding",
                "weights": save_head(folder / "head.pth", 0),
            },
            "beach": PAIR | {"good": ["a red ball on a beach"], "bad": ["a tree in the snow"]},
        },
        "filters": {
            "aesthetic": {"column": "aesthetic.score", "keep": "top 50%"},
            "beach": {"column": "beach.probability", "keep": [0.5, None]},
        },
        "ensemble": {"label_model": "majority"},
        "keep": {"fraction": 0.3},
        "run": {"max_rejected": 0.2},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    assert main(["run", str(path), "--quiet"]) == 0
    return folder


@pytest.fixture
def config(measured, tmp_path):
    """The config in a copy of that folder, to be changed at will."""
    shutil.copytree(measured, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "config.yaml"
    path.write_text(path.read_text().replace(str(measured), str(tmp_path)))
    return path


def table(tmp_path, scorer) -> pa.Table:
    (folder,) = (tmp_path / "store" / "scores").glob(f"{scorer}-*")
    return pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("*.parquet"))])


def blank_the_pictures(tmp_path):
    """Nothing in the shards can be read any more, but a listing sees no change."""
    for path in (tmp_path / "pool").glob("*.tar"):
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def kept(tmp_path) -> list[bool]:
    files = sorted((tmp_path / "out" / "decisions").glob("*.parquet"))
    return [value for path in files for value in pq.read_table(path)["keep"].to_pylist()]


def test_heads_are_what_numpy_makes_of_the_stored_embeddings(config, tmp_path):
    clip, aesthetic = table(tmp_path, "clip"), table(tmp_path, "aesthetic")
    usable = clip["image_embedding"].is_valid().to_numpy()
    assert 0 < usable.sum() < len(usable)
    assert aesthetic["score"].is_valid().to_numpy().tolist() == usable.tolist()
    rows = np.array(clip["image_embedding"].drop_null().to_pylist(), np.float64)
    state = torch.load(tmp_path / "head.pth", weights_only=True)
    expected = rows / np.linalg.norm(rows, axis=1, keepdims=True) @ state["weight"].double().numpy()[0]
    expected += state["bias"].item()
    np.testing.assert_allclose(aesthetic["score"].drop_null().to_numpy(), expected, rtol=0, atol=1e-5)
    probabilities = table(tmp_path, "beach")["probability"].drop_null().to_numpy()
    assert len(probabilities) == usable.sum()
    assert np.ptp(probabilities) > 0.5  # scenes with and without a ball
    assert probabilities.min() >= 0
    assert probabilities.max() <= 1


def test_another_range_needs_no_model_and_no_picture(config, tmp_path, snapshot):
    blank_the_pictures(tmp_path)
    before, stored = kept(tmp_path), snapshot(tmp_path / "store")
    program = (
        "import sys; from chaffinch.jobs.main import main; status = main(sys.argv[1:])\n"
        "print(sorted({'torch', 'open_clip', 'transformers'} & set(sys.modules))); sys.exit(status)"
    )
    changes = ["filters.aesthetic.keep=top 20%", "filters.beach.keep=[0.1, null]", "--quiet"]
    command = [sys.executable, "-c", program, "decide", str(config), *changes]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert kept(tmp_path) != before
    assert snapshot(tmp_path / "store") == stored


@pytest.mark.parametrize("changed", ["aesthetic", "beach"])
def test_another_head_measures_nothing_but_itself(config, tmp_path, snapshot, changed):
    blank_the_pictures(tmp_path)
    stored = snapshot(tmp_path / "store")
    before = table(tmp_path, changed)
    settings = {
        "aesthetic": f"scorers.aesthetic.weights={save_head(tmp_path / 'other.pth', 1)}",
        "beach": "scorers.beach.bad=[a house in the rain]",
    }
    for command in ("score", "decide"):
        assert main([command, str(config), settings[changed], "--quiet"]) == 0
    after = snapshot(tmp_path / "store")
    new = {name for name in after if name not in stored}
    assert {name: after[name] for name in stored} == stored
    (folder,) = {name.split("/")[1] for name in new}
    assert len(new) == 4  # one table for each shard
    assert folder.startswith(f"{changed}-")
    values = [pq.read_table(tmp_path / "store" / name).column(0) for name in sorted(new)]
    assert pa.chunked_array([chunk for one in values for chunk in one.chunks]) != before.column(0)


def test_heads_that_cannot_fit_are_refused_before_anything_starts(config, tmp_path, snapshot, run):
    stored = snapshot(tmp_path / "store")
    wide = save_head(tmp_path / "wide.pth", 0, dimensions=512)
    for setting, place, message in [
        (f"scorers.aesthetic.weights={wide}", "scorers.aesthetic", "has 128 dimensions, and "),
        ("scorers.clip.embeddings=false", "scorers.aesthetic.embedding", "no scorer writes 'clip.image_embedding'"),
        ("scorers.aesthetic.embedding=clip.similarity", "scorers.aesthetic", "clip.similarity holds float, not vec"),
        ("scorers.beach.model=ViT-B-32", "scorers.beach", "has 128 dimensions, and ViT-B-32 takes 512"),
        ("scorers.beach.good=[]", "scorers.beach", "good is empty: give one prompt or more"),
        ("scorers.aesthetic.weights=no.pth", "scorers.aesthetic", "'no.pth' is not a file here"),
    ]:
        status, _, errors = run("score", config, setting)
        assert status == 2, setting
        assert place in errors
        assert message in errors
    assert snapshot(tmp_path / "store") == stored
