"""What a function of a model's weights comes to, and how it changes along a direction: exactly, or by a small step."""

import functools
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.autograd.forward_ad as forward_mode
from torch import nn

from chaffinch.scoring.alignment.direction import Direction, at_least_single
from chaffinch.scoring.alignment.rules import Rules, join, split

Tensors = tuple[torch.Tensor, ...]
Method = Literal["forward", "central"]
"""forward: exact, by forward-mode differentiation; central: half the difference between two small steps."""

RELATIVE_STEP = 1e-3
"""Of a central difference, as a share of the length of the weights that move. Its error has two parts: rounding, which
shrinks with the step, and what the loss does beside its slope, which grows with the square of the step where it bends
and with the step where units of ReLU go on and off. Steps from 3e-5 to 1e-2 were tried on small random networks; the
largest errors, as shares of the scores' spread, are here 1e-4 (ViT, ConvNeXt, SigLIP), where 3e-3 and 3e-4 have two to
six times more, and 6e-3 (ResNet, of ReLU), where the best, 1e-4, has 7e-4."""


@dataclass(frozen=True)
class Carried:
    """Tensors that depend on the weights and are computed once, for use by functions that are evaluated later.

    Attributes:
        first: the values; with central differences those one step ahead.
        second: their tangents; with central differences the values one step behind.
    """

    first: Tensors
    second: Tensors


@dataclass(frozen=True)
class Derivative(ABC):
    """Evaluates functions at a state of the weights.

    Attributes:
        network: the model, in evaluation mode; its own weights are left as they are, and not used.
        state: all parameters and buffers by their names.
        direction: where to.
    """

    network: nn.Module
    state: Mapping[str, torch.Tensor]
    direction: Direction

    @abstractmethod
    def evaluate(
        self, function: Callable[[Tensors], Tensors], carried: Carried | None = None
    ) -> tuple[Tensors, Tensors]:
        """Evaluates a function that calls the network.

        Args:
            function: from what was carried to tensors; while it runs, the network has the state's weights.
            carried: what an earlier `carry` gave.

        Returns:
            The values, and their slopes: derivatives along the direction v, per unit of e in weights + e v.
        """

    @abstractmethod
    def carry(self, function: Callable[[Tensors], Tensors]) -> Carried:
        """Evaluates a function for later use.

        Args:
            function: it gets no tensors.

        Returns:
            What `evaluate` takes.
        """

    @abstractmethod
    def values(self, carried: Carried) -> Tensors:
        """What was carried, as it is at the weights themselves."""


class ForwardMode(Derivative):
    """Exact: weights are dual numbers w + e v, and everything computed with them carries its derivative along."""

    def evaluate(
        self, function: Callable[[Tensors], Tensors], carried: Carried | None = None
    ) -> tuple[Tensors, Tensors]:
        """One forward pass with tangents; as `Derivative.evaluate`."""
        with torch.no_grad(), _level, Rules():
            parts = [*zip(carried.first, carried.second, strict=True)] if carried else []
            before = tuple(join(value, tangent) for value, tangent in parts)
            weights = dict(self.state)
            for name, tangent in self.direction.tensors.items():
                weights[name] = join(at_least_single(weights[name]), tangent)
            found = [split(one) for one in _call(self.network, weights, function, before)]
            values = tuple(value for value, _ in found)
            slopes = tuple(torch.zeros_like(value) if slope is None else slope for value, slope in found)
            return values, slopes

    def carry(self, function: Callable[[Tensors], Tensors]) -> Carried:
        """Values and tangents; as `Derivative.carry`."""
        return Carried(*self.evaluate(function))

    def values(self, carried: Carried) -> Tensors:
        """The values; as `Derivative.values`."""
        return carried.first


