"""Light heads as something that can be aligned: stored features in the place of pictures."""

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch

from chaffinch.scoring.light.checkpoint import Model
from chaffinch.scoring.light.heads import Heads
from chaffinch.scoring.light.vocabulary import Vocabulary


@dataclass(frozen=True)
class LightTowers:
    """Heads that are differentiated; what `chaffinch.scoring.alignment.towers` wants.

    Attributes:
        network: the heads, in evaluation mode.
        vocabulary: the words they know.
        device: where they are.
    """

    network: Heads
    vocabulary: Vocabulary
    device: str = "cpu"

    def transform(self, picture: np.ndarray) -> np.ndarray:
        """(d,) float32 features, as they are."""
        return picture

    def tokenise(self, captions: Sequence[str]) -> list[np.ndarray]:
        """(n,) the numbers of the words of each caption."""
        return [self.vocabulary.numbers([caption])[0] for caption in captions]

    def encode_pictures(self, prepared: Sequence[np.ndarray]) -> torch.Tensor:
        """(n, dimensions) unit vectors of n times (d,) features."""
        return self.network.embed_pictures(torch.from_numpy(np.stack(prepared)))

    def encode_captions(self, tokens: Sequence[np.ndarray]) -> torch.Tensor:
        """(n, dimensions) unit vectors of what `tokenise` made of n captions."""
        lengths = np.array([len(one) for one in tokens], np.int64)
        starts = torch.from_numpy(np.cumsum(lengths) - lengths)
        return self.network.embed_captions(torch.from_numpy(np.concatenate(tokens)), starts)

    def arithmetic(self) -> AbstractContextManager[None]:
        """float32, as the weights are."""
        return contextlib.nullcontext()


def check_relatives(current: Model, reference: Model) -> None:
    """Refuses heads of which neither can have come from the other.

    Args:
        current: heads.
        reference: others.

    Raises:
        ValueError: they know other words, are of another size, or standardise features otherwise; and the remedy.
    """
    remedy = "train both from the same first weights, one with `pretrained:` the epoch_0.pt of the other"
    if current.vocabulary.entries != reference.vocabulary.entries:
        raise ValueError(f"it knows other words than the reference: {remedy}")
    if current.heads.size != reference.heads.size:
        raise ValueError(f"it is of the size {current.heads.size}, the reference of {reference.heads.size}: {remedy}")
    for name in ("centre", "spread"):
        if not torch.equal(getattr(current.heads, name), getattr(reference.heads, name)):
            raise ValueError(f"it standardises features otherwise than the reference ({name} differs): {remedy}")
