"""Finds the objects that a caption names, with any zero-shot detector of transformers."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from PIL import Image

from chaffinch.scoring.clips.model import Precision, check_precision, resolve_precision
from chaffinch.scoring.detecting.canvases import Canvas, Canvases, Prepared
from chaffinch.scoring.detecting.checkpoints import check_checkpoint, identify, open_checkpoint
from chaffinch.scoring.detecting.families import Family, create
from chaffinch.scoring.detecting.objects import COLUMNS, NOTHING, Found, Limits, to_columns
from chaffinch.scoring.object_names import Names, load_names
from chaffinch.scoring.scorer import Batch, Column, Scorer


@dataclass(frozen=True)
class Model:
    """What `Detector.load` returns.

    Attributes:
        detector: the network with the text side of its family.
        canvases: scale pictures and lay them out.
        names: how captions call what a fixed vocabulary lists; None where captions are the prompt.
        device: where the network lies.
        precision: of the matrix products, float32 or bfloat16.
    """

    detector: Family
    canvases: Canvases
    names: Names | None
    device: str
    precision: Precision


@dataclass(frozen=True)
class Detector(Scorer):
    """Columns: the objects found in a picture, k of them, the surest first; and p phrases of the caption.

    boxes: k lists of 4 float32, left, top, right and bottom edge as shares of width and height, in [0, 1].
    confidences: k float32, how sure the model is of each, in (floor, 1]; higher is surer. Its level is the model's own.
    phrases: k texts, what each is. Of a caption that is grounded as a whole (Grounding DINO, MM Grounding DINO) the
        tokens above `text_threshold`, joined as transformers joins them, empty where there are none; of one whose
        phrases are asked for (OWL-ViT, OWLv2, OmDet-Turbo) one of `caption_phrases`; or an entry of the vocabulary.
    caption_phrases: noun phrases of the caption in their order, at most 16, by rules of thumb for English; with a
        vocabulary those of its entries that the caption mentions, by name or synonym.
    phrase_confidences: for each of them the confidence of the best box for it, float32, in [0, 1]; higher is better;
        0 where the model reads no further.
    grounded: for each of them whether that is above `text_threshold`; True is better.

    A caption without noun phrases has empty lists, and no objects either where phrases are asked for.

    Of a caption 2,000 characters are read, of these Grounding DINO reads 256 tokens; OWL-ViT and OWLv2 read 16 tokens
    of a phrase, OmDet-Turbo 77. Pictures are scaled as the checkpoint says and padded to one of a few canvases, by
    their aspect ratio alone, so that no score depends on its batch. On its canvas a picture gets the numbers that
    transformers' own processor, model and post-processing give it, short of rounding, with boxes clipped to the
    picture. Pictures with one side more than 200 times the other are refused; for OWLv2, which pads them to squares,
    those with a side above 2,000 pixels are reduced first. Of OWLv2 a prepared picture takes 11 MB, and three batches
    wait for the model: keep `run.batch_size` low.

    Attributes:
        checkpoint: a folder that `save_pretrained` wrote, or a name on the Hugging Face hub, of what
            AutoModelForZeroShotObjectDetection loads: Grounding DINO, MM Grounding DINO, OWL-ViT, OWLv2, OmDet-Turbo.
        revision: of a name on the hub: a commit, tag or branch.
        prompt: caption, or a vocabulary: a list of phrases to look for in every picture.
        floor: confidence above which a box is kept, in [0, 1); low, because filters can only raise it.
        max_objects: of more objects the surest are kept.
        text_threshold: confidence above which a token belongs to a phrase and a phrase is grounded, in [0, 1); .25 as
            in Grounding DINO's demo. Filters may judge `phrase_confidences` by any other.
        precision: of the matrix products: float32, bfloat16, or auto, which is bfloat16 on cuda and float32 on cpu.
            Weights, boxes and confidences are float32 either way.
        compile: whether torch compiles the part that sees the picture, once for each canvas: minutes at the start.
    """

    reads_pictures: ClassVar[bool] = True
    uses_device: ClassVar[bool] = True

    checkpoint: str
    revision: str | None = None
    prompt: Literal["caption"] | tuple[str, ...] = "caption"
    floor: float = 0.05
    max_objects: int = 100
    text_threshold: float = 0.25
    precision: Precision = "auto"
    compile: bool = False

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """Three lists of objects, and three of phrases."""
        return COLUMNS

    @property
    def vocabulary(self) -> tuple[str, ...] | None:
        """What is looked for in every picture; None where captions are the prompt."""
        return self.prompt if isinstance(self.prompt, tuple) else None

    @property
    def limits(self) -> Limits:
        """What is kept of a network's proposals."""
        return Limits(self.floor, self.max_objects, self.text_threshold)

    def identity(self) -> dict[str, Any]:
        """The settings, with a local folder's digest in place of its path, so that moving it changes nothing.

        Raises:
            ValueError: the folder is missing.
        """
        own = {"checkpoint": identify(self.checkpoint, self.revision), "revision": None}
        if self.vocabulary is not None:
            own["names"] = load_names(None, self.vocabulary).digest
        return dataclasses.asdict(self) | own

    def check(self) -> None:
        """Looks for the checkpoint's files and what model they are, without torch.

        Raises:
            ValueError: what is wrong, and the remedy.
        """
        if not self.checkpoint:
            raise ValueError("checkpoint is empty: name a folder or a checkpoint on the hub")
        for name, value in (("floor", self.floor), ("text_threshold", self.text_threshold)):
            if not 0 <= value < 1:
                raise ValueError(f"{name} is {value}: give a confidence from 0 up to 1")
        if self.max_objects < 1:
            raise ValueError(f"max_objects is {self.max_objects}: give a whole number from 1 on")
        check_precision(self.precision)
        _check_prompt(self.prompt)
        check_checkpoint(self.checkpoint, self.revision)

    def load(self, device: str) -> Model:
        """Opens the checkpoint, from a folder or by name from the Hugging Face cache or hub.

        Args:
            device: "cpu" or "cuda".

        Returns:
            The model.

        Raises:
            ValueError: what `check` finds; files are missing or damaged; the vocabulary does not fit the model.
        """
        self.check()
        import torch

        opened = open_checkpoint(self.checkpoint, self.revision)
        canvases = Canvases(opened.processor.image_processor, squares=opened.family == "owlv2")
        network, precision = opened.network.to(device), resolve_precision(self.precision, device)
        with torch.inference_mode(), _arithmetic(device, precision):
            detector = create(opened.family, network, opened.processor.tokenizer, self.vocabulary, self.limits)
        if self.compile:
            detector.backbone.compile()
        names = None if self.vocabulary is None else load_names(None, self.vocabulary)
        return Model(detector, canvases, names, device, precision)

    def prepare(self, picture: Image.Image, model: Model) -> Prepared:
        """Scales a picture to the size that the model sees.

        Args:
            picture: mode RGB.
            model: what `load` returned.

        Returns:
            The scaled picture, and its size as stored.

        Raises:
            SampleError: one side is more than 200 times the other.
        """
        return model.canvases.prepare(picture)

    def score(self, batch: Batch, model: Model) -> Mapping[str, Column]:
        """Detects in n pictures, those of one canvas at once; alone or in a batch the same to 1e-5 (bfloat16: 1e-2).

        Args:
            batch: n samples.
            model: what `load` returned.

        Returns:
            The columns, n values each.
        """
        import torch

        prompts = model.detector.read(batch.captions)
        found: list[Found] = [NOTHING] * len(batch)
        groups: dict[Canvas, list[int]] = {}
        for row, (picture, prompt) in enumerate(zip(batch.pictures, prompts, strict=True)):
            if prompt.phrases or not model.detector.needs_phrases:
                groups.setdefault(model.canvases.find(picture), []).append(row)
        for canvas, rows in groups.items():
            pictures = [batch.pictures[row] for row in rows]
            with torch.inference_mode(), _arithmetic(model.device, model.precision):
                pixels, mask = model.canvases.stack(pictures, canvas, model.device)
                seen = model.detector.detect(pictures, pixels, mask, [prompts[row] for row in rows])
            for row, objects in zip(rows, seen, strict=True):
                found[row] = objects
        if model.names is not None:
            mentioned = [model.names.find(caption) for caption in batch.captions]
            found = [_of_caption(one, entries) for one, entries in zip(found, mentioned, strict=True)]
        return to_columns(found, self.limits)


