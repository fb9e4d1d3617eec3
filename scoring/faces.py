"""Finds faces with YuNet, a detector in ONNX form: 4 ms a picture on one core."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image

from chaffinch.scoring.onnx import Session, digest_weights, open_session, read_signature
from chaffinch.scoring.scorer import Batch, Column, Scorer
from chaffinch.scoring.yolox import STRIDES, Head, canvas, decode, fit

# What YuNet tells of each cell, in the order in which `decode` wants it, and how many numbers that is. Landmarks are
# not asked for.
_PARTS = {"bbox": 4, "obj": 1, "cls": 1}


@dataclass(frozen=True)
class Model:
    """What `Faces.load` returns.

    Attributes:
        session: the network.
        head: what it reads.
        cells: (a, 3) float32, see `Head.cells`.
        suppress: non-maximum suppression: (boxes, confidences, overlap) -> positions, the surest first.
    """

    session: Session
    head: Head
    cells: np.ndarray
    suppress: Callable[..., Any]


@dataclass(frozen=True)
class Faces(Scorer):
    """Columns: the faces in a picture, as three float32, and as lists of k, the surest first.

    face_count: how many there are; a matter of taste.
    largest_face: share of the picture that the largest one's box covers, in [0, 1]; 0 where there is none; a matter of
        taste: portraits have 0.1 and more.
    face_area: share that all of them cover together, what overlaps counted once, in [0, 1]; a matter of taste.
    boxes: k lists of 4 float32, left, top, right and bottom edge as shares of width and height, in [0, 1].
    confidences: k float32, in [0, 1]; higher is surer. Faces from `floor` on are listed; only those from `confidence`
        on count in the numbers above.
    phrases: k times "face".

    The picture is scaled to the network's canvas, 320 pixels for the longer side: faces below about 8 of these are not
    found. Pictures are measured one by one, several at a time, so that no number depends on the other samples of a
    batch.

    Attributes:
        weights: path of an .onnx file of YuNet with its raw outputs, as libfacedetection.train exports it.
        floor: least confidence of a face that is listed.
        confidence: from which on a face counts. Looking at what YuNet finds in photos, nearly all from .7 on are faces,
            and about half of those between .5 and .6.
        overlap: of two faces whose intersection over union is larger, the less sure one is left out; .3 as in OpenCV.
        max_faces: of more faces the surest are kept.
    """

    reads_pictures: ClassVar[bool] = True
    uses_device: ClassVar[bool] = True

    weights: str
    floor: float = 0.3
    confidence: float = 0.7
    overlap: float = 0.3
    max_faces: int = 100

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """Three numbers and three lists."""
        numbers = dict.fromkeys(("face_count", "largest_face", "face_area"), pa.float32())
        return numbers | {
            "boxes": pa.list_(pa.list_(pa.float32(), 4)),
            "confidences": pa.list_(pa.float32()),
            "phrases": pa.list_(pa.string()),
        }

    def identity(self) -> dict[str, Any]:
        """The settings, with the digest of the weights in place of their path.

        Raises:
            ValueError: there is no such file.
        """
        return dataclasses.asdict(self) | {"weights": digest_weights(self.weights)}

    def check(self) -> None:
        """Looks at the settings and at the file's inputs and outputs, without onnxruntime.

        Raises:
            ValueError: what is wrong, and the remedy.
        """
        for name, value in (("floor", self.floor), ("confidence", self.confidence), ("overlap", self.overlap)):
            if not 0 < value <= 1:
                raise ValueError(f"{name} is {value}: give a number above 0, and at most 1")
        if self.confidence < self.floor:
            raise ValueError(f"confidence is {self.confidence}, below the floor of {self.floor}: lower the floor")
        if self.max_faces < 1:
            raise ValueError(f"max_faces is {self.max_faces}: give a whole number from 1 on")
        _read_head(self.weights)

    def load(self, device: str) -> Model:
        """Opens the network and tries it on an empty picture.

        Args:
            device: "cpu" or "cuda".

        Returns:
            The model.

        Raises:
            ValueError: what `check` finds; the network cannot be run, or gives what YuNet never gives.
        """
        self.check()
        from torchvision.ops import nms

        head = _read_head(self.weights)
        model = Model(open_session(self.weights, device), head, head.cells(), nms)
        try:
            proposals = _run(np.empty((0, 0, 3), np.uint8), model)
        except Exception as error:  # onnxruntime's own errors have no common ancestor
            raise _wrong(self.weights, " ".join(str(error).split())[:300]) from error
        if not np.isfinite(proposals).all() or proposals[:, 4:].min() < 0 or proposals[:, 4:].max() > 1:
            raise _wrong(self.weights, "it gives numbers outside [0, 1] for probabilities")
        return model

    def prepare(self, picture: Image.Image, model: Model) -> np.ndarray:
        """Scales a picture to the network's canvas.

        Args:
            picture: mode RGB.
            model: what `load` returned.

        Returns:
            (rows, columns, 3) uint8, one side as long as the canvas's; blue, green, red.
        """
        return fit(picture, model.head.height, model.head.width)

    def score(self, batch: Batch, model: Model) -> Mapping[str, Column]:
        """Finds the faces in n pictures, several pictures at a time.

        Args:
            batch: n samples.
            model: what `load` returned.

        Returns:
            The columns, n values each.
        """
        found = model.session.map(lambda pixels: self._find(pixels, model), batch.pictures)
        sure = [boxes[confidences >= np.float32(self.confidence)] for boxes, confidences in found]
        largest = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1).max(initial=0) for boxes in sure]
        kinds = self.columns
        return {
            "face_count": np.array([len(boxes) for boxes in sure], np.float32),
            "largest_face": np.array(largest, np.float32),
            "face_area": np.array([cover(boxes) for boxes in sure], np.float32),
            "boxes": pa.array([list(boxes) for boxes, _ in found], kinds["boxes"]),
            "confidences": pa.array([confidences for _, confidences in found], kinds["confidences"]),
            "phrases": pa.array([["face"] * len(boxes) for boxes, _ in found], kinds["phrases"]),
        }

    def _find(self, pixels: np.ndarray, model: Model) -> tuple[np.ndarray, np.ndarray]:
        """(k, 4) boxes as shares of the picture and (k,) confidences, the surest first."""
        import torch

        corners, probabilities = decode(_run(pixels, model), model.cells)
        # The root, since both factors are trained as probabilities of the same thing; as in OpenCV.
        confidences = np.sqrt(probabilities[:, 0])
        rows, columns = pixels.shape[:2]
        boxes = np.clip(corners / np.array([columns, rows, columns, rows], np.float32), 0, 1)
        inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        sure = np.flatnonzero((confidences >= np.float32(self.floor)) & inside)
        kept = model.suppress(torch.from_numpy(boxes[sure]), torch.from_numpy(confidences[sure]), self.overlap)
        chosen = sure[kept[: self.max_faces].numpy()]
        return boxes[chosen], confidences[chosen]


def cover(boxes: np.ndarray) -> float:
    """The area that boxes cover together, what overlaps counted once.

    Args:
        boxes: (k, 4) left, top, right and bottom edge as shares of the picture.

    Returns:
        Share of the picture, in [0, 1].
    """
    across, down = (np.unique(boxes[:, edges].astype(np.float64)) for edges in ([0, 2], [1, 3]))
    x, y = across[:-1], down[:-1, None]  # the edges cut the picture into cells that are inside or outside as a whole
    covered = np.zeros((len(y), len(x)), bool)
    for left, top, right, bottom in boxes:
        covered |= (left <= x) & (x < right) & (top <= y) & (y < bottom)
    return min(1.0, float(np.diff(down) @ covered @ np.diff(across)))


def _read_head(weights: str) -> Head:
    """What the network reads; ValueError where its file does not look like YuNet's."""
    signature = read_signature(weights)
    if len(signature.inputs) != 1:
        raise _wrong(weights, f"it is {signature}")
    picture = signature.inputs[0]
    if picture.kind != "float32" or len(picture.shape) != 4 or picture.shape[:2] not in ((1, 3), (None, 3)):
        raise _wrong(weights, f"it is {signature}")
    height, width = picture.shape[2:]
    if not height or not width or height % max(STRIDES) or width % max(STRIDES):
        raise _wrong(weights, f"it is {signature}")
    outputs = {one.name: one.shape for one in signature.outputs}
    for part, numbers in _PARTS.items():
        for stride in STRIDES:
            shape = outputs.get(f"{part}_{stride}", ())
            cells = (height // stride) * (width // stride)
            if len(shape) != 3 or shape[1] not in (cells, None) or shape[2] not in (numbers, None):
                raise _wrong(weights, f"it has no output {part}_{stride} float32 [1, {cells}, {numbers}]")
    return Head(picture.name, "", height, width, classes=1)


def _run(pixels: np.ndarray, model: Model) -> np.ndarray:
    """(a, 6) float32, offsets, logarithms of sizes, object and class of each cell."""
    names = [f"{part}_{stride}" for part in _PARTS for stride in STRIDES]
    inputs = {model.head.input: canvas(pixels, model.head.height, model.head.width)}
    outputs = iter(model.session.run(inputs, names))
    parts = [np.concatenate([next(outputs)[0] for _ in STRIDES]) for _ in _PARTS]  # (a, 4), (a, 1), (a, 1)
    return np.concatenate(parts, axis=1)


def _wrong(weights: str, reason: str) -> ValueError:
    return ValueError(
        f"weights {weights!r} is no YuNet with raw outputs: name a file such as yunet_n_320_320.onnx, which takes "
        f"float32 [1, 3, 320, 320] and gives cls, obj, bbox and kps for strides of 8, 16 and 32 ({reason})"
    )
