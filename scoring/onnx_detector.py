"""Finds objects with a light detector in ONNX form, such as YOLOX-nano: 20 ms a picture on two cores, no GPU needed."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image

from chaffinch.scoring.object_names import Names, load_names
from chaffinch.scoring.onnx import Session, digest_weights, open_session
from chaffinch.scoring.scorer import Batch, Column, Scorer
from chaffinch.scoring.yolox import Head, canvas, check_proposals, decode, describe, find_maps, fit, read_head

COCO = Path(__file__).with_name("coco.txt")
"""The 80 classes of COCO's detection task, in the order in which detectors number them."""

_BOXES = pa.list_(pa.list_(pa.float32(), 4))
_TEXTS = pa.list_(pa.string())
_NUMBERS = pa.list_(pa.float32())
_HALF = (float(np.finfo(np.float16).min), float(np.finfo(np.float16).max))


@dataclass(frozen=True)
class Model:
    """What `OnnxDetector.load` returns.

    Attributes:
        session: the network.
        head: what it reads and gives.
        cells: (a, 3) float32, see `Head.cells`.
        outputs: the head's output, and the maps whose statistics are features.
        classes: their names, in the head's order.
        names: how captions call them.
        suppress: non-maximum suppression: (boxes, confidences, labels, overlap) -> positions, the surest first.
    """

    session: Session
    head: Head
    cells: np.ndarray
    outputs: tuple[str, ...]
    classes: tuple[str, ...]
    names: Names
    suppress: Callable[..., Any]


@dataclass(frozen=True)
class _Objects:
    """What was found in one picture: k objects, the surest first.

    Attributes:
        boxes: (k, 4) float32.
        confidences: (k,) float32.
        labels: (k,) int64, numbers of classes.
        features: (d,) float16, or nothing.
    """

    boxes: np.ndarray
    confidences: np.ndarray
    labels: np.ndarray
    features: np.ndarray


