"""What lies behind the objects: skies, seas, walls and plain tints, with the texture and grain of photographs."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from chaffinch.jobs.demo.shapes import COLOURS, Paint, mix

BACKGROUNDS = {
    # name: the colour that objects on it avoid; "plain" has a tint of its own
    "meadow": "green",
    "beach": "yellow",
    "sea": "blue",
    "night": "black",
    "snow": "white",
    "table": "brown",
    "wall": "red",
    "plain": "",
}
HORIZONS = {"meadow": (0.4, 0.7), "beach": (0.35, 0.6), "sea": (0.35, 0.6), "night": (0.65, 0.85), "snow": (0.4, 0.7)}
TINTS = ("blue", "green", "yellow", "pink", "grey", "purple", "orange", "white")


@dataclass(frozen=True)
class Backdrop:
    """A background and the picture it fills.

    Attributes:
        name: a key of `BACKGROUNDS`.
        tint: the colour of a plain background, else empty.
        horizon: where the ground begins, as a share of the height; 0 where there is none.
        width: in pixels.
        height: in pixels.
    """

    name: str
    tint: str
    horizon: float
    width: int
    height: int


def paint_backdrop(backdrop: Backdrop, rng: random.Random) -> np.ndarray:
    """Paints a background: (height, width, 3) float32, in 0 to 255 but for a little overshoot."""
    return _PAINTERS[backdrop.name](backdrop, rng)


@cache
def grain() -> np.ndarray:
    """(512, 512, 3) white noise of standard deviation 1, from which pictures take their grain."""
    return np.random.default_rng(7).standard_normal((512, 512, 3), np.float32)


@cache
def clouds() -> np.ndarray:
    """(512, 512, 1) smooth noise of several scales, mean 0, standard deviation 1."""
    rng = np.random.default_rng(8)
    field = np.zeros((512, 512), np.float32)
    for cells in (4, 8, 16, 32, 64):
        coarse = Image.fromarray(rng.standard_normal((cells, cells), np.float32))
        field += np.asarray(coarse.resize((512, 512), Image.Resampling.BICUBIC)) / cells**0.8
    return ((field - field.mean()) / field.std())[:, :, None]


def crop(tile: np.ndarray, rng: random.Random, width: int, height: int) -> np.ndarray:
    """A window of a noise tile at a random place."""
    left, top = rng.randint(0, tile.shape[1] - width), rng.randint(0, tile.shape[0] - height)
    return tile[top : top + height, left : left + width]


def _slope(rows: int, columns: int, upper: Paint, lower: Paint) -> np.ndarray:
    """(rows, columns, 3) a gradient from the upper colour to the lower one."""
    share = np.linspace(0, 1, max(rows, 1), dtype=np.float32)[:rows, None, None]
    ends = np.array([upper, lower], np.float32)
    return np.repeat(ends[0] + share * (ends[1] - ends[0]), columns, axis=1)


def _outdoors(
    backdrop: Backdrop, rng: random.Random, sky: tuple[Paint, Paint], ground: tuple[Paint, Paint]
) -> np.ndarray:
    """A sky with clouds over textured ground."""
    above = round(backdrop.horizon * backdrop.height)
    cover = crop(clouds(), rng, backdrop.width, backdrop.height)
    canvas = np.concatenate(
        [_slope(above, backdrop.width, *sky), _slope(backdrop.height - above, backdrop.width, *ground)], axis=0
    )
    whiteness = np.clip(cover[:above] * 0.5 - rng.uniform(0, 0.4), 0, 0.7) if backdrop.name != "night" else 0
    canvas[:above] += whiteness * (np.float32(250) - canvas[:above])
    canvas[above:] += 7 * cover[above:] + 5 * crop(grain(), rng, backdrop.width, backdrop.height)[above:, :, :1]
    return canvas


def _meadow(backdrop: Backdrop, rng: random.Random) -> np.ndarray:
    return _outdoors(backdrop, rng, ((105, 165, 225), (195, 222, 240)), ((120, 175, 85), (70, 130, 55)))


def _snow(backdrop: Backdrop, rng: random.Random) -> np.ndarray:
    return _outdoors(backdrop, rng, ((150, 175, 200), (205, 215, 225)), ((238, 242, 248), (208, 216, 230)))


def _night(backdrop: Backdrop, rng: random.Random) -> np.ndarray:
    canvas = _outdoors(backdrop, rng, ((14, 18, 48), (44, 50, 96)), ((34, 48, 44), (20, 30, 30)))
    for _ in range(rng.randint(20, 60)):
        row, column = rng.randint(0, round(backdrop.horizon * backdrop.height) - 1), rng.randint(0, backdrop.width - 1)
        canvas[row, column] = rng.uniform(120, 235)
    return canvas


def _sea(backdrop: Backdrop, rng: random.Random) -> np.ndarray:
    canvas = _outdoors(backdrop, rng, ((120, 175, 225), (215, 230, 240)), ((70, 130, 175), (25, 75, 125)))
    return _ripple(canvas, rng, round(backdrop.horizon * backdrop.height), backdrop.height, 12)


def _beach(backdrop: Backdrop, rng: random.Random) -> np.ndarray:
    canvas = _outdoors(backdrop, rng, ((110, 175, 230), (205, 228, 242)), ((232, 212, 160), (205, 178, 120)))
    shore = round(backdrop.horizon * backdrop.height)
    strip = backdrop.height // 12
    canvas[shore - strip : shore] = _slope(strip, backdrop.width, (60, 130, 175), (105, 180, 195))
    return _ripple(canvas, rng, shore - strip, shore, 8)


def _ripple(canvas: np.ndarray, rng: random.Random, top: int, bottom: int, strength: float) -> np.ndarray:
    """Draws waves into the rows from top to bottom; they widen towards the viewer."""
    rows = np.arange(bottom - top, dtype=np.float32)[:, None]
    columns = np.arange(canvas.shape[1], dtype=np.float32)[None, :]
    drift = rng.uniform(0, 6)
    wave = np.sin(60 * np.sqrt(rows / canvas.shape[0] + 0.02) + 1.5 * np.sin(columns / 17 + rows / 5 + drift))
    canvas[top:bottom] += strength * wave[:, :, None]
    return canvas


def _table(backdrop: Backdrop, rng: random.Random) -> np.ndarray:
    canvas = _slope(backdrop.height, backdrop.width, (188, 142, 96), (160, 112, 70))
    # Clouds squeezed to one row of columns, then sheared a little, look like the grain of wood.
    streaks = crop(clouds(), rng, backdrop.height, 512).mean(axis=1)[:, 0]  # (512,)
    bend = crop(clouds(), rng, backdrop.width, backdrop.height)[:, :, 0]
    index = (np.arange(backdrop.height)[:, None] * 1.5 + 6 * bend).astype(np.int64) % 512
    canvas += 10 * np.sin(streaks[index] * 40)[:, :, None]
    plank = backdrop.height // rng.randint(3, 6)
    canvas[rng.randint(0, plank - 1) :: plank] *= 0.72
    return canvas


def _wall(backdrop: Backdrop, rng: random.Random) -> np.ndarray:
    tall = rng.randint(12, 20)
    wide, joint = tall * 2.4, 2
    rows, columns = np.arange(backdrop.height)[:, None], np.arange(backdrop.width)[None, :]
    course = rows // tall
    shifted = columns + (course % 2) * wide / 2
    mortar = (rows % tall < joint) | (shifted % wide < joint)
    tone = grain()[course % 512, (shifted // wide).astype(np.int64) % 512, 0] * 10  # each brick its own
    canvas = np.array([168, 92, 74], np.float32) + tone[:, :, None].astype(np.float32)
    canvas[mortar] = (196, 188, 176)
    canvas += 6 * crop(clouds(), rng, backdrop.width, backdrop.height)
    return canvas


def _plain(backdrop: Backdrop, rng: random.Random) -> np.ndarray:
    """A tinted backdrop: smooth, striped, dotted or checked, always faintly."""
    tint = COLOURS[backdrop.tint]
    pale = rng.uniform(0.35, 0.6) if backdrop.tint != "white" else 0.2
    upper, lower = mix(tint, (255, 255, 255), pale), mix(tint, (235, 235, 235), pale - 0.15)
    canvas = _slope(backdrop.height, backdrop.width, upper, lower)
    rows = np.arange(backdrop.height, dtype=np.float32)[:, None]
    columns = np.arange(backdrop.width, dtype=np.float32)[None, :]
    pitch = rng.uniform(12, 34)
    pattern = rng.choice(("smooth", "smooth", "stripes", "dots", "checks"))
    if pattern == "stripes":
        canvas += 9 * np.sign(np.sin((rows * rng.uniform(-1, 1) + columns) * 6.28 / pitch))[:, :, None]
    elif pattern == "dots":
        canvas += 14 * ((rows % pitch - pitch / 2) ** 2 + (columns % pitch - pitch / 2) ** 2 < pitch)[:, :, None]
    elif pattern == "checks":
        canvas += 8 * np.sign(np.sin(rows * 6.28 / pitch) * np.sin(columns * 6.28 / pitch))[:, :, None]
    canvas += 5 * crop(clouds(), rng, backdrop.width, backdrop.height)
    return canvas


_PAINTERS: dict[str, Callable[[Backdrop, random.Random], np.ndarray]] = {
    "meadow": _meadow,
    "beach": _beach,
    "sea": _sea,
    "night": _night,
    "snow": _snow,
    "table": _table,
    "wall": _wall,
    "plain": _plain,
}
