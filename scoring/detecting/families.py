"""The families of zero-shot detectors, by what a checkpoint's config calls its model."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from chaffinch.scoring.detecting.grounding import Grounding
from chaffinch.scoring.detecting.objects import Found, Limits
from chaffinch.scoring.detecting.omdet import OmDet
from chaffinch.scoring.detecting.owl import Owl

if TYPE_CHECKING:
    import torch

    from chaffinch.scoring.detecting.canvases import Prepared

NAMES: Mapping[str, str] = {
    "grounding-dino": "Grounding DINO",
    "mm-grounding-dino": "MM Grounding DINO",
    "owlvit": "OWL-ViT",
    "owlv2": "OWLv2",
    "omdet-turbo": "OmDet-Turbo",
}
"""What AutoModelForZeroShotObjectDetection loads: a config's model_type, and the name people know."""

_CLASSES: Mapping[str, type[Any]] = {"owlvit": Owl, "owlv2": Owl, "omdet-turbo": OmDet}


class Family(Protocol):
    """A network with its text side, as the scorer uses it.

    Attributes:
        needs_phrases: whether a prompt without phrases finds nothing.
    """

    needs_phrases: bool

    @property
    def backbone(self) -> Any:
        """The part of the network that sees the picture alone."""

    def read(self, captions: Sequence[str]) -> Sequence[Any]:
        """(n,) prompts for n captions; each has `phrases`."""

    def detect(
        self,
        pictures: "Sequence[Prepared]",
        pixels: "torch.Tensor",
        mask: "torch.Tensor",
        prompts: Sequence[Any],
    ) -> list[Found]:
        """(n,) objects in n pictures, for as many prompts."""


def create(family: str, network: Any, tokenizer: Any, vocabulary: Sequence[str] | None, limits: Limits) -> Family:
    """Puts a network together with the text side that it needs.

    Args:
        family: the config's model_type, one of NAMES.
        network: in evaluation mode, on its device.
        tokenizer: the checkpoint's own.
        vocabulary: phrases to look for in every picture; None to read captions.
        limits: what is kept.

    Returns:
        The detector; what it computes of a vocabulary it computes once.

    Raises:
        ValueError: the vocabulary does not fit the model.
    """
    made: Family = _CLASSES.get(family, Grounding)(network, tokenizer, vocabulary, limits)
    return made
