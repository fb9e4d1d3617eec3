"""Weighs the samples of a batch by how far learning each would carry the network toward a reference."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from chaffinch.scoring.alignment.derivatives import ForwardMode, evaluation_mode
from chaffinch.scoring.alignment.direction import Direction, check_lineage, find_direction, own_state
from chaffinch.scoring.alignment.hooks import LayerError, align_layer
from chaffinch.scoring.alignment.scores import mimic_cosine, mimic_score, sample_weights
from chaffinch.scoring.training.one_pass import values_and_slopes
from chaffinch.scoring.training.recipe import Reweighting
from chaffinch.scoring.training.task import SettingError, Task, TrainingError


@dataclass(frozen=True)
class Weighed:
    """A batch, weighed.

    Attributes:
        losses: (n,) of the network in training mode, with their graph.
        weights: (n,) of sum 1, without one.
        scores: column -> (n,), NaN where there is no way: mimic_score, and mimic_cosine where cosines are what counts.
        distance: |v|, what is left of the way to the reference.
    """

    losses: torch.Tensor
    weights: torch.Tensor
    scores: Mapping[str, torch.Tensor]
    distance: float


class Reweighter:
    """Weighs batches at a network's weights as they are at the moment.

    Scores are taken in evaluation mode. Where a network computes the same in training mode, for want of dropout and of
    batch normalisation, one forward pass can serve both scores and update. It does for few layers. Over most of them it
    would keep the derivatives of all activations until the update, which takes twice the memory and, for that, longer
    than a pass of its own, where each is dropped as soon as the next layer has it.
    """

    def __init__(self, settings: Reweighting, task: Task) -> None:
        """Loads the reference, whose weights and their difference to the network's are held beside the network.

        Args:
            settings: how to weigh.
            task: its network has its first weights.

        Raises:
            SettingError: the reference cannot be had, does not fit the network or is equal to it; no parameter is
                chosen.
        """
        self._settings, self._task, self._network = settings, task, task.network
        state = own_state(self._network)
        try:
            target = own_state(self._network, task.reference(settings.reference))
        except ValueError as error:
            raise SettingError("reweight.reference", str(error)) from error
        try:
            names = list(find_direction(self._network, state, target, settings.layers).tensors)
            check_lineage(self._network, state, target)
        except ValueError as error:
            setting = "layers" if str(error).startswith("layers") else "reference"
            raise SettingError(f"reweight.{setting}", str(error).removeprefix("layers: ")) from error
        self._target = {name: target[name].float() for name in names}
        self._layer = _only_linear(self._network, names) if task.separable else None
        sizes = {name: parameter.numel() for name, parameter in self._network.named_parameters()}
        few = 2 * sum(sizes[name] for name in names) < sum(sizes.values())
        self._may_share = few or settings.scores == "cosine"  # which takes no derivatives forward
        self._one_pass: bool | None = None

    @property
    def columns(self) -> Sequence[str]:
        """The names of the scores that are taken."""
        return ("mimic_score", "mimic_cosine") if self._settings.scores == "cosine" else ("mimic_score",)

    def weigh(self, batch: Any) -> Weighed:
        """Takes scores and weights of a batch, and the losses to be weighed.

        Args:
            batch: what the task's `batch` gave; the model's arithmetic is set by the caller.

        Returns:
            Losses, weights and scores.

        Raises:
            TrainingError: the network has an operation without a forward derivative.
        """
        if self._one_pass is None:
            self._one_pass = self._may_share and _one_mode(self._task, batch)
        direction = self._direction()
        if direction is None:
            losses = self._task.losses(batch)
            unknown = torch.full_like(losses.detach(), math.nan)
            scores = dict.fromkeys(self.columns, unknown)
        else:
            try:
                losses, scores = self._score(batch, direction)
            except (NotImplementedError, RuntimeError) as error:
                if not re.search("forward (mode )?AD", str(error)):
                    raise
                raise TrainingError(
                    f"reweight: the model has an operation without a forward derivative: choose `layers` behind it "
                    f"({str(error).splitlines()[0][:200]})"
                ) from error
        standardise = self._settings.scores != "raw"
        weights = sample_weights(scores[self.columns[-1]], self._settings.temperature, standardise)
        return Weighed(losses, weights, scores, 0.0 if direction is None else direction.length)

    def _direction(self) -> Direction | None:
        """The way from the weights as they are; None where it has no length."""
        parameters = dict(self._network.named_parameters())
        parts = {name: there - parameters[name].detach().float() for name, there in self._target.items()}
        lengths = [float(torch.linalg.vector_norm(part, dtype=torch.float64)) for part in parts.values()]
        length = math.hypot(*lengths)
        return Direction(parts, length) if length > 0 else None

    def _score(self, batch: Any, direction: Direction) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Losses in training mode with their graph, and scores."""
        if self._one_pass:
            return self._measure(batch, direction)
        with evaluation_mode(self._network):
            if self._settings.scores == "cosine":
                scores = self._measure(batch, direction)[1]
            else:  # without a graph, which nobody would use
                derivative = ForwardMode(self._network, own_state(self._network), direction)
                _, (slopes,) = derivative.evaluate(lambda _: (self._task.losses(batch),))
                scores = {"mimic_score": mimic_score(slopes, direction.length)}
        return self._task.losses(batch), scores

    def _measure(self, batch: Any, direction: Direction) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Losses with their graph, and scores, in the mode that the network is in."""
        if self._settings.scores != "cosine":
            losses, slopes = values_and_slopes(self._network, direction, lambda: self._task.losses(batch))
            return losses, {"mimic_score": mimic_score(slopes, direction.length)}
        losses, slopes, lengths = self._gradients(batch, direction)
        score = mimic_score(slopes, direction.length)
        return losses, {"mimic_score": score, "mimic_cosine": mimic_cosine(score, lengths)}

    def _gradients(self, batch: Any, direction: Direction) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Losses with their graph, <g, v> and |g| of each sample's gradient g."""
        if self._layer is not None:
            prefix, layer = self._layer
            weight, bias = (direction.tensors.get(f"{prefix}.{name}") for name in ("weight", "bias"))
            try:
                found = align_layer(layer, lambda: self._task.losses(batch), weight, bias)
            except LayerError:
                self._layer = None  # the loop below asks less of it
            else:
                return found.losses, found.slopes, found.lengths
        losses = self._task.losses(batch)
        parameters = dict(self._network.named_parameters())
        chosen = [parameters[name] for name in direction.tensors]
        slopes, squares = [], []
        for loss in losses:
            parts = torch.autograd.grad(loss, chosen, retain_graph=True, materialize_grads=True)
            ways = zip(parts, direction.tensors.values(), strict=True)
            slopes.append(torch.stack([(part * way).sum() for part, way in ways]).sum())
            squares.append(torch.stack([part.square().sum() for part in parts]).sum())
        return losses, torch.stack(slopes).float(), torch.stack(squares).sqrt().float()


