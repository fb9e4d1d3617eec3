"""Exact alignment of one linear layer from a single backward pass, where the losses of samples are separable.

The gradient of a sample's loss over a linear layer's weight is sum_t delta_t a_t^T, with a the layer's inputs and delta
the gradients of its outputs, over the t places where it meets the sample. One backward pass of the sum of the losses
gives delta of all samples, if no loss depends on another sample; no gradient is ever written out.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn


class LayerError(ValueError):
    """The layer is not one whose calls tell the gradients of single samples."""


@dataclass(frozen=True)
class LayerAlignment:
    """What one layer says of n samples.

    Attributes:
        losses: (n,) as the function gave them, with their graph.
        slopes: (n,) float32, <g, v>: derivatives of the losses along the direction.
        lengths: (n,) float32, |g|.
    """

    losses: torch.Tensor
    slopes: torch.Tensor
    lengths: torch.Tensor


def align_layer(
    layer: nn.Linear, function: Callable[[], torch.Tensor], weight: torch.Tensor | None, bias: torch.Tensor | None
) -> LayerAlignment:
    """Slopes and lengths of the gradients over a layer's weight, its bias, or both.

    Args:
        layer: called once or more by the function, with samples along the first dimension; inputs are (n, inputs) or
            (n, places, inputs).
        function: from nothing to (n,) losses, each of its own sample alone. A batch normalisation in training mode, or
            an in-batch contrastive loss, breaks that.
        weight: (outputs, inputs) the direction's part; None where the weight is not chosen.
        bias: (outputs,) likewise.

    Returns:
        Losses, slopes and lengths.

    Raises:
        LayerError: the layer was not called, or not with samples along the first dimension.
    """
    calls: list[tuple[torch.Tensor, torch.Tensor]] = []

    def note(module: nn.Module, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        calls.append((given[0].detach(), output))

    handle = layer.register_forward_hook(note)
    try:
        with torch.enable_grad():
            losses = function()
    finally:
        handle.remove()
    if not calls:
        raise LayerError("the layer is not called as a module: its inputs and outputs cannot be seen")
    if any(len(values) != len(losses) or values.ndim > 3 for values, _ in calls):
        raise LayerError(f"the layer's inputs do not have the {len(losses)} samples along their first dimension")
    gradients = torch.autograd.grad(losses.sum(), [output for _, output in calls], retain_graph=True)
    inputs = torch.cat([_places(values) for values, _ in calls], dim=1).float()  # (n, t, inputs)
    deltas = torch.cat([_places(gradient) for gradient in gradients], dim=1).float()  # (n, t, outputs)
    slopes, squares = inputs.new_zeros(len(inputs)), inputs.new_zeros(len(inputs))
    if weight is not None:
        slopes = slopes + ((inputs @ weight.float().T) * deltas).sum(dim=(1, 2))
        # |sum_t delta_t a_t^T|^2 from the (t, t) products of both sides: no (outputs, inputs) matrix for each sample
        squares = squares + ((deltas @ deltas.mT) * (inputs @ inputs.mT)).sum(dim=(1, 2))
    if bias is not None:
        sums = deltas.sum(dim=1)
        slopes = slopes + sums @ bias.float()
        squares = squares + sums.square().sum(dim=1)
    return LayerAlignment(losses, slopes, squares.clamp(min=0).sqrt())


def _places(values: torch.Tensor) -> torch.Tensor:
    """(n, t, d) of (n, d) or (n, t, d)."""
    return values.unsqueeze(1) if values.ndim == 2 else values
