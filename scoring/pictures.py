"""Measures the pictures themselves: size, sharpness, light, colour and a hash that near duplicates share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image

from chaffinch.scoring.scorer import Batch, Column, Scorer

STATISTICS_SIDE = 512
SHARPNESS_SIDE = 256

_MEASURES = (
    "width",
    "height",
    "shorter_side",
    "aspect_ratio",
    "sharpness",
    "brightness",
    "contrast",
    "entropy",
    "colourfulness",
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
    brightness: mean luma, in [0, 1]; 0 is black, 1 is white.
    contrast: standard deviation of luma, in [0, 0.5]; 0 is flat.
    entropy: of the histogram of luma, in bits, in [0, 8]; drawings and blanks are below about 4, photos above 6.
    colourfulness: Hasler and Suesstrunk's measure, in [0, about 186]; 0 is grey, 15 slightly, 59 quite, 109 extremely
        colourful. Source: Hasler and Suesstrunk, Measuring colourfulness in natural images, 2003, equation for M(3).
    hash: uint64, an identity: near duplicates differ in few of the 64 bits, others in about 32. Bit (i, j), from the
        highest down, tells whether coefficient (i, j) of the cosine transform of a 32 x 32 luma thumbnail lies above
        the median of the lowest 8 x 8 without the mean, so that scale, recompression and brightness hardly matter.

    Brightness, contrast, entropy and colourfulness are taken after averaging whole blocks of pixels, as few as bring
    the longer side to 512 pixels at most. Everything is counted in whole numbers up to the last step, hence the same
    on every machine.
    """

    reads_pictures: ClassVar[bool] = True

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """Nine measures, float32, and the hash, uint64."""
        return {name: pa.float32() for name in _MEASURES} | {"hash": pa.uint64()}

    def prepare(self, picture: Image.Image, model: Any) -> tuple[tuple[float, ...], np.uint64]:
        """Measures one picture; at most 512 x 512 pixels of it are looked at, whatever its size.

        Args:
            picture: mode RGB.
            model: None.

        Returns:
            The nine measures in the order of `columns`, and the hash.
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
            _sharpness(luma),
            *_light(luma),
            _colourfulness(small),
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


def _sharpness(luma: Image.Image) -> float:
    """Variance of the four-neighbour Laplacian at a longer side of 256 pixels; the border is repeated outwards."""
    scale = SHARPNESS_SIDE / max(luma.size)
    size = (max(1, round(luma.width * scale)), max(1, round(luma.height * scale)))
    grey = np.pad(np.asarray(luma.resize(size, Image.Resampling.BILINEAR), dtype=np.int32), 1, mode="edge")
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    return _variance(laplacian)


def _light(luma: Image.Image) -> tuple[float, float, float]:
    """Brightness, contrast and entropy, all from the histogram."""
    counts = np.array(luma.histogram(), np.int64)  # (256,)
    total = int(counts.sum())
    levels = np.arange(256)
    first, second = int(counts @ levels), int(counts @ levels**2)
    contrast = np.sqrt(total * second - first**2) / total  # whole numbers under the root, so never below 0
    shares = counts[counts > 0] / total
    entropy = -float((shares * np.log2(shares)).sum())
    return first / total / 255, float(contrast) / 255, abs(entropy)


def _colourfulness(picture: Image.Image) -> float:
    """Root of summed variances plus 0.3 times the root of summed squared means, over two opponent axes."""
    pixels = np.asarray(picture).reshape(-1, 3).astype(np.int32)
    red, green, blue = pixels[:, 0], pixels[:, 1], pixels[:, 2]
    red_green = red - green  # (k,)
    yellow_blue = red + green - 2 * blue  # (k,), twice the measure's, to stay whole
    spread = np.sqrt(_variance(red_green) + _variance(yellow_blue) / 4)
    centre = np.hypot(red_green.mean(dtype=np.float64), yellow_blue.mean(dtype=np.float64) / 2)
    return float(spread + 0.3 * centre)


def _hash(luma: Image.Image) -> np.uint64:
    """Which of the 64 lowest frequencies lie above their median."""
    thumbnail = np.asarray(luma.resize((32, 32), Image.Resampling.BILINEAR), dtype=np.int64)
    frequencies = (_COSINES @ thumbnail @ _COSINES.T).ravel()  # (64,), the mean comes first
    return np.uint64(_PLACES[frequencies > np.median(frequencies[1:])].sum())


def _variance(values: np.ndarray) -> float:
    """Population variance of whole numbers, exact up to the division."""
    values = values.ravel()
    total = int(values.sum(dtype=np.int64))
    squares = int(np.square(values, dtype=np.int64).sum())
    return (values.size * squares - total**2) / values.size**2
