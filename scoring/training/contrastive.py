"""Pairs of pictures and captions: each is learnt by telling it from the others of its batch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image

from chaffinch.scoring.alignment.direction import check_same_tensors
from chaffinch.scoring.alignment.losses import Logits, within_batch
from chaffinch.scoring.clips.from_open_clip import OpenClipCheckpoint
from chaffinch.scoring.training.building import build
from chaffinch.scoring.training.checkpoints import save_weights
from chaffinch.scoring.training.pictures import Look
from chaffinch.scoring.training.recipe import Recipe
from chaffinch.scoring.training.retrieval import Retrieval, retrieve
from chaffinch.scoring.training.samples import Loaded, Samples
from chaffinch.scoring.training.task import Task

# open_clip's limit: a larger scale makes the loss follow single pairs.
_LARGEST_LOGIT_SCALE = math.log(100)


@dataclass(frozen=True)
class _Batch:
    """n pairs on the device.

    Attributes:
        pictures: (n, 3, height, width) float32.
        tokens: (n, t).
    """

    pictures: torch.Tensor
    tokens: torch.Tensor


class Contrastive(Task):
    """A CLIP, trained with the contrastive loss; models with a logit bias, as SigLIP's, with the sigmoid loss."""

    least = 2  # one sample alone has nothing to be told from
    separable = False
    tried = "retrieval"

    def __init__(self, recipe: Recipe, device: str) -> None:
        """Builds the model.

        Args:
            recipe: how to train.
            device: "cpu" or "cuda".

        Raises:
            ValueError: as `build`.
        """
        self._recipe = recipe
        self.model = build(recipe.model, recipe.pretrained, recipe.seed, device, recipe.precision)
        self.network = self._clip = self.model.network
        self._clip.output_dict = True
        self._look = Look.of(self._clip, device)

    def prepare(self, picture: Image.Image, captions: Sequence[str], chance: np.random.Generator) -> tuple[Any, Any]:
        """One of the captions, and a crop."""
        caption = captions[int(chance.integers(len(captions)))]
        return self._look.augmented(picture, self._recipe.augment, chance), caption

    def batch(self, loaded: Loaded) -> _Batch:
        """Normalises and tokenises."""
        return _Batch(self._look.normalised(loaded.pictures), self.model.tokenise(loaded.captions))

    def losses(self, batch: _Batch) -> torch.Tensor:
        """Each pair's share of the batch's loss."""
        found = {name: value.float() for name, value in self._clip(batch.pictures, batch.tokens).items()}
        bias = found.get("logit_bias")
        logits = Logits(found["logit_scale"].reshape(()), None if bias is None else bias.reshape(()))
        with torch.autocast(self.model.device, enabled=False):
            return within_batch(found["image_features"], found["text_features"], logits)

    def evaluate(self, samples: Samples, batch_size: int, threads: int) -> Retrieval:
        """Retrieval among the samples."""
        return retrieve(self.model, samples, batch_size, threads)

    def reference(self, reference: str) -> Mapping[str, torch.Tensor]:
        """Another checkpoint of the model."""
        try:
            network: torch.nn.Module = OpenClipCheckpoint(self._recipe.model, reference).load("cpu", "float32").network
        except ValueError:
            # open_clip lists all tensors that do not fit; the first is enough to see what is wrong.
            if Path(reference).expanduser().is_file() and (known := _read(reference)) is not None:
                check_same_tensors(self.network.state_dict(), known)
            raise
        return network.state_dict()

    def save(self, file: BinaryIO, epoch: float, step: int) -> None:
        """As open_clip's own training does."""
        save_weights(file, self.network, self._recipe.model, epoch, step)

    def after_step(self) -> None:
        """Limits the scale."""
        with torch.no_grad():
            self._clip.logit_scale.clamp_(0, _LARGEST_LOGIT_SCALE)

    @property
    def logit_scale(self) -> float:
        """The inverse of the temperature."""
        return float(self._clip.logit_scale.detach().exp())


def _read(path: str) -> Mapping[str, torch.Tensor] | None:
    """The tensors of a file as they stand, or None where it is no checkpoint at all."""
    from open_clip.factory import load_state_dict

    try:
        known: Mapping[str, torch.Tensor] = load_state_dict(str(Path(path).expanduser()), weights_only=True)
    except Exception:  # damaged files raise whatever their reader stumbles over; `load` has said so
        return None
    return known
