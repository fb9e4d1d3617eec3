"""The sign of mimic scores. It is taken here only."""

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

Slopes = TypeVar("Slopes", np.ndarray, "torch.Tensor")


def toward_reference(slopes: Slopes, length: float) -> Slopes:
    """Mimic scores s = <-g, v> / |v| from the slopes of losses.

    With g the gradient of a sample's loss and v the reference's weights less the current ones; <g, v> is the derivative
    of the loss along v, so that no gradient is needed.

    Source: arXiv 2501.06708, section 3.1.

    Args:
        slopes: (n,) d/de loss(weights + e v) at e = 0.
        length: |v|, more than 0.

    Returns:
        (n,) in units of loss per unit of weight; higher is better: a step on this sample moves the weights toward the
        reference, and below 0 away from it.
    """
    return -slopes / length
