"""The file of trained heads: weights, vocabulary and size, as tensors and plain values."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from chaffinch.scoring.light.heads import Heads, Size
from chaffinch.scoring.light.vocabulary import Vocabulary
from chaffinch.scoring.training.checkpoints import save_state

_KIND = "light_clip"


@dataclass(frozen=True)
class Model:
    """Heads that measure.

    Attributes:
        heads: in evaluation mode.
        vocabulary: the words they know.
    """

    heads: Heads
    vocabulary: Vocabulary

    @property
    def features(self) -> int:
        """The length d of the features that they read."""
        return self.heads.size.features

    def embed_pictures(self, features: np.ndarray) -> np.ndarray:
        """(n, dimensions) float32 unit vectors of (n, d) float32."""
        with torch.inference_mode():
            vectors: np.ndarray = self.heads.embed_pictures(torch.from_numpy(features)).numpy()
        return vectors

    def embed_captions(self, captions: Sequence[str]) -> np.ndarray:
        """(n, dimensions) float32 unit vectors of n captions."""
        numbers, starts = self.vocabulary.numbers(captions)
        with torch.inference_mode():
            vectors: np.ndarray = self.heads.embed_captions(torch.from_numpy(numbers), torch.from_numpy(starts)).numpy()
        return vectors


def save_checkpoint(file: BinaryIO, heads: Heads, vocabulary: Vocabulary) -> None:
    """Writes heads; equal ones give equal bytes.

    Args:
        file: open for writing.
        heads: what was trained.
        vocabulary: the words they know.
    """
    content = {"kind": _KIND, "size": asdict(heads.size), "vocabulary": list(vocabulary.entries)}
    save_state(file, content | {"state_dict": dict(heads.state_dict())})


def load_checkpoint(path: Path) -> Model:
    """Reads heads; tensors and plain values only, never code.

    Args:
        path: what `save_checkpoint` wrote.

    Returns:
        The model.

    Raises:
        ValueError: the file is damaged, holds code, or other weights.
    """
    remedy = "name the final.pt that `chaffinch train` wrote with `model: light_clip`"
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the reader of a damaged archive raises whatever it stumbles over
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"cannot load {path}: {remedy} ({type(error).__name__}: {reason})") from error
    if not isinstance(content, dict) or content.get("kind") != _KIND:
        raise ValueError(f"{path} does not hold the heads of a light_clip: {remedy}")
    heads = Heads(Size(**content["size"]))
    heads.load_state_dict(content["state_dict"])
    return Model(heads.eval(), Vocabulary(tuple(content["vocabulary"])))
