"""Mimic scores under a linear classifier over stored embeddings: no picture read, and no forward pass."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from chaffinch.scoring import weights as files
from chaffinch.scoring.alignment.linear import align_head, check_heads
from chaffinch.scoring.embeddings import check_embedding, check_length, unit_vectors
from chaffinch.scoring.head_weights import Layer, peek, read_layers
from chaffinch.scoring.neighbourhood.embeddings import vectors_of
from chaffinch.scoring.scorer import Batch, Column, Scorer


@dataclass(frozen=True)
class Heads:
    """What `MimicHead.load` returns.

    Attributes:
        current: (t,) weights (c, d) and biases (c,).
        reference: likewise.
    """

    current: tuple[Layer, ...]
    reference: Layer


@dataclass(frozen=True)
class MimicHead(Scorer):
    """Columns: float32 each; where `weights` is a list of files, vectors of one number for each.

    mimic_score: <-g, v> / |v|, with g the gradient of the head's loss for the sample and its label, and v the way from
        the current head's weights to the reference's; any real number, in nats per unit of weight; higher is better.
        Above 0 a step on the sample leads toward the reference, below 0 away from it.
    mimic_cosine: the cosine of -g and v, in [-1, 1]; higher is better; 0 where nothing is to be learnt.
    loss: of the current head, cross-entropy, nats, 0 or more; lower is better.
    reference_loss: the same with the reference, one number; lower is better.
    excess_loss: loss - reference_loss: what there is to be learnt from the sample; higher is better.

    No picture is opened: head and reference read what another scorer has stored, and the score is a closed form, exact
    to the last digit of a float32. A label less than 0, or NaN, stands for none: such a sample cannot be judged (NaN),
    nor can one whose embedding has no direction.

    A head that was trained on the labels for long knows the wrong ones by heart; the first weights, or those of the
    first epochs, tell most. For finding wrong labels the reference's own loss is as good or better.

    Weights are a state_dict of one linear layer, saved by torch.save or as .safetensors: weight (c, d) and bias (c,),
    c classes, or one output for labels 0 and 1. A reference over the same embedding need not have started from the same
    first weights.

    Source: Huang, Bilkhu, Cooper, Sala, Movellan 2025, Evaluating Sample Utility for Data Selection by Mimicking Model
        Weights, arXiv 2501.06708; excess loss: Mindermann et al. 2022, Prioritized Training on Points that are
        Learnable, Worth Learning, and Not Yet Learnt, arXiv 2206.07137.

    Attributes:
        embedding: a column of vectors, such as b32.image_embedding.
        label: a column of whole numbers from 0, such as metadata.label, as the classes were numbered in training.
        weights: the current head, a file of weights; or a list.
        reference: a head that was trained on labels that can be trusted.
        normalize: whether vectors are scaled to length 1 before; as the heads were trained.
    """

    reads_captions: ClassVar[bool] = False

    embedding: str
    label: str
    weights: str | tuple[str, ...]
    reference: str
    normalize: bool = True

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """Numbers, or vectors where there are several heads."""
        kind = pa.float32() if isinstance(self.weights, str) else pa.list_(pa.float32(), len(self.weights))
        columns: dict[str, pa.DataType] = dict.fromkeys(("mimic_score", "mimic_cosine", "loss"), kind)
        return columns | {"reference_loss": pa.float32(), "excess_loss": kind}

    @property
    def reads(self) -> tuple[str, ...]:
        """The embedding and the label."""
        return (self.embedding, self.label)

    def identity(self) -> dict[str, Any]:
        """The settings, with digests of the weights in place of their paths; ValueError where they are missing."""
        return dataclasses.asdict(self) | {
            "weights": [files.digest(files.find(one)) for one in self._current],
            "vector": not isinstance(self.weights, str),
            "reference": files.digest(files.find(self.reference)),
        }

    def check(self) -> None:
        """Looks for the weights and, as far as that goes without torch, at their shapes.

        Raises:
            ValueError: a file is missing, is no linear layer, or is the reference itself; shapes differ.
        """
        if not self._current:
            raise ValueError("weights is empty: name the current head's weights")
        reference = files.find(self.reference)
        for one in self._current:
            path = files.find(one)
            if files.digest(path) == files.digest(reference):
                raise ValueError(
                    f"reference {self.reference!r} is the current head itself: name weights that were trained on "
                    "labels that can be trusted"
                )
            here, there = peek(path), peek(reference)
            if here and there and here != there:
                raise ValueError(
                    f"weights {one!r} take {here[0]} numbers to {here[1]} outputs, reference {self.reference!r} "
                    f"{there[0]} to {there[1]}: both have to tell the same classes apart by the same embedding"
                )

    def check_columns(self, types: Mapping[str, pa.DataType]) -> None:
        """Looks whether the columns hold vectors of the length that the weights take, and numbers of classes.

        Args:
            types: the arrow types of the columns named by `reads`.

        Raises:
            ValueError: they do not.
        """
        shape = peek(files.find(self.reference))
        check_embedding(self.embedding, types, shape and shape[0], self.reference)
        kind = types[self.label]
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise ValueError(
                f"label: {self.label} holds {kind}, not numbers of classes: number them from 0, in the order in which "
                "the heads were trained"
            )

    def load(self, device: str) -> Heads:
        """Reads the weights; pickled code is not run.

        Args:
            device: of no consequence.

        Returns:
            The heads.

        Raises:
            ValueError: what `check` finds; a file is damaged, holds more than tensors, or several layers; heads are
                equal or hold what is no finite number.
        """
        self.check()
        reference = _read(self.reference)
        current = []
        for one in self._current:
            head = _read(one)
            try:
                check_heads(head, reference)
            except ValueError as error:
                raise ValueError(f"weights {one!r}: {error}") from error
            current.append(head)
        return Heads(tuple(current), reference)

    def score(self, batch: Batch, model: Heads) -> Mapping[str, Column]:
        """Measures n samples; alone or in a batch the same but for the last bit.

        Args:
            batch: n samples.
            model: what `load` returned.

        Returns:
            The columns, n values each.

        Raises:
            ValueError: a label is no whole number, or beyond the head's classes.
        """
        stored = batch.columns[self.embedding]
        check_length(self.embedding, stored.type.list_size, model.reference[0].shape[1], self.reference)
        rows = unit_vectors(stored) if self.normalize else vectors_of(stored).astype(np.float64)
        try:
            labels = _whole(batch.columns[self.label])
            steps = [align_head(rows, labels, one, model.reference) for one in model.current]
        except ValueError as error:
            raise ValueError(f"label: {self.label}: {error}") from error
        loss, reference_loss = np.stack([one.loss for one in steps], axis=1), steps[0].reference_loss
        measured = {
            "mimic_score": np.stack([one.mimic_score for one in steps], axis=1),
            "mimic_cosine": np.stack([one.mimic_cosine for one in steps], axis=1),
            "loss": loss,
            "reference_loss": reference_loss,
            "excess_loss": loss - reference_loss[:, None],
        }
        return {name: _column(measured[name].astype(np.float32), kind) for name, kind in self.columns.items()}

    @property
    def _current(self) -> tuple[str, ...]:
        return (self.weights,) if isinstance(self.weights, str) else self.weights


def _read(path: str) -> Layer:
    layers = read_layers(files.find(path), "relu")  # as they are, not multiplied into one
    if len(layers) > 1:
        raise ValueError(
            f"weights {path!r} are {len(layers)} layers, and the closed form is one layer's: give a single linear "
            "layer, or use mimic_scores() from Python for a whole network"
        )
    return layers[0]


def _whole(column: pa.Array) -> np.ndarray:
    """(n,) int64; -1 where a label is NaN. ValueError where one is no whole number."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    values = column.to_numpy(zero_copy_only=False)
    if values.dtype.kind == "f":
        missing = np.isnan(values)
        broken = ~missing & (values != np.floor(values))
        if broken.any():
            raise ValueError(f"{values[broken][0]:g} is no whole number: number classes from 0")
        values = np.where(missing, -1, values)
    return np.asarray(np.clip(values, -1, np.iinfo(np.int32).max), np.int64)


def _column(values: np.ndarray, kind: pa.DataType) -> Column:
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), kind.list_size)
    return values.reshape(len(values))
