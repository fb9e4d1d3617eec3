"""Measures how well picture and caption belong together, with any CLIP of open_clip's or transformers'."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image

from chaffinch.scoring.clips.checkpoints import Checkpoint, Library, find_checkpoint
from chaffinch.scoring.clips.drafts import check_shape
from chaffinch.scoring.clips.model import Model, Precision, check_precision
from chaffinch.scoring.scorer import Batch, Column, Scorer

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Clip(Scorer):
    """Columns: similarity, and the embeddings it comes from if asked for.

    similarity: cosine of the angle between the embeddings of picture and caption, float32, in [-1, 1]; higher is
        better. Its level is the model's own (good pairs have about 0.3 with OpenAI's, 0.1 with SigLIP's), so cut at
        shares of the pool.
    image_embedding, caption_embedding: unit vectors, d float16 each; only with `embeddings`.

    Pictures and captions are prepared exactly as the model's own evaluation does. open_clip knows how only by a tag or
    from a JSON description: a local file of weights beside a model's name is given the transform that all tags of this
    model share, and where they differ (ViT-L-14, ViT-H-14) open_clip's default. OpenAI's weights want a model whose
    name ends in -quickgelu when they are a local file; by their tag they are recognised.

    Attributes:
        model: for open_clip the name of one of its models, such as ViT-B-32 or ViT-B-16-SigLIP2, or of one packaged
            with Chaffinch, or the path of a JSON file that describes one as open_clip's model_configs or a published
            open_clip_config.json do. For transformers a CLIP, SigLIP or SigLIP 2: a folder that `save_pretrained`
            wrote, or a name on the hub, such as google/siglip2-base-patch16-224.
        pretrained: for open_clip a tag of that model, such as datacomp_xl_s13b_b90k, or a local file of weights. It is
            a file where it exists, holds a "/" or ends in .pt, .pth, .bin, .safetensors or .ckpt. For transformers
            nothing.
        embeddings: whether to keep the embeddings: 4 * d bytes a sample.
        precision: of the matrix products: float32, bfloat16, or auto, which is bfloat16 on cuda and float32 on cpu.
            Weights, sums and the similarity itself are float32 either way.
        library: which one loads the model: open_clip or transformers.
        fast: takes a shorter way to the model's input: JPEGs are decoded at a half, a quarter or an eighth of their
            size where that leaves twice the pixels of the input, and scaled where the model runs, on the GPU if there
            is one. Similarities move by less than 0.002 with models whose similarities spread by about 0.05, and their
            order hardly changes; large pictures take a fraction of the time. It decodes by itself, so that what it
            sees does not depend on other scorers. Not for SigLIP 2 of any aspect.
    """

    version: ClassVar[int] = 2
    reads_pictures: ClassVar[bool] = True
    uses_device: ClassVar[bool] = True

    model: str
    pretrained: str = ""
    embeddings: bool = False
    precision: Precision = "auto"
    library: Library = "open_clip"
    fast: bool = False

    @property
    def decodes(self) -> bool:
        """The fast path does."""
        return self.fast

    @property
    def checkpoint(self) -> Checkpoint:
        """The model that the settings name; ValueError where they contradict each other."""
        return find_checkpoint(self.library, self.model, self.pretrained)

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """Similarity, and the embeddings if they are kept.

        Raises:
            ValueError: the library has no such model.
        """
        columns: dict[str, pa.DataType] = {"similarity": pa.float32()}
        if self.embeddings:
            vector = pa.list_(pa.float16(), self.checkpoint.dimensions)
            columns |= {"image_embedding": vector, "caption_embedding": vector}
        return columns

    def identity(self) -> dict[str, Any]:
        """The settings, with the digests of local files in place of their paths, so that moving them changes nothing.

        Raises:
            ValueError: a local file is missing.
        """
        parts = ("library", "embeddings", "precision", "fast")
        settings = {name: getattr(self, name) for name in parts}
        return settings | self.checkpoint.identity()

    def check(self) -> None:
        """Looks for the model and its weights, without torch.

        Raises:
            ValueError: the library has no such model, or a file is missing; embeddings are asked for, and how long
                they are is neither here nor to be had.
        """
        check_precision(self.precision)
        self.checkpoint.check()
        if self.embeddings:
            _ = self.checkpoint.dimensions

    def load(self, device: str) -> Model:
        """Loads the model, from local files or from the Hugging Face cache or hub.

        Downloads are left to huggingface_hub; with HF_HUB_OFFLINE=1 in the environment it makes none.

        Args:
            device: "cpu" or "cuda".

        Returns:
            The model.

        Raises:
            ValueError: what `check` finds; the weights cannot be had or belong to another architecture; the fast path
                does not know the model's preprocessing.
        """
        self.check()
        model = self.checkpoint.load(device, self.precision)
        if self.fast:
            _ = model.geometry  # refuses what it does not know
        return model

    def prepare(self, picture: Image.Image, model: Model) -> Any:
        """Scales, crops and normalises a picture as the model's evaluation does.

        Args:
            picture: mode RGB.
            model: what `load` returned.

        Returns:
            What the network reads of it, float32 tensors of the size of its input.

        Raises:
            SampleError: one side is more than 200 times the other.
        """
        check_shape(picture.size)
        return model.transform(picture)

    def prepare_file(self, file: bytes, model: Model) -> Any:
        """Decodes a picture no larger than need be, for the fast path.

        Args:
            file: all its bytes.
            model: what `load` returned.

        Returns:
            The network's input; where that is on a GPU, pixels that are still to be scaled there.

        Raises:
            SampleError: the file cannot be decoded, or one side is more than 200 times the other.
        """
        return model.geometry.open(file, model.device)

    def score(self, batch: Batch, model: Model) -> Mapping[str, Column]:
        """Embeds n pictures and captions; alone or in a batch the same to 1e-5 (float32, cpu) or 1e-2 (bfloat16).

        Args:
            batch: n samples.
            model: what `load` returned.

        Returns:
            The columns, n values each.
        """
        if not len(batch):
            return {name: pa.array([], kind) for name, kind in self.columns.items()}
        embed = model.embed_drafts if self.fast else model.embed_pictures
        images = embed(batch.pictures)  # (n, d)
        captions = model.embed_captions(batch.captions)  # (n, d)
        similarity = (images * captions).sum(dim=1).clamp(-1, 1)
        columns: dict[str, Column] = {"similarity": similarity.cpu().numpy()}
        if self.embeddings:
            columns |= {"image_embedding": _vectors(images), "caption_embedding": _vectors(captions)}
        return columns


def _vectors(embeddings: "torch.Tensor") -> pa.Array:
    """The n embeddings as lists of d float16."""
    values = embeddings.cpu().numpy().astype(np.float16)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
