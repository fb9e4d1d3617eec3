"""Measures the pictures themselves: size, sharpness, light, colour, frames and a hash that near duplicates share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image

from chaffinch.scoring.frames import find_frame
from chaffinch.scoring.scorer import Batch, Column, Scorer

STATISTICS_SIDE = 512
SHARPNESS_SIDE = 256
BLANK_LEVELS = 16

_MEASURES = (
    "width",
    "height",
    "shorter_side",
    "aspect_ratio",
    "sharpness",
    "blur",
    "brightness",
    "contrast",
    "entropy",
    "blank",
    "colourfulness",
    "border_left",
    "border_top",
    "border_right",
    "border_bottom",
    "border",
    "inner_aspect_ratio",
)

# Rows of a 32-point cosine transform, in whole numbers: equal on every machine, and exactly 0 where symmetry says so.
_ANGLES = np.pi / 64 * np.outer(np.arange(8), 2 * np.arange(32) + 1)  # (8, 32)
_COSINES = np.rint(2**12 * np.cos(_ANGLES)).astype(np.int64)
_PLACES = np.uint64(1) << np.arange(63, -1, -1, dtype=np.uint64)  # (64,), the first bit is the highest


@dataclass(frozen=True)
class Pictures(Scorer):
    """Columns: float32 each, except the hash; better where a direction is given, otherwise a matter of taste.

    width, height: pixels of the picture as stored.
    shorter_side: pixels; more is better.
    aspect_ratio: longer over shorter side, at least 1; 1 is square, and strips of 3 and more are seldom photos.
    sharpness: variance of the Laplacian of luma (0 to 255), in [0, 1040400]; more is sharper. The picture is brought
        to a longer side of 256 pixels first, so that sizes compare: it is the sharpness that a model of that input
        size sees, and small pictures are blurred by their enlargement. Flat pictures have 0, photos some hundreds,
        drawings and text thousands.
    blur: how far neighbouring slopes of luma agree, in [-1, 1]; less is better. It is the correlation of a pixel's
        step to the next with that step's successor, along rows or along columns, whichever is higher, since motion
        blurs one way only. The scale is that of sharpness, but contrast and busy patterns count for nothing, so that
        it tells blurred pictures from quiet ones. Noise has -0.5, sharp photos 0.1 to 0.7, pictures out of focus,
        shaken or enlarged fourfold mostly above 0.75; NaN where the picture is flat.
    brightness: mean luma, in [0, 1]; 0 is black, 1 is white.
    contrast: standard deviation of luma, in [0, 0.5]; 0 is flat.
    entropy: of the histogram of luma, in bits, in [0, 8]; drawings and blanks are below about 4, photos above 6.
    blank: share of the pixels whose luma falls into the fullest 16 neighbouring levels of 256, in [1/16, 1]; 1 is one
        flat colour, cards with a line of text and cut-out products have more than 0.75, most photos less than 0.6.
    colourfulness: Hasler and Suesstrunk's measure, in [0, about 186]; 0 is grey, 15 slightly, 59 quite, 109 extremely
        colourful. Source: Hasler and Suesstrunk, Measuring colourfulness in natural images, 2003, equation for M(3).
    border_left, border_top, border_right, border_bottom: the frame of one colour on that side, such as the bars that
        fit a film into a square, as share of the width or height, in [0, 1]; less is better. A line belongs to it
        while no channel of any pixel is more than 8 levels off the outermost line's median. Clear skies and studio
        walls make one photo in thirty have one above 0.02; pictures that are flat have 1 on every side.
    border: share of the picture's area that the four take together, in [0, 1]; less is better.
    inner_aspect_ratio: longer over shorter side of what the frame leaves, at least 1: it finds strips that were
        brought to a square; NaN where it leaves nothing.
    hash: uint64, an identity: near duplicates differ in few of the 64 bits, others in about 32. Bit (i, j), from the
        highest down, tells whether coefficient (i, j) of the cosine transform of a 32 x 32 luma thumbnail lies above
        the median of the lowest 8 x 8 without the mean, so that scale, recompression and brightness hardly matter.

    Brightness, contrast, entropy, blank, colourfulness and frames are taken after averaging whole blocks of pixels, as
    few as bring the longer side to 512 pixels at most. Everything is counted in whole numbers up to the last step,
    hence the same on every machine.
    """

    version: ClassVar[int] = 2
    reads_pictures: ClassVar[bool] = True

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """Seventeen measures, float32, and the hash, uint64."""
        return {name: pa.float32() for name in _MEASURES} | {"hash": pa.uint64()}

    def prepare(self, picture: Image.Image, model: Any) -> tuple[tuple[float, ...], np.uint64]:
        """Measures one picture; at most 512 x 512 pixels of it are looked at, whatever its size.

        Args:
            picture: mode RGB.
            model: None.

        Returns:
            The measures in the order of `columns`, and the hash.
        """
        width, height = picture.size
        longer, shorter = max(width, height), min(width, height)
        small = picture.reduce(-(-longer // STATISTICS_SIDE)) if longer > STATISTICS_SIDE else picture
        luma = small.convert("L")
        measures = (
            float(width),
            float(height),
            float(shorter),
            longer / shorter,
            *_focus(luma),
            *_light(luma),
            _colourfulness(small),
            *_frame(small, width / height),
        )
        return measures, _hash(luma)

    def score(self, batch: Batch, model: Any) -> Mapping[str, Column]:
        """Stacks what `prepare` has measured.

        Args:
            batch: n samples.
            model: None.

        Returns:
            The columns, n values each.
        """
        measures = np.array([measures for measures, _ in batch.pictures], np.float32).reshape(-1, len(_MEASURES))
        columns = {name: measures[:, index] for index, name in enumerate(_MEASURES)}
        return columns | {"hash": np.array([value for _, value in batch.pictures], np.uint64)}


def _focus(luma: Image.Image) -> tuple[float, float]:
    """Sharpness and blur at a longer side of 256 pixels; for the Laplacian the border is repeated outwards."""
    scale = SHARPNESS_SIDE / max(luma.size)
    size = (max(1, round(luma.width * scale)), max(1, round(luma.height * scale)))
    # 16 bits hold all that is made of it here, and half the memory takes half the time.
    grey = np.pad(np.asarray(luma.resize(size, Image.Resampling.BILINEAR), dtype=np.int16), 1, mode="edge")
    across = grey[1:-1, 1:] - grey[1:-1, :-1]  # (height, width + 1), the first and the last are 0
    down = grey[1:, 1:-1] - grey[:-1, 1:-1]  # (height + 1, width)
    laplacian = across[:, 1:] - across[:, :-1] + down[1:] - down[:-1]
    agreements = [
        _dot(slopes, successors) / energy
        for slopes, successors, energy in (
            (across[:, :-1], across[:, 1:], _dot(across, across)),
            (down[:-1], down[1:], _dot(down, down)),
        )
        if energy
    ]
    return _variance(laplacian), max(agreements, default=np.nan)


def _light(luma: Image.Image) -> tuple[float, float, float, float]:
    """Brightness, contrast, entropy and blank, all from the histogram."""
    counts = np.array(luma.histogram(), np.int64)  # (256,)
    total = int(counts.sum())
    levels = np.arange(256)
    first, second = int(counts @ levels), int(counts @ levels**2)
    contrast = np.sqrt(total * second - first**2) / total  # whole numbers under the root, so never below 0
    shares = counts[counts > 0] / total
    entropy = -float((shares * np.log2(shares)).sum())
    below = np.concatenate(([0], np.cumsum(counts)))  # (257,)
    fullest = int((below[BLANK_LEVELS:] - below[:-BLANK_LEVELS]).max())
    return first / total / 255, float(contrast) / 255, abs(entropy), fullest / total


def _colourfulness(picture: Image.Image) -> float:
    """Root of summed variances plus 0.3 times the root of summed squared means, over two opponent axes."""
    red, green, blue = (np.asarray(band, dtype=np.int16) for band in picture.split())
    red_green = np.subtract(red, green, out=red)  # in place, since fresh memory costs more than the sums
    yellow_blue = np.subtract(green, blue, out=green)
    yellow_blue *= 2
    yellow_blue += red_green  # red + green - 2 * blue: twice the measure's, to stay whole
    spread = np.sqrt(_variance(red_green) + _variance(yellow_blue) / 4)
    centre = np.hypot(red_green.mean(dtype=np.float64), yellow_blue.mean(dtype=np.float64) / 2)
    return float(spread + 0.3 * centre)


def _frame(picture: Image.Image, aspect: float) -> tuple[float, ...]:
    """The six measures of frames; aspect is width over height of the picture as stored."""
    left, top, right, bottom = find_frame(np.asarray(picture))
    width, height = max(0.0, 1 - left - right), max(0.0, 1 - top - bottom)
    inner = aspect * width / height if height else 0.0
    return left, top, right, bottom, 1 - width * height, max(inner, 1 / inner) if inner else np.nan


def _hash(luma: Image.Image) -> np.uint64:
    """Which of the 64 lowest frequencies lie above their median."""
    thumbnail = np.asarray(luma.resize((32, 32), Image.Resampling.BILINEAR), dtype=np.int64)
    frequencies = (_COSINES @ thumbnail @ _COSINES.T).ravel()  # (64,), the mean comes first
    return np.uint64(_PLACES[frequencies > np.median(frequencies[1:])].sum())


def _variance(values: np.ndarray) -> float:
    """Population variance of at most 512 x 512 whole numbers, as for `_dot`, exact up to the division."""
    total = int(values.sum(dtype=np.int64))
    return (values.size * _dot(values, values) - total**2) / values.size**2


def _dot(first: np.ndarray, second: np.ndarray) -> int:
    """Sum of the products of whole numbers of up to 1020 in size, exact: 512 to a row fit 32 bits."""
    return int(np.einsum("ij,ij->i", first, second, dtype=np.int32).sum(dtype=np.int64))
