"""How well the light detector finds objects: mAP50 on COCO photos, and whether captions' names tell photos apart."""

import argparse
import json
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from chaffinch.scoring.images import decode
from chaffinch.scoring.onnx_detector import OnnxDetector
from chaffinch.scoring.scorer import Batch

DATA = Path(__file__).parents[2] / "shared" / "data"
"""Real photos and weights beside the repository."""

_BATCH = 64


@dataclass(frozen=True)
class Photo:
    """An annotated photo.

    Attributes:
        picture: mode RGB.
        caption: the first of its captions.
        objects: class and box (x0, y0, x1, y1 as shares) of every object, None where nobody looked.
    """

    picture: Image.Image
    caption: str
    objects: Sequence[tuple[str, Sequence[float]]] | None


def read_photos(path: Path) -> list[Photo]:
    """Reads a shard whose json members hold `boxes`: a list of {category, box}, or null.

    Args:
        path: the shard.

    Returns:
        Its photos.
    """
    members: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path) as shard:
        for member in shard:
            key, _, extension = member.name.partition(".")
            content = shard.extractfile(member)
            assert content is not None
            members.setdefault(key, {})[extension] = content.read()
    photos = []
    for parts in members.values():
        boxes = json.loads(parts["json"])["boxes"]
        objects = None if boxes is None else [(one["category"], one["box"]) for one in boxes]
        photos.append(Photo(decode(parts["jpg"]), parts["txt"].decode(), objects))
    return photos


def detect(scorer: OnnxDetector, photos: Sequence[Photo]) -> list[dict[str, Any]]:
    """Runs the scorer over photos.

    Args:
        scorer: its settings.
        photos: n photos.

    Returns:
        (n,) rows of its columns.
    """
    model = scorer.load("cpu")
    rows: list[dict[str, Any]] = []
    for start in range(0, len(photos), _BATCH):
        part = photos[start : start + _BATCH]
        pictures = [scorer.prepare(one.picture, model) for one in part]
        columns = scorer.score(Batch([""] * len(part), [one.caption for one in part], pictures), model)
        rows += pa.table(dict(columns)).to_pylist()
    return rows


def mean_average_precision(photos: Sequence[Photo], rows: Sequence[Mapping[str, Any]], overlap: float = 0.5) -> float:
    """Mean over classes of the average precision at 101 levels of recall, as COCO's own evaluation takes it.

    A detection is right where it overlaps an object of its class that no surer detection has taken; the object it
    overlaps most is the one it takes. Photos that nobody annotated do not count.
    Source: Lin et al. (2014), Microsoft COCO, arXiv 1405.0312, and its evaluation code for the levels.

    Args:
        photos: n photos.
        rows: (n,) detections: boxes, confidences and phrases.
        overlap: least intersection over union.

    Returns:
        In [0, 1]; more is better.
    """
    pairs = [(one.objects, row) for one, row in zip(photos, rows, strict=True) if one.objects is not None]
    names = sorted({name for objects, _ in pairs for name, _ in objects})
    return float(np.mean([_average_precision(name, pairs, overlap) for name in names]))


def _average_precision(name: str, pairs: Sequence[tuple[Any, Mapping[str, Any]]], overlap: float) -> float:
    wanted = [np.array([box for kind, box in objects if kind == name]).reshape(-1, 4) for objects, _ in pairs]
    found = [
        (confidence, place, np.array(box))
        for place, (_, row) in enumerate(pairs)
        for confidence, phrase, box in zip(row["confidences"], row["phrases"], row["boxes"], strict=True)
        if phrase == name
    ]
    found.sort(key=lambda one: -one[0])
    free = [np.ones(len(boxes), bool) for boxes in wanted]
    right = np.zeros(len(found))
    for rank, (_, place, box) in enumerate(found):
        overlaps = np.where(free[place], _overlaps(box, wanted[place]), -1.0)
        if overlaps.size and overlaps.max() >= overlap:
            free[place][overlaps.argmax()] = False
            right[rank] = 1
    recall = np.cumsum(right) / sum(map(len, wanted))
    precision = np.cumsum(right) / np.arange(1, len(found) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, np.linspace(0, 1, 101))
    return float(np.mean(np.append(best, 0.0)[np.minimum(places, len(found))]))


def _overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(k,) intersection over union of one box with k."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return np.asarray(shared / (np.prod(box[2:] - box[:2]) + areas - shared))


def tell_apart(scorer: OnnxDetector, photos: Sequence[Photo], threshold: float) -> float:
    """How often the share of a caption's objects that are seen is higher in its own photo than in another one.

    Args:
        scorer: its settings.
        photos: n photos; each caption is also put to the next photo.
        threshold: least confidence of an object that counts as seen.

    Returns:
        The area under the curve, in [0, 1]; .5 is chance. Captions that name nothing the detector knows do not count.
    """
    others = [Photo(photos[(place + 1) % len(photos)].picture, one.caption, None) for place, one in enumerate(photos)]
    own, foreign = (
        np.array([_share(row["phrase_confidences"], threshold) for row in detect(scorer, group)])
        for group in (photos, others)
    )
    own, foreign = own[~np.isnan(own)], foreign[~np.isnan(foreign)]
    wins = (own[:, None] > foreign).mean() + 0.5 * (own[:, None] == foreign).mean()
    return float(wins)


def _share(confidences: Sequence[float], threshold: float) -> float:
    return float(np.mean(np.array(confidences) >= threshold)) if confidences else float("nan")


def main() -> None:
    """Measures, and writes results/detection.json."""
    from measuring import finish, machine

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, default=DATA / "coco-small" / "00000000.tar")
    parser.add_argument("--weights", type=Path, default=DATA / "weights" / "yolox_nano.onnx")
    options = parser.parse_args()
    before = machine()
    scorer, photos = OnnxDetector(weights=str(options.weights)), read_photos(options.photos)
    detect(scorer, photos[:1])  # imports
    began = time.process_time()
    rows = detect(scorer, photos)
    each = (time.process_time() - began) / len(photos) * 1000
    figures = {
        "photos": len(photos),
        "annotated": sum(one.objects is not None for one in photos),
        "map50": round(mean_average_precision(photos, rows), 4),
        "objects_per_photo": round(float(np.mean([len(row["boxes"]) for row in rows])), 1),
        "captions_that_name_something": round(float(np.mean([bool(row["caption_phrases"]) for row in rows])), 3),
        "own_photo_auc": round(tell_apart(scorer, photos, 0.25), 3),
        "cpu_milliseconds_per_photo": round(each, 1),
    }
    finish(
        figures,
        f"mAP50 {figures['map50']:.3f} on {figures['annotated']} photos; the share of a caption's objects that are "
        f"seen tells its own photo from another with AUC {figures['own_photo_auc']:.3f}; {each:.0f} CPU-ms a photo.",
        before,
    )


if __name__ == "__main__":
    main()
