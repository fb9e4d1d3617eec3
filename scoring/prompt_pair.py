"""Judges stored embeddings by two opposite prompts, such as "Good photo." and "Bad photo."."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from chaffinch.scoring.clips.checkpoints import Checkpoint, Library, find_checkpoint
from chaffinch.scoring.clips.model import Model
from chaffinch.scoring.embeddings import check_embedding, check_length, unit_vectors
from chaffinch.scoring.scorer import Batch, Column, Scorer


@dataclass(frozen=True)
class PromptPair(Scorer):
    """Columns: probability, float32, in [0, 1]; what `good` says is better high.

    probability: softmax of the embedding's cosines to both prompts, times the model's own scale; 0.5 is undecided. NaN
        where an embedding has no direction.

    No picture is opened: what is judged is what a CLIP has stored with `embeddings`, and `model` has to be that CLIP.
    Only its text side is asked, once, for the prompts, on the cpu in float32. Of several prompts on one side the mean
    of their embeddings counts. Unlike the source, the picture side keeps its positional embedding.

    Source: Wang, Chan and Loy, Exploring CLIP for Assessing the Look and Feel of Images, 2023, arXiv 2207.12396,
        equation 2.

    Attributes:
        embedding: a column of vectors, such as b32.image_embedding.
        model: as of the clip scorer.
        pretrained: as of the clip scorer.
        library: as of the clip scorer.
        good: one prompt or more, such as "Good photo."
        bad: what says the opposite, such as "Bad photo."
    """

    reads_captions: ClassVar[bool] = False

    embedding: str
    model: str
    pretrained: str = ""
    library: Library = "open_clip"
    good: tuple[str, ...] = ("Good photo.",)
    bad: tuple[str, ...] = ("Bad photo.",)

    @property
    def checkpoint(self) -> Checkpoint:
        """The model that the settings name; ValueError where they contradict each other."""
        return find_checkpoint(self.library, self.model, self.pretrained)

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """One float32."""
        return {"probability": pa.float32()}

    @property
    def reads(self) -> tuple[str, ...]:
        """The embedding."""
        return (self.embedding,)

    def identity(self) -> dict[str, Any]:
        """The settings, with the digests of local files in place of their paths; ValueError where one is missing."""
        return dataclasses.asdict(self) | self.checkpoint.identity()

    def check(self) -> None:
        """Looks for prompts, model and weights, without torch.

        Raises:
            ValueError: a side has no prompt, or an empty one; both say the same; the model is not to be found.
        """
        for side, prompts in (("good", self.good), ("bad", self.bad)):
            if not prompts or not all(prompt.strip() for prompt in prompts):
                raise ValueError(f"{side} is empty: give one prompt or more, such as [{side.capitalize()} photo.]")
        if set(self.good) == set(self.bad):
            raise ValueError("good and bad say the same: nothing could be told apart")
        self.checkpoint.check()

    def check_columns(self, types: Mapping[str, pa.DataType]) -> None:
        """Looks whether the column holds vectors as long as the model's.

        Args:
            types: the arrow types of the columns named by `reads`.

        Raises:
            ValueError: it does not.
        """
        check_embedding(self.embedding, types, self.checkpoint.dimensions, self.model)

    def load(self, device: str) -> np.ndarray:
        """Asks the model's text side for the prompts, and lets the model go.

        Args:
            device: of no consequence.

        Returns:
            (d,) float64: what an embedding is multiplied by to give the log odds of `good`.

        Raises:
            ValueError: what `check` finds; the weights cannot be had or belong to another architecture.
        """
        self.check()
        model = self.checkpoint.load("cpu", "float32")
        good, bad = (_mean(prompts, model) for prompts in (self.good, self.bad))
        return np.asarray(model.scale * (good - bad))

    def score(self, batch: Batch, model: np.ndarray) -> Mapping[str, Column]:
        """Judges n embeddings; alone or in a batch the same but for the last bit.

        Args:
            batch: n samples.
            model: what `load` returned.

        Returns:
            The column, n values.
        """
        stored = batch.columns[self.embedding]
        check_length(self.embedding, stored.type.list_size, len(model), self.model)
        with np.errstate(over="ignore"):
            probability = 1 / (1 + np.exp(-(unit_vectors(stored) @ model)))
        return {"probability": probability.astype(np.float32)}


def _mean(prompts: Sequence[str], model: Model) -> np.ndarray:
    """(d,) float64: the direction of the mean of the prompts' embeddings."""
    mean = model.embed_captions(prompts).double().mean(dim=0).numpy()
    return np.asarray(mean / np.linalg.norm(mean))