def _check_prompt(prompt: str | tuple[str, ...]) -> None:
    if prompt == "caption":
        return
    if isinstance(prompt, str):
        raise ValueError(f"prompt {prompt!r} is unknown: use caption, or a list of phrases such as [dog, red ball]")
    if not prompt:
        raise ValueError("prompt is an empty vocabulary: list at least one phrase, or use caption")
    for number, phrase in enumerate(prompt):
        if not any(map(str.isalnum, phrase)):
            raise ValueError(f"prompt lists {phrase!r}: give every entry letters or digits")
        if phrase in prompt[:number]:
            raise ValueError(f"prompt lists {phrase!r} more than once: leave one")


def _of_caption(found: Found, mentioned: list[str]) -> Found:
    """Of a vocabulary's entries only those that the caption mentions."""
    places = [found.caption_phrases.index(entry) for entry in mentioned]
    confidences = found.phrase_confidences[np.array(places, np.int64)]
    return dataclasses.replace(found, caption_phrases=mentioned, phrase_confidences=confidences)


@contextlib.contextmanager
def _arithmetic(device: str, precision: Precision) -> Iterator[None]:
    """Matrix products in the model's precision, the same on every run: no TF32, no choice of kernels by timing."""
    import torch

    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    reduced = torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")
    with exact, reduced:
        yield
