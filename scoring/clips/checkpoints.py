"""Finds the checkpoint that settings name, of whichever library."""

from typing import Any, Literal, Protocol, get_args

from chaffinch.scoring.clips.from_open_clip import OpenClipCheckpoint
from chaffinch.scoring.clips.from_transformers import TransformersCheckpoint
from chaffinch.scoring.clips.model import Model, Precision

Library = Literal["open_clip", "transformers"]


class Checkpoint(Protocol):
    """A CLIP that a config names; nothing but `load` needs torch."""

    @property
    def dimensions(self) -> int:
        """The length d of the embeddings; ValueError as from `check`."""

    def identity(self) -> dict[str, Any]:
        """All that decides the embeddings; local files by their digests, so that moving them changes nothing."""

    def check(self) -> None:
        """Looks whether everything is there; ValueError with the remedy where it is not."""

    def load(self, device: str, precision: Precision) -> Model:
        """Loads network and preprocessing; ValueError with the remedy where that cannot be done."""


def find_checkpoint(library: str, model: str, pretrained: str) -> Checkpoint:
    """Finds what settings name.

    Args:
        library: "open_clip" or "transformers".
        model: as that library names it.
        pretrained: open_clip's tag or file of weights; transformers has none.

    Returns:
        The checkpoint, not looked for yet.

    Raises:
        ValueError: the library is neither; weights are named apart although the model holds them.
    """
    if library == "open_clip":
        return OpenClipCheckpoint(model, pretrained)
    if library != "transformers":
        raise ValueError(f"library {library!r} is unknown: use one of {', '.join(get_args(Library))}")
    if pretrained:
        raise ValueError(f"pretrained {pretrained!r} goes with open_clip: transformers finds the weights by model")
    return TransformersCheckpoint(model)
