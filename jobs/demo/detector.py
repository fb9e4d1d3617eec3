"""Makes the small detector that finds the things of rendered scenes.

    OMP_NUM_THREADS=1 python -m chaffinch.jobs.demo.detector FOLDER

renders clean scenes, none of which is in a pool of `write_pool`, trains on them and writes FOLDER/detector.onnx, for
`scorers: {objects: {kind: onnx_detector, weights: FOLDER/detector.onnx, classes: [...]}}`. It takes five minutes on one
core, and 2 GB of memory. The same machine gives the same bytes.
"""

import dataclasses
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from chaffinch.jobs.console import Console
from chaffinch.jobs.demo.samples import Sample, clean_sample
from chaffinch.jobs.demo.shapes import SHAPES
from chaffinch.pipeline.storage import files
from chaffinch.scoring.detecting.network import to_onnx
from chaffinch.scoring.detecting.training import Example, train
from chaffinch.scoring.onnx_detector import OnnxDetector
from chaffinch.scoring.scorer import Batch
from chaffinch.scoring.yolox import canvas, fit

CLASSES = tuple(SHAPES)
"""What it tells apart, in the order in which it numbers them."""

SIDE = 128
"""Of its canvas, pixels: the smallest things are still ten pixels wide."""

_SEED = 13
"""Of scenes and weights; the stream of scenes has a name of its own, so that no pool meets one of them again."""


def make_detector(folder: str | Path, console: Console, scenes: int = 8000, epochs: int = 6) -> Path:
    """Renders, trains and writes the weights.

    Args:
        folder: for the weights.
        console: where messages go.
        scenes: how many to train on.
        epochs: how often each is seen.

    Returns:
        The file of weights.
    """
    console.say(f"rendering {scenes} scenes")
    examples = [_example(sample) for sample in read_scenes("detector", scenes)]
    network = train(examples, len(CLASSES), epochs, _SEED, console.say)
    weights = Path(folder) / "detector.onnx"
    weights.parent.mkdir(parents=True, exist_ok=True)
    with files.writing(str(weights)) as target:
        target.write(to_onnx(network, SIDE))
    found, right = measure(weights)
    console.say(
        f"of the things in other scenes {found:.1%} are found, of what is found {right:.1%} is right: {weights}"
    )
    return weights


def measure(weights: Path, scenes: int = 300) -> tuple[float, float]:
    """Looks for the things of scenes that none was trained on.

    What is found is right where a thing of that name overlaps it by half (intersection over union). It counts from a
    confidence of .35 on, as in the filters over objects.

    Args:
        weights: the file of weights.
        scenes: how many.

    Returns:
        The share of the things that are found, and the share of what is found that is right; both in [0, 1], higher
        is better, 0 where there is nothing.
    """
    scorer = OnnxDetector(weights=str(weights), classes=CLASSES, floor=0.35)
    model = scorer.load("cpu")
    samples = list(read_scenes("held out", scenes))
    pictures = [scorer.prepare(sample.picture, model) for sample in samples]
    columns = scorer.score(Batch([""] * scenes, [sample.caption for sample in samples], pictures), model)
    things = detections = found = right = 0
    for sample, phrases, boxes in zip(samples, columns["phrases"], columns["boxes"], strict=True):
        pairs = np.zeros((len(sample.scene.things), len(phrases)), bool)
        for row, thing in enumerate(sample.scene.things):
            for column, (name, box) in enumerate(zip(phrases.as_py(), boxes.as_py(), strict=True)):
                pairs[row, column] = name == thing.name and _overlap(thing.box, box) >= 0.5
        things, detections = things + pairs.shape[0], detections + pairs.shape[1]
        found, right = found + int(pairs.any(axis=1).sum()), right + int(pairs.any(axis=0).sum())
    return found / max(things, 1), right / max(detections, 1)


def _overlap(first: Sequence[float], second: Sequence[float]) -> float:
    """Intersection over union of two boxes."""
    across, down = (min(first[axis + 2], second[axis + 2]) - max(first[axis], second[axis]) for axis in (0, 1))
    shared = max(across, 0.0) * max(down, 0.0)
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (first, second)]
    return shared / (sum(areas) - shared)


def read_scenes(stream: str, scenes: int) -> Iterator[Sample]:
    """Renders clean scenes as a pool holds them, with the losses of JPEG.

    Args:
        stream: a name; streams of different names share no scenes.
        scenes: how many.

    Yields:
        The samples.
    """
    for index in range(scenes):
        sample = clean_sample(f"{stream}/{_SEED}", index)
        stored = io.BytesIO()
        sample.picture.save(stored, "JPEG", quality=sample.quality)
        yield dataclasses.replace(sample, picture=Image.open(stored).convert("RGB"))


def _example(sample: Sample) -> Example:
    """A scene on its canvas, with the boxes that it was drawn from."""
    pixels = fit(sample.picture, SIDE, SIDE)
    things = sample.scene.things
    boxes = np.array([thing.box for thing in things]) * (pixels.shape[:2][::-1] * 2)
    labels = np.array([CLASSES.index(thing.name) for thing in things])
    return Example(canvas(pixels, SIDE, SIDE)[0].astype(np.uint8), labels, boxes.astype(np.float32))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    make_detector(sys.argv[1], Console())
