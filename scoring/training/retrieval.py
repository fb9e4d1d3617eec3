"""How well a model finds the caption of a picture, and the picture of a caption, among all of a set."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from chaffinch.scoring.clips.drafts import check_shape
from chaffinch.scoring.clips.model import Model
from chaffinch.scoring.training.samples import Samples, Wanted, read_ahead

RANKS = (1, 5, 10)
_ROWS = 1024


@dataclass(frozen=True)
class Retrieval:
    """What retrieval came to.

    Attributes:
        pictures: how many there were.
        captions: how many there were; a picture may have several.
        image_to_text: "R@k" -> share of pictures that have a caption of theirs among the k most similar captions, in
            [0, 1]; higher is better; by chance about k times captions per picture / captions.
        text_to_image: "R@k" -> share of captions whose picture is among the k most similar ones, in [0, 1]; higher is
            better; by chance k / pictures.
        unusable: why samples could not be read -> how many.
    """

    pictures: int
    captions: int
    image_to_text: Mapping[str, float]
    text_to_image: Mapping[str, float]
    unusable: Mapping[str, int]


def retrieve(model: Model, samples: Samples, batch_size: int, threads: int) -> Retrieval:
    """Embeds all samples as the clip scorer does and ranks each among all.

    Args:
        model: its network is in training mode again afterwards if it was before.
        samples: pictures with one caption or more each.
        batch_size: pictures to embed at a time.
        threads: how many samples to read at a time.

    Returns:
        Recall at 1, 5 and 10 both ways.
    """
    training = model.network.training
    model.network.eval()
    try:
        images, captions, owners, unusable = _embed(model, samples, batch_size, threads)
    finally:
        model.network.train(training)
    image_to_text, text_to_image = recall(images, captions, owners)
    reasons: dict[str, int] = {}
    for reason in unusable.values():
        reasons[reason] = reasons.get(reason, 0) + 1
    return Retrieval(len(images), len(captions), image_to_text, text_to_image, reasons)


def recall(
    images: torch.Tensor, captions: torch.Tensor, owners: torch.Tensor
) -> tuple[dict[str, float], dict[str, float]]:
    """Recall at 1, 5 and 10 from embeddings. What is as similar as the right one counts as found before it.

    So a model that gives everything the same embedding finds nothing, rather than everything.

    Args:
        images: (n, d) unit vectors.
        captions: (m, d) unit vectors.
        owners: (m,) which picture each caption belongs to, from 0 to n - 1.

    Returns:
        From pictures to captions and from captions to pictures: "R@k" -> share found, in [0, 1].
    """
    to_text = torch.cat(
        [
            _misses(rows, owners[None] == torch.arange(start, start + len(rows), device=owners.device)[:, None])
            for start, rows in _similarities(images, captions)
        ]
    )
    pictures = torch.arange(len(images), device=owners.device)
    to_image = torch.cat(
        [
            _misses(rows, owners[start : start + len(rows), None] == pictures[None])
            for start, rows in _similarities(captions, images)
        ]
    )
    one, other = ({f"R@{k}": float((misses < k).double().mean()) for k in RANKS} for misses in (to_text, to_image))
    return one, other


def recall_of(
    images: np.ndarray, captions: np.ndarray, owners: np.ndarray
) -> tuple[dict[str, float], dict[str, float]]:
    """The same from arrays."""
    return recall(torch.from_numpy(images), torch.from_numpy(captions), torch.from_numpy(owners))


def _similarities(queries: torch.Tensor, found: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """Where rows start, and the similarities of that many queries with all: a block at a time, to spare memory."""
    for start in range(0, len(queries), _ROWS):
        yield start, queries[start : start + _ROWS] @ found.T


def _misses(similarities: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """How many wrong ones are at least as similar as the best of the right ones: (rows, all) -> (rows,)."""
    best = similarities.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    return ((similarities >= best) & ~right).sum(dim=1)


def _embed(
    model: Model, samples: Samples, batch_size: int, threads: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict[int, str]]:
    def prepare(picture: Image.Image, captions: Any, visit: int) -> tuple[torch.Tensor, Any]:
        check_shape(picture.size)
        return model.transform(picture), captions

    batches = (
        [Wanted(index) for index in range(start, min(start + batch_size, len(samples)))]
        for start in range(0, len(samples), batch_size)
    )
    images: list[torch.Tensor] = []
    texts: list[torch.Tensor] = []
    owners: list[int] = []
    unusable: dict[int, str] = {}
    for loaded in read_ahead(samples, batches, prepare, threads):
        unusable |= loaded.unusable
        if not loaded.pictures:
            continue
        seen = sum(len(batch) for batch in images)
        images.append(model.embed_pictures(loaded.pictures))  # (n, d)
        flat = [(seen + row, text) for row, listed in enumerate(loaded.captions) for text in listed]
        owners += [owner for owner, _ in flat]
        texts.append(model.embed_captions([text for _, text in flat]))  # (m, d)
    if not images:
        reason = next(iter(unusable.values()), "there are none")
        raise ValueError(f"no sample to evaluate on can be read: {reason}")
    return torch.cat(images), torch.cat(texts), torch.tensor(owners, device=model.device), unusable
