"""Who learns from a subset. A learner is told what to train on and where to be tried, and answers with figures.

To add one: a frozen dataclass of settings with `samples_seen` and `learn`, and its name in downstream.py's `LEARNERS`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from chaffinch.jobs.console import Console
from chaffinch.jobs.train import run_train


@dataclass(frozen=True)
class Outcome:
    """What a learner came to.

    Attributes:
        samples_seen: how many samples it was trained on, each visit counted.
        loss: of the last step.
        recall: "image to text R@1" and so on -> share found, in [0, 1]; higher is better.
    """

    samples_seen: int
    loss: float
    recall: Mapping[str, float]


class Learner(Protocol):
    """Settings of a learner; all that changes its figures, so that outcomes of other settings are kept apart."""

    @property
    def samples_seen(self) -> int:
        """How many samples to train on in all, each visit counted; the same for every subset."""

    def learn(self, shards: Path, evaluation: str, seed: int, folder: Path) -> Outcome:
        """Trains on shards and is tried on others; goes on where it was stopped.

        Args:
            shards: a folder of shards to train on.
            evaluation: shards of pairs to try retrieval on.
            seed: of all chance.
            folder: for whatever it keeps.
        """


@dataclass(frozen=True)
class Scratch:
    """A CLIP from random weights, by `chaffinch train`: the recipe of the demo's own small CLIP, whatever the subset.

    Attributes:
        samples_seen: how many samples to train on in all; a multiple of the batch, so that all see the same number.
        model: a packaged model or a JSON file that describes one.
        batch_size: samples per step.
        learning_rate: its peak.
        warmup: share of the steps until then.
        threads: of torch; the weights follow from it, to the bit.
    """

    samples_seen: int
    model: str = "chaffinch-tiny"
    batch_size: int = 64
    learning_rate: float = 0.001
    warmup: float = 0.05
    threads: int = 1

    def learn(self, shards: Path, evaluation: str, seed: int, folder: Path) -> Outcome:
        """Trains and tries; see `Learner`."""
        torch.set_num_threads(self.threads)
        folder.mkdir(parents=True, exist_ok=True)
        recipe = {
            "model": self.model,
            "samples_seen": self.samples_seen,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "warmup": self.warmup,
            "seed": seed,
        }
        places = {
            "input": str(shards),
            "folder": str(folder / "training"),
            "evaluate": {"input": evaluation},
            "workers": self.threads,
            "checkpoint_every": 100,
        }
        content = {"output": str(folder), "train": recipe | places, "run": {"device": "cpu"}}
        config = folder / "train.yaml"
        config.write_text(json.dumps(content, indent=1), encoding="utf-8")  # YAML includes JSON
        results = run_train(str(config), [], Console(quiet=True))
        ways = {"image to text": "image_to_text", "text to image": "text_to_image"}
        recall = {
            f"{way} {rank}": share for way, key in ways.items() for rank, share in results["retrieval"][key].items()
        }
        return Outcome(results["samples_seen"], results["loss"], recall)
