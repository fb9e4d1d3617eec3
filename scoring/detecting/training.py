"""Trains the detector of `network` on pictures whose objects are known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from chaffinch.scoring.detecting.network import build, propose
from chaffinch.scoring.yolox import STRIDES, Head

if TYPE_CHECKING:
    import torch

_BATCH = 32
_LEARNING_RATE = 4e-3
_WARMUP = 0.1
_DECAY = 0.01

# A stride looks for objects whose size is from 1.4 to 3.5 strides, so that those between two are looked for by both.
_SMALLEST, _LARGEST = 1.4, 3.5

# The weight of boxes among the losses, as in YOLOX.
_BOXES = 5.0


@dataclass(frozen=True)
class Example:
    """A picture on its canvas, and what is to be found there.

    Attributes:
        canvas: (3, side, side) uint8, as `yolox.canvas` lays it out.
        labels: (k,) int64, numbers of classes.
        boxes: (k, 4) float32, left, top, right and bottom edge in pixels of the canvas.
    """

    canvas: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray


def assign(labels: np.ndarray, boxes: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Decides which cells have to find which object.

    Of the grids that look for its size those cells whose middle is within 1.5 strides of the object's middle, both
    ways, and inside its box; and in any case the one that holds the object's middle. Where two claim a cell the smaller
    one gets it.
    Source: arXiv 2107.08430, section 2, for several cells round the middle.

    Args:
        labels: (k,) numbers of classes.
        boxes: (k, 4) corners in pixels of the canvas.
        cells: (a, 3) column, row and stride, as `Head.cells` gives them.

    Returns:
        (a,) int64 the class that each cell has to find, -1 for none; and (a, 4) float32 the box.
    """
    found, places = np.full(len(cells), -1), np.zeros((len(cells), 4), np.float32)
    strides = cells[:, 2]
    middles = (cells[:, :2] + 0.5) * strides[:, None]
    spans = boxes[:, 2:] - boxes[:, :2]
    sizes = np.sqrt(spans.prod(axis=1))
    for one in np.argsort(-sizes, kind="stable"):
        looks = ((sizes[one] >= _SMALLEST * strides) | (strides == STRIDES[0])) & (
            (sizes[one] <= _LARGEST * strides) | (strides == STRIDES[-1])
        )
        reach = np.clip(spans[one] / 2, 0.5 * strides[:, None], 1.5 * strides[:, None])
        near = (np.abs(middles - (boxes[one, :2] + boxes[one, 2:]) / 2) <= reach).all(axis=1)
        found[looks & near], places[looks & near] = labels[one], boxes[one]
    return found, places


def train(
    examples: Sequence[Example], classes: int, epochs: int, seed: int, say: Callable[[str], None]
) -> "torch.nn.ModuleDict":
    """Trains a detector; on the cpu the same examples and seed give the same weights.

    AdamW with a warm-up and a cosine. The losses are YOLOX's: cross entropies of object and class, and the generalised
    intersection over union of boxes, each over the number of cells that have to find something.

    Args:
        examples: n pictures whose canvases are of one size, at least one batch of 32.
        classes: how many are told apart.
        epochs: how often each is seen.
        seed: of weights and order.
        say: is told how it goes.

    Returns:
        The network, ready to be run.
    """
    import torch

    side = examples[0].canvas.shape[1]
    cells = Head("images", "output", side, side, classes).cells()
    wanted = [assign(one.labels, one.boxes, cells) for one in examples]
    labels, boxes = (torch.from_numpy(np.stack(part)) for part in zip(*wanted, strict=True))
    pictures = torch.from_numpy(np.stack([one.canvas for one in examples]))

    torch.manual_seed(seed)
    network = build(classes)
    steps = epochs * (len(examples) // _BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), _LEARNING_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, steps, pct_start=_WARMUP)
    places = torch.from_numpy(cells)
    for epoch in range(epochs):
        order = torch.randperm(len(examples))[: len(examples) // _BATCH * _BATCH]
        total = 0.0
        for rows in order.reshape(-1, _BATCH):
            proposals = propose(network, pictures[rows].float())
            loss = _loss(proposals, places, labels[rows], boxes[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        say(f"epoch {epoch + 1} of {epochs}: loss {total / (len(examples) // _BATCH):.3f}")
    return network.eval()


def _loss(
    proposals: "torch.Tensor", cells: "torch.Tensor", labels: "torch.Tensor", boxes: "torch.Tensor"
) -> "torch.Tensor":
    """Of (n, a, 5 + classes) proposals, given cells (a, 3), labels (n, a) and boxes (n, a, 4): a number."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits, one_hot
    from torchvision.ops import generalized_box_iou_loss

    holds = labels >= 0
    strides = cells[:, 2:]
    middles = (proposals[:, :, :2] + cells[:, :2]) * strides
    halves = proposals[:, :, 2:4].clamp(max=10).exp() * strides / 2
    corners = torch.cat([middles - halves, middles + halves], dim=2)[holds]
    sure = binary_cross_entropy_with_logits(proposals[:, :, 4], holds.float(), reduction="sum")
    kinds = one_hot(labels[holds], proposals.shape[2] - 5).float()
    right = binary_cross_entropy_with_logits(proposals[:, :, 5:][holds], kinds, reduction="sum")
    apart = generalized_box_iou_loss(corners, boxes[holds], reduction="sum")
    loss: torch.Tensor = (sure + right + _BOXES * apart) / holds.sum().clamp(min=1)
    return loss
