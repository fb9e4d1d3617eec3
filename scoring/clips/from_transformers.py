"""CLIP, SigLIP and SigLIP 2 as transformers loads them: from a folder that it saved, or by name from the hub."""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image

from chaffinch.scoring import weights
from chaffinch.scoring.clips.drafts import Geometry
from chaffinch.scoring.clips.model import Model, Precision, resolve_precision

if TYPE_CHECKING:
    import torch

MODEL_TYPES = ("clip", "siglip", "siglip2")
"""What a config.json may call its model. SigLIP 2 of fixed resolution is a `siglip`, that of any aspect a `siglip2`."""

# No model reads more than some tens of tokens, and tokenisers take steps in proportion.
MAX_CHARACTERS = 20_000

# Where a config.json leaves the length of embeddings out, as published ones do: transformers' own defaults.
_DIMENSIONS = {"clip": 512, "siglip": 768, "siglip2": 768}

# Of Pillow's filters those that the fast path knows.
_INTERPOLATIONS: Mapping[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_NOT_HERE = "no such folder is here; if it is a name on the hub, download it once with a network"
_DESCRIPTIONS = (".json", ".txt", ".model")


@dataclass(frozen=True)
class TransformersModel(Model):
    """A network of transformers'.

    Attributes:
        processor: the checkpoint's own, for pictures and texts.
        context: t, how many tokens the text side reads; every text is padded to as many.
        lowers: whether texts are put into lower case before.
    """

    processor: Any
    context: int
    lowers: bool

    def transform(self, picture: Image.Image) -> "Mapping[str, torch.Tensor]":
        """The processor's; for each of the network's inputs a tensor of one picture."""
        # Only SigLIP 2's processor has settings of its own for pictures; the others' would but hold the GIL longer.
        is_plain = self.network.config.model_type != "siglip2"
        prepare = self.processor.image_processor if is_plain else self.processor
        return dict(prepare(images=picture, return_tensors="pt"))

    def tokenise(self, captions: Sequence[str]) -> "Mapping[str, torch.Tensor]":
        """The processor's tokens, (n, t), and its mask where it makes one."""
        texts = [text[:MAX_CHARACTERS] for text in captions]
        if self.lowers:
            texts = [text.lower() for text in texts]
        tokens = self.processor(
            text=texts, padding="max_length", truncation=True, max_length=self.context, return_tensors="pt"
        )
        return {name: values.to(self.device) for name, values in tokens.items()}

    def _geometry(self) -> Geometry:
        settings = self.processor.image_processor
        interpolation = _INTERPOLATIONS.get(settings.resample)
        plain = settings.do_resize and settings.do_rescale and settings.do_normalize
        if self.network.config.model_type == "siglip2" or not plain or interpolation is None:
            raise ValueError("fast knows only pictures that are scaled to one size and normalised: leave it out")
        crops = bool(getattr(settings, "do_center_crop", False))
        shorter, box = settings.size.shortest_edge, settings.crop_size if crops else settings.size
        if crops != (shorter is not None) or max(box.height, box.width) > (shorter or max(box.height, box.width)):
            raise ValueError(
                "fast knows a shorter side that is scaled and then cropped, or both sides scaled: leave it out"
            )
        mean, deviation = tuple(settings.image_mean), tuple(settings.image_std)
        return Geometry(box.height, box.width, shorter, interpolation, mean, deviation, rounds=False)

    def _input(self, pixels: "torch.Tensor") -> "Mapping[str, torch.Tensor]":
        return {"pixel_values": pixels[None]}

    def _pictures(self, prepared: "Sequence[Mapping[str, torch.Tensor]]") -> "torch.Tensor":
        import torch

        inputs = {name: torch.cat([one[name] for one in prepared]).to(self.device) for name in prepared[0]}
        embeddings: torch.Tensor = self.network.get_image_features(**inputs).pooler_output
        return embeddings

    def _captions(self, tokens: "Mapping[str, torch.Tensor]") -> "torch.Tensor":
        embeddings: torch.Tensor = self.network.get_text_features(**tokens).pooler_output
        return embeddings


@dataclass(frozen=True)
class TransformersCheckpoint:
    """What a config names.

    Attributes:
        model: a folder as `save_pretrained` writes it, or a name on the hub, such as google/siglip2-base-patch16-224.
    """

    model: str

    @property
    def folder(self) -> Path | None:
        """The local folder; None where the setting is a name on the hub."""
        path = Path(self.model).expanduser()
        return path if self.model and path.is_dir() else None

    @property
    def dimensions(self) -> int:
        """The length d of the embeddings, without torch; ValueError where the checkpoint's description is not here."""
        config = self._config()
        kind = config["model_type"]
        vision = config.get("vision_config") or {}
        found = config.get("projection_dim") if kind == "clip" else vision.get("hidden_size")
        return int(found or _DIMENSIONS[kind])

    def identity(self) -> dict[str, Any]:
        """The name on the hub, or in place of a folder the digest of all that transformers reads of it."""
        folder = self.folder
        return {"model": self.model if folder is None else weights.digest_all(_files(folder))}

    def check(self) -> None:
        """Looks at the folder, without torch; names on the hub are only looked at.

        Raises:
            ValueError: there is no such folder and it is no name on the hub; it is no checkpoint of transformers', or
                none of these models.
        """
        if self.folder is not None:
            self._config()
            _files(self.folder)
        elif not _HUB_NAME.fullmatch(self.model):
            remedy = "correct the path, or give a name on the hub such as openai/clip-vit-base-patch32"
            raise ValueError(f"model {self.model!r} is no folder here: {remedy}")

    def load(self, device: str, precision: Precision) -> TransformersModel:
        """Loads network and processor, from the folder or from the Hugging Face cache or hub.

        Downloads are left to huggingface_hub; with HF_HUB_OFFLINE=1 in the environment it makes none. Code that a
        checkpoint carries is not run.

        Args:
            device: "cpu" or "cuda".
            precision: of the matrix products.

        Returns:
            The model.

        Raises:
            ValueError: what `check` finds; files are missing or damaged, or do not hold all weights.
        """
        self.check()
        self._config()
        import torch
        import transformers

        place = self.model if self.folder is None else str(self.folder.resolve())  # absolute: never taken for a name
        # Damaged files raise whatever the reader of their format raises.
        try:
            with _quiet():
                network, found = transformers.AutoModel.from_pretrained(
                    place, dtype=torch.float32, trust_remote_code=False, output_loading_info=True
                )
                find_processor: Any = transformers.AutoProcessor.from_pretrained
                processor = find_processor(place, trust_remote_code=False)
            if missing := sorted(found["missing_keys"]):
                raise ValueError(f"{len(missing)} weights are missing, such as {missing[0]}")
            if getattr(processor, "tokenizer", None) is None or getattr(processor, "image_processor", None) is None:
                raise ValueError("it has no processor for pictures and texts")
        except Exception as error:
            reason = " ".join(str(error).split())[:400]
            remedy = _NOT_HERE if self.folder is None else "is the folder complete?"
            raise ValueError(f"cannot load {self.model!r} with transformers: {remedy} ({reason})") from error
        network.eval().to(device)
        context = int(network.config.text_config.max_position_embeddings)
        resolved = resolve_precision(precision, device)
        return TransformersModel(network, device, resolved, processor, context, _lowers(processor.tokenizer, network))

    def _config(self) -> Mapping[str, Any]:
        """config.json of the folder, or from the Hugging Face cache or hub."""
        try:
            content = json.loads(self._find_config().read_text(encoding="utf-8"))
        except OSError as error:
            remedy = "give a folder that transformers' save_pretrained wrote"
            if self.folder is not None and (self.folder / "open_clip_config.json").is_file():
                remedy = "it is open_clip's, so name its open_clip_config.json and leave library out"
            raise ValueError(f"model {self.model!r} has no config.json that can be read: {remedy}") from error
        except ValueError as error:
            raise ValueError(f"model {self.model!r} cannot be read: {error}") from error
        kind = content.get("model_type") if isinstance(content, dict) else None
        if kind not in MODEL_TYPES:
            raise ValueError(f"model {self.model!r} is of type {kind!r}, none of {', '.join(MODEL_TYPES)}")
        return dict(content)

    def _find_config(self) -> Path:
        if self.folder is not None:
            return self.folder / "config.json"
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(self.model, "config.json"))
        except Exception as error:  # of huggingface_hub, of the network or of the disk
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{_NOT_HERE} ({reason})") from error


def _files(folder: Path) -> list[Path]:
    """What transformers reads of a folder: descriptions, tokenizers and weights, safetensors before others."""
    found = [path for path in folder.iterdir() if path.is_file()]
    tensors = [path for path in found if path.suffix == ".safetensors"]
    tensors = tensors or [path for path in found if path.suffix == ".bin"]
    if not tensors:
        raise ValueError(f"model {str(folder)!r} has no weights: model.safetensors must lie in the folder")
    return [path for path in found if path.suffix in _DESCRIPTIONS] + tensors


def _lowers(tokenizer: Any, network: Any) -> bool:
    """Whether texts are to be lowered before they are tokenised.

    SigLIP 2 was trained on lower case (Tschannen et al. 2025, arXiv 2502.14786), but Gemma's tokenizer, which its
    checkpoints of fixed resolution name, keeps capitals. Tokenizers that lower by themselves are not harmed.
    """
    asked = bool(tokenizer.init_kwargs.get("do_lower_case"))
    return asked or (network.config.model_type in ("siglip", "siglip2") and "Gemma" in type(tokenizer).__name__)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars, which would tear Chaffinch's own, and its tables: what counts is checked."""
    from transformers import utils

    logging: Any = utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
