"""How light heads are trained: settings only, so that a config can be checked without loading torch."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

EPOCHS = 100
"""How often each picture is seen where neither `samples_seen` nor `epochs` is set."""


@dataclass(frozen=True)
class LightRecipe:
    """All that decides which heads come out of training, but for the pairs.

    The defaults were chosen on a held-out tenth of 2,000 trusted photos with five captions each.

    Attributes:
        model: light_clip.
        features: the column of features, such as yolox.features, of a scorer with `features: true`.
        samples_seen: how many pictures to train on in all, each visit counted.
        epochs: the same as a multiple of their number; 100 where neither is given.
        batch_size: pictures that are told apart from one another in one step; at most as many as there are.
        learning_rate: its peak.
        weight_decay: of matrices; biases, gates and the scale have none.
        betas: of AdamW's moving averages, of gradients and of their squares.
        warmup: share of the steps until the learning rate reaches its peak; then it falls to 0 along half a cosine.
        dropout: share of features and hidden values that each visit leaves out.
        hidden_words: share of words that each visit takes for unknown ones.
        least_count: in how many captions a word has to occur to be known.
        hidden: width of the picture head's hidden layer.
        dimensions: length of the embeddings.
        seed: of first weights, order, captions drawn and what is left out.
        captions_key: an entry of the samples' json that lists several captions, of which each visit draws one; None
            takes the caption proper.
        pretrained: trained heads, or their first weights, to go on from, such as epoch_0.pt. Their words, and what
            features are standardised by, are kept, so that mimic scores can be taken between what two trainings from
            the same file come to; `least_count` is of no consequence then.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    model: Literal["light_clip"]
    features: str
    samples_seen: int | None = None
    epochs: float | None = None
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    warmup: float = 0.1
    dropout: float = 0.5
    hidden_words: float = 0.1
    least_count: int = 2
    hidden: int = 512
    dimensions: int = 512
    seed: int = 0
    captions_key: str | None = None
    pretrained: str | None = None

    def check(self) -> None:
        """Looks for what is wrong with the settings.

        Raises:
            ValueError: what is wrong, and what would be right.
        """
        if self.samples_seen is not None and self.epochs is not None:
            raise ValueError("give samples_seen or epochs, not both")
        beta, beta_of_squares = self.betas
        limits: dict[str, tuple[Any, bool, str]] = {
            "samples_seen": (self.samples_seen, self.samples_seen is None or self.samples_seen > 0, "more than 0"),
            "epochs": (self.epochs, self.epochs is None or 0 < self.epochs < math.inf, "more than 0"),
            "batch_size": (self.batch_size, self.batch_size >= 2, "at least 2: a picture is told apart from others"),
            "learning_rate": (self.learning_rate, 0 < self.learning_rate < math.inf, "more than 0"),
            "weight_decay": (self.weight_decay, 0 <= self.weight_decay < math.inf, "0 or more"),
            "betas": (self.betas, 0 <= beta < 1 and 0 <= beta_of_squares < 1, "from 0 to less than 1"),
            "warmup": (self.warmup, 0 <= self.warmup < 1, "a share below 1"),
            "dropout": (self.dropout, 0 <= self.dropout < 1, "a share below 1"),
            "hidden_words": (self.hidden_words, 0 <= self.hidden_words < 1, "a share below 1"),
            "least_count": (self.least_count, self.least_count >= 1, "1 or more"),
            "hidden": (self.hidden, self.hidden >= 1, "1 or more"),
            "dimensions": (self.dimensions, self.dimensions >= 1, "1 or more"),
            "seed": (self.seed, 0 <= self.seed < 1 << 32, "0 or more, and below 2 to the 32nd"),
        }
        for name, (value, right, allowed) in limits.items():
            if not right:
                raise ValueError(f"{name} is {value!r}; it has to be {allowed}")

    def pretrained_path(self) -> Path | None:
        """Where the heads to go on from lie; None where there are none to be; ValueError where they are not there."""
        path = None if self.pretrained is None else Path(self.pretrained).expanduser()
        if path is not None and not path.is_file():
            raise ValueError(f"pretrained {self.pretrained!r} is not a file here: correct the path, or train it first")
        return path

    def batch(self, pairs: int) -> int:
        """The size of a batch."""
        return min(self.batch_size, pairs)

    def steps(self, pairs: int) -> int:
        """How many steps a training on so many pairs takes."""
        epochs = EPOCHS if self.epochs is None else self.epochs
        seen = math.ceil(epochs * pairs) if self.samples_seen is None else self.samples_seen
        return math.ceil(seen / self.batch(pairs))

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, from 0: warm-up in a straight line, then half a cosine."""
        warmup = round(self.warmup * steps)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))
