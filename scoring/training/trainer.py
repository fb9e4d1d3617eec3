"""Trains a CLIP: the loop, one step at a time, so that whoever runs it can report, evaluate and keep what there is."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from chaffinch.scoring.clips.from_open_clip import OpenClipCheckpoint, OpenClipModel
from chaffinch.scoring.clips.model import Precision, resolve_precision
from chaffinch.scoring.training.architectures import Architecture, find_architecture, open_clip_name
from chaffinch.scoring.training.recipe import Recipe
from chaffinch.scoring.training.samples import Loaded, Samples, Wanted, read_ahead
from chaffinch.scoring.training.visits import Visits, augment

# open_clip's limit: a larger scale makes the loss follow single pairs.
_LARGEST_LOGIT_SCALE = math.log(100)


class TrainingError(Exception):
    """Training cannot go on; the message says at which step, why and what to do."""


@dataclass(frozen=True)
class Step:
    """What one step came to; the same on every run.

    Attributes:
        step: its number, from 1.
        samples: how many were seen so far, those that could not be read included.
        loss: of this batch, before the step; lower is better, and about the logarithm of the batch size where nothing
            is learnt yet. None where fewer than two samples of the batch could be read: then nothing was learnt.
        learning_rate: of this step.
        logit_scale: what similarities are multiplied with, after the step.
        gradient: length of the gradient over all weights, before it was clipped; None where nothing was learnt.
        unusable: how many different samples could not be read so far.
    """

    step: int
    samples: int
    loss: float | None
    learning_rate: float
    logit_scale: float
    gradient: float | None
    unusable: int


def build(model: str, pretrained: str | None, seed: int, device: str, precision: Precision) -> OpenClipModel:
    """Builds the network to train, in training mode, weights float32.

    Args:
        model: as in `Recipe`.
        pretrained: as in `Recipe`; without it weights are random.
        seed: of random weights.
        device: "cpu" or "cuda".
        precision: as in `Recipe`.

    Returns:
        The model, as the clip scorer holds it.

    Raises:
        ValueError: open_clip cannot build it; the weights cannot be had or belong to another architecture.
    """
    if pretrained is not None:
        loaded = OpenClipCheckpoint(model, pretrained).load("cpu", "float32")
        network, transform, tokenizer = loaded.network, loaded.evaluation, loaded.tokenizer
    else:
        import open_clip

        torch.manual_seed(seed)
        architecture, name = find_architecture(model), open_clip_name(model)
        try:
            if architecture is not None:
                network, transform, tokenizer = architecture.create()
            else:
                network, _, transform = open_clip.create_model_and_transforms(
                    name, precision="fp32", device="cpu", pretrained_text=False
                )
                tokenizer = open_clip.get_tokenizer(name)
        except Exception as error:  # descriptions may say anything, and fail wherever it is used
            reason = " ".join(str(error).split())[:400]
            raise ValueError(f"open_clip cannot build {model!r}: {reason}") from error
    # Convolutions are up to twice as fast where the colours of a pixel lie side by side; other layers do not care.
    network = network.train().to(device, memory_format=torch.channels_last)
    return OpenClipModel(network, device, resolve_precision(precision, device), transform, tokenizer)


class Trainer:
    """One training: what has been learnt so far, and how to learn on.

    The weights after a step follow from recipe and samples alone, whether or not the training was stopped and resumed
    in between: to the bit on a cpu with the same number of threads. On cuda sums may be taken in another order.

    Attributes:
        model: what is trained.
        steps: how many steps there are in all.
        step: how many were made.
        unusable: sample -> why it could not be read.
    """

    def __init__(self, recipe: Recipe, samples: Samples, device: str, threads: int) -> None:
        """Builds model and optimiser.

        Args:
            recipe: how to train.
            samples: what to train on; at least two.
            device: "cpu" or "cuda".
            threads: how many samples to read at a time.
        """
        from open_clip.loss import ClipLoss, SigLipLoss

        if len(samples) < 2:
            raise TrainingError(f"{len(samples)} samples are too few: a sample is learnt by telling it from others")
        self._recipe = recipe
        self._samples = samples
        self._threads = threads
        self._visits = Visits(len(samples), recipe.seed)
        self._batch = recipe.batch(len(samples))
        self.model = build(recipe.model, recipe.pretrained, recipe.seed, device, recipe.precision)
        self.steps = recipe.steps(len(samples))
        self.step = 0
        self.unusable: dict[int, str] = {}
        network = self.model.network
        network.output_dict = True
        self._loss: Any = ClipLoss() if network.logit_bias is None else SigLipLoss()  # SigLIP's have a bias
        self._optimizer = torch.optim.AdamW(
            _groups(network, recipe.weight_decay), lr=0.0, betas=recipe.betas, eps=recipe.epsilon
        )
        look = network.visual.preprocess_cfg
        height, width = (look["size"],) * 2 if isinstance(look["size"], int) else look["size"]
        self._size = (int(height), int(width))
        self._squash = look["resize_mode"] == "squash"
        bilinear = look["interpolation"] == "bilinear"
        self._resampling = Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC
        self._mean, self._deviation = (
            torch.tensor(look[name], device=device).view(1, 3, 1, 1) * 255 for name in ("mean", "std")
        )

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
        for loaded in read_ahead(self._samples, batches, self._prepare, self._threads):
            yield self._learn(loaded)

    def state(self) -> dict[str, Any]:
        """All that changes while training, for `checkpoints.save_state`; holds the weights, which go on changing."""
        return {
            "step": self.step,
            "unusable": dict(self.unusable),
            "network": self.model.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Goes on from a state of a training with the same recipe and samples.

        Args:
            state: what `state` gave.
        """
        self.step = int(state["step"])
        self.unusable = dict(state["unusable"])
        self.model.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])

    def description(self) -> dict[str, bytes]:
        """The files that describe the model to open_clip and to the clip scorer, to be put beside its weights.

        Weights that a tag names may want other colours and another activation than the model's name tells; once they
        are a local file, nothing else says so.

        Returns:
            Name -> content; the first is the JSON that `model:` takes.
        """
        import open_clip

        network = self.model.network
        architecture = find_architecture(self._recipe.model)
        if architecture is None:
            described = open_clip.get_model_config(open_clip_name(self._recipe.model))
            if any(type(module).__name__ == "QuickGELU" for module in network.modules()):
                described["quick_gelu"] = True
            architecture = Architecture(described, {}, Path())
        look = {name: network.visual.preprocess_cfg[name] for name in ("mean", "std", "interpolation", "resize_mode")}
        return dataclasses.replace(architecture, preprocessing=look).published()

    def _wanted(self, step: int) -> list[Wanted]:
        visits = range(step * self._batch, (step + 1) * self._batch)
        return [Wanted(self._visits.sample(visit), visit) for visit in visits]

    def _prepare(self, picture: Image.Image, captions: Sequence[str], visit: int) -> tuple[torch.Tensor, str]:
        chance = self._visits.chance(visit)
        caption = captions[int(chance.integers(len(captions)))]
        pixels = augment(picture, self._size, self._recipe.augment, self._squash, self._resampling, chance)
        return torch.from_numpy(pixels), caption

    def _learn(self, loaded: Loaded) -> Step:
        self.unusable |= loaded.unusable
        if len(self.unusable) == len(self._samples):
            raise TrainingError(f"none of the {len(self._samples)} samples can be read: {self.unusable[0]}")
        rate = self._recipe.rate(self.step, self.steps)
        # One sample alone has nothing to be told from.
        loss, gradient = self._update(loaded, rate) if len(loaded.pictures) > 1 else (None, None)
        self.step += 1
        scale = float(self.model.network.logit_scale.detach().exp())
        return Step(self.step, self.samples_seen, loss, rate, scale, gradient, len(self.unusable))

    def _update(self, loaded: Loaded, rate: float) -> tuple[float, float]:
        """One step of the optimiser; the loss before it and the length of the gradient."""
        network, model = self.model.network, self.model
        # Layers that drop something at random get the same chance on every run, wherever the run began.
        torch.manual_seed(self._recipe.seed * 1_000_003 + self.step)
        pictures = torch.stack(loaded.pictures).to(model.device, non_blocking=True)  # (n, 3, height, width) uint8
        with model.arithmetic():
            pictures = ((pictures.float() - self._mean) / self._deviation).contiguous(memory_format=torch.channels_last)
            features = network(pictures, model.tokenise(loaded.captions))
            loss = self._loss(**{name: value.float() for name, value in features.items()}, output_dict=False)
        self._optimizer.zero_grad()
        loss.backward()
        limit = math.inf if self._recipe.gradient_clip is None else self._recipe.gradient_clip
        gradient = torch.nn.utils.clip_grad_norm_(network.parameters(), limit)
        values = loss.item(), gradient.item()
        if not all(map(math.isfinite, values)):
            raise TrainingError(
                f"the {'gradient' if math.isfinite(values[0]) else 'loss'} of step {self.step + 1} is not a number: "
                f"lower learning_rate ({self._recipe.learning_rate:g}), lengthen warmup ({self._recipe.warmup:g}) or "
                f"set gradient_clip (1.0 is usual); the weights before this step are sound"
            )
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        with torch.no_grad():
            network.logit_scale.clamp_(0, _LARGEST_LOGIT_SCALE)
        return values


def _groups(network: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The weights that decay, and those that do not: biases, gains and scales, which hold no directions to forget."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    return [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": weight_decay},
        {"params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0},
    ]
