"""CLIPs that open_clip builds: by a tag, from a local file of weights, or as a JSON file describes them."""

import functools
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from chaffinch.scoring import weights
from chaffinch.scoring.clips.drafts import Geometry
from chaffinch.scoring.clips.model import Model, Precision, resolve_precision
from chaffinch.scoring.training.architectures import find_architecture, nearest, open_clip_name, packaged

if TYPE_CHECKING:
    import torch

WEIGHT_FILES = (".pt", ".pth", ".bin", ".safetensors", ".ckpt")

# open_clip's own tokenizer takes n squared steps for a word of n characters, and no model of it reads more than 77
# tokens. Others take steps in proportion, and may drop most of what they read, such as punctuation.
MAX_CHARACTERS = 1_000
MAX_CHARACTERS_OF_OTHERS = 20_000
MAX_REMEMBERED_WORDS = 1_000_000


@dataclass(frozen=True)
class OpenClipModel(Model):
    """A network of open_clip's.

    Attributes:
        evaluation: open_clip's transform from a picture, mode RGB, to a (3, height, width) float32 tensor.
        tokenizer: from texts to (n, t) token ids.
    """

    evaluation: "Callable[[Image.Image], torch.Tensor]"
    tokenizer: Any

    def transform(self, picture: Image.Image) -> "torch.Tensor":
        """open_clip's own; (3, height, width) float32."""
        return self.evaluation(picture)

    def tokenise(self, captions: Sequence[str]) -> "torch.Tensor":
        """(n, t) token ids on the model's device; what is too long to be read to its end is cut before."""
        remembered = getattr(self.tokenizer, "cache", None)
        if remembered is None:
            return self._tokens([text[:MAX_CHARACTERS_OF_OTHERS] for text in captions])
        if len(remembered) > MAX_REMEMBERED_WORDS:
            # open_clip remembers every word it has met, which a large pool never stops adding to. Special tokens stay.
            specials = [self.tokenizer.decoder[token] for token in self.tokenizer.all_special_ids]
            self.tokenizer.cache = dict(zip(specials, specials, strict=True))
        return self._tokens(
            [text if len(text) <= MAX_CHARACTERS else " ".join(text.split())[:MAX_CHARACTERS] for text in captions]
        )

    def _geometry(self) -> Geometry:
        settings = self.network.visual.preprocess_cfg
        height, width = (settings["size"],) * 2 if isinstance(settings["size"], int) else settings["size"]
        mode = settings["resize_mode"]
        if mode not in ("shortest", "squash") or (mode == "shortest" and height != width):
            raise ValueError(f"fast does not know how to fit {mode!r} into {height} x {width} pixels: leave it out")
        shorter = None if mode == "squash" else height
        mean, deviation = tuple(settings["mean"]), tuple(settings["std"])
        return Geometry(height, width, shorter, settings["interpolation"], mean, deviation, rounds=True)

    def _input(self, pixels: "torch.Tensor") -> "torch.Tensor":
        return pixels

    def _tokens(self, texts: list[str]) -> "torch.Tensor":
        tokens: torch.Tensor = self.tokenizer(texts)
        return tokens.to(self.device)

    def _pictures(self, prepared: "Sequence[torch.Tensor]") -> "torch.Tensor":
        import torch

        embeddings: torch.Tensor = self.network.encode_image(torch.stack(list(prepared)).to(self.device))
        return embeddings

    def _captions(self, tokens: "torch.Tensor") -> "torch.Tensor":
        embeddings: torch.Tensor = self.network.encode_text(tokens)
        return embeddings


