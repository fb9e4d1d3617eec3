"""Measures how well picture and caption belong together, with any model that open_clip builds."""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
import pyarrow as pa
from PIL import Image

from chaffinch.scoring.scorer import Batch, Column, SampleError, Scorer
from chaffinch.scoring.training.architectures import find_architecture, nearest, open_clip_name, packaged

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "float32", "bfloat16"]

WEIGHT_FILES = (".pt", ".pth", ".bin", ".safetensors", ".ckpt")

# The transform enlarges the shorter side to the model's input before it crops: strips would cost gigabytes.
MAX_ASPECT_RATIO = 200

# No model reads more than 77 tokens, and a word of n characters takes n squared steps to tokenise.
MAX_CHARACTERS = 1_000
MAX_REMEMBERED_WORDS = 1_000_000


@dataclass(frozen=True)
class Model:
    """What `Clip.load` returns.

    Attributes:
        network: open_clip's model, in evaluation mode, float32 weights.
        transform: from a picture, mode RGB, to a (3, height, width) float32 tensor.
        tokenizer: from texts to (n, t) token ids.
        device: where the network lies.
        precision: of the matrix products, float32 or bfloat16.
    """

    network: Any
    transform: Callable[[Image.Image], "torch.Tensor"]
    tokenizer: Any
    device: str
    precision: Precision


@dataclass(frozen=True)
class Clip(Scorer):
    """Columns: similarity, and the embeddings it comes from if asked for.

    similarity: cosine of the angle between the embeddings of picture and caption, float32, in [-1, 1]; higher is
        better. Its level is the model's own (good pairs have about 0.3 with OpenAI's), so cut at shares of the pool.
    image_embedding, caption_embedding: unit vectors, d float16 each; only with `embeddings`.

    A local file is given the picture transform that open_clip trains with by default. OpenAI's weights want a model
    whose name ends in -quickgelu when they are a local file; by their tag they are recognised.

    Attributes:
        model: name of an open_clip model, such as ViT-B-32, or of one packaged with Chaffinch, or the path of a JSON
            file that describes one as open_clip's model_configs or a published open_clip_config.json do.
        pretrained: a tag of that model, such as datacomp_xl_s13b_b90k, or a local file of weights. It is a file where
            it exists, holds a "/" or ends in .pt, .pth, .bin, .safetensors or .ckpt.
        embeddings: whether to keep the embeddings: 4 * d bytes a sample.
        precision: of the matrix products: float32, bfloat16, or auto, which is bfloat16 on cuda and float32 on cpu.
            Weights, sums and the similarity itself are float32 either way.
    """

    reads_pictures: ClassVar[bool] = True
    uses_device: ClassVar[bool] = True

    model: str
    pretrained: str
    embeddings: bool = False
    precision: Precision = "auto"

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """Similarity, and the embeddings if they are kept.

        Raises:
            ValueError: open_clip has no such model.
        """
        columns: dict[str, pa.DataType] = {"similarity": pa.float32()}
        if self.embeddings:
            vector = pa.list_(pa.float16(), dimensions(self.model))
            columns |= {"image_embedding": vector, "caption_embedding": vector}
        return columns

    def identity(self) -> dict[str, Any]:
        """The settings, with the digests of local files in place of their paths, so that moving them changes nothing.

        Raises:
            ValueError: a local file is missing.
        """
        architecture = find_architecture(self.model)
        model = open_clip_name(self.model) if architecture is None else architecture.digest
        identity = dataclasses.asdict(self) | {"model": model, "pretrained": _tag(self.pretrained)}
        if _is_file(self.pretrained):
            path = _weights(self.pretrained)
            status = path.stat()
            identity["pretrained"] = _digest(path, status.st_size, status.st_mtime_ns)
        return identity

    def check(self) -> None:
        """Looks for the model's name and the file of weights, without torch.

        Raises:
            ValueError: open_clip has no such model, or the file is missing.
        """
        dimensions(self.model)
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision {self.precision!r} is unknown: use one of {', '.join(get_args(Precision))}")
        if not self.pretrained:
            raise ValueError("pretrained is empty: name a tag of the model, or a file of weights")
        if _is_file(self.pretrained) or find_architecture(self.model) is not None:
            _weights(self.pretrained)

    def load(self, device: str) -> Model:
        """Builds the model and loads its weights, from a local file or by tag from the Hugging Face cache or hub.

        Downloads are left to huggingface_hub; with HF_HUB_OFFLINE=1 in the environment it makes none.

        Args:
            device: "cpu" or "cuda".

        Returns:
            The model.

        Raises:
            ValueError: what `check` finds; the model has no such tag; the weights cannot be had or belong to another
                architecture.
        """
        self.check()
        import open_clip

        name, architecture = open_clip_name(self.model), find_architecture(self.model)
        remedy = f"is it a checkpoint of {name}, complete and not a TorchScript archive?"
        where: dict[str, Any] = {}
        if architecture is None and _is_file(self.pretrained):
            where = {"pretrained": str(_weights(self.pretrained).resolve())}  # absolute: never taken for a tag
        elif architecture is None:
            tags = open_clip.list_pretrained_tags_by_model(name)
            if _tag(self.pretrained) not in tags:
                raise ValueError(f"{name} has no weights named {self.pretrained!r}: {nearest(self.pretrained, tags)}")
            settings = open_clip.get_pretrained_cfg(name, _tag(self.pretrained))
            # Only the tag knows that its weights were trained with the quick form; open_clip would merely warn.
            where = {"pretrained": self.pretrained, "force_quick_gelu": bool(settings.get("quick_gelu"))}
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
        automatic: Precision = "bfloat16" if device == "cuda" else "float32"
        precision = automatic if self.precision == "auto" else self.precision
        return Model(network.eval().to(device), transform, tokenizer, device, precision)

    def prepare(self, picture: Image.Image, model: Model) -> "torch.Tensor":
        """Scales, crops and normalises a picture as the model's evaluation does.

        Args:
            picture: mode RGB.
            model: what `load` returned.

        Returns:
            (3, height, width) float32.

        Raises:
            SampleError: one side is more than 200 times the other.
        """
        if max(picture.size) > MAX_ASPECT_RATIO * min(picture.size):
            raise SampleError(f"picture is too elongated to be scaled: {picture.width} x {picture.height} pixels")
        return model.transform(picture)

    def score(self, batch: Batch, model: Model) -> Mapping[str, Column]:
        """Embeds n pictures and captions; alone or in a batch the same to 1e-5 (float32, cpu) or 1e-2 (bfloat16).

        Args:
            batch: n samples.
            model: what `load` returned.

        Returns:
            The columns, n values each.
        """
        import torch

        if not len(batch):
            return {name: pa.array([], kind) for name, kind in self.columns.items()}
        with torch.inference_mode(), _arithmetic(model):
            pictures = torch.stack(list(batch.pictures)).to(model.device)  # (n, 3, height, width)
            images = _unit(model.network.encode_image(pictures))  # (n, d)
            captions = _unit(model.network.encode_text(_tokenise(batch.captions, model)))  # (n, d)
        similarity = (images * captions).sum(dim=1).clamp(-1, 1)
        columns: dict[str, Column] = {"similarity": similarity.cpu().numpy()}
        if self.embeddings:
            columns |= {"image_embedding": _vectors(images), "caption_embedding": _vectors(captions)}
        return columns


