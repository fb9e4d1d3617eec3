"""YOLOX's way with pictures and numbers: the canvas it reads, what its head means, and where its trunk can be tapped.

Source: Ge, Liu, Wang, Li, Sun (2021), YOLOX: Exceeding YOLO Series in 2021, arXiv 2107.08430.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from chaffinch.scoring.onnx import Signature, Tensor, digest_weights, read_model, read_signature

if TYPE_CHECKING:
    from onnx import ModelProto

STRIDES = (8, 16, 32)

# What the canvas holds beside the picture, as in training.
_GREY = 114

_UPSAMPLING = ("Resize", "Upsample", "ConvTranspose")

# Raw sizes are logarithms, in units of the stride; e to the 10 strides is far beyond any canvas.
_LARGEST_LOGARITHM = 10.0

_EXPORT = "export it with YOLOX's own tools/export_onnx.py, without --decode_in_inference"


@dataclass(frozen=True)
class Head:
    """What a model reads and gives.

    Attributes:
        input: its name.
        output: its name.
        height, width: of the canvas, pixels.
        classes: how many it tells apart.
    """

    input: str
    output: str
    height: int
    width: int
    classes: int

    @property
    def places(self) -> int:
        """How many boxes it proposes: one for each cell of three grids."""
        return sum((self.height // stride) * (self.width // stride) for stride in STRIDES)

    def cells(self) -> np.ndarray:
        """(a, 3) float32, each proposal's column, row and stride, in the order of the head's output."""
        grids = []
        for stride in STRIDES:
            rows, columns = np.mgrid[: self.height // stride, : self.width // stride]
            grids.append(np.stack([columns.ravel(), rows.ravel(), np.full(rows.size, stride)], axis=1))
        return np.concatenate(grids).astype(np.float32)


@dataclass(frozen=True)
class Map:
    """A tensor inside the graph: what the network sees at one stride.

    Attributes:
        name: of the tensor.
        channels: how many it has.
    """

    name: str
    channels: int


def read_head(weights: str) -> Head:
    """Makes sure, without onnxruntime, that a model has YOLOX's head, as far as its file tells.

    Args:
        weights: path of an .onnx file.

    Returns:
        What it reads and gives.

    Raises:
        ValueError: the file is missing, damaged, no ONNX model, or one with another head.
    """
    signature = read_signature(weights)
    if len(signature.inputs) == len(signature.outputs) == 1:
        (picture,), (proposals,) = signature.inputs, signature.outputs
        head = _head(picture, proposals)
        if head is not None:
            return head
    raise ValueError(f"weights {weights!r} has no head like YOLOX's: {_expectation(signature)}; {_EXPORT}")


def _head(picture: Tensor, proposals: Tensor) -> Head | None:
    """The head, None where it is another one."""
    if {picture.kind, proposals.kind} != {"float32"} or len(picture.shape) != 4 or len(proposals.shape) != 3:
        return None
    batch, channels, height, width = picture.shape
    numbers = proposals.shape[2]
    if batch not in (1, None) or channels != 3 or not height or not width or height % 32 or width % 32:
        return None
    if numbers is None or numbers < 6:
        return None
    head = Head(picture.name, proposals.name, height, width, numbers - 5)
    return head if proposals.shape[1] in (head.places, None) else None


def _expectation(signature: Signature) -> str:
    return (
        f"it is {signature}, where one picture float32 [1, 3, h, w], sides multiples of 32, should give one output "
        "float32 [1, h w / 64 + h w / 256 + h w / 1024, 5 + classes]"
    )


def fit(picture: Image.Image, height: int, width: int) -> np.ndarray:
    """Scales a picture so that it just fits onto a canvas.

    Args:
        picture: mode RGB.
        height: of the canvas, pixels.
        width: likewise.

    Returns:
        (rows, columns, 3) uint8, one side as long as the canvas's, the other at most as long; blue, green, red.
    """
    if picture.width * height >= picture.height * width:
        size = (width, max(1, picture.height * width // picture.width))
    else:
        size = (max(1, picture.width * height // picture.height), height)
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR))[:, :, ::-1]


def canvas(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Lays what `fit` made into the upper left corner of a grey canvas.

    Args:
        pixels: (rows, columns, 3) uint8.
        height: of the canvas, pixels.
        width: likewise.

    Returns:
        (1, 3, height, width) float32, from 0 to 255.
    """
    filled = np.full((1, 3, height, width), _GREY, np.float32)
    filled[0, :, : pixels.shape[0], : pixels.shape[1]] = pixels.transpose(2, 0, 1)
    return filled