@dataclass(frozen=True)
class OpenClipCheckpoint:
    """What a config names.

    Attributes:
        model: name of an open_clip model, or of one packaged with Chaffinch, or path of a JSON file that describes one.
        pretrained: a tag of that model, or a local file of weights.
    """

    model: str
    pretrained: str

    @property
    def dimensions(self) -> int:
        """The length d of the embeddings, without torch; ValueError where there is no such model."""
        return dimensions(self.model)

    def identity(self) -> dict[str, Any]:
        """Name and tag, or the digests of local files in place of their paths; ValueError where one is missing."""
        architecture = find_architecture(self.model)
        pretrained = _tag(self.pretrained)
        if _is_file(self.pretrained):
            pretrained = weights.digest(_weights(self.pretrained))
        model = open_clip_name(self.model) if architecture is None else architecture.digest
        return {"model": model, "pretrained": pretrained}

    def check(self) -> None:
        """Looks for the model's name and the file of weights, without torch; ValueError where one is missing."""
        _ = self.dimensions
        if not self.pretrained:
            raise ValueError("pretrained is empty: name a tag of the model, or a file of weights")
        if _is_file(self.pretrained) or find_architecture(self.model) is not None:
            _weights(self.pretrained)

    def load(self, device: str, precision: Precision) -> OpenClipModel:
        """Builds the model and loads its weights, from a local file or by tag from the Hugging Face cache or hub.

        A local file of a model of open_clip's is given the picture transform that all tags of the model share, and
        open_clip's default where they differ or there is none.

        Args:
            device: "cpu" or "cuda".
            precision: of the matrix products.

        Returns:
            The model.

        Raises:
            ValueError: what `check` finds; the model has no such tag; the weights cannot be had or belong to another
                architecture.
        """
        self.check()
        import open_clip

        architecture = find_architecture(self.model)
        name = open_clip_name(self.model) if architecture is None else self.model
        remedy = f"is it a checkpoint of {name}, complete and not a TorchScript archive?"
        where: dict[str, Any] = {}
        if architecture is None:
            tags = open_clip.list_pretrained_tags_by_model(name)
            if _is_file(self.pretrained):
                path = _weights(self.pretrained).resolve()  # absolute: never taken for a tag
                where = {"pretrained": str(path), **_shared_transform(name, tags)}
            else:
                where = {"pretrained": self.pretrained, **_of_tag(name, self.pretrained, tags)}
                remedy = "download them once with a network, or name a local file"
        # Built on the cpu, so that only weights can be at fault here and not a device short of memory. Damaged files
        # raise whatever the reader of their format raises.
        try:
            if architecture is not None:
                network, transform, tokenizer = architecture.create(_weights(self.pretrained))
            else:
                network, _, transform = open_clip.create_model_and_transforms(
                    name, **where, precision="fp32", device="cpu", weights_only=True, require_pretrained=True
                )
                tokenizer = open_clip.get_tokenizer(name)
        except Exception as error:
            reason = " ".join(str(error).split())[:400]
            raise ValueError(f"cannot load {self.pretrained!r} into {name}: {remedy} ({reason})") from error
        resolved = resolve_precision(precision, device)
        return OpenClipModel(network.eval().to(device), device, resolved, transform, tokenizer)


def dimensions(model: str) -> int:
    """The length d of a model's embeddings, without torch.

    Raises:
        ValueError: there is no such model, or the file that describes it is damaged.
    """
    if (architecture := find_architecture(model)) is not None:
        return architecture.dimensions
    models, name = known_models(), open_clip_name(model)
    if name not in models:
        is_folder = Path(model).expanduser().is_dir()
        remedy = "say library: transformers" if is_folder else nearest(name, sorted([*models, *packaged()]))
        raise ValueError(f"open_clip has no model named {model!r}: {remedy}")
    return models[name]


@functools.cache
def known_models() -> Mapping[str, int]:
    """Every model's name and d, from open_clip's folder of descriptions: importing it would import torch."""
    package = importlib.util.find_spec("open_clip")
    if package is None or not package.submodule_search_locations:
        raise ValueError("clip needs a package that is not installed: pip install open_clip_torch")
    folder = Path(next(iter(package.submodule_search_locations))) / "model_configs"
    descriptions = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}
    return {name: int(settings["embed_dim"]) for name, settings in descriptions.items() if "text_cfg" in settings}


def _of_tag(name: str, tag: str, tags: Sequence[str]) -> dict[str, Any]:
    """What only a tag knows: whether its weights were trained with the quick form; open_clip would merely warn."""
    import open_clip

    if _tag(tag) not in tags:
        raise ValueError(f"{name} has no weights named {tag!r}: {nearest(tag, tags)}")
    return {"force_quick_gelu": bool(open_clip.get_pretrained_cfg(name, _tag(tag)).get("quick_gelu"))}


def _shared_transform(name: str, tags: Sequence[str]) -> dict[str, Any]:
    """How pictures are brought to the input by every tag of a model: SigLIP's are squashed, most others' cropped."""
    import open_clip

    parts = ("mean", "std", "interpolation", "resize_mode")
    found = [{part: open_clip.get_pretrained_cfg(name, tag).get(part) for part in parts} for tag in tags]
    if not found or any(one != found[0] for one in found):
        return {}
    return {f"image_{part}": value for part, value in found[0].items() if value is not None}


def _is_file(pretrained: str) -> bool:
    """Whether the setting means a local file rather than a tag."""
    return "/" in pretrained or pretrained.endswith(WEIGHT_FILES) or Path(pretrained).is_file()


def _weights(pretrained: str) -> Path:
    """The local file of weights; ValueError where there is none."""
    path = Path(pretrained).expanduser()
    if not path.is_file():
        raise ValueError(f"pretrained {pretrained!r} is not a file here: correct the path, or name a tag of the model")
    return path


def _tag(pretrained: str) -> str:
    """A tag as open_clip's table spells it."""
    return pretrained.lower().replace("-", "_")
