"""The way from current weights to a reference's: its parameters, its length, and whether it makes sense at all."""

import difflib
import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

LEAST_COSINE = 0.1
"""Between the matrices of two models of one lineage. Those of unrelated ones are all but orthogonal: of p random
numbers the cosine is about 1 / sqrt(p), and training to the same end does not bring them nearer. Measured with
chaffinch-tiny, p = 2.0 million, trained on 600 rendered scenes: .001 between any two seeds, before training, after one
epoch and after six; between the first weights and six epochs of the same seed .995, six epochs on other scenes .991,
fine-tuned from it .999, and .88 after the long training of the demo's matcher. So the least lies far from both, on the
side of what is related: the longest trainings of all, with weight decay, leave little of their first weights."""

_STATISTICS = nn.modules.batchnorm._NormBase


@dataclass(frozen=True)
class Direction:
    """v = reference - current weights, restricted to chosen parameters.

    Attributes:
        tensors: name of a parameter -> its part of v, float32 or float64. Of tensors that are tied one name alone.
        length: |v| over all of them, more than 0.
    """

    tensors: Mapping[str, torch.Tensor]
    length: float


def find_direction(
    network: nn.Module,
    current: Mapping[str, torch.Tensor],
    reference: Mapping[str, torch.Tensor],
    layers: Sequence[str] = ("*",),
) -> Direction:
    """Takes current weights from a reference's.

    Args:
        network: the model that both belong to; it says what is a parameter, and what is tied.
        current: what `own_state` gave for the current weights.
        reference: what `own_state` gave for the reference.
        layers: names of parameters or of modules, or patterns of them with * and ?; all that match count.

    Returns:
        The direction, on the device of the current weights.

    Raises:
        ValueError: a weight is no finite number; no parameter matches a pattern; the two are equal where it counts.
    """
    names = choose_parameters(network, layers)
    _check_numbers(network, current, "current model")
    _check_numbers(network, reference, "reference")
    tensors: dict[str, torch.Tensor] = {}
    squares = 0.0
    for name in names:
        here = at_least_single(current[name].detach())
        tensors[name] = reference[name].detach().to(here) - here
        squares += float(tensors[name].double().square().sum())
    if squares == 0:
        every = tuple(layers) == ("*",)
        where = "" if every else f" in layers {', '.join(layers)}"
        remedy = "of weights that were trained for longer, or on cleaner pairs" + ("" if every else ", or other layers")
        raise ValueError(f"reference and current model have the same weights{where}: name a reference {remedy}")
    return Direction(tensors, math.sqrt(squares))


def at_least_single(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in float32, or as it is where it is float64."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def own_state(network: nn.Module, state: Mapping[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """The tensors that a network runs on: parameters and buffers, of tied ones the first.

    Args:
        network: the model; its device is taken.
        state: a state_dict of it; its own by default.

    Returns:
        Name -> tensor, not copied where it need not be.

    Raises:
        ValueError: the state is one of another architecture; the message names the first tensor that differs.
    """
    kept = network.state_dict()  # buffers that are made anew wherever a model is built are not among them
    own = [(name, tensor) for name, tensor in (*network.named_parameters(), *network.named_buffers()) if name in kept]
    if state is None:
        return {name: tensor.detach() for name, tensor in own}
    check_same_tensors(kept, state)
    return {name: state[name].detach().to(tensor.device) for name, tensor in own}


def choose_parameters(network: nn.Module, layers: Sequence[str]) -> list[str]:
    """The names of the parameters that patterns choose, in the network's order; tied ones once.

    Args:
        network: the model.
        layers: as for `find_direction`.

    Returns:
        At least one name.

    Raises:
        ValueError: a pattern matches no parameter.
    """
    names = [name for name, _ in network.named_parameters()]
    first = {id(parameter): name for name, parameter in network.named_parameters()}
    aliases = {name: first[id(parameter)] for name, parameter in network.named_parameters(remove_duplicate=False)}
    chosen: set[str] = set()
    for pattern in layers:
        found = [name for name in aliases if _matches(name, pattern)]
        if not found:
            near = difflib.get_close_matches(pattern, sorted({*aliases, *_modules(aliases)}), n=3, cutoff=0.4)
            known = near or [names[0], names[-1]]
            raise ValueError(f"layers: no parameter matches {pattern!r}; there are such as {', '.join(known)}")
        chosen.update(aliases[name] for name in found)
    if not chosen:
        raise ValueError("layers is empty: name some, or leave it out to take all")
    return [name for name in names if name in chosen]


def check_same_tensors(current: Mapping[str, torch.Tensor], reference: Mapping[str, torch.Tensor]) -> None:
    """Refuses states of different architectures with a ValueError that names the first tensor that differs."""
    remedy = "both have to be checkpoints of one architecture"
    for name, tensor in current.items():
        if name not in reference:
            raise ValueError(f"the reference has no {name}: {remedy}")
        if tensor.shape != reference[name].shape:
            shapes = f"{list(tensor.shape)} in the current model and {list(reference[name].shape)} in the reference"
            raise ValueError(f"{name} has the shape {shapes}: {remedy}")
    for name in reference:
        if name not in current:
            raise ValueError(f"the current model has no {name}: {remedy}")


def check_lineage(
    network: nn.Module, current: Mapping[str, torch.Tensor], reference: Mapping[str, torch.Tensor]
) -> None:
    """Refuses pairs of which neither can have come from the other.

    Between unrelated models the way leads through weights that make sense to neither, and mimic scores along it are
    worse than chance. Running statistics of batch normalisation may differ, for each model is run with its own.

    Args:
        network: the model that both belong to.
        current: what `own_state` gave for the current weights.
        reference: what `own_state` gave for the reference.

    Raises:
        ValueError: buffers differ that training does not change; or the matrices are all but orthogonal.
    """
    running = {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in network.named_modules()
        if isinstance(module, _STATISTICS)
        for name, _ in module.named_buffers(recurse=False)
    }
    remedy = "take one that was trained from the current model's own first weights, or from which it was fine-tuned"
    for name in dict(network.named_buffers()):
        if name in current and name not in running and not torch.equal(current[name], reference[name]):
            raise ValueError(f"reference and current model differ in {name}, which training does not change: {remedy}")
    product = squares = others = 0.0
    for name, parameter in network.named_parameters():
        if parameter.ndim < 2:
            continue
        here, there = current[name].detach().double(), reference[name].detach().double()
        product += float((here * there).sum())
        squares += float(here.square().sum())
        others += float(there.square().sum())
    cosine = product / math.sqrt(squares * others) if squares and others else 1.0
    if cosine < LEAST_COSINE:
        raise ValueError(
            f"reference and current model are strangers: the cosine between their weights is {cosine:.3f}; {remedy}, "
            "not so long ago that nothing is left of them"
        )


def _check_numbers(network: nn.Module, state: Mapping[str, torch.Tensor], whose: str) -> None:
    """Refuses weights that would make every score NaN, in chosen layers or not; buffers may hold infinite masks."""
    weights = {name for name, _ in network.named_parameters()}
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all() if name in weights else not torch.isnan(tensor).any()):
            raise ValueError(f"the {whose} has weights that are no finite numbers, in {name}: take another checkpoint")


def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"{pattern}.*")


def _modules(names: Mapping[str, str]) -> set[str]:
    """All prefixes of names of parameters."""
    return {".".join(parts[:end]) for parts in (name.split(".") for name in names) for end in range(1, len(parts))}
