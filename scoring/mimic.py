"""Measures how far learning a sample would carry a model toward a reference: its mimic score."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
import pyarrow as pa
from PIL import Image

from chaffinch.scoring.alignment.columns import alignment_columns, check_alignment, fill_columns
from chaffinch.scoring.clips.drafts import check_shape
from chaffinch.scoring.clips.from_open_clip import OpenClipCheckpoint
from chaffinch.scoring.clips.model import Precision, check_precision, resolve_precision
from chaffinch.scoring.scorer import Batch, Column, Scorer
from chaffinch.scoring.weights import digest_all

if TYPE_CHECKING:
    import torch

    from chaffinch.scoring.alignment.aligner import Aligner

Method = Literal["forward", "central"]


@dataclass(frozen=True)
class Mimic(Scorer):
    """Columns: float32 each; where `pretrained` names several checkpoints, vectors of one number for each.

    mimic_score: <-g, v> / |v|, with g the gradient of the sample's loss at the current weights and v the way from them
        to the reference's; any real number, in nats per unit of weight; higher is better. Above 0 a step on the sample
        leads toward the reference, below 0 away from it.
    loss: of the current model, nats, 0 or more; lower is better. Half the cross-entropy of finding the caption among
        those of the negatives and half that of finding the picture; SigLIP's sigmoid loss for models with a logit bias.
    similarity: cosine of picture and caption with the current model, in [-1, 1]; higher is better.
    reference_loss, reference_similarity: the same loss and cosine with the reference, one number each; the loss lower,
        the cosine higher is better.
    excess_loss: loss - reference_loss: what there is to be learnt from the sample; higher is better.
    mimic_cosine: only with `cosine`: the cosine of -g and v, in [-1, 1]; higher is better; with the negatives'
        embeddings held still.

    Every score is exact: one forward pass with tangents over all chosen parameters, about 3 times a plain one, and a
    plain one of the reference. No sample depends on the others of its batch: negatives are a fixed bank, and a sample
    is no negative of itself, nor are equal captions. Memory: t + 1 sets of weights and t differences for t checkpoints
    (with central derivatives 2 t sets more), and about 2.5 times the activations of a plain forward pass.

    The current model and the reference have to be of one lineage: trained from the same first weights, or one
    fine-tuned from the other. The first weights and checkpoints of the first epochs tell most; one that has memorised
    the pool tells nothing. For finding bad samples the reference's own loss is as good or better, so that both are
    written; docs/mimic.md says when to use which.

    Source: Huang, Bilkhu, Cooper, Sala, Movellan 2025, Evaluating Sample Utility for Data Selection by Mimicking Model
        Weights, arXiv 2501.06708; excess loss: Mindermann et al. 2022, Prioritized Training on Points that are
        Learnable, Worth Learning, and Not Yet Learnt, arXiv 2206.07137.

    Attributes:
        model: the name of a model of open_clip's, of one packaged with Chaffinch, or the path of a JSON file that
            describes one.
        pretrained: the current model: a tag, or a local file of weights as `chaffinch train` keeps them; or a list.
        reference: the weights to come near to, of the same architecture.
        negatives: shards of trusted pairs: a .tar file, a folder of them, a pattern, or a list; on the local disk. They
            are read whole at every start, to see whether they have changed: name a few shards, not a large pool.
        layers: which parameters count: names of parameters or modules, or patterns such as visual.transformer.*;
            all of them by default.
        bank: how many negatives are drawn.
        seed: of the draw.
        cosine: whether to write mimic_cosine, which costs a backward pass for each sample and checkpoint.
        derivative: forward, which is exact, or central, which takes half the difference between two small steps, for
            models with operations that have no forward derivative; in float32 only.
        precision: of the matrix products: float32, bfloat16, or auto, which is bfloat16 on cuda and float32 on cpu.
            Losses and scores are float32 either way.
    """

    reads_pictures: ClassVar[bool] = True
    uses_device: ClassVar[bool] = True

    model: str
    pretrained: str | tuple[str, ...]
    reference: str
    negatives: str | tuple[str, ...]
    layers: tuple[str, ...] = ("*",)
    bank: int = 256
    seed: int = 0
    cosine: bool = False
    derivative: Method = "forward"
    precision: Precision = "auto"

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """Numbers, or vectors where there are several checkpoints."""
        return alignment_columns(None if isinstance(self.pretrained, str) else len(self._current), self.cosine)

    def identity(self) -> dict[str, Any]:
        """The settings, with the digests of local files in place of their paths.

        Raises:
            ValueError: a local file is missing.
        """
        from chaffinch.scoring.alignment.negatives import find_negatives

        current = [one.identity() for one in self._checkpoints]
        return dataclasses.asdict(self) | {
            "model": current[0]["model"],
            "pretrained": [one["pretrained"] for one in current],
            "vector": not isinstance(self.pretrained, str),
            "reference": OpenClipCheckpoint(self.model, self.reference).identity()["pretrained"],
            "negatives": digest_all(find_negatives(_several(self.negatives))),
        }

    def check(self) -> None:
        """Looks for the model, the weights and the negatives, without torch.

        Raises:
            ValueError: what is missing or contradicts itself, and the remedy.
        """
        from chaffinch.scoring.alignment.negatives import find_negatives

        check_precision(self.precision)
        if self.derivative not in get_args(Method):
            raise ValueError(f"derivative {self.derivative!r} is unknown: use one of {', '.join(get_args(Method))}")
        if self.derivative == "central" and self.precision == "bfloat16":
            raise ValueError("derivative central needs precision float32: bfloat16 rounds its small step away")
        for checkpoint in (*self._checkpoints, OpenClipCheckpoint(self.model, self.reference)):
            checkpoint.check()
        digests = [one.identity()["pretrained"] for one in self._checkpoints]
        reference = OpenClipCheckpoint(self.model, self.reference).identity()["pretrained"]
        check_alignment("pretrained", digests, self.reference, reference, self.layers, self.bank)
        find_negatives(_several(self.negatives))

    def load(self, device: str) -> "Aligner":
        """Loads the checkpoints and embeds the negatives.

        Args:
            device: "cpu" or "cuda".

        Returns:
            The models.

        Raises:
            ValueError: what `check` finds; weights cannot be had, belong to another architecture, are no finite
                numbers or have no common lineage; a pattern matches no parameter; negatives cannot be read.
        """
        self.check()
        from chaffinch.scoring.alignment.aligner import Aligner
        from chaffinch.scoring.alignment.negatives import draw_negatives, find_negatives

        central = self.derivative == "central"
        precision = "float32" if central else resolve_precision(self.precision, device)
        current = [one.load(device, precision) for one in self._checkpoints]
        reference = OpenClipCheckpoint(self.model, self.reference).load(device, precision)
        negatives = draw_negatives(find_negatives(_several(self.negatives)), self.bank, self.seed)
        return Aligner(current, self._current, reference, negatives, self.layers, self.derivative)

    def prepare(self, picture: Image.Image, model: "Aligner") -> Any:
        """Scales, crops and normalises a picture as the model's evaluation does.

        Args:
            picture: mode RGB.
            model: what `load` returned.

        Returns:
            (3, height, width) float32.

        Raises:
            SampleError: one side is more than 200 times the other.
        """
        check_shape(picture.size)
        return model.model.transform(picture)

    def score(self, batch: Batch, model: "Aligner") -> Mapping[str, Column]:
        """Measures n samples; alone or in a batch the same to 1e-5 of their spread (float32, cpu).

        Args:
            batch: n samples.
            model: what `load` returned.

        Returns:
            The columns, n values each.
        """
        found = model.measure(batch.uids, batch.captions, batch.pictures, self.cosine) if len(batch) else None
        return fill_columns(self.columns, found, np.ones(len(batch), bool))

    @property
    def _current(self) -> tuple[str, ...]:
        return _several(self.pretrained)

    @property
    def _checkpoints(self) -> list[OpenClipCheckpoint]:
        return [OpenClipCheckpoint(self.model, one) for one in self._current]


def mimic_scores(
    model: "torch.nn.Module",
    reference_state: Mapping[str, "torch.Tensor"],
    loss: "Callable[[torch.nn.Module, Any], torch.Tensor]",
    batch: Any,
    layers: Sequence[str] = ("*",),
    derivative: Method = "forward",
) -> "torch.Tensor":
    """Mimic scores of a batch's samples under any model and loss, all in one forward pass.

        import torch
        from chaffinch.scoring.mimic import mimic_scores

        def loss(model, batch):
            pictures, labels = batch
            return torch.nn.functional.cross_entropy(model(pictures), labels, reduction="none")

        scores = mimic_scores(model, torch.load("reference.pt", weights_only=True), loss, (pictures, labels))

    The model is evaluated as it is, in evaluation mode, and left as it was. Only where the loss of a sample does not
    depend on the others does its score not either.

    Source: arXiv 2501.06708.

    Args:
        model: at the current weights, in float32 or float64.
        reference_state: the reference's state_dict, of the same architecture.
        loss: (model, batch) -> (n,) losses of the samples.
        batch: whatever the loss takes.
        layers: which parameters count: names of parameters or modules, or patterns of them.
        derivative: forward, exact; or central, two forward passes at a small step.

    Returns:
        (n,) float32; higher is better: above 0 a step on the sample leads toward the reference.

    Raises:
        ValueError: the states do not fit each other, are equal, or hold what is no finite number; a pattern matches no
            parameter; the loss is not one number a sample.
    """
    from chaffinch.scoring.alignment.derivatives import differentiate, evaluation_mode
    from chaffinch.scoring.alignment.direction import find_direction, own_state
    from chaffinch.scoring.alignment.scores import mimic_score

    state = own_state(model)
    direction = find_direction(model, state, own_state(model, reference_state), layers)
    with evaluation_mode(model):
        (losses,), (slopes,) = differentiate(derivative, model, state, direction).evaluate(
            lambda _: (loss(model, batch),)
        )
    if losses.ndim != 1:
        raise ValueError(f"loss gave a tensor of {losses.ndim} dimensions: return one number for each sample")
    return mimic_score(slopes, direction.length)


def _several(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value