def decode(proposals: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turns the head's raw numbers into boxes and probabilities.

    A box's centre is its cell plus an offset, and its size the exponential of a number, both in units of the stride.
    A class's probability is that of an object times that of the class given an object.
    Source: arXiv 2107.08430, section 2, and the authors' demo for the order of the numbers.

    Args:
        proposals: (a, 5 + classes) float32: two offsets, logarithms of width and height, object, classes.
        cells: (a, 3) float32, as `Head.cells` gives them.

    Returns:
        (a, 4) float32 corners x0, y0, x1, y1 in pixels of the canvas, and (a, classes) float32 probabilities.
    """
    strides = cells[:, 2:]
    centres = (proposals[:, :2] + cells[:, :2]) * strides
    halves = np.exp(np.minimum(proposals[:, 2:4], _LARGEST_LOGARITHM)) * strides / 2
    return np.concatenate([centres - halves, centres + halves], axis=1), proposals[:, 4:5] * proposals[:, 5:]


def check_proposals(weights: str, head: Head, proposals: np.ndarray) -> None:
    """Looks whether numbers can come from YOLOX's raw head; a shape alone does not tell what they mean.

    Args:
        weights: path of the file, for the message.
        head: what its file promised.
        proposals: what it gave for one picture.

    Raises:
        ValueError: they cannot.
    """
    if proposals.shape != (1, head.places, 5 + head.classes):
        expected = [1, head.places, 5 + head.classes]
        raise ValueError(f"weights {weights!r} gives {list(proposals.shape)} where {expected} should be; {_EXPORT}")
    sizes, probabilities = proposals[0, :, 2:4], proposals[0, :, 4:]
    if not np.isfinite(proposals).all() or probabilities.min() < 0 or probabilities.max() > 1:
        raise ValueError(f"weights {weights!r} gives numbers outside [0, 1] for probabilities; {_EXPORT}")
    if sizes.max() > _LARGEST_LOGARITHM:
        raise ValueError(f"weights {weights!r} gives boxes that are decoded already; {_EXPORT}")


def find_maps(weights: str) -> tuple[Map, ...]:
    """Finds the maps whose statistics describe a picture, by the shape of the graph and not by names.

    Two at each stride. The backbone's is the last one that all predictions come from and no upsampling has reached;
    the head's is the last one that all predictions of its stride come from, where box and class part.

    Args:
        weights: path of an .onnx file with YOLOX's head.

    Returns:
        At most six maps, the finer stride first.

    Raises:
        ValueError: the graph has no such maps.
    """
    return _maps(weights, digest_weights(weights))


@functools.lru_cache(maxsize=8)
def _maps(weights: str, digest: str) -> tuple[Map, ...]:
    """The maps of a file; the digest only tells its versions apart."""
    head, graph = read_head(weights), _Graph(read_model(weights))
    sizes = [(head.height // stride, head.width // stride) for stride in STRIDES]
    predictions = graph.last_convolutions(head.output)
    backbone = graph.shared_origins(predictions) - graph.upsampled
    maps = []
    for stride, size in zip(STRIDES, sizes, strict=True):
        branch = graph.shared_origins([name for name in predictions if graph.sizes.get(name) == size])
        seen = [graph.last(names, size) for names in (backbone, branch)]
        if None in seen:
            raise ValueError(
                f"weights {weights!r} has no maps of stride {stride} to take features from: say `features: false`, or "
                "name a model with YOLOX's backbone and head"
            )
        maps += [Map(name, graph.channels[name]) for name in seen if name is not None]
    return tuple(dict.fromkeys(maps))


class _Graph:
    """Which tensor comes from which; the nodes of ONNX files are in an order in which they can be computed."""

    def __init__(self, model: "ModelProto") -> None:
        import onnx

        graph = onnx.shape_inference.infer_shapes(model).graph
        self.sizes: dict[str, tuple[int, int]] = {}
        self.channels: dict[str, int] = {}
        for value in graph.value_info:
            lengths = [one.dim_value for one in value.type.tensor_type.shape.dim]
            if len(lengths) == 4:
                self.channels[value.name] = lengths[1]
                self.sizes[value.name] = (lengths[2], lengths[3])
        self.made: dict[str, Any] = {name: node for node in graph.node for name in node.output}
        self.upsampled: set[str] = set()
        for node in graph.node:
            if node.op_type in _UPSAMPLING or self.upsampled.intersection(node.input):
                self.upsampled.update(node.output)

    def last_convolutions(self, output: str) -> list[str]:
        """The convolutions that nothing but other operations parts from an output."""
        reached = self._origins(output, behind="Conv")
        return [name for name in reached if self.made[name].op_type == "Conv"]

    def shared_origins(self, names: Sequence[str]) -> set[str]:
        """All that every one of these convolutions comes from; nothing where there are none."""
        origins = [self._origins(self.made[name].input[0]) for name in names]
        return set.intersection(*origins) if origins else set()

    def last(self, names: set[str], size: tuple[int, int]) -> str | None:
        """Of these maps with so many rows and columns the one that is computed last."""
        return next((name for name in reversed(self.made) if name in names and self.sizes.get(name) == size), None)

    def _origins(self, name: str, behind: str | None = None) -> set[str]:
        """All that a tensor comes from, itself included; nothing that lies behind an operation of one type."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            one = waiting.pop()
            if one in self.made and one not in found:
                found.add(one)
                if self.made[one].op_type != behind:
                    waiting += self.made[one].input
        return found


def describe(maps: Sequence[np.ndarray]) -> np.ndarray:
    """Pools maps over their positions.

    Args:
        maps: (1, channels, rows, columns) float32 each.

    Returns:
        (3 * all channels,) float32: for each map its channels' means, then the maxima, then the standard deviations.
    """
    parts = []
    for one in maps:
        flat = one.reshape(one.shape[1], -1)
        parts += [flat.mean(axis=1), flat.max(axis=1), flat.std(axis=1)]
    return np.concatenate(parts)
