"""Labelled pictures: the picture tower of a CLIP with a linear head on its embedding, or that head alone."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from chaffinch.scoring.alignment.derivatives import evaluation_mode
from chaffinch.scoring.alignment.losses import classification
from chaffinch.scoring.clips.drafts import check_shape
from chaffinch.scoring.training.building import build
from chaffinch.scoring.training.checkpoints import save_weights
from chaffinch.scoring.training.pictures import Look
from chaffinch.scoring.training.recipe import ClassifierRecipe
from chaffinch.scoring.training.samples import Loaded, Samples, Wanted, read_ahead
from chaffinch.scoring.training.task import Task
from chaffinch.scoring.training.visits import Visits


@dataclass(frozen=True)
class Accuracy:
    """What trying a classifier came to.

    Attributes:
        pictures: how many there were.
        accuracy: share whose label it found, in [0, 1]; higher is better.
        classes: how many it tells apart; by chance it finds 1 / classes where all are equally frequent.
        unusable: why samples could not be read -> how many.
    """

    pictures: int
    accuracy: float
    classes: int
    unusable: Mapping[str, int]


@dataclass(frozen=True)
class _Batch:
    """n labelled pictures on the device: pixels, or embeddings; and (n,) int64."""

    inputs: torch.Tensor
    labels: torch.Tensor


class Classifier(nn.Module):
    """A picture tower and a head: (n, 3, height, width) pixels to (n, c) logits."""

    def __init__(self, visual: nn.Module, dimensions: int, classes: int) -> None:
        super().__init__()
        self.visual = visual
        self.head = _head(dimensions, classes)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embeds and judges."""
        logits: torch.Tensor = self.head(_embed(self.visual, pixels))
        return logits


class Head(nn.Module):
    """A head alone: (n, d) embeddings to (n, c) logits."""

    def __init__(self, dimensions: int, classes: int) -> None:
        super().__init__()
        self.head = _head(dimensions, classes)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Judges."""
        logits: torch.Tensor = self.head(embeddings)
        return logits


class Classification(Task):
    """A tower and its head, trained together with the cross-entropy of the labels."""

    least = 1
    separable = True
    tried = "accuracy"

    def __init__(self, recipe: ClassifierRecipe, device: str) -> None:
        """Builds the model; the tower of the captions is left out.

        Args:
            recipe: how to train.
            device: "cpu" or "cuda".

        Raises:
            ValueError: as `build`.
        """
        self._recipe = recipe
        self.model = build(recipe.model, recipe.pretrained, recipe.seed, device, recipe.precision)
        self._visual = self.model.network.visual
        self._look = Look.of(self.model.network, device)
        self.network = self._build().to(device)

    def _build(self) -> nn.Module:
        return Classifier(self._visual, self._dimensions(), self._recipe.outputs)

    def _dimensions(self) -> int:
        height, width = self._look.size
        with torch.no_grad(), evaluation_mode(self._visual):
            blank = torch.zeros(1, 3, height, width, device=self.model.device)
            return int(self._visual(blank).shape[-1])

    def prepare(self, picture: Image.Image, captions: Sequence[str], chance: np.random.Generator) -> tuple[Any, Any]:
        """The number of the class, and a crop."""
        label = self._recipe.class_of(captions[0])
        return self._look.augmented(picture, self._recipe.augment, chance), label

    def batch(self, loaded: Loaded) -> _Batch:
        """Normalises."""
        return _Batch(self._look.normalised(loaded.pictures), self._labels(loaded))

    def losses(self, batch: _Batch) -> torch.Tensor:
        """Cross-entropies."""
        return classification(self.network(batch.inputs), batch.labels)

    def evaluate(self, samples: Samples, batch_size: int, threads: int) -> Accuracy:
        """Accuracy on the samples, prepared as the model's evaluation does."""
        right: list[torch.Tensor] = []
        unusable: dict[str, int] = {}
        batches = _in_order(len(samples), batch_size)
        with torch.no_grad(), evaluation_mode(self.network), self.model.arithmetic():
            for loaded in read_ahead(samples, batches, self._prepare_to_see, threads):
                for reason in loaded.unusable.values():
                    unusable[reason] = unusable.get(reason, 0) + 1
                if loaded.pictures:
                    right.append(self._judge(loaded).argmax(dim=1) == self._labels(loaded))
        if not right:
            raise ValueError(f"no sample to evaluate on can be read: {next(iter(unusable), 'there are none')}")
        found = torch.cat(right)
        return Accuracy(len(found), float(found.double().mean()), self._recipe.outputs, unusable)

    def reference(self, reference: str) -> Mapping[str, torch.Tensor]:
        """The weights of another training's final.pt."""
        try:
            content = torch.load(Path(reference).expanduser(), map_location="cpu", weights_only=True)
        except Exception as error:  # damaged files raise whatever their reader stumbles over
            raise ValueError(f"{reference!r} cannot be read: {' '.join(str(error).split())[:200]}") from error
        if not isinstance(content, dict) or "classes" not in content or "state_dict" not in content:
            raise ValueError(f"{reference!r} is no classifier that `chaffinch train` kept: name its final.pt")
        if content["classes"] != self._plain_classes():
            raise ValueError(f"{reference!r} tells other classes apart: train a reference with the same `classes`")
        state: Mapping[str, torch.Tensor] = content["state_dict"]
        return state

    def save(self, file: BinaryIO, epoch: float, step: int) -> None:
        """Weights, and what the classes are."""
        save_weights(file, self.network, self._recipe.model, epoch, step, self._plain_classes())

    def _plain_classes(self) -> int | list[str]:
        classes = self._recipe.classes
        return classes if isinstance(classes, int) else list(classes)

    def _prepare_to_see(self, picture: Image.Image, captions: Sequence[str], visit: int) -> tuple[Any, Any]:
        label = self._recipe.class_of(captions[0])
        check_shape(picture.size)
        return self.model.transform(picture), label

    def _judge(self, loaded: Loaded) -> torch.Tensor:
        """(n, c) logits of what `_prepare_to_see` made."""
        logits: torch.Tensor = self.network(torch.stack(loaded.pictures).to(self.model.device))
        return logits

    def _labels(self, loaded: Loaded) -> torch.Tensor:
        return torch.tensor(loaded.captions, device=self.model.device)