def dimensions(model: str) -> int:
    """The length d of a model's embeddings, without torch.

    Raises:
        ValueError: there is no such model, or the file that describes it is damaged.
    """
    if (architecture := find_architecture(model)) is not None:
        return architecture.dimensions
    models, name = _models(), open_clip_name(model)
    if name not in models:
        raise ValueError(f"open_clip has no model named {model!r}: {nearest(name, sorted([*models, *packaged()]))}")
    return models[name]


@functools.cache
def _models() -> Mapping[str, int]:
    """Every model's name and d, from open_clip's folder of descriptions: importing it would import torch."""
    package = importlib.util.find_spec("open_clip")
    if package is None or not package.submodule_search_locations:
        raise ValueError("clip needs a package that is not installed: pip install open_clip_torch")
    folder = Path(next(iter(package.submodule_search_locations))) / "model_configs"
    descriptions = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}
    return {name: int(settings["embed_dim"]) for name, settings in descriptions.items() if "text_cfg" in settings}


def _is_file(pretrained: str) -> bool:
    """Whether the setting means a local file rather than a tag."""
    return "/" in pretrained or pretrained.endswith(WEIGHT_FILES) or Path(pretrained).is_file()


def _weights(pretrained: str) -> Path:
    """The local file of weights; ValueError where there is none."""
    path = Path(pretrained).expanduser()
    if not path.is_file():
        raise ValueError(f"pretrained {pretrained!r} is not a file here: correct the path, or name a tag of the model")
    return path


@functools.lru_cache(maxsize=32)
def _digest(path: Path, size: int, changed: int) -> str:
    """The file's sha256; size and time of change are here to remember it only while the file stays the same."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tag(pretrained: str) -> str:
    """A tag as open_clip's table spells it."""
    return pretrained.lower().replace("-", "_")


def _tokenise(captions: Sequence[str], model: Model) -> "torch.Tensor":
    """(n, t) token ids on the model's device."""
    remembered = getattr(model.tokenizer, "cache", None)
    if remembered is not None and len(remembered) > MAX_REMEMBERED_WORDS:
        # open_clip remembers every word it has met, which a large pool never stops adding to. Special tokens stay.
        specials = [model.tokenizer.decoder[token] for token in model.tokenizer.all_special_ids]
        model.tokenizer.cache = dict(zip(specials, specials, strict=True))
    texts = [text if len(text) <= MAX_CHARACTERS else " ".join(text.split())[:MAX_CHARACTERS] for text in captions]
    tokens: torch.Tensor = model.tokenizer(texts)
    return tokens.to(model.device)


@contextlib.contextmanager
def _arithmetic(model: Model) -> Iterator[None]:
    """Matrix products in the model's precision, the same on every run: no TF32, no search for the fastest kernel."""
    import torch

    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    reduced = torch.autocast(model.device, torch.bfloat16, enabled=model.precision == "bfloat16")
    with exact, reduced:
        yield


def _unit(embeddings: "torch.Tensor") -> "torch.Tensor":
    """(n, d) float32 rows of length 1."""
    import torch

    return torch.nn.functional.normalize(embeddings.float(), dim=-1)


def _vectors(embeddings: "torch.Tensor") -> pa.Array:
    """The n embeddings as lists of d float16."""
    values = embeddings.cpu().numpy().astype(np.float16)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
