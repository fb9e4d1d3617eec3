"""Who learns CIFAR-10N: a linear probe over frozen features, or a small network; plain or re-weighted."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

import numpy as np
import torch
from cifar10n_data import CLASSES
from torch import nn
from torch.func import functional_call, grad, vmap

from chaffinch.scoring.alignment.linear import align_head
from chaffinch.scoring.alignment.scores import mimic_cosine, sample_weights
from chaffinch.scoring.head_weights import Layer
from chaffinch.scoring.mimic import mimic_scores

Source = Literal["mimic_score", "mimic_cosine", "reference_loss", "excess_loss"]
State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Recipe:
    """How a learner is trained.

    Attributes:
        rate: AdamW's learning rate.
        decay: AdamW's weight decay.
        batch: samples per step.
        epochs: how often the whole pool is seen; fewer samples are seen more often, in as many steps.
        checks: how often in each epoch test accuracy is taken.
    """

    rate: float
    decay: float
    batch: int
    epochs: int
    checks: int


@dataclass(frozen=True)
class Data:
    """Inputs and classes.

    Attributes:
        inputs: (n, ...) float32.
        labels: (n,) int64.
    """

    inputs: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray | torch.Tensor) -> "Data":
        """Some of them."""
        return Data(self.inputs[rows], self.labels[rows])


class Learner(Protocol):
    """A model with its recipe, and how its samples are aligned."""

    name: ClassVar[str]
    recipe: Recipe

    def build(self, inputs: torch.Tensor) -> nn.Module:
        """A model for such inputs, with random first weights; all of torch's generator."""

    def align(self, model: nn.Module, reference: State, data: Data) -> torch.Tensor:
        """(n,) mimic scores."""

    def cosines(self, model: nn.Module, reference: State, data: Data) -> torch.Tensor:
        """(n,) cosines of each sample's step and the way to the reference."""


@dataclass(frozen=True)
class Probe:
    """A linear layer over frozen features, aligned in closed form."""

    name: ClassVar[str] = "probe"

    recipe: Recipe = field(default=Recipe(rate=1e-4, decay=1e-5, batch=32, epochs=10, checks=6))

    def build(self, inputs: torch.Tensor) -> nn.Module:
        """As `Learner.build`."""
        return nn.Linear(inputs.shape[1], len(CLASSES))

    def align(self, model: nn.Module, reference: State, data: Data) -> torch.Tensor:
        """As `Learner.align`."""
        found = align_head(data.inputs.numpy(), data.labels.numpy(), _layer(model.state_dict()), _layer(reference))
        return torch.from_numpy(found.mimic_score)

    def cosines(self, model: nn.Module, reference: State, data: Data) -> torch.Tensor:
        """As `Learner.cosines`."""
        found = align_head(data.inputs.numpy(), data.labels.numpy(), _layer(model.state_dict()), _layer(reference))
        return torch.from_numpy(found.mimic_cosine)


