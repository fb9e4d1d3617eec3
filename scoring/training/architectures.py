"""Models that open_clip can build but does not list: those of this package, and any that a JSON file describes.

A description is open_clip's own: the content of a file in its model_configs folder (embed_dim, vision_cfg, text_cfg),
or an open_clip_config.json as published beside weights: {"model_cfg": {...}, "preprocess_cfg": {...}}. The second form
also says how pictures are scaled and normalised. A file of merges that `tokenizer_kwargs: {bpe_path: ...}` names lies
beside the JSON.
"""

import difflib
import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from PIL import Image

PUBLISHED = "open_clip_config.json"
"""The name by which open_clip finds a description beside weights."""

_FOLDER = Path(__file__).parent / "models"
_REQUIRED = ("embed_dim", "vision_cfg", "text_cfg")


@dataclass(frozen=True)
class Architecture:
    """A model as it is described, without weights.

    Attributes:
        model: what open_clip builds the network from: embed_dim, vision_cfg, text_cfg and so on.
        preprocessing: mean, std, interpolation and resize_mode, as far as they are not open_clip's defaults.
        folder: where files that the description names lie.
    """

    model: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    folder: Path

    @property
    def dimensions(self) -> int:
        """The length d of the embeddings."""
        return int(self.model["embed_dim"])

    @property
    def merges(self) -> Path | None:
        """The tokenizer's own file of merges, or None where it uses open_clip's."""
        name = self.model["text_cfg"].get("tokenizer_kwargs", {}).get("bpe_path")
        return None if name is None else self.folder / name

    @property
    def digest(self) -> str:
        """A sha256 of all that the description says, wherever it lies and however it is laid out."""
        content = json.dumps([self.model, self.preprocessing], sort_keys=True).encode()
        if self.merges is not None:
            content += self.merges.read_bytes()
        return hashlib.sha256(content).hexdigest()

    def published(self) -> dict[str, bytes]:
        """The files that describe this model to open_clip: name -> content, to be put beside its weights."""
        content = {"model_cfg": self.model, "preprocess_cfg": self.preprocessing}
        files = {PUBLISHED: (json.dumps(content, indent=1) + "\n").encode()}
        if self.merges is not None:
            files[self.merges.name] = self.merges.read_bytes()
        return files

    def create(self, weights: Path | None = None) -> tuple[Any, "Callable[[Image.Image], torch.Tensor]", Any]:
        """Builds the network on the cpu in float32.

        Args:
            weights: a file of weights; None leaves them random, as torch's seed has it.

        Returns:
            The network, the transform of pictures for evaluation, and the tokenizer.
        """
        import open_clip

        model = json.loads(json.dumps(self.model))
        if self.merges is not None:
            model["text_cfg"]["tokenizer_kwargs"]["bpe_path"] = str(self.merges.resolve())
        # open_clip reads descriptions from folders; a registered name would stay in its list for good.
        with tempfile.TemporaryDirectory(prefix="chaffinch-") as folder:
            content = {"model_cfg": model, "preprocess_cfg": dict(self.preprocessing)}
            (Path(folder) / PUBLISHED).write_text(json.dumps(content), encoding="utf-8")
            network, _, transform = open_clip.create_model_and_transforms(
                f"local-dir:{folder}", load_weights=False, pretrained_text=False, precision="fp32", device="cpu"
            )
            text = model["text_cfg"]
            if text.get("hf_tokenizer_name"):  # by its name, for its files are seldom beside a description
                tokenizer = open_clip.tokenizer.HFTokenizer(
                    text["hf_tokenizer_name"],
                    context_length=text.get("context_length", 77),
                    tokenizer_mode=text.get("tokenizer_mode"),
                    **text.get("tokenizer_kwargs", {}),
                )
            else:
                tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        if weights is not None:
            open_clip.load_checkpoint(network, str(weights), weights_only=True)
        return network, transform, tokenizer


def packaged() -> dict[str, Path]:
    """The models described in this package: name -> file."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.json"))}


def find_architecture(model: str) -> Architecture | None:
    """Finds the description that a setting names.

    Args:
        model: a path that ends in .json, the name of a packaged model, or that of a model of open_clip's.

    Returns:
        The description; None where open_clip has to know the name.

    Raises:
        ValueError: there is no such file, or it describes no model; the message says what is missing.
    """
    if not model.endswith(".json") and model not in packaged():
        return None
    path = packaged().get(model) or Path(model).expanduser()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"model {model!r} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"model {model!r} is not valid JSON: {error}") from error
    described = content.get("model_cfg", content) if isinstance(content, dict) else {}
    missing = [name for name in _REQUIRED if name not in described]
    if missing:
        raise ValueError(f"model {model!r} describes no open_clip model: {', '.join(missing)} missing")
    architecture = Architecture(described, content.get("preprocess_cfg", {}), path.parent)
    if architecture.merges is not None and not architecture.merges.is_file():
        raise ValueError(f"model {model!r} names a file of merges that is not beside it: {architecture.merges}")
    return architecture


def open_clip_name(model: str) -> str:
    """A model's name as open_clip's configs spell it; OpenAI writes ViT-B/32."""
    return model.replace("/", "-")


def nearest(name: str, names: Sequence[str]) -> str:
    """A remedy: the valid names most like this one, or all where none is."""
    lower = {valid.lower(): valid for valid in names}
    similar = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)
    if similar:
        return f"did you mean {' or '.join(lower[valid] for valid in similar)}?"
    return f"it can be {', '.join(names)}" if names else "name a local file of weights, for it has no tags"
