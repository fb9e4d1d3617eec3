"""How a model is trained: settings only, so that a config can be checked without loading torch."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from chaffinch.scoring.clips.from_open_clip import OpenClipCheckpoint, dimensions
from chaffinch.scoring.scorer import SampleError
from chaffinch.scoring.training.architectures import find_architecture

EPOCHS = 32
"""How often each sample is seen where neither `samples_seen` nor `epochs` is set; open_clip's default."""


@dataclass(frozen=True)
class Augmentation:
    """What is done to a picture each time it is seen; drawn anew, but the same for the same seed.

    Attributes:
        crop: smallest and largest share of the picture's area that is kept, in (0, 1]. open_clip's default: 0.9 to 1;
            captions speak of what lies at the edges as well, so that a smaller crop often makes them untrue.
        ratio: smallest and largest width of the crop as a multiple of its height. For a model that squashes pictures
            to a square it is a multiple of the picture's own width to height.
        flip: probability of swapping left and right, in [0, 1]. 0, because captions say "left" and pictures hold text.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    crop: tuple[float, float] = (0.9, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.0


@dataclass(frozen=True)
class Reweighting:
    """Grad-Mimic: a batch's samples count by how far each would carry the weights toward a reference's.

    Every step, mimic scores of the batch's samples are taken at the current weights, in evaluation mode, and the update
    follows the gradient of sum_i w_i loss_i with w = softmax(scores / temperature). Nothing else differs from a plain
    training: same order, same chance. Where nothing is left of the way to the reference, all samples count alike.

    Source: Huang, Bilkhu, Cooper, Sala and Movellan 2025, arXiv 2501.06708, section 3.2.

    Attributes:
        reference: weights to come near to: a tag or a file of the same model, of one lineage with the first weights.
            For a classifier, what `chaffinch train` kept of another of its kind.
        temperature: more than 0; the lower, the more the best samples of a batch count. .inf: all count alike, which is
            plain training with a log.
        scores: what a batch is weighed by. standardised: mimic scores less their mean, over their standard deviation,
            so that one temperature fits any model; raw: mimic scores as they are, which need a temperature of their own
            size; cosine: the cosines of the angles between each sample's step and the way, standardised too. Cosines
            cost a backward pass for each sample, but for one linear layer of a classifier.
        layers: which parameters count in the scores: names of parameters or modules, or patterns of them; a last layer
            alone costs next to nothing. All parameters are trained either way.
        log: whether score, weight and loss of every visit are kept for filters: 12 bytes of memory a visit.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    reference: str
    temperature: float = 0.5
    scores: Literal["standardised", "raw", "cosine"] = "standardised"
    layers: tuple[str, ...] = ("*",)
    log: bool = True

    def check(self) -> None:
        """Looks for what is wrong, the reference aside, with a ValueError."""
        if not self.temperature > 0:
            raise ValueError(f"reweight.temperature is {self.temperature!r}; it has to be more than 0")
        if not self.layers:
            raise ValueError("reweight.layers is empty: name some, or leave it out to take all")


