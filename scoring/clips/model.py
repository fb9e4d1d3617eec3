"""A loaded CLIP: pictures and captions in, unit vectors out, whichever library the network comes from."""

import contextlib
import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from PIL import Image

from chaffinch.scoring.clips.drafts import Geometry

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "float32", "bfloat16"]
"""Of the matrix products; auto is bfloat16 on cuda and float32 on cpu."""


@dataclass(frozen=True)
class Model(ABC):
    """A network with its own preprocessing, ready to embed pictures and captions of d dimensions.

    Attributes:
        network: in evaluation mode, float32 weights.
        device: where the network lies, "cpu" or "cuda".
        precision: of the matrix products, float32 or bfloat16.
    """

    network: Any
    device: str
    precision: Precision

    @abstractmethod
    def transform(self, picture: Image.Image) -> Any:
        """Scales, crops and normalises a picture exactly as the model's own evaluation does, on the cpu.

        Args:
            picture: mode RGB.

        Returns:
            What `embed_pictures` takes.
        """

    @functools.cached_property
    def geometry(self) -> Geometry:
        """The same in numbers, for the fast path; ValueError where the preprocessing is none that it knows."""
        return self._geometry()

    @abstractmethod
    def tokenise(self, captions: Sequence[str]) -> Any:
        """Turns captions into tokens, always as many as the model reads: none is padded because of its neighbours.

        Args:
            captions: (n,) texts.

        Returns:
            What the text side takes, on the model's device.
        """

    @property
    def scale(self) -> float:
        """What cosines are multiplied by before a softmax over texts, the inverse of the model's temperature."""
        return float(self.network.logit_scale.detach().float().exp().mean())

    def embed_pictures(self, prepared: Sequence[Any]) -> "torch.Tensor":
        """Embeds n pictures.

        Args:
            prepared: (n,) what `transform` made of each.

        Returns:
            (n, d) float32 rows of length 1, on the model's device.
        """
        import torch

        with torch.inference_mode(), self.arithmetic():
            return self.encode_pictures(prepared)

    def embed_drafts(self, drafts: Sequence[Any]) -> "torch.Tensor":
        """Embeds n pictures that the fast path opened.

        Args:
            drafts: (n,) what `geometry.open` made of each.

        Returns:
            As `embed_pictures`.
        """
        return self.embed_pictures([self._input(self.geometry.finish(draft, self.device)) for draft in drafts])

    def embed_captions(self, captions: Sequence[str]) -> "torch.Tensor":
        """Embeds n captions.

        Args:
            captions: (n,) texts.

        Returns:
            (n, d) float32 rows of length 1, on the model's device.
        """
        import torch

        with torch.inference_mode(), self.arithmetic():
            return self.encode_captions(self.tokenise(captions))

    def encode_pictures(self, prepared: Sequence[Any]) -> "torch.Tensor":
        """As `embed_pictures`, for whoever differentiates it and sets the arithmetic."""
        return _unit(self._pictures(prepared))

    def encode_captions(self, tokens: Any) -> "torch.Tensor":
        """As `embed_captions`, from tokens, for whoever differentiates it and sets the arithmetic."""
        return _unit(self._captions(tokens))

    @contextlib.contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Matrix products in the model's precision, the same on every run: no TF32, no choice of kernels by timing."""
        import torch

        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        reduced = torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bfloat16")
        with exact, reduced:
            yield

    @abstractmethod
    def _geometry(self) -> Geometry:
        """What `geometry` gives."""

    @abstractmethod
    def _input(self, pixels: "torch.Tensor") -> Any:
        """Normalised pixels, (3, height, width), as `embed_pictures` takes them."""

    @abstractmethod
    def _pictures(self, prepared: Sequence[Any]) -> "torch.Tensor":
        """(n, d) embeddings as the network gives them."""

    @abstractmethod
    def _captions(self, tokens: Any) -> "torch.Tensor":
        """(n, d) embeddings as the network gives them."""


def check_precision(precision: str) -> None:
    """Refuses what is no precision with a ValueError."""
    if precision not in get_args(Precision):
        raise ValueError(f"precision {precision!r} is unknown: use one of {', '.join(get_args(Precision))}")


def resolve_precision(precision: Precision, device: str) -> Precision:
    """What `auto` means on a device."""
    automatic: Precision = "bfloat16" if device == "cuda" else "float32"
    return automatic if precision == "auto" else precision


def _unit(embeddings: "torch.Tensor") -> "torch.Tensor":
    """(n, d) float32 rows of length 1."""
    import torch

    return torch.nn.functional.normalize(embeddings.float(), dim=-1)
