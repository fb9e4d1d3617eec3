"""Pictures as a model is trained on them: cropped at random, scaled, and normalised where the model runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from PIL import Image

from chaffinch.scoring.training.recipe import Augmentation
from chaffinch.scoring.training.visits import augment


@dataclass(frozen=True)
class Look:
    """How a model wants its pictures.

    Attributes:
        size: height and width, pixels.
        squash: whether it sees whole pictures squashed.
        resampling: the filter they are scaled with.
        mean: (1, 3, 1, 1) of the colours, from 0 to 255.
        deviation: (1, 3, 1, 1) what they are divided by.
    """

    size: tuple[int, int]
    squash: bool
    resampling: Image.Resampling
    mean: torch.Tensor
    deviation: torch.Tensor

    @classmethod
    def of(cls, network: Any, device: str) -> Self:
        """That of a network of open_clip's."""
        look = network.visual.preprocess_cfg
        height, width = (look["size"],) * 2 if isinstance(look["size"], int) else look["size"]
        bilinear = look["interpolation"] == "bilinear"
        mean, deviation = (torch.tensor(look[name], device=device).view(1, 3, 1, 1) * 255 for name in ("mean", "std"))
        return cls(
            (int(height), int(width)),
            look["resize_mode"] == "squash",
            Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC,
            mean,
            deviation,
        )

    def augmented(self, picture: Image.Image, settings: Augmentation, chance: np.random.Generator) -> torch.Tensor:
        """A crop of a picture, mode RGB, as (3, height, width) uint8."""
        return torch.from_numpy(augment(picture, self.size, settings, self.squash, self.resampling, chance))

    def normalised(self, pictures: Sequence[torch.Tensor]) -> torch.Tensor:
        """(n, 3, height, width) float32 of n that were augmented, on the model's device."""
        stacked = torch.stack(list(pictures)).to(self.mean.device, non_blocking=True).float()
        return ((stacked - self.mean) / self.deviation).contiguous(memory_format=torch.channels_last)
