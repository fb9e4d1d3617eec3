"""What pages show of a sample: a thumbnail, the caption, and boxes where a detector ran."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from PIL import Image

from chaffinch.pipeline.rows import Source
from chaffinch.pipeline.shards import Shard
from chaffinch.pipeline.storage import files, parquet
from chaffinch.scoring.images import decode
from chaffinch.scoring.scorer import SampleError

_LARGEST_PICTURE = 1 << 26
_MOST_BOXES = 12


@dataclass(frozen=True)
class Extent:
    """How much of a sample is shown.

    Attributes:
        size: pictures are shrunk to fit into so many pixels; smaller ones stay as they are.
        quality: of the JPEG, 1 to 95.
        caption: so many characters of it.
        boxes: whether what detectors found is shown.
    """

    size: tuple[int, int] = (240, 192)
    quality: int = 72
    caption: int = 300
    boxes: bool = True


CARD = Extent()
"""What a card of a gallery shows."""


@dataclass(frozen=True)
class Box:
    """A detected object.

    Attributes:
        left, top, width, height: shares of the picture, in [0, 1].
        label: phrase and confidence.
    """

    left: float
    top: float
    width: float
    height: float
    label: str


@dataclass(frozen=True)
class View:
    """What can be seen of a sample.

    Attributes:
        caption: its beginning, None where there is none.
        cut: how many bytes the whole caption has, where it is longer than shown.
        thumbnail: a data URI, None where there is no picture to show.
        size: of the thumbnail, pixels.
        problem: why there is no picture to show.
        boxes: what a detector found.
    """

    caption: str | None = None
    cut: int | None = None
    thumbnail: str | None = None
    size: tuple[int, int] = (0, 0)
    problem: str | None = None
    boxes: Sequence[Box] = ()


def view_rows(
    shards: Sequence[Shard],
    shard: np.ndarray,
    row: np.ndarray,
    picks: Sequence[int],
    source: Source,
    extent: Extent = CARD,
) -> tuple[dict[int, View], list[str]]:
    """Reads what a page shows, each shard once and in the order of its bytes.

    Args:
        shards: the shards that samples are from.
        shard: (n,) each sample's position in `shards`.
        row: (n,) its row of the shard's tables.
        picks: which of the n samples, in any order.
        source: where the tables are.
        extent: how much of them.

    Returns:
        Pick -> what can be seen of that sample; and the shards that could not be read.
    """
    views: dict[int, View] = {}
    missing = []
    wanted = np.unique(np.array(picks, np.int64))
    detectors: list[str] | None = None if extent.boxes else []
    for number in np.unique(shard[wanted]):
        one, mine = shards[number], wanted[shard[wanted] == number]
        if detectors is None:
            detectors = find_detectors(source, one)
        places = _read_places(source, one, row[mine])
        boxes = read_boxes(source, detectors, one, row[mine])
        try:
            if not one.path:
                raise OSError("it has vanished since it was scored")
            with files.open_binary(one.path) as file:
                shown = [_view(file, place, found, extent) for place, found in zip(places, boxes, strict=True)]
        except Exception as error:  # object stores raise errors of their own; the page goes on without the pictures
            missing.append(one.name)
            problem = f"shard cannot be read: {getattr(error, 'strerror', None) or error}"
            shown = [View(problem=problem, boxes=found) for found in boxes]
        views |= dict(zip(mine.tolist(), shown, strict=True))
    return views, missing


def _read_places(source: Source, shard: Shard, rows: np.ndarray) -> list[dict[str, Any]]:
    columns = ["offsets", "sizes", "picture", "caption", "reject"]
    places: list[dict[str, Any]] = (
        parquet.read_table(source.store.samples(shard.name), columns).take(pa.array(rows)).to_pylist()
    )
    return places


def _view(file: BinaryIO, place: dict[str, Any], boxes: Sequence[Box], extent: Extent) -> View:
    caption, cut = None, None
    if place["caption"] is not None:
        size = place["sizes"][place["caption"]]
        text = _read(file, place, "caption", 4 * extent.caption).decode("utf-8", "replace")
        caption = text[: extent.caption]
        cut = size if len(text) > extent.caption or size > 4 * extent.caption else None
    if place["picture"] is None:
        return View(caption, cut, problem=place["reject"] or "no picture")
    if place["sizes"][place["picture"]] > _LARGEST_PICTURE:
        return View(caption, cut, problem="picture is too large to show")
    try:
        picture = decode(_read(file, place, "picture", _LARGEST_PICTURE))
    except SampleError as error:
        return View(caption, cut, problem=str(error))
    thumbnail, size = shrink(picture, extent)
    return View(caption, cut, thumbnail, size, None, boxes)


def _read(file: BinaryIO, place: dict[str, Any], which: str, most: int) -> bytes:
    index = place[which]
    file.seek(place["offsets"][index])
    return file.read(min(most, place["sizes"][index]))


def shrink(picture: Image.Image, extent: Extent) -> tuple[str, tuple[int, int]]:
    """Makes a thumbnail.

    Args:
        picture: mode RGB.
        extent: how large and how good it is to be.

    Returns:
        A JPEG as data URI, the same for the same picture, and its width and height in pixels.
    """
    small = picture.copy()
    small.thumbnail(extent.size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=extent.quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode(), small.size


def find_detectors(source: Source, shard: Shard) -> list[str]:
    """The scorers whose tables hold boxes; told from one shard, since all tables of a scorer have the same columns."""
    found = []
    for name, folder in source.tables.items():
        path = source.store.scores(folder, shard.name)
        if files.exists(path) and "boxes" in parquet.open_table(path).schema_arrow.names:
            found.append(name)
    return found


def read_boxes(source: Source, detectors: Sequence[str], shard: Shard, rows: np.ndarray) -> list[list[Box]]:
    """Reads what detectors found on some samples.

    Args:
        source: where the tables are.
        detectors: scorers with a column `boxes`: lists of k boxes (x0, y0, x1, y1) as shares of the picture; they may
            have `confidences` and `phrases`, lists of k as well.
        shard: the shard.
        rows: (n,) rows of it.

    Returns:
        (n,) lists of boxes, the surest first; of many the surest twelve.
    """
    boxes: list[list[Box]] = [[] for _ in rows]
    for name in detectors:
        path = source.store.scores(source.tables[name], shard.name)
        known = parquet.open_table(path).schema_arrow.names
        columns = [column for column in ("boxes", "confidences", "phrases") if column in known]
        for place, found in enumerate(parquet.read_table(path, columns).take(pa.array(rows)).to_pylist()):
            boxes[place] += _boxes_of(found)
    return boxes


def _boxes_of(found: dict[str, Any]) -> list[Box]:
    corners = found["boxes"] or []
    confidences = found.get("confidences") or [None] * len(corners)
    phrases = found.get("phrases") or [None] * len(corners)
    order = sorted(range(len(corners)), key=lambda index: (-(confidences[index] or 0.0), index))
    boxes = []
    for index in order[:_MOST_BOXES]:
        if corners[index] is None or len(corners[index]) != 4 or not all(map(_is_finite, corners[index])):
            continue
        x0, y0, x1, y1 = (min(max(edge, 0.0), 1.0) for edge in corners[index])
        confidence = "" if confidences[index] is None else f"{confidences[index]:.2f}"
        label = " ".join(part for part in (phrases[index], confidence) if part)
        boxes.append(Box(x0, y0, max(x1 - x0, 0.0), max(y1 - y0, 0.0), label))
    return boxes


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
