"""Light heads over frozen features as a learner: a CLIP from scratch is too weak on a few thousand photos."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from downstream_learners import Outcome

from chaffinch.jobs.training import ShardSamples
from chaffinch.pipeline.shards import find_shards
from chaffinch.scoring.light.checkpoint import Model
from chaffinch.scoring.light.features import measure_features
from chaffinch.scoring.light.recipe import LightRecipe
from chaffinch.scoring.light.training import LightTrainer, Pairs
from chaffinch.scoring.onnx_detector import OnnxDetector
from chaffinch.scoring.training.retrieval import recall_of

WEIGHTS = Path(__file__).resolve().parents[2] / "shared" / "data" / "weights" / "yolox_nano.onnx"


@dataclass(frozen=True)
class Heads:
    """The heads of `light_clip` with its own recipe, whatever the subset; features are measured once per picture.

    Attributes:
        samples_seen: how many samples to train on in all; a multiple of the batch, so that all see the same number.
        batch_size: samples per step.
        threads: of torch; the weights follow from it, to the bit.
    """

    samples_seen: int
    batch_size: int = 256
    threads: int = 1

    def learn(self, shards: Path, evaluation: str, seed: int, folder: Path) -> Outcome:
        """Trains and tries; see `downstream_learners.Learner`."""
        torch.set_num_threads(self.threads)
        folder.mkdir(parents=True, exist_ok=True)
        cache = folder.parent / "features.npz"
        recipe = LightRecipe(
            "light_clip", "yolox.features", samples_seen=self.samples_seen, batch_size=self.batch_size, seed=seed
        )
        trainer = LightTrainer(recipe, _pairs(str(shards), cache))
        losses = [epoch.loss for epoch in trainer.run()]
        model, others = Model(trainer.heads, trainer.vocabulary), _pairs(evaluation, cache)
        texts = [listed[0] for listed in others.captions]
        found = recall_of(model.embed_pictures(others.features), model.embed_captions(texts), np.arange(len(others)))
        recall = {
            f"{way} {rank}": share
            for way, one in zip(("image to text", "text to image"), found, strict=True)
            for rank, share in one.items()
        }
        return Outcome(trainer.steps * recipe.batch(self.batch_size), losses[-1], recall)


@dataclass(frozen=True)
class _Some:
    """Some of the samples of shards, as a training reads them."""

    samples: ShardSamples
    chosen: list[int]

    def __len__(self) -> int:
        return len(self.chosen)

    def picture(self, index: int) -> bytes:
        return self.samples.picture(self.chosen[index])

    def captions(self, index: int) -> list[str]:
        return self.samples.captions(self.chosen[index])


def _pairs(shards: str, cache: Path) -> Pairs:
    """Features and captions of all samples whose picture can be measured."""
    known: dict[str, np.ndarray] = dict(np.load(cache)) if cache.exists() else {}
    detector = OnnxDetector(str(WEIGHTS), features=True)
    with ShardSamples(find_shards(shards)) as samples:
        digests = [hashlib.sha256(samples.picture(index)).hexdigest() for index in range(len(samples))]
        first = {digest: index for index, digest in reversed(list(enumerate(digests))) if digest not in known}
        if first:
            missing = _Some(samples, sorted(first.values()))
            found = measure_features(detector, "features", missing, "cpu", 64, 2)
            usable = [index for place, index in enumerate(missing.chosen) if place not in found.unusable]
            known |= {digests[index]: row for index, row in zip(usable, found.features, strict=True)}
            np.savez(cache, **known)
        rows = [index for index, digest in enumerate(digests) if digest in known]
        return Pairs(np.stack([known[digests[index]] for index in rows]), [samples.captions(index) for index in rows])
