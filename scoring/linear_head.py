"""Judges stored embeddings with a linear head: aesthetics, safety, or whatever a probe was trained on."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import pyarrow as pa

from chaffinch.scoring import weights as files
from chaffinch.scoring.embeddings import check_embedding, check_length, unit_vectors
from chaffinch.scoring.head_weights import Layer, peek, read_layers
from chaffinch.scoring.neighbourhood.embeddings import vectors_of
from chaffinch.scoring.scorer import Batch, Column, Scorer

Activation = Literal["none", "relu"]
Output = Literal["raw", "sigmoid", "softmax"]


@dataclass(frozen=True)
class LinearHead(Scorer):
    """Columns: score, float32, or one by each name in `outputs`; unit, range and better way are those of the weights.

    score: the head's output. LAION's aesthetic heads give what people would rate a picture, from 1 to 10, higher is
        better; most photos have 4 to 6. NaN where an embedding has no direction.

    No picture is opened and no CLIP loaded: the head reads what a CLIP has stored with `embeddings`. It has to be the
    model that the head was trained on; for LAION's that is OpenAI's ViT-B-32, ViT-L-14 and so on.

    Weights are a state_dict of linear layers, saved by torch.save or as .safetensors: weight (outputs, d) and bias, or
    layers.0.weight, layers.2.weight and so on. A logistic regression of scikit-learn's is saved by
    torch.save({"weight": torch.tensor(model.coef_), "bias": torch.tensor(model.intercept_)}, path). What stood between
    layers is not in a state_dict: say `activation` where it was anything but dropout.

    Source: Schuhmann et al., LAION-5B, 2022, arXiv 2210.08402, for heads on CLIP's embeddings.

    Attributes:
        embedding: a column of vectors, such as b32.image_embedding.
        weights: a file of weights.
        normalize: whether vectors are scaled to length 1 before, as LAION does; CLIP's are stored so.
        activation: between layers: none or relu.
        output: what is made of the last layer's outputs: raw leaves them, sigmoid makes each a probability, softmax all
            of them together.
        outputs: names of the last layer's outputs, in order, where they are several.
    """

    reads_captions: ClassVar[bool] = False

    embedding: str
    weights: str
    normalize: bool = True
    activation: Activation = "none"
    output: Output = "raw"
    outputs: tuple[str, ...] = ("score",)

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """One float32 for each output."""
        return dict.fromkeys(self.outputs, pa.float32())

    @property
    def reads(self) -> tuple[str, ...]:
        """The embedding."""
        return (self.embedding,)

    def identity(self) -> dict[str, Any]:
        """The settings, with the digest of the weights in place of their path; ValueError where they are missing."""
        return dataclasses.asdict(self) | {"weights": files.digest(files.find(self.weights))}

    def check(self) -> None:
        """Looks for the weights and, as far as that goes without torch, at their shapes.

        Raises:
            ValueError: there is no such file; it is no stack of linear layers; it has other outputs than are named.
        """
        for name, value, known in (("activation", self.activation, Activation), ("output", self.output, Output)):
            if value not in get_args(known):
                raise ValueError(f"{name} {value!r} is unknown: use one of {', '.join(get_args(known))}")
        names = self.outputs
        if len(set(names)) < len(names) or not all(name.isidentifier() for name in names) or "reject" in names:
            raise ValueError(f"outputs {list(names)} cannot name columns: give words, each once, and not reject")
        if shape := peek(files.find(self.weights)):
            self._check_outputs(shape[1])

    def check_columns(self, types: Mapping[str, pa.DataType]) -> None:
        """Looks whether the column holds vectors of the length that the weights take.

        Args:
            types: the arrow types of the columns named by `reads`.

        Raises:
            ValueError: it does not.
        """
        shape = peek(files.find(self.weights))
        check_embedding(self.embedding, types, shape and shape[0], self.weights)

    def load(self, device: str) -> list[Layer]:
        """Reads the weights; pickled code is not run.

        Args:
            device: of no consequence.

        Returns:
            The layers.

        Raises:
            ValueError: what `check` finds; the file is damaged or holds more than tensors.
        """
        self.check()
        layers = read_layers(files.find(self.weights), self.activation)
        self._check_outputs(len(layers[-1][1]))
        return layers

    def score(self, batch: Batch, model: list[Layer]) -> Mapping[str, Column]:
        """Applies the head to n embeddings; alone or in a batch the same but for the last bit.

        Args:
            batch: n samples.
            model: what `load` returned.

        Returns:
            The columns, n values each.
        """
        stored = batch.columns[self.embedding]
        check_length(self.embedding, stored.type.list_size, model[0][0].shape[1], self.weights)
        values = unit_vectors(stored) if self.normalize else vectors_of(stored).astype(np.float64)
        for number, (weight, bias) in enumerate(model):
            values = values @ weight.T + bias
            if self.activation == "relu" and number < len(model) - 1:
                values = np.maximum(values, 0)
        values = _finish(values, self.output).astype(np.float32)
        return dict(zip(self.outputs, np.ascontiguousarray(values.T), strict=True))

    def _check_outputs(self, count: int) -> None:
        if count != len(self.outputs):
            named = f"outputs names {len(self.outputs)}: name each of them"
            raise ValueError(f"weights {self.weights!r} have {count} outputs, and {named}")


def _finish(values: np.ndarray, output: Output) -> np.ndarray:
    """(n, outputs) as they are wanted."""
    if output == "raw":
        return values
    with np.errstate(over="ignore"):
        if output == "sigmoid":
            return np.asarray(1 / (1 + np.exp(-values)))
        grown = np.exp(values - values.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(grown / grown.sum(axis=1, keepdims=True))