class CentralDifference(Derivative):
    """Approximate, by two plain forward passes, for models with operations that have no forward derivative.

    The values are the mean of the two. In float32 only: bfloat16 would round so small a step away. Both sets of weights
    are kept.
    """

    def evaluate(
        self, function: Callable[[Tensors], Tensors], carried: Carried | None = None
    ) -> tuple[Tensors, Tensors]:
        """Two forward passes; as `Derivative.evaluate`."""
        ahead = self._at(self._ahead, function, carried.first if carried else ())
        behind = self._at(self._behind, function, carried.second if carried else ())
        values = tuple((one + other) / 2 for one, other in zip(ahead, behind, strict=True))
        slopes = tuple((one - other) / (2 * self._step) for one, other in zip(ahead, behind, strict=True))
        return values, slopes

    def carry(self, function: Callable[[Tensors], Tensors]) -> Carried:
        """Values one step ahead and one step behind; as `Derivative.carry`."""
        return Carried(self._at(self._ahead, function, ()), self._at(self._behind, function, ()))

    def values(self, carried: Carried) -> Tensors:
        """The mean of both; as `Derivative.values`."""
        return tuple((one + other) / 2 for one, other in zip(carried.first, carried.second, strict=True))

    @functools.cached_property
    def _step(self) -> float:
        squares = sum(float(self.state[name].double().square().sum()) for name in self.direction.tensors)
        return RELATIVE_STEP * (math.sqrt(squares) or 1.0) / self.direction.length

    @functools.cached_property
    def _ahead(self) -> Mapping[str, torch.Tensor]:
        return self._moved(self._step)

    @functools.cached_property
    def _behind(self) -> Mapping[str, torch.Tensor]:
        return self._moved(-self._step)

    def _moved(self, step: float) -> Mapping[str, torch.Tensor]:
        moved = {name: at_least_single(self.state[name]) + step * part for name, part in self.direction.tensors.items()}
        return {**self.state, **moved}

    def _at(
        self, weights: Mapping[str, torch.Tensor], function: Callable[[Tensors], Tensors], carried: Tensors
    ) -> Tensors:
        device = next(iter(self.direction.tensors.values())).device.type
        if torch.is_autocast_enabled(device):
            raise ValueError("central differences need float32: leave autocast, or use forward derivatives")
        with torch.no_grad():
            return _call(self.network, weights, function, carried)


def differentiate(
    method: Method, network: nn.Module, state: Mapping[str, torch.Tensor], direction: Direction
) -> Derivative:
    """The derivative by the name of its method.

    Args:
        method: forward or central.
        network: as in `Derivative`.
        state: as in `Derivative`.
        direction: as in `Derivative`.

    Returns:
        The derivative.
    """
    kinds: dict[str, type[Derivative]] = {"forward": ForwardMode, "central": CentralDifference}
    return kinds[method](network, state, direction)


def gradient_length(
    network: nn.Module,
    state: Mapping[str, torch.Tensor],
    names: Sequence[str],
    function: Callable[[], torch.Tensor],
) -> torch.Tensor:
    """The length of the gradient of one sample's loss over some parameters: a forward and a backward pass.

    Args:
        network: the model, in evaluation mode.
        state: all parameters and buffers by their names.
        names: of the parameters.
        function: from nothing to the loss, a tensor of one number, that calls the network.

    Returns:
        () float32.
    """
    weights = dict(state)
    chosen = [at_least_single(state[name].detach()).requires_grad_() for name in names]
    weights.update(zip(names, chosen, strict=True))
    with torch.enable_grad():
        loss = _call(network, weights, lambda _: (function(),), ())[0]
        gradients = torch.autograd.grad(loss.sum(), chosen, allow_unused=True)
    total = sum(
        (one.double().square().sum() for one in gradients if one is not None), loss.new_zeros((), dtype=torch.float64)
    )
    return torch.as_tensor(total).sqrt().float()


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Puts a network into evaluation mode, and every module back to what it was afterwards."""
    before = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


class _Called(nn.Module):
    """Lets `functional_call` change the weights of a network while any function runs that calls it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, function: Callable[[Tensors], Tensors], carried: Tensors) -> Tensors:
        return function(carried)


def _call(
    network: nn.Module, weights: Mapping[str, torch.Tensor], function: Callable[[Tensors], Tensors], carried: Tensors
) -> Tensors:
    named = {f"network.{name}": tensor for name, tensor in weights.items()}
    found: Tensors = torch.func.functional_call(_Called(network), named, (function, carried))
    return found


class _Level:
    """Torch has one level of forward derivatives for all threads: the first that needs it opens it, the last closes it.

    Tangents belong to tensors, so that threads do not meet in it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                forward_mode.enter_dual_level()  # type: ignore[no-untyped-call]
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                forward_mode.exit_dual_level(level=0)  # type: ignore[no-untyped-call]


_level = _Level()