@dataclass(frozen=True)
class Recipe:
    """All that decides which weights come out of training, but for the samples and the hardware.

    Source: defaults of optimiser and augmentation are those of open_clip's open_clip_train/params.py.

    Attributes:
        model: as for the clip scorer: a name, or the path of a JSON file that describes one.
        pretrained: weights to start from, a tag or a file; None starts from random ones, drawn with `seed`.
        samples_seen: how many samples to train on in all, each visit counted. Rounded up to whole batches.
        epochs: the same as a multiple of the number of samples; 32 where neither is given.
        batch_size: samples that are told apart from one another in one step; at most as many as there are.
        learning_rate: its peak.
        weight_decay: of matrices; biases, gains and the logit scale have none.
        betas: of AdamW's moving averages, of gradients and of their squares.
        epsilon: of AdamW.
        warmup: steps until the learning rate reaches its peak; below 1, a share of all steps. Then it falls to 0 along
            half a cosine.
        gradient_clip: the longest gradient that is not shortened, over all weights together; None: no limit.
        precision: of matrix products: float32, bfloat16, or auto, which is bfloat16 on cuda and float32 on cpu.
        seed: of first weights, order, captions drawn and augmentation.
        augment: what is done to pictures.
        captions_key: an entry of the samples' json that lists several captions, of which each visit draws one; None
            takes the caption proper.
        reweight: how samples of a batch are weighed; None: all alike.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    model: str
    pretrained: str | None = None
    samples_seen: int | None = None
    epochs: float | None = None
    batch_size: int = 64
    learning_rate: float = 5e-4
    weight_decay: float = 0.2
    betas: tuple[float, float] = (0.9, 0.98)
    epsilon: float = 1e-6
    warmup: int | float = 0.1
    gradient_clip: float | None = None
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = 0
    augment: Augmentation = Augmentation()
    captions_key: str | None = None
    reweight: Reweighting | None = None

    def check(self) -> None:
        """Looks for what is wrong with the settings, without torch.

        Raises:
            ValueError: what is wrong, and what would be right.
        """
        if self.pretrained is None:
            dimensions(self.model)
        else:
            OpenClipCheckpoint(self.model, self.pretrained).check()
        architecture = find_architecture(self.model)
        if self.model.startswith("coca_") or (architecture is not None and "multimodal_cfg" in architecture.model):
            raise ValueError(f"{self.model} also writes captions, which is not trained here: choose a plain CLIP")
        if self.samples_seen is not None and self.epochs is not None:
            raise ValueError("give samples_seen or epochs, not both")
        low, high = self.augment.crop
        flat, wide = self.augment.ratio
        beta, beta_of_squares = self.betas
        limits: dict[str, tuple[Any, bool, str]] = {
            "samples_seen": (self.samples_seen, self.samples_seen is None or self.samples_seen > 0, "more than 0"),
            "epochs": (self.epochs, self.epochs is None or 0 < self.epochs < math.inf, "more than 0"),
            "batch_size": (self.batch_size, self.batch_size >= 2, "at least 2: a sample is told apart from others"),
            "learning_rate": (self.learning_rate, 0 < self.learning_rate < math.inf, "more than 0"),
            "weight_decay": (self.weight_decay, 0 <= self.weight_decay < math.inf, "0 or more"),
            "betas": (self.betas, 0 <= beta < 1 and 0 <= beta_of_squares < 1, "from 0 to less than 1"),
            "epsilon": (self.epsilon, 0 < self.epsilon < math.inf, "more than 0"),
            "warmup": (self.warmup, 0 <= self.warmup < math.inf, "a number of steps, or a share below 1"),
            "gradient_clip": (self.gradient_clip, self.gradient_clip is None or self.gradient_clip > 0, "more than 0"),
            "seed": (self.seed, 0 <= self.seed < 1 << 32, "0 or more, and below 2 to the 32nd"),
            "augment.crop": (self.augment.crop, 0 < low <= high <= 1, "[smallest, largest] within 0 to 1"),
            "augment.ratio": (self.augment.ratio, 0 < flat <= wide, "[smallest, largest], more than 0"),
            "augment.flip": (self.augment.flip, 0 <= self.augment.flip <= 1, "from 0 to 1"),
        }
        for name, (value, right, allowed) in limits.items():
            if not right:
                raise ValueError(f"{name} is {value!r}; it has to be {allowed}")
        if self.reweight is not None:
            self.reweight.check()
            self._check_reference(self.reweight.reference)

    def _check_reference(self, reference: str) -> None:
        try:
            OpenClipCheckpoint(self.model, reference).check()
        except ValueError as error:
            raise ValueError(f"reweight.reference: {str(error).removeprefix('pretrained ')}") from error

    def batch(self, samples: int) -> int:
        """The size of a batch: no sample should be in one twice, where it would be told apart from itself."""
        return min(self.batch_size, samples)

    def steps(self, samples: int) -> int:
        """How many steps a training on so many samples takes."""
        epochs = EPOCHS if self.epochs is None else self.epochs
        seen = math.ceil(epochs * samples) if self.samples_seen is None else self.samples_seen
        return math.ceil(seen / self.batch(samples))

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step: warm-up in a straight line, then half a cosine.

        Source: open_clip's open_clip_train/scheduler.py, cosine_lr.

        Args:
            step: from 0.
            steps: how many there are.

        Returns:
            More than 0, at most `learning_rate`.
        """
        warmup = round(self.warmup * steps) if self.warmup < 1 else int(self.warmup)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


@dataclass(frozen=True)
class ClassifierRecipe(Recipe):
    """A recipe for a classifier: the picture tower of a CLIP with a linear head on its embedding.

    Embeddings are brought to the length sqrt(d), so that one learning rate fits any tower. The head begins at 0.

    Attributes:
        labels: where a sample's label is: an entry of its json, or `cls` for its .cls member.
        classes: how many there are, for labels from 0; or their names, for labels that are text.
        freeze: whether only the head is trained, a linear probe: pictures are embedded once, without augmentation.
    """

    labels: str = field(kw_only=True)
    classes: int | tuple[str, ...] = field(kw_only=True)
    freeze: bool = field(default=False, kw_only=True)

    def check(self) -> None:
        """As of `Recipe`."""
        super().check()
        if self.captions_key is not None:
            raise ValueError("captions_key is for pairs of pictures and captions: a classifier reads labels")
        if not self.labels:
            raise ValueError("labels is empty: name an entry of the json, or cls for the .cls member")
        if not isinstance(self.classes, int) and len(set(self.classes)) < len(self.classes):
            twice = next(name for name in self.classes if self.classes.count(name) > 1)
            raise ValueError(f"classes names {twice!r} twice")
        if self.outputs < 2:
            raise ValueError(f"classes is {self.classes!r}; a classifier tells at least 2 apart")
        if self.freeze and self.pretrained is None:
            raise ValueError("freeze trains a head on embeddings that mean something: name weights by pretrained")

    @property
    def outputs(self) -> int:
        """How many classes there are."""
        return self.classes if isinstance(self.classes, int) else len(self.classes)

    def class_of(self, label: str) -> int:
        """The number of a label's class; SampleError where it is none."""
        if not isinstance(self.classes, int):
            if label in self.classes:
                return self.classes.index(label)
        elif label.isdecimal() and int(label) < self.classes:
            return int(label)
        raise SampleError(f"label {label[:40]!r} is none of the {self.outputs} classes")

    def _check_reference(self, reference: str) -> None:
        if not Path(reference).expanduser().is_file():
            raise ValueError(
                f"reweight.reference: {reference!r} is not a file here: name the final.pt of a classifier that was "
                "trained from the same weights"
            )
