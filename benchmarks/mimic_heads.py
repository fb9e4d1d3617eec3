"""Light heads for mimic scores on the real pool: a reference, current ones, and some in between."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from chaffinch.jobs.main import main as chaffinch
from chaffinch.scoring.light.checkpoint import load_checkpoint, save_checkpoint
from chaffinch.scoring.light.heads import Heads
from chaffinch.scoring.light.recipe import LightRecipe
from chaffinch.scoring.light.training import LightTrainer, Pairs, first_heads
from chaffinch.scoring.light.vocabulary import Vocabulary

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@dataclass(frozen=True)
class Pool:
    """The pool's samples, n of them.

    Attributes:
        uids: (n,) some None.
        captions: (n,) some None.
        features: (n, d) float32.
        usable: (n,) bool: not rejected, with features.
    """

    uids: list[str]
    captions: list[str]
    features: np.ndarray
    usable: np.ndarray


def train_reference(folder: Path, seed: int) -> Path:
    """Trains the reference, unless that was done; returns the folder of its heads."""
    settings = [f"output={folder}", "train.checkpoint_every=1000", f"train.seed={seed}", "run.device=cpu"]
    if chaffinch(["train", str(EXAMPLES / "light_clip.yaml"), *settings, "--quiet"]):
        raise SystemExit("the reference could not be trained")
    return folder / "training"


def train_on_pool(pool: Pool, start: Path, folder: Path, epochs: Sequence[int], seed: int) -> list[Path]:
    """Trains heads on the pool from given ones; returns those after each of the epochs."""
    paths = [folder / f"epoch_{epoch}.pt" for epoch in epochs]
    if all(path.is_file() for path in paths):
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.flatnonzero(pool.usable).tolist()
    recipe = LightRecipe("light_clip", "features.features", epochs=max(epochs), seed=seed, pretrained=str(start))
    pairs = Pairs(pool.features[rows], [[pool.captions[row]] for row in rows])
    trainer = LightTrainer(recipe, pairs, first_heads(recipe))
    if 0 in epochs:
        keep(paths[0], trainer.heads, trainer.vocabulary)
    for epoch in trainer.run():
        print(f"  {folder.name}: epoch {epoch.epoch}, loss {epoch.loss:.3f}", file=sys.stderr)
        if epoch.complete and epoch.epoch in epochs:
            keep(paths[epochs.index(epoch.epoch)], trainer.heads, trainer.vocabulary)
    return paths


def keep(path: Path, heads: Heads, vocabulary: Vocabulary) -> None:
    """Writes heads."""
    with path.open("wb") as file:
        save_checkpoint(file, heads, vocabulary)


def between(first: Path, last: Path, share: float, path: Path) -> Path:
    """Writes heads that lie a share of the way from the first to the last."""
    begin, end = load_checkpoint(first), load_checkpoint(last)
    with torch.no_grad():
        for weight, target in zip(begin.heads.parameters(), end.heads.parameters(), strict=True):
            weight.lerp_(target, share)
    keep(path, begin.heads, begin.vocabulary)
    return path