@dataclass(frozen=True)
class Network:
    """Four convolutions of 32 to 256 channels, 391,466 weights in all, aligned by forward mode over all of them.

    It normalises by groups of channels: no statistics of a batch, which would have to travel with their weights.
    """

    name: ClassVar[str] = "network"

    recipe: Recipe = field(default=Recipe(rate=1e-3, decay=1e-5, batch=64, epochs=10, checks=2))

    def build(self, inputs: torch.Tensor) -> nn.Module:
        """As `Learner.build`."""
        layers: list[nn.Module] = []
        before = inputs.shape[1]
        for channels, stride in ((32, 2), (64, 1), (128, 2), (256, 2)):
            layers += [
                nn.Conv2d(before, channels, 3, stride=stride, padding=1, bias=False),
                nn.GroupNorm(8, channels),
                nn.ReLU(),
            ]
            before = channels
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, len(CLASSES)))

    def align(self, model: nn.Module, reference: State, data: Data) -> torch.Tensor:
        """As `Learner.align`."""
        return mimic_scores(model, reference, lambda model, data: _losses(model(data.inputs), data.labels), data)

    def cosines(self, model: nn.Module, reference: State, data: Data) -> torch.Tensor:
        """As `Learner.cosines`; a gradient for every sample."""
        weights = {name: one.detach() for name, one in model.named_parameters()}

        def loss(weights: State, picture: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            return _losses(functional_call(model, dict(weights), (picture[None],)), label[None])[0]

        gradients = vmap(grad(loss), (None, 0, 0))(weights, data.inputs, data.labels)
        squares = sum(one.flatten(1).square().sum(dim=1) for one in gradients.values())
        return mimic_cosine(self.align(model, reference, data), torch.as_tensor(squares).sqrt())


@dataclass(frozen=True)
class Run:
    """A training.

    Attributes:
        curve: (step, test accuracy), from step 0 on.
        states: epoch -> weights after it; 0 for the first weights.
        effective: how many samples of a batch its weights amount to, 1 / sum of squares, mean over the steps.
    """

    curve: list[tuple[int, float]]
    states: dict[int, State]
    effective: float


@dataclass(frozen=True)
class Weigh:
    """What weighs a batch.

    Attributes:
        source: what is looked at; the reference's loss counts with a minus.
        temperature: of the softmax.
        standardise: whether within the batch first.
    """

    source: Source
    temperature: float
    standardise: bool


@dataclass(frozen=True)
class Weigher:
    """Weighs a batch by what a reference makes of it.

    Attributes:
        how: by what.
        learner: aligns.
        reference: its weights.
        losses: (n,) its losses for all samples of the pool.
    """

    how: Weigh
    learner: Learner
    reference: State
    losses: torch.Tensor

    def __call__(self, model: nn.Module, data: Data, rows: torch.Tensor) -> torch.Tensor:
        """(b,) weights of the rows of the pool, of sum 1."""
        batch = data.take(rows)
        if self.how.source == "mimic_score":
            scores = self.learner.align(model, self.reference, batch)
        elif self.how.source == "mimic_cosine":
            scores = self.learner.cosines(model, self.reference, batch)
        else:
            scores = -self.losses[rows]
            if self.how.source == "excess_loss":
                scores = scores + losses_of(model, batch)
        return sample_weights(scores, self.how.temperature, self.how.standardise)


def train(
    learner: Learner,
    data: Data,
    seed: int,
    test: Data | None = None,
    rows: np.ndarray | None = None,
    weigh: Callable[[nn.Module, Data, torch.Tensor], torch.Tensor] | None = None,
    keep: Sequence[int] = (),
    steps: int | None = None,
) -> Run:
    """Trains a model from its first weights; with equal seed and rows, equal weights and batches to begin with.

    Args:
        learner: what to train, and how.
        data: n samples.
        seed: of first weights and order.
        test: to take accuracy on.
        rows: which samples to train on; all by default.
        weigh: (model, data, rows) -> (b,) weights of sum 1; equal ones by default.
        keep: after which epochs to keep the weights; the last ones are always kept.
        steps: how many; by default as many as the recipe's epochs over n samples have.

    Returns:
        What came of it.
    """
    recipe = learner.recipe
    rows = np.arange(len(data)) if rows is None else rows
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = learner.build(data.inputs)
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    epoch = len(data) // recipe.batch
    steps = steps or epoch * recipe.epochs
    checked = {round(number * epoch / recipe.checks) for number in range(recipe.epochs * recipe.checks + 1)} | {steps}
    curve: list[tuple[int, float]] = []
    states: dict[int, State] = {}
    effective = 0.0

    def look(step: int) -> None:
        if test is not None and step in checked:
            curve.append((step, accuracy_of(model, test)))
        if (step % epoch == 0 and step // epoch in keep) or step == steps:
            states[step // epoch] = {name: one.detach().clone() for name, one in model.state_dict().items()}

    look(0)
    for step, chosen in zip(range(1, steps + 1), _batches(rows, recipe.batch, seed), strict=False):
        batch = data.take(chosen)
        weights = weigh(model, data, chosen) if weigh else torch.full((len(chosen),), 1 / len(chosen))
        effective += 1 / float(weights.square().sum())
        optimiser.zero_grad()
        (weights * _losses(model(batch.inputs), batch.labels)).sum().backward()
        optimiser.step()
        look(step)
    return Run(curve, states, effective / steps)


def restore(learner: Learner, data: Data, state: State) -> nn.Module:
    """A model with given weights."""
    model = learner.build(data.inputs)
    model.load_state_dict(dict(state))
    return model


def in_parts(function: Callable[[Data], torch.Tensor], data: Data, size: int = 500) -> torch.Tensor:
    """(n,) of a function of samples that do not depend on one another, a part at a time."""
    starts = range(0, len(data), size)
    return torch.cat([function(data.take(torch.arange(at, min(at + size, len(data))))) for at in starts])


def losses_of(model: nn.Module, data: Data) -> torch.Tensor:
    """(n,) cross-entropies, nats."""
    with torch.no_grad():
        return in_parts(lambda part: _losses(model(part.inputs), part.labels), data)


def agrees(model: nn.Module, data: Data) -> torch.Tensor:
    """(n,) whether the model's class is the label."""
    with torch.no_grad():
        return in_parts(lambda part: model(part.inputs).argmax(dim=1) == part.labels, data)


def accuracy_of(model: nn.Module, data: Data) -> float:
    """The share of samples whose class a model gets right."""
    return float(agrees(model, data).double().mean())


def _batches(rows: np.ndarray, size: int, seed: int) -> Iterator[torch.Tensor]:
    """Full batches of shuffled rows, without end; what is left of a shuffle is let go."""
    if len(rows) < size:
        raise ValueError(f"{len(rows)} samples do not fill a batch of {size}")
    rng = np.random.default_rng(seed)
    while True:
        order = torch.from_numpy(rng.permutation(rows))
        yield from order[: len(order) // size * size].split(size)


def _losses(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(outputs, labels, reduction="none")


def _layer(state: State) -> Layer:
    return state["weight"].double().numpy(), state["bias"].double().numpy()
