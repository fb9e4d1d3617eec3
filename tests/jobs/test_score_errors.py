"""What stops scoring: models that cannot be loaded and batches that do not fit, as the command line tells of them."""

import sys

import pytest
import torch
import yaml

import chaffinch.scoring
from chaffinch.jobs import kinds

GREEDY = '''
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from chaffinch.scoring.scorer import Batch, Scorer


@dataclass(frozen=True)
class Greedy(Scorer):
    """Columns: one, always 1."""

    uses_device: ClassVar[bool] = True
    most: int = 5

    @property
    def columns(self):
        return {"one": pa.float32()}

    def load(self, device):
        import torch

        return torch.zeros(1, device=device)

    def score(self, batch, model):
        import torch

        if len(batch) > self.most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return {"one": np.ones(len(batch), np.float32)}
'''


@pytest.fixture
def settings(small_pool, tmp_path):
    """Writes a config for a small pool and returns its path."""
    small_pool(tmp_path / "pool", shards=2, samples=8)
    (tmp_path / "weights.pt").write_bytes(b"no weights at all")

    def write(**more) -> str:
        path = tmp_path / "config.yaml"
        config = {"input": str(tmp_path / "pool"), "output": str(tmp_path / "out"), **more}
        path.write_text(yaml.safe_dump(config))
        return str(path)

    return write


@pytest.fixture
def greedy(tmp_path, monkeypatch):
    """A kind of scorer that is short of memory."""
    folder = tmp_path / "kinds"
    folder.mkdir()
    (folder / "greedy.py").write_text(GREEDY)
    monkeypatch.setattr(chaffinch.scoring, "__path__", [*chaffinch.scoring.__path__, str(folder)])
    kinds._classes.cache_clear()
    yield
    kinds._classes.cache_clear()
    sys.modules.pop("chaffinch.scoring.greedy", None)


@pytest.mark.parametrize("workers", [1, 2])
def test_weights_that_are_none_start_nothing(settings, run, tmp_path, workers):
    clip = {"kind": "clip", "model": "ViT-S-32-alt", "pretrained": str(tmp_path / "weights.pt")}
    filters = {
        "words": {"column": "captions.words", "keep": [1, None]},
        "b": {"column": "b32.similarity", "keep": [0, 1]},
    }
    status, _, err = run("score", settings(scorers={"b32": clip}, filters=filters), f"run.workers={workers}")
    assert status == 2
    assert "scorers.b32 cannot be loaded: cannot load" in err
    assert not list((tmp_path / "out").glob("store/**/*.parquet"))


def test_so_do_those_of_a_scorer_that_comes_later(settings, run, tmp_path):
    """It waits for a required filter over what another scorer measures first."""
    clip = {"kind": "clip", "model": "ViT-S-32-alt", "pretrained": str(tmp_path / "weights.pt"), "where": "required"}
    filters = {
        "words": {"column": "captions.words", "keep": [1, None], "require": True},
        "b": {"column": "b32.similarity", "keep": [0, 1]},
    }
    status, _, err = run("score", settings(scorers={"b32": clip}, filters=filters))
    assert status == 2
    assert "trying whether b32 can be loaded" in err
    assert "scorers.b32 cannot be loaded: cannot load" in err
    assert not list((tmp_path / "out").glob("store/**/*.parquet"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_that_is_not_there(settings, run, tmp_path, greedy):
    filters = {"one": {"column": "greedy.one", "keep": [0, 1]}}
    status, _, err = run("score", settings(scorers={"greedy": {}}, filters=filters), "run.device=cuda")
    assert status == 1
    assert "scorers.greedy cannot be loaded: RuntimeError: Found no NVIDIA driver" in err
    assert "set run.device=cpu" in err
    assert not list((tmp_path / "out").glob("store/**/*.parquet"))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_batch_that_does_not_fit(settings, run, tmp_path, greedy, workers):
    filters = {"one": {"column": "greedy.one", "keep": [0, 1]}}
    path = settings(scorers={"greedy": {}}, filters=filters)
    status, _, err = run("run", path, "run.batch_size=7", f"run.workers={workers}")
    assert status == 1
    told = next(line for line in err.splitlines() if line.startswith("chaffinch: shard 0000000"))
    assert "scorer greedy ran out of memory on a batch of 7 samples (run.batch_size=7); 5 of them fit" in told
    assert not list((tmp_path / "out").glob("store/scores/**/*.parquet"))
    status, _, err = run("run", path, "run.batch_size=5", f"run.workers={workers}")
    assert status == 0, err
