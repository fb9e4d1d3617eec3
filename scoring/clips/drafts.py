"""The fast path of a CLIP: pictures decoded no larger than need be, and scaled where the network runs.

Its numbers are close to those of the model's own preprocessing, not equal to them.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from chaffinch.scoring.images import decode_draft
from chaffinch.scoring.scorer import SampleError

if TYPE_CHECKING:
    import torch

# A draft keeps twice the pixels that the network reads: at the same number similarities move by up to 5e-3.
KEPT = 2

MAX_ASPECT_RATIO = 200
"""Scaling enlarges the shorter side to the model's input before it crops: longer strips would cost gigabytes."""

# Longer ones are scaled at once: most of them would wait in memory only to be cropped away.
_ELONGATED = 4


@dataclass(frozen=True)
class Draft:
    """A picture that is still to be scaled.

    Attributes:
        pixels: (3, height, width) uint8, each for `divisor` by `divisor` pixels of the picture, the last ones for less.
        size: width and height of the picture.
        divisor: 1 or more.
    """

    pixels: "torch.Tensor"
    size: tuple[int, int]
    divisor: int


@dataclass(frozen=True)
class Geometry:
    """How a model's preprocessing brings a picture to its input.

    Attributes:
        height: of the input, in pixels.
        width: of the input.
        shorter: what the shorter side is scaled to before both are cropped to the input; None where they are scaled to
            it on their own.
        interpolation: with antialiasing.
        mean: of each colour, in [0, 1]; what is subtracted.
        deviation: of each colour; what is divided by.
        rounds: whether a margin of half a pixel is rounded to the even side, as torchvision does, or cut off.
    """

    height: int
    width: int
    shorter: int | None
    interpolation: Literal["bilinear", "bicubic"]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    rounds: bool

    def open(self, file: bytes, device: str) -> "Draft | torch.Tensor":
        """Decodes a file no larger than need be.

        Args:
            file: the whole picture file.
            device: where the network runs; on "cpu" the picture is scaled at once, by the thread that calls.

        Returns:
            What `finish` takes.

        Raises:
            SampleError: the file cannot be decoded, or the picture is a strip.
        """
        import torch

        least = KEPT * (self.shorter or max(self.height, self.width))
        picture, size = decode_draft(file, least)
        check_shape(size)
        divisor = max(1, round(size[0] / picture.width))
        if (further := min(picture.size) // least) > 1:
            picture, divisor = picture.reduce(further), divisor * further
        draft = Draft(torch.from_numpy(np.array(picture)).permute(2, 0, 1), size, divisor)
        elongated = max(size) > _ELONGATED * min(size)
        return self.finish(draft, "cpu") if device == "cpu" or elongated else draft

    def finish(self, draft: "Draft | torch.Tensor", device: str) -> "torch.Tensor":
        """Scales, crops and normalises on a device.

        Args:
            draft: what `open` returned.
            device: "cpu" or "cuda".

        Returns:
            (3, height, width) float32 on that device.
        """
        import torch

        if isinstance(draft, torch.Tensor):
            return draft.to(device)
        width, height = self._scaled(*draft.size)
        # By factors, not by sizes: the last pixels of a draft stand for less than the others. A little more than the
        # quotient, so that it does not come out one pixel short.
        factors = [
            scaled * draft.divisor / full * (1 + 1e-9)
            for scaled, full in zip((height, width), draft.size[::-1], strict=True)
        ]
        pixels = torch.nn.functional.interpolate(
            draft.pixels.to(device)[None].float(),
            scale_factor=factors,
            mode=self.interpolation,
            antialias=True,
            recompute_scale_factor=False,
        )[0]
        top, left = (self._margin(extent) for extent in (height - self.height, width - self.width))
        pixels = pixels[:, top : top + self.height, left : left + self.width].round().clamp(0, 255) / 255
        mean, deviation = (torch.tensor(values, device=device)[:, None, None] for values in (self.mean, self.deviation))
        return (pixels - mean) / deviation

    def _scaled(self, width: int, height: int) -> tuple[int, int]:
        """Width and height before the crop."""
        if self.shorter is None:
            return self.width, self.height
        longer = int(self.shorter * max(width, height) / min(width, height))
        return (self.shorter, longer) if width <= height else (longer, self.shorter)

    def _margin(self, extent: int) -> int:
        return round(extent / 2) if self.rounds else extent // 2


def check_shape(size: tuple[int, int]) -> None:
    """Raises SampleError for strips, of which one side is more than 200 times the other."""
    if max(size) > MAX_ASPECT_RATIO * min(size):
        raise SampleError(f"picture is too elongated to be scaled: {size[0]} x {size[1]} pixels")