def _one_mode(task: Task, batch: Any) -> bool:
    """Whether a network computes the same in training mode as in evaluation mode, tried out on a batch.

    It does unless it draws chance, or changes buffers such as running statistics. Neither is left changed.
    """
    device = task.model.device
    buffers = {name: buffer.clone() for name, buffer in task.network.named_buffers()}
    with torch.random.fork_rng([torch.cuda.current_device()] if device == "cuda" else []), torch.no_grad():
        before = _chance(device)
        task.losses(batch)
        drawn = not torch.equal(before, _chance(device))
    torch.clear_autocast_cache()  # weights that were cast without a graph would keep gradients from reaching their own
    changed = False
    for name, buffer in task.network.named_buffers():
        if not torch.equal(buffer, buffers[name]):
            changed = True
            buffer.copy_(buffers[name])
    return not drawn and not changed


def _chance(device: str) -> torch.Tensor:
    states = [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if device == "cuda" else [])]
    return torch.cat(states)


def _only_linear(network: nn.Module, names: Sequence[str]) -> tuple[str, nn.Linear] | None:
    """The linear layer that all chosen parameters belong to, if there is one and nobody else has them."""
    owners = Counter(id(parameter) for _, parameter in network.named_parameters(remove_duplicate=False))
    prefixes = {name.rpartition(".")[0] for name in names}
    prefix = prefixes.pop()
    if prefixes:
        return None
    layer = network.get_submodule(prefix)
    alone = all(owners[id(parameter)] == 1 for parameter in layer.parameters())
    return (prefix, layer) if isinstance(layer, nn.Linear) and alone else None
