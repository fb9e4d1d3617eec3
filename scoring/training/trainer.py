"""Trains a model: the loop, one step at a time, so that whoever runs it can report, evaluate and keep what there is."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from chaffinch.scoring.clips.from_open_clip import OpenClipModel
from chaffinch.scoring.training.building import describe
from chaffinch.scoring.training.classifier import Classification, Probe
from chaffinch.scoring.training.contrastive import Contrastive
from chaffinch.scoring.training.recipe import ClassifierRecipe, Recipe
from chaffinch.scoring.training.reweighting import Reweighter, Weighed
from chaffinch.scoring.training.samples import Loaded, Samples, Wanted
from chaffinch.scoring.training.task import Task, TrainingError
from chaffinch.scoring.training.visit_log import VisitLog
from chaffinch.scoring.training.visits import Visits


@dataclass(frozen=True)
class Weighing:
    """What weighing a batch came to.

    Attributes:
        distance: |v|, between the weights and the reference's before the step.
        effective: 1 / sum of squared weights: how many samples counted, from 1 to the size of the batch.
        mimic_score: mean over the batch; higher is better. None where no score is a number.
    """

    distance: float
    effective: float
    mimic_score: float | None


@dataclass(frozen=True)
class Step:
    """What one step came to; the same on every run.

    Attributes:
        step: its number, from 1.
        samples: how many were seen so far, those that could not be read included.
        loss: of this batch, before the step, each sample counted alike; lower is better, and about the logarithm of the
            batch size, or of the number of classes, where nothing is learnt yet. None where too few samples of the
            batch could be read, for pairs less than two: then nothing was learnt.
        learning_rate: of this step.
        logit_scale: what similarities are multiplied with, after the step; None of classifiers.
        gradient: length of the gradient over all weights, before it was clipped; None where nothing was learnt.
        unusable: how many different samples could not be read so far.
        weighing: of a re-weighted step; None of others.
    """

    step: int
    samples: int
    loss: float | None
    learning_rate: float
    logit_scale: float | None
    gradient: float | None
    unusable: int
    weighing: Weighing | None = None


class Trainer:
    """One training: what has been learnt so far, and how to learn on.

    The weights after a step follow from recipe and samples alone, whether or not the training was stopped and resumed
    in between: to the bit on a cpu with the same number of threads. On cuda sums may be taken in another order.

    Attributes:
        task: the model and what it learns.
        steps: how many steps there are in all.
        step: how many were made.
        unusable: sample -> why it could not be read.
        log: what every visit said, if the recipe asks for it.
    """

    def __init__(self, recipe: Recipe, samples: Samples, device: str, threads: int) -> None:
        """Builds model and optimiser.

        Args:
            recipe: how to train.
            samples: what to train on; at least two.
            device: "cpu" or "cuda".
            threads: how many samples to read at a time.

        Raises:
            ValueError: the model cannot be built; SettingError, which is one, where another setting is at fault.
        """
        if len(samples) < 2:
            raise TrainingError(f"{len(samples)} samples are too few: a sample is learnt by telling it from others")
        self._recipe = recipe
        self._samples = samples
        self._threads = threads
        self._visits = Visits(len(samples), recipe.seed)
        self._batch = recipe.batch(len(samples))
        self.task = _task(recipe, device)
        self.steps = recipe.steps(len(samples))
        self.step = 0
        self.unusable: dict[int, str] = {}
        self._optimizer = torch.optim.AdamW(
            _groups(self.task.network, recipe.weight_decay), lr=0.0, betas=recipe.betas, eps=recipe.epsilon
        )
        self._reweighter: Reweighter | None = None
        self.log: VisitLog | None = None
        if recipe.reweight is not None:
            self._reweighter = Reweighter(recipe.reweight, self.task)
            if recipe.reweight.log:
                columns = [*self._reweighter.columns, "weight", "loss"]
                self.log = VisitLog(columns, len(samples), self.steps * self._batch)

    @property
    def model(self) -> OpenClipModel:
        """The CLIP that is trained, or whose tower is."""
        return self.task.model

    @property
    def samples_seen(self) -> int:
        """How many samples were seen so far, each visit counted."""
        return self.step * self._batch

    def run(self) -> Iterator[Step]:
        """Trains to the end.

        Yields:
            After every step, what it came to; `state` and `model` may be looked at before the next.

        Raises:
            TrainingError: the loss or the gradient is no number, or none of the samples can be read.
        """
        batches = (self._wanted(step) for step in range(self.step, self.steps))
        for loaded in self.task.read(self._samples, batches, self._visits, self._threads):
            yield self._learn(loaded)

    def state(self) -> dict[str, Any]:
        """All that changes while training, for `checkpoints.save_state`; holds the weights, which go on changing."""
        return {
            "step": self.step,
            "unusable": dict(self.unusable),
            "network": self.task.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Goes on from a state of a training with the same recipe and samples.

        Args:
            state: what `state` gave.
        """
        self.step = int(state["step"])
        self.unusable = dict(state["unusable"])
        self.task.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])

    def description(self) -> dict[str, bytes]:
        """As `describe`, of `model`."""
        return describe(self._recipe.model, self.model.network)

    def _wanted(self, step: int) -> list[Wanted]:
        visits = range(step * self._batch, (step + 1) * self._batch)
        return [Wanted(self._visits.sample(visit), visit) for visit in visits]

    def _learn(self, loaded: Loaded) -> Step:
        self.unusable |= loaded.unusable
        if len(self.unusable) == len(self._samples):
            raise TrainingError(f"none of the {len(self._samples)} samples can be read: {self.unusable[0]}")
        rate = self._recipe.rate(self.step, self.steps)
        learnt: tuple[float | None, float | None, Weighing | None] = None, None, None
        if len(loaded.pictures) >= self.task.least:
            learnt = self._update(loaded, rate)
        self.step += 1
        loss, gradient, weighing = learnt
        scale = self.task.logit_scale
        return Step(self.step, self.samples_seen, loss, rate, scale, gradient, len(self.unusable), weighing)

    def _update(self, loaded: Loaded, rate: float) -> tuple[float, float, Weighing | None]:
        """One step of the optimiser; the loss before it, the length of the gradient, and how the batch was weighed."""
        # Layers that drop something at random get the same chance on every run, wherever the run began.
        torch.manual_seed(self._recipe.seed * 1_000_003 + self.step)
        weighing = None
        with self.task.model.arithmetic():
            batch = self.task.batch(loaded)
            if self._reweighter is None:
                losses = self.task.losses(batch)
                weights = torch.full_like(losses, 1 / len(losses))
            else:
                weighed = self._reweighter.weigh(batch)
                losses, weights, weighing = weighed.losses, weighed.weights, self._note(loaded, weighed)
            objective = (weights * losses).sum()
        self._optimizer.zero_grad()
        torch.autograd.backward(objective)
        limit = math.inf if self._recipe.gradient_clip is None else self._recipe.gradient_clip
        gradient = torch.nn.utils.clip_grad_norm_(self.task.network.parameters(), limit)
        values = losses.mean().item(), gradient.item()
        if not all(map(math.isfinite, values)):
            raise TrainingError(
                f"the {'gradient' if math.isfinite(values[0]) else 'loss'} of step {self.step + 1} is not a number: "
                f"lower learning_rate ({self._recipe.learning_rate:g}), lengthen warmup ({self._recipe.warmup:g}) or "
                f"set gradient_clip (1.0 is usual); the weights before this step are sound"
            )
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self.task.after_step()
        return *values, weighing

    def _note(self, loaded: Loaded, weighed: Weighed) -> Weighing:
        """Keeps what a batch's visits said, and sums it up."""
        scores = weighed.scores["mimic_score"]
        if self.log is not None:
            relative = weighed.weights * len(weighed.weights)
            columns = {**weighed.scores, "weight": relative, "loss": weighed.losses.detach()}
            self.log.note(
                [wanted.index for wanted in loaded.wanted],
                [wanted.visit for wanted in loaded.wanted],
                {name: values.float().cpu().numpy() for name, values in columns.items()},
            )
        known = scores[torch.isfinite(scores)]
        mean = float(known.mean()) if len(known) else None
        return Weighing(weighed.distance, 1 / float(weighed.weights.square().sum()), mean)


def _task(recipe: Recipe, device: str) -> Task:
    if not isinstance(recipe, ClassifierRecipe):
        return Contrastive(recipe, device)
    return Probe(recipe, device) if recipe.freeze else Classification(recipe, device)


def _groups(network: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The weights that decay, and those that do not: biases, gains and scales, which hold no directions to forget."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    return [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": weight_decay},
        {"params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0},
    ]
