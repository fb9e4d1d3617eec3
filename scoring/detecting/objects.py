"""Objects: of all boxes that a network proposes, those that count, as numbers and as columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    import torch

BOX = pa.list_(pa.float32(), 4)


@dataclass(frozen=True)
class Limits:
    """What is kept of a network's proposals.

    Attributes:
        floor: confidence above which a box is an object, in [0, 1).
        most: objects of a picture at most, the surest.
        text_threshold: confidence above which a token belongs to a box's phrase, and a phrase is grounded.
    """

    floor: float
    most: int
    text_threshold: float


@dataclass(frozen=True)
class Selected:
    """The k best boxes of n pictures, the surest first.

    Attributes:
        index: (n, k) int64, which of a picture's boxes.
        boxes: (n, k, 4) float32, x0, y0, x1, y1 as shares of the picture, clipped to [0, 1].
        confidences: (n, k) float32.
        kept: (n, k) bool, whether it is an object; True at the front of each row.
    """

    index: "torch.Tensor"
    boxes: "torch.Tensor"
    confidences: "torch.Tensor"
    kept: "torch.Tensor"


@dataclass(frozen=True)
class Found:
    """The objects of one picture, the surest first.

    Attributes:
        boxes: (k, 4) float32, shares of the picture.
        confidences: (k,) float32.
        phrases: (k,) what each is.
        caption_phrases: (p,) phrases of the caption.
        phrase_confidences: (p,) float32, how sure the best box for each of them is.
    """

    boxes: np.ndarray
    confidences: np.ndarray
    phrases: Sequence[str]
    caption_phrases: Sequence[str]
    phrase_confidences: np.ndarray


NOTHING = Found(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), (), (), np.zeros(0, np.float32))
"""What is found where there is nothing to look for."""


def corners(boxes: "torch.Tensor") -> "torch.Tensor":
    """Turns (..., 4) boxes from centre, width and height into x0, y0, x1, y1, in float32."""
    import torch

    x, y, width, height = boxes.float().unbind(-1)
    return torch.stack([x - 0.5 * width, y - 0.5 * height, x + 0.5 * width, y + 0.5 * height], dim=-1)


def select(boxes: "torch.Tensor", confidences: "torch.Tensor", limits: Limits) -> Selected:
    """Picks the objects among the proposals of n pictures; of equal ones the first proposed comes first.

    Args:
        boxes: (n, q, 4) corners as shares of the picture.
        confidences: (n, q).
        limits: what is kept.

    Returns:
        The k = min(q, most) surest of each picture.
    """
    import torch

    ordered, index = torch.sort(confidences, dim=1, descending=True, stable=True)
    ordered, index = ordered[:, : limits.most], index[:, : limits.most]
    chosen = torch.gather(boxes, 1, index[..., None].expand(-1, -1, 4)).clamp(0, 1)
    return Selected(index, chosen, ordered, ordered > limits.floor)


COLUMNS: Mapping[str, pa.DataType] = {
    "boxes": pa.list_(BOX),
    "confidences": pa.list_(pa.float32()),
    "phrases": pa.list_(pa.string()),
    "caption_phrases": pa.list_(pa.string()),
    "phrase_confidences": pa.list_(pa.float32()),
    "grounded": pa.list_(pa.bool_()),
}
"""The columns' arrow types."""


def to_columns(found: Sequence[Found], limits: Limits) -> dict[str, pa.Array]:
    """Lays n samples' objects out as arrow lists.

    Args:
        found: (n,) objects of each sample.
        limits: the threshold of a grounded phrase.

    Returns:
        The columns, n values each, of the types in COLUMNS.
    """
    objects, asked = [len(one.boxes) for one in found], [len(one.caption_phrases) for one in found]
    boxes = _join([one.boxes.reshape(-1) for one in found])
    phrase_confidences = _join([one.phrase_confidences for one in found])
    values = {
        "boxes": pa.FixedSizeListArray.from_arrays(boxes, type=BOX),
        "confidences": _join([one.confidences for one in found]),
        "phrases": pa.array([phrase for one in found for phrase in one.phrases], pa.string()),
        "caption_phrases": pa.array([phrase for one in found for phrase in one.caption_phrases], pa.string()),
        "phrase_confidences": phrase_confidences,
        "grounded": pa.array(phrase_confidences.to_numpy() > limits.text_threshold, pa.bool_()),
    }
    counts = {"boxes": objects, "confidences": objects, "phrases": objects}
    return {name: _lists(array, counts.get(name, asked)) for name, array in values.items()}


def _join(parts: Sequence[np.ndarray]) -> pa.Array:
    return pa.array(np.concatenate([np.zeros(0, np.float32), *parts]))


def _lists(values: pa.Array, counts: Sequence[int]) -> pa.ListArray:
    """Cuts values into lists of so many each."""
    offsets = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=offsets[1:])
    return pa.ListArray.from_arrays(offsets, values)
