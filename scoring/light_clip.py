"""Measures how well picture and caption belong together by small heads over a detector's features: no CLIP needed."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from chaffinch.scoring import weights as files
from chaffinch.scoring.light.stored import check_features, stored_features
from chaffinch.scoring.scorer import Batch, Column, Scorer

if TYPE_CHECKING:
    from chaffinch.scoring.light.checkpoint import Model


@dataclass(frozen=True)
class LightClip(Scorer):
    """Columns: similarity, and the embeddings it comes from if asked for.

    similarity: cosine of the angle between the embeddings of picture and caption, float32, in [-1, 1]; higher is
        better. Its level is the heads' own, so cut at shares of the pool or of a reference. NaN where the picture's
        features are not finite. A caption of unknown words is read as such, and scores low beside most pictures.
    image_embedding, caption_embedding: unit vectors, d float16 each; only with `embeddings`.

    No picture is read: an `onnx_detector` with `features: true` has looked at it. The heads come from `chaffinch train`
    with `model: light_clip`. Alone or in a batch the same to 1e-5.

    Attributes:
        features: the column of features, such as yolox.features.
        weights: the file that `chaffinch train` wrote, final.pt.
        embeddings: whether to keep the embeddings: 4 * d bytes a sample.
    """

    features: str
    weights: str
    embeddings: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        """The features."""
        return (self.features,)

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """Similarity, and the embeddings if they are kept."""
        vector = pa.list_(pa.float16())
        kept = {"image_embedding": vector, "caption_embedding": vector} if self.embeddings else {}
        return {"similarity": pa.float32()} | kept

    def identity(self) -> dict[str, Any]:
        """The settings, with the digest of the weights in place of their path, so that moving them changes nothing.

        Raises:
            ValueError: the file is missing.
        """
        return dataclasses.asdict(self) | {"weights": files.digest(self._path())}

    def check(self) -> None:
        """Looks for the weights.

        Raises:
            ValueError: the file is missing.
        """
        self._path()

    def check_columns(self, types: Mapping[str, pa.DataType]) -> None:
        """Looks whether the features are vectors.

        Args:
            types: the type of the column of features.

        Raises:
            ValueError: they are not.
        """
        check_features(self.features, types)

    def load(self, device: str) -> "Model":
        """Loads heads and vocabulary; they run on the CPU, which they hardly keep busy.

        Args:
            device: does not matter.

        Returns:
            The model.

        Raises:
            ValueError: the file is missing, damaged, or holds other weights.
        """
        from chaffinch.scoring.light.checkpoint import load_checkpoint

        return load_checkpoint(self._path())

    def score(self, batch: Batch, model: "Model") -> Mapping[str, Column]:
        """Embeds n pictures and captions.

        Args:
            batch: n samples.
            model: what `load` returned.

        Returns:
            The columns, n values each.

        Raises:
            ValueError: the features are not those that the heads were trained on.
        """
        lists = batch.columns[self.features]
        features, judged = stored_features(lists, model.features, self.features, self.weights)
        images = model.embed_pictures(features)
        captions = model.embed_captions(batch.captions)
        similarity = np.clip((images * captions).sum(axis=1), -1, 1).astype(np.float32)
        columns: dict[str, Column] = {"similarity": np.where(judged, similarity, np.float32(np.nan))}
        if self.embeddings:
            columns |= {"image_embedding": _vectors(images), "caption_embedding": _vectors(captions)}
        return columns

    def _path(self) -> Path:
        path = Path(self.weights).expanduser()
        if not path.is_file():
            raise ValueError(
                f"weights {self.weights!r} is not a file here: correct the path, or let `chaffinch train` make it with "
                f"train: {{model: light_clip, features: {self.features}}}"
            )
        return path


def _vectors(embeddings: np.ndarray) -> pa.Array:
    """The n embeddings as lists of d float16."""
    values = embeddings.astype(np.float16)
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel()))
