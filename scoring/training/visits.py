"""Which sample is seen when, and what chance does to it then: both follow from the seed and a number alone.

Nothing is drawn from a generator that carries on from one sample to the next. So a training that was stopped goes on
with the same samples, crops and captions, and no thread can change them by being late.
"""

import math

import numpy as np
from PIL import Image

from chaffinch.scoring.training.recipe import Augmentation

_ORDER, _CHANCE = 0, 1
_TRIES = 10


class Visits:
    """The endless sequence of samples: epoch after epoch, each in an order of its own."""

    def __init__(self, samples: int, seed: int) -> None:
        """Args: samples: how many there are, at least 1. seed: of orders and chance."""
        self._samples = samples
        self._seed = seed
        self._orders: dict[int, np.ndarray] = {}

    def sample(self, visit: int) -> int:
        """The sample that is seen at a visit, both counted from 0. Every epoch sees each sample once."""
        epoch, position = divmod(visit, self._samples)
        if epoch not in self._orders:
            order = np.random.default_rng([self._seed, _ORDER, epoch]).permutation(self._samples)
            # A batch may reach from one epoch into the next; older orders are never asked for again.
            self._orders = {known: old for known, old in self._orders.items() if known == epoch - 1} | {epoch: order}
        return int(self._orders[epoch][position])

    def chance(self, visit: int) -> np.random.Generator:
        """Where all chance of a visit comes from."""
        return np.random.default_rng([self._seed, _CHANCE, visit])


def augment(
    picture: Image.Image,
    size: tuple[int, int],
    settings: Augmentation,
    squash: bool,
    resampling: Image.Resampling,
    chance: np.random.Generator,
) -> np.ndarray:
    """Crops a picture at random and scales the crop to a model's input.

    Source: torchvision's RandomResizedCrop, which open_clip trains with: a share of the area and a ratio are drawn, up
    to ten times until such a crop fits; then the largest crop in the middle whose ratio is allowed.

    Args:
        picture: mode RGB.
        size: height and width of the model's input.
        settings: what to draw from.
        squash: whether the model sees whole pictures squashed: then ratios are multiples of the picture's own.
        resampling: the filter to scale with.
        chance: where crop and flip come from.

    Returns:
        (3, height, width) uint8.
    """
    box = _crop(picture.width, picture.height, settings, picture.width / picture.height if squash else 1.0, chance)
    flip = chance.random() < settings.flip
    scaled = picture.resize((size[1], size[0]), resampling, box=box)
    if flip:
        scaled = scaled.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.ascontiguousarray(np.asarray(scaled).transpose(2, 0, 1))


def _crop(
    width: int, height: int, settings: Augmentation, base: float, chance: np.random.Generator
) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a crop, in pixels."""
    low, high = (math.log(limit * base) for limit in settings.ratio)
    for _ in range(_TRIES):
        area = width * height * chance.uniform(*settings.crop)
        ratio = math.exp(chance.uniform(low, high))
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            left, top = int(chance.integers(width - across + 1)), int(chance.integers(height - down + 1))
            return left, top, left + across, top + down
    ratio = min(max(width / height, math.exp(low)), math.exp(high))
    across, down = min(width, max(1, round(height * ratio))), min(height, max(1, round(width / ratio)))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down