@dataclass(frozen=True)
class OnnxDetector(Scorer):
    """Columns: the objects found in a picture, k of them, the surest first; and what the caption says of such objects.

    boxes: k lists of 4 float32, left, top, right and bottom edge as shares of width and height, in [0, 1].
    confidences: k float32, probability that there is an object, times that it is of this class, in [0, 1]; higher is
        surer. All from `floor` on are kept: how sure is sure enough is for a filter to say.
    phrases: k texts, the names of the objects' classes.
    caption_phrases: the different classes that the caption mentions, by name or synonym, in that order.
    phrase_confidences: for each of them the confidence of the surest object of that class, float32, in [0, 1]; higher
        is better; 0 where none was found.
    features: only with `features`: d float16 that describe the whole picture, for heads that are trained on them. Mean,
        maximum and standard deviation over positions of each channel of the maps that `yolox.find_maps` finds, then
        for each class the maximum and the mean of its probability; neither way is better.

    Pictures are measured one by one, several at a time, so that no number depends on the other samples of a batch.

    Attributes:
        weights: path of an .onnx file with YOLOX's raw head: blue, green, red from 0 to 255, strides of 8, 16 and 32.
        classes: names of the classes in the head's order, or the path of a text file with one in each line; COCO's 80
            where nothing is said.
        names: path of a list of names and synonyms to look for in captions instead of the packaged
            object_names.yaml, of the same form.
        features: whether to keep the features: 2 * d bytes a sample, d = 1,696 for YOLOX-nano.
        floor: least confidence of an object that is kept; .01 as in YOLOX's own evaluation.
        overlap: of two objects of one class whose intersection over union is larger, the less sure one is left out;
            .45 as in YOLOX's own demo.
        max_objects: of more objects the surest are kept; 100 as in COCO's evaluation.
    """

    reads_pictures: ClassVar[bool] = True
    uses_device: ClassVar[bool] = True

    weights: str
    classes: tuple[str, ...] | str | None = None
    names: str | None = None
    features: bool = False
    floor: float = 0.01
    overlap: float = 0.45
    max_objects: int = 100

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """Five lists, and the features if they are kept.

        Raises:
            ValueError: features are wanted, and the weights cannot give them.
        """
        columns = {
            "boxes": _BOXES,
            "confidences": _NUMBERS,
            "phrases": _TEXTS,
            "caption_phrases": _TEXTS,
            "phrase_confidences": _NUMBERS,
        }
        if self.features:
            channels = sum(one.channels for one in find_maps(self.weights))
            columns["features"] = pa.list_(pa.float16(), 3 * channels + 2 * read_head(self.weights).classes)
        return columns

    def identity(self) -> dict[str, Any]:
        """The settings, with digests and contents in the place of paths, so that moving files changes nothing.

        Raises:
            ValueError: a file is missing, or a list cannot be used.
        """
        classes = _class_names(self.classes)
        return dataclasses.asdict(self) | {
            "weights": digest_weights(self.weights),
            "classes": list(classes),
            "names": load_names(self.names, classes).digest,
        }

    def check(self) -> None:
        """Looks at the file's inputs and outputs, without onnxruntime, and at the lists of names.

        Raises:
            ValueError: what is wrong, and the remedy.
        """
        for name, value in (("floor", self.floor), ("overlap", self.overlap)):
            if not 0 < value <= 1:
                raise ValueError(f"{name} is {value}: give a number above 0, and at most 1")
        if self.max_objects < 1:
            raise ValueError(f"max_objects is {self.max_objects}: give a whole number from 1 on")
        head, classes = read_head(self.weights), _class_names(self.classes)
        if head.classes != len(classes):
            raise ValueError(
                f"weights {self.weights!r} tells {head.classes} classes apart, and `classes` names {len(classes)}: "
                "name them all, in the head's order"
            )
        load_names(self.names, classes)
        if self.features:
            find_maps(self.weights)

    def load(self, device: str) -> Model:
        """Opens the network and tries it on an empty canvas.

        Args:
            device: "cpu" or "cuda".

        Returns:
            The model.

        Raises:
            ValueError: what `check` finds; the network cannot be run, or gives what no raw head gives.
        """
        self.check()
        from torchvision.ops import batched_nms

        head, classes = read_head(self.weights), _class_names(self.classes)
        maps = tuple(one.name for one in find_maps(self.weights)) if self.features else ()
        session = open_session(self.weights, device, extra_outputs=maps)
        names = load_names(self.names, classes)
        model = Model(session, head, head.cells(), (head.output, *maps), classes, names, batched_nms)
        empty = np.empty((0, 0, 3), np.uint8)
        check_proposals(self.weights, head, _run(empty, model)[0])
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
        """Finds objects in n pictures.

        Args:
            batch: n samples.
            model: what `load` returned.

        Returns:
            The columns, n values each.
        """
        found = model.session.map(lambda pixels: self._find(pixels, model), batch.pictures)
        phrases = [[model.classes[label] for label in one.labels] for one in found]
        mentioned = [model.names.find(caption) for caption in batch.captions]
        grounded = [
            _ground(wanted, seen, one.confidences) for wanted, seen, one in zip(mentioned, phrases, found, strict=True)
        ]
        columns: dict[str, Column] = {
            "boxes": pa.array([list(one.boxes) for one in found], _BOXES),
            "confidences": pa.array([one.confidences for one in found], _NUMBERS),
            "phrases": pa.array(phrases, _TEXTS),
            "caption_phrases": pa.array(mentioned, _TEXTS),
            "phrase_confidences": pa.array(grounded, _NUMBERS),
        }
        if self.features:
            columns["features"] = pa.array([one.features for one in found], self.columns["features"])
        return columns

    def _find(self, pixels: np.ndarray, model: Model) -> _Objects:
        """Runs the network over one picture; of each proposal its most probable class is looked at."""
        proposals, *maps = _run(pixels, model)
        corners, probabilities = decode(proposals[0], model.cells)
        labels = probabilities.argmax(axis=1)
        confidences = probabilities[np.arange(len(labels)), labels]
        rows, columns = pixels.shape[:2]
        boxes = np.clip(corners / np.array([columns, rows, columns, rows], np.float32), 0, 1)
        # Grey beside the picture holds no objects, but proposals may reach into it, or lie there altogether.
        inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        sure = np.flatnonzero((confidences >= self.floor) & inside)
        kept = sure[self._suppress(model, boxes[sure], confidences[sure], labels[sure])]
        features = np.empty(0, np.float16)
        if self.features:
            pooled = [describe(maps), probabilities.max(axis=0), probabilities.mean(axis=0)]
            features = np.clip(np.concatenate(pooled), *_HALF).astype(np.float16)
        return _Objects(boxes[kept], confidences[kept], labels[kept], features)

    def _suppress(self, model: Model, *found: np.ndarray) -> np.ndarray:
        """Positions of the boxes that no surer one of their class overlaps, from boxes, confidences and labels."""
        import torch

        kept = model.suppress(*map(torch.from_numpy, found), self.overlap)
        return np.asarray(kept[: self.max_objects].numpy())


def _class_names(classes: tuple[str, ...] | str | None) -> tuple[str, ...]:
    """The classes that a user named; ValueError where they cannot be used."""
    where = "classes"
    if classes is None or isinstance(classes, str):
        where = f"classes {str(classes)!r}"
        try:
            text = (COCO if classes is None else Path(classes).expanduser()).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{where} cannot be read: give a text file with one name in each line ({error})"
            ) from error
        classes = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not classes or not all(any(map(str.isalnum, name)) for name in classes):
        raise ValueError(f"{where}: give at least one name, and letters or digits in each")
    if len(set(classes)) < len(classes):
        twice = next(name for index, name in enumerate(classes) if name in classes[:index])
        raise ValueError(f"{where}: {twice!r} stands there twice; give every class a name of its own")
    return tuple(classes)


def _run(pixels: np.ndarray, model: Model) -> list[np.ndarray]:
    """The head's proposals, (1, a, 5 + classes), and the maps, for what `prepare` made of a picture."""
    return model.session.run({model.head.input: canvas(pixels, model.head.height, model.head.width)}, model.outputs)


def _ground(wanted: Sequence[str], phrases: Sequence[str], confidences: np.ndarray) -> list[float]:
    """For each wanted class the confidence of its surest object; objects come the surest first."""
    return [float(confidences[phrases.index(name)]) if name in phrases else 0.0 for name in wanted]
