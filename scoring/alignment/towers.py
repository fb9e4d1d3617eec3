"""What can be aligned: a network with a tower for pictures and one for captions."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch


class Towers(Protocol):
    """A loaded model of d dimensions; a CLIP is one, and light heads over stored features are."""

    @property
    def network(self) -> Any:
        """In evaluation mode; its logit_scale, and its logit_bias if it has one, make logits of cosines."""

    @property
    def device(self) -> str:
        """Where the network lies, "cpu" or "cuda"."""

    def transform(self, picture: Any) -> Any:
        """Prepares a picture, or its features."""

    def tokenise(self, captions: Sequence[str]) -> Any:
        """Prepares n captions: a sequence of n, of which parts can be taken."""

    def encode_pictures(self, prepared: Sequence[Any]) -> torch.Tensor:
        """(n, d) unit vectors of what `transform` made of n pictures."""

    def encode_captions(self, tokens: Any) -> torch.Tensor:
        """(n, d) unit vectors of what `tokenise` made of n captions."""

    def arithmetic(self) -> AbstractContextManager[None]:
        """Inside, matrix products are in the model's precision."""
