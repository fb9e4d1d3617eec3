"""Canvases: the few sizes in which a detector sees pictures.

Grounding DINO keeps the aspect ratio of a picture and pads it to the largest of its batch. The padding is masked, but
the backbone sees it, and a score would depend on its neighbours. Here every picture is padded to the smallest of a few
canvases that holds it, whatever its batch. The canvases follow the commonest aspect ratios, so that little is wasted.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from PIL import Image

from chaffinch.scoring.scorer import SampleError

if TYPE_CHECKING:
    import torch

Canvas: TypeAlias = tuple[int, int]
"""Height and width in pixels."""

MAX_ASPECT_RATIO = 200
"""Longer strips are refused: scaled, their shorter side would have a few pixels, or their longer one would be huge."""

MAX_SQUARE = 2_000
"""The largest side of a square, in pixels: twice what OWLv2 sees. transformers blurs squares before it scales them,
which takes seconds for larger ones."""

# Longer over shorter side: square, 4:3, 3:2; and from 16:9 on, where the longer side is at its limit, 5:2 and 5:1.
_ROOMY = (1.0, 4 / 3, 3 / 2)
_NARROW = (16 / 9, 5 / 2, 5.0)


@dataclass(frozen=True)
class Prepared:
    """A picture in the size that the model sees.

    Attributes:
        pixels: (3, h, w) uint8; float32 where the checkpoint's own scaling leaves whole numbers.
        size: width and height of the picture as stored, pixels.
    """

    pixels: "torch.Tensor"
    size: tuple[int, int]


class Canvases:
    """Scales pictures as a checkpoint's image processor does, and lays them on canvases."""

    def __init__(self, processor: Any, squares: bool) -> None:
        """Finds the canvases.

        Args:
            processor: transformers' image processor.
            squares: whether it pads pictures to squares before it scales them, as that of OWLv2 does.

        Raises:
            ValueError: it scales in a way that has no largest size.
        """
        self._processor = processor
        self._squares = squares
        self.sizes = _find_canvases(processor.size)

    def prepare(self, picture: Image.Image) -> Prepared:
        """Scales a picture; the same numbers as the image processor's, short of normalising and padding.

        Where it pads to squares first, pictures of a side longer than 2,000 pixels are reduced by whole blocks of
        pixels before, since squares of any size would have to be held in memory otherwise.

        Args:
            picture: mode RGB.

        Returns:
            What `stack` takes.

        Raises:
            SampleError: one side is more than 200 times the other.
        """
        width, height = picture.size
        if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
            raise SampleError(f"picture is too elongated to be scaled: {width} x {height} pixels")
        switches = {"do_normalize": False, "return_tensors": "pt"}
        if self._squares:
            factor = -(-max(width, height) // MAX_SQUARE)
            picture = picture.reduce(factor) if factor > 1 else picture
        else:
            switches |= {"do_rescale": False, "do_pad": False}
        return Prepared(self._processor(picture, **switches).pixel_values[0], (width, height))

    def find(self, prepared: Prepared) -> Canvas:
        """The smallest canvas that holds a picture."""
        height, width = prepared.pixels.shape[-2:]
        return next(canvas for canvas in self.sizes if canvas[0] >= height and canvas[1] >= width)

    def stack(self, pictures: Sequence[Prepared], canvas: Canvas, device: str) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Lays n pictures into the upper left corners of canvases, and normalises them there.

        Args:
            pictures: (n,) that the canvas holds.
            canvas: height and width.
            device: where the result is to lie.

        Returns:
            Pixels, (n, 3, height, width) float32, 0 beside the picture; and which are the picture's, (n, height,
            width) bool.
        """
        import torch

        sides = torch.tensor([one.pixels.shape[-2:] for one in pictures])  # (n, 2)
        filled = bool((sides == torch.tensor(canvas)).all())
        if filled:
            laid = torch.stack([one.pixels for one in pictures])
        else:
            laid = torch.zeros((len(pictures), 3, *canvas), dtype=pictures[0].pixels.dtype)
            for row, one in enumerate(pictures):
                height, width = one.pixels.shape[-2:]
                laid[row, :, :height, :width] = one.pixels
        processor = self._processor
        pixels = processor.rescale_and_normalize(
            laid.to(device),
            processor.do_rescale and not self._squares,
            processor.rescale_factor,
            processor.do_normalize,
            tuple(processor.image_mean),
            tuple(processor.image_std),
        ).float()
        sides = sides.to(device)
        below, beside = (torch.arange(side, device=device) >= sides[:, axis, None] for axis, side in enumerate(canvas))
        outside = below[:, :, None] | beside[:, None]
        if not filled:
            pixels.masked_fill_(outside[:, None], 0)
        return pixels, ~outside


def _find_canvases(size: Any) -> tuple[Canvas, ...]:
    """All canvases for an image processor's `size`, the smallest area first."""
    if size.height and size.width:
        return ((size.height, size.width),)
    if size.max_height and size.max_width:
        return ((size.max_height, size.max_width),)
    shorter, longer = size.shortest_edge, size.longest_edge
    if not (shorter and longer):
        raise ValueError(
            f"its image processor scales to {dict(size)}: give shortest_edge and longest_edge, or a height and a width"
        )
    sides = {(shorter, longer)}
    sides |= {(shorter, math.ceil(shorter * aspect)) for aspect in _ROOMY if shorter * aspect < longer}
    sides |= {(math.ceil(longer / aspect), longer) for aspect in _NARROW if longer / aspect < shorter}
    # A strip whose shorter side is by chance what it should be is left as it is by transformers, though it is too long.
    shortest = max(longer / MAX_ASPECT_RATIO, 1)
    sides.add((shorter, math.ceil(longer * shortest / (shortest - 0.5))))
    both = {(high, wide) for one, other in sides for high, wide in ((one, other), (other, one))}
    return tuple(sorted(both, key=lambda canvas: (canvas[0] * canvas[1], canvas)))
