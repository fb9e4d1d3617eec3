"""How a model is trained: settings only, so that a config can be checked without loading torch."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from chaffinch.scoring.clips.from_open_clip import OpenClipCheckpoint, dimensions
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
