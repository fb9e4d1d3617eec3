"""Values with a graph for the backward pass and derivatives along a direction, of one and the same forward pass.

`alignment.derivatives` evaluates without a graph, for models that only measure. A training step needs the values'
graph anyway: computing them once saves the forward pass that scores would cost beside it.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.autograd.forward_ad as forward_mode
from torch import nn
from torch.overrides import TorchFunctionMode

from chaffinch.scoring.alignment.direction import Direction
from chaffinch.scoring.alignment.rules import Rules, join, split


def values_and_slopes(
    network: nn.Module, direction: Direction, function: Callable[[], torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Evaluates a function of a network's own weights.

    Args:
        network: in the mode it is to be evaluated in.
        direction: where to.
        function: from nothing to a tensor; it calls the network.

    Returns:
        The values, through which gradients of the network's parameters flow as if nothing else had been computed; and
        their derivatives along the direction, without a graph.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.enable_grad(), forward_mode.dual_level(), Rules(), _PlainTangents():
            parameters = dict(network.named_parameters())
            weights = {f"network.{name}": join(parameters[name], way) for name, way in direction.tensors.items()}
            found = torch.func.functional_call(_Called(network), weights, (function,))
            values, slopes = split(found)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return values, torch.zeros_like(values) if slopes is None else slopes.detach()


class _Called(nn.Module):
    """Lets `functional_call` change the weights of a network while any function runs that calls it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, function: Callable[[], torch.Tensor]) -> torch.Tensor:
        return function()


class _PlainTangents(TorchFunctionMode):
    """Takes tangents out of the graph as soon as they are there: nobody asks for their gradients.

    What they were computed from would otherwise be kept until the backward pass, more than all it needs.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Called by torch in place of each of its functions."""
        return _plain(func(*args, **(kwargs or {})))


def _plain(result: Any) -> Any:
    if isinstance(result, torch.Tensor):
        primal, tangent = split(result)
        return result if tangent is None or not tangent.requires_grad else join(primal, tangent.detach())
    if type(result) in (tuple, list):
        return type(result)(map(_plain, result))
    return result
