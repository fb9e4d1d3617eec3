"""Measures how far learning a sample would carry light heads toward better ones, from stored features alone."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from chaffinch.scoring import weights as files
from chaffinch.scoring.alignment.columns import alignment_columns, check_alignment, fill_columns
from chaffinch.scoring.light.stored import check_features, stored_features
from chaffinch.scoring.scorer import Batch, Column, Scorer
from chaffinch.scoring.text.references import Reference, find_reference

if TYPE_CHECKING:
    from chaffinch.scoring.alignment.aligner import Aligner

_BESIDE = ("pairs.parquet", "captions")
"""The file that a training of heads keeps beside them, and its column of captions."""


@dataclass(frozen=True)
class MimicLight(Scorer):
    """Columns: float32 each; where `weights` names several files, vectors of one number for each.

    mimic_score: <-g, v> / |v|, with g the gradient of the sample's loss at the current weights and v the way from them
        to the reference's; any real number, in nats per unit of weight; higher is better. Above 0 a step on the sample
        leads toward the reference, below 0 away from it.
    loss: of the current heads, nats, 0 or more; lower is better: half the cross-entropy of finding the caption among
        those of the negatives and half that of finding the picture.
    similarity: cosine of picture and caption with the current heads, in [-1, 1]; higher is better.
    reference_loss, reference_similarity: the same loss and cosine with the reference, one number each; the loss lower,
        the cosine higher is better.
    excess_loss: loss - reference_loss: what there is to be learnt from the sample; higher is better.
    mimic_cosine: only with `cosine`: the cosine of -g and v, in [-1, 1]; higher is better; with the negatives'
        embeddings held still.

    As `mimic`, for the heads of `light_clip`: no picture is read, an `onnx_detector` with `features: true` has looked
    at it. NaN where its features are not finite. No sample depends on the others of its batch: negatives are a fixed
    bank, and a sample is no negative of itself, nor are equal captions.

    Heads come from `chaffinch train` with `model: light_clip`, twice: the reference from trusted pairs, with
    `checkpoint_every: 1`, and the current ones from the pool, with `pretrained:` the first weights of the reference,
    epoch_0.pt, so that both know the same words. docs/mimic.md says which of them to take, and when the reference's
    own loss does better.

    Source: Huang, Bilkhu, Cooper, Sala, Movellan 2025, Evaluating Sample Utility for Data Selection by Mimicking Model
        Weights, arXiv 2501.06708.

    Attributes:
        features: the column of features, such as yolox.features.
        weights: the current heads, such as epoch_1.pt; or a list.
        reference: the heads to come near to, final.pt of their training.
        negatives: trusted pairs with the same features: a store that holds them and their captions scored, such as
            <store>/reference; or .parquet files. By default those that the training of the reference kept beside it,
            pairs.parquet.
        captions_key: in other .parquet files, the column of captions.
        layers: which parameters count: names of parameters or modules, or patterns: picture, words, gates, caption,
            logit_scale; all of them by default.
        bank: how many negatives are drawn.
        seed: of the draw.
        cosine: whether to write mimic_cosine, which costs a backward pass for each sample and checkpoint.
    """

    features: str
    weights: str | tuple[str, ...]
    reference: str
    negatives: str | None = None
    captions_key: str | None = None
    layers: tuple[str, ...] = ("*",)
    bank: int = 256
    seed: int = 0
    cosine: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        """The features."""
        return (self.features,)

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """Numbers, or vectors where there are several checkpoints."""
        return alignment_columns(None if isinstance(self.weights, str) else len(self._current), self.cosine)

    def identity(self) -> dict[str, Any]:
        """The settings, with the digests of files, and what the negatives are, in place of their paths.

        Raises:
            ValueError: a file is missing.
        """
        found = {
            "weights": [files.digest(path) for path in self._paths("weights", self._current)],
            "vector": not isinstance(self.weights, str),
            "reference": files.digest(*self._paths("reference", (self.reference,))),
            "negatives": self._find_negatives().identity,
        }
        return dataclasses.asdict(self) | found

    def check(self) -> None:
        """Looks for the weights and the negatives, without torch.

        Raises:
            ValueError: what is missing or contradicts itself, and the remedy.
        """
        digests = [files.digest(path) for path in self._paths("weights", self._current)]
        reference = files.digest(*self._paths("reference", (self.reference,)))
        check_alignment("weights", digests, self.reference, reference, self.layers, self.bank)
        self._find_negatives()

    def check_columns(self, types: Mapping[str, pa.DataType]) -> None:
        """Looks whether the features are vectors.

        Args:
            types: the type of the column of features.

        Raises:
            ValueError: they are not.
        """
        check_features(self.features, types)

    def load(self, device: str) -> "Aligner":
        """Loads the heads and embeds the negatives; all runs on the CPU.

        Args:
            device: does not matter.

        Returns:
            The models.

        Raises:
            ValueError: what `check` finds; a file is damaged or holds other weights, no finite numbers, or heads that
                have nothing to do with the reference; a pattern matches no parameter; negatives cannot be read, or
                have other features.
        """
        self.check()
        from chaffinch.scoring.alignment.aligner import Aligner
        from chaffinch.scoring.light.checkpoint import load_checkpoint
        from chaffinch.scoring.light.negatives import draw_pairs
        from chaffinch.scoring.light.towers import LightTowers, check_relatives

        current = [load_checkpoint(path) for path in self._paths("weights", self._current)]
        reference = load_checkpoint(*self._paths("reference", (self.reference,)))
        for name, one in zip(self._current, current, strict=True):
            try:
                check_relatives(one, reference)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        negatives = draw_pairs(self._find_negatives(), self.bank, self.seed, reference.features)
        towers = [LightTowers(one.heads, one.vocabulary) for one in (*current, reference)]
        return Aligner(towers[:-1], self._current, towers[-1], negatives, self.layers, "forward")

    def score(self, batch: Batch, model: "Aligner") -> Mapping[str, Column]:
        """Measures n samples; alone or in a batch the same to 1e-5 of their spread.

        Args:
            batch: n samples.
            model: what `load` returned.

        Returns:
            The columns, n values each.

        Raises:
            ValueError: the features are not those that the heads were trained on.
        """
        length = model.model.network.size.features
        features, finite = stored_features(batch.columns[self.features], length, self.features, self.reference)
        rows = np.flatnonzero(finite).tolist()
        found = None
        if rows:
            uids, captions = [batch.uids[row] for row in rows], [batch.captions[row] for row in rows]
            found = model.measure(uids, captions, [features[row] for row in rows], self.cosine)
        return fill_columns(self.columns, found, finite)

    @property
    def _current(self) -> tuple[str, ...]:
        return (self.weights,) if isinstance(self.weights, str) else self.weights

    def _paths(self, setting: str, names: tuple[str, ...]) -> list[Path]:
        paths = [Path(name).expanduser() for name in names]
        for path, name in zip(paths, names, strict=True):
            if not path.is_file():
                raise ValueError(
                    f"{setting} {name!r} is not a file here: correct the path, or let `chaffinch train` make it with "
                    f"train: {{model: light_clip, features: {self.features}, checkpoint_every: 1}}"
                )
        return paths

    def _find_negatives(self) -> Reference:
        if self.negatives is not None:
            return find_reference(self.negatives, self.features, self.captions_key)
        name, captions = _BESIDE
        path = Path(self.reference).expanduser().with_name(name)
        if not path.is_file():
            raise ValueError(
                f"negatives is not given, and there is no {name} beside {self.reference!r}: name a store of trusted "
                "pairs that was scored with the same detector, or train the reference anew"
            )
        return find_reference(str(path), self.features, captions)