class Probe(Classification):
    """A head alone, on embeddings that are computed once."""

    def _build(self) -> nn.Module:
        self._visual.requires_grad_(False).eval()
        return Head(self._dimensions(), self._recipe.outputs)

    def read(
        self, samples: Samples, batches: Iterable[Sequence[Wanted]], visits: Visits, threads: int
    ) -> Iterator[Loaded]:
        """Embeds all samples, and looks each batch up."""
        embeddings: dict[int, torch.Tensor] = {}
        labels: dict[int, int] = {}
        unusable: dict[int, str] = {}
        with torch.no_grad(), self.model.arithmetic():
            everything = _in_order(len(samples), self._recipe.batch_size)
            for loaded in read_ahead(samples, everything, self._prepare_to_see, threads):
                unusable |= loaded.unusable
                if loaded.pictures:
                    rows = self._embedded(loaded).cpu()
                    known = [wanted.index for wanted in loaded.wanted]
                    embeddings |= zip(known, rows, strict=True)
                    labels |= zip(known, loaded.captions, strict=True)
        for batch in batches:
            wanted = [one for one in batch if one.index in labels]
            lost = {one.index: unusable[one.index] for one in batch if one.index in unusable}
            indices = [one.index for one in wanted]
            yield Loaded([embeddings[one] for one in indices], [labels[one] for one in indices], wanted, lost)

    def batch(self, loaded: Loaded) -> _Batch:
        """Stacks embeddings."""
        return _Batch(torch.stack(loaded.pictures).to(self.model.device), self._labels(loaded))

    def _judge(self, loaded: Loaded) -> torch.Tensor:
        logits: torch.Tensor = self.network(self._embedded(loaded))
        return logits

    def _embedded(self, loaded: Loaded) -> torch.Tensor:
        return _embed(self._visual, torch.stack(loaded.pictures).to(self.model.device))


def _head(dimensions: int, classes: int) -> nn.Linear:
    """At 0: all classes are alike, and heads of several trainings have begun in the same place."""
    head = nn.Linear(dimensions, classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def _embed(visual: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """(n, d) embeddings of length sqrt(d)."""
    embeddings = visual(pixels).float()
    return functional.normalize(embeddings, dim=-1) * math.sqrt(embeddings.shape[-1])


def _in_order(samples: int, batch_size: int) -> Iterator[list[Wanted]]:
    for start in range(0, samples, batch_size):
        yield [Wanted(index) for index in range(start, min(start + batch_size, samples))]
