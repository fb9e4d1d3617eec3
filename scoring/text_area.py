"""Measures text that is written on pictures, with a detector of text lines in ONNX form, such as PP-OCRv3's."""

import dataclasses
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image

from chaffinch.scoring.onnx import Session, digest_weights, open_session, read_signature
from chaffinch.scoring.scorer import Batch, Column, Scorer
from chaffinch.scoring.text_lines import LEVEL, Lines, find_lines

ENLARGEMENT = 1.5
"""Pictures are enlarged so much at most: letters are legible from some 8 pixels on, and the detector needs 12."""

ADVANCE = 0.5
"""Width of a character over the height of its line.

Letters of common Latin typefaces advance by 0.43 to 0.5 of the type size on average, blanks included, and a detected
line is about as high as its type size. Chinese, Japanese and Korean characters are twice as wide and count as two.
"""

_STRIDE = 32
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


@dataclass(frozen=True)
class Model:
    """What `TextArea.load` returns.

    Attributes:
        session: the network.
        input: name of its input.
    """

    session: Session
    input: str


@dataclass(frozen=True)
class Prepared:
    """A picture as the network sees it.

    Attributes:
        pixels: (rows, columns, 3) uint8, both multiples of 32; red, green, blue.
        width, height: of the picture as stored, pixels.
    """

    pixels: np.ndarray
    width: int
    height: int


@dataclass(frozen=True)
class TextArea(Scorer):
    """Columns: what is written on a picture, as four float32, and its k lines, the surest first.

    text_area: share of the picture that text lines cover together, in [0, 1]; less is better. A shop sign and a patch
        of gravel taken for text count as much as a sentence: prefer wide_line_width.
    line_count: how many lines there are; less is better.
    wide_line_width: summed length of the wide lines, in widths of the picture, 0 or more; less is better. 0 for nearly
        all photos, up to 1 for signs and banners in them, more where sentences are written on them.
    caption_share: how much of the caption could be written in the picture, in [0, 1]; less is better; NaN for captions
        of blanks alone. An estimate, since nothing is read: a line of so much length over height holds twice that many
        characters, Chinese, Japanese and Korean ones for two; all lines together, over the characters of the caption.
        Mostly right to a quarter, too low for letters of few pixels; what else the text may say, it cannot tell.
    boxes: k lists of 4 float32, left, top, right and bottom edge of each line as shares of the picture, in [0, 1],
        upright even where the line is not.
    confidences: k float32, mean probability of text along the line, in (0.3, 1]; higher is surer. All lines are
        listed; only those from `confidence` on count in the numbers above.
    phrases: k times "text".

    Pictures are scaled to `side`, rounded to multiples of 32 pixels, each picture for itself, so that no number
    depends on the other samples of a batch. Letters must be some 2.5% of the longer side high to be found.

    Attributes:
        weights: path of an .onnx file of a text detector with differentiable binarisation, as PaddleOCR's detectors
            are: blue, green, red, normalised with ImageNet's numbers; it gives one map of probabilities.
        side: what the longer side is scaled to, pixels; enlarged one and a half times at most. Less is faster and
            misses small print.
        confidence: from which on a line counts, in [0, 1]; .6 as in PP-OCR.
        wide: from which ratio of length to height on a line is wide. At 5 it holds about ten characters, which are two
            words; names on signs, shirts and products are mostly shorter.
    """

    reads_pictures: ClassVar[bool] = True
    uses_device: ClassVar[bool] = True

    weights: str
    side: int = 480
    confidence: float = 0.6
    wide: float = 5.0

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """Four numbers and three lists."""
        numbers = dict.fromkeys(("text_area", "line_count", "wide_line_width", "caption_share"), pa.float32())
        return numbers | {
            "boxes": pa.list_(pa.list_(pa.float32(), 4)),
            "confidences": pa.list_(pa.float32()),
            "phrases": pa.list_(pa.string()),
        }

    def identity(self) -> dict[str, Any]:
        """The settings, with the digest of the weights in place of their path.

        Raises:
            ValueError: there is no such file.
        """
        return dataclasses.asdict(self) | {"weights": digest_weights(self.weights)}

    def check(self) -> None:
        """Looks at the settings and at the file's inputs and outputs, without onnxruntime.

        Raises:
            ValueError: what is wrong, and the remedy.
        """
        if not _STRIDE <= self.side <= 4096:
            raise ValueError(f"side is {self.side}: give a number of pixels from 32 to 4096; 480 is usual")
        if not LEVEL <= self.confidence <= 1:
            raise ValueError(f"confidence is {self.confidence}: give a number from {LEVEL} to 1")
        if not self.wide >= 1:
            raise ValueError(f"wide is {self.wide}: give a ratio of length to height, 1 or more")
        signature = read_signature(self.weights)
        for tensors, channels in ((signature.inputs, 3), (signature.outputs, 1)):
            if len(tensors) != 1 or tensors[0].kind != "float32" or len(tensors[0].shape) != 4:
                raise _wrong(self.weights, f"it is {signature}")
            if tensors[0].shape[1] not in (channels, None) or (channels == 3 and any(tensors[0].shape[2:])):
                raise _wrong(self.weights, f"it is {signature}")

    def load(self, device: str) -> Model:
        """Opens the network and tries it on an empty picture.

        Args:
            device: "cpu" or "cuda".

        Returns:
            The model.

        Raises:
            ValueError: what `check` finds; the network cannot be run, or gives no map of probabilities.
        """
        self.check()
        model = Model(open_session(self.weights, device), read_signature(self.weights).inputs[0].name)
        try:
            outputs = _run(np.zeros((_STRIDE, 2 * _STRIDE, 3), np.uint8), model)
        except Exception as error:  # onnxruntime's own errors have no common ancestor
            raise _wrong(self.weights, " ".join(str(error).split())[:300]) from error
        if outputs.shape != (1, 1, _STRIDE, 2 * _STRIDE) or not (outputs.min() >= 0 and outputs.max() <= 1):
            raise _wrong(
                self.weights, f"an empty picture gave {list(outputs.shape)}, {outputs.min():g} to {outputs.max():g}"
            )
        return model

    def prepare(self, picture: Image.Image, model: Model) -> Prepared:
        """Scales a picture.

        Args:
            picture: mode RGB.
            model: what `load` returned.

        Returns:
            The picture in the size that the network sees.
        """
        longer = max(picture.size)
        scale = min(self.side, ENLARGEMENT * longer) / longer
        width, height = (max(1, round(scale * length / _STRIDE)) * _STRIDE for length in picture.size)
        pixels = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3.0))
        return Prepared(pixels, *picture.size)

    def score(self, batch: Batch, model: Model) -> Mapping[str, Column]:
        """Finds the text lines of n pictures, several pictures at a time.

        Args:
            batch: n samples.
            model: what `load` returned.

        Returns:
            The columns, n values each.
        """
        found = model.session.map(lambda one: _find(one, model), batch.pictures)
        numbers = [
            self._measure(lines, picture.width, caption)
            for lines, picture, caption in zip(found, batch.pictures, batch.captions, strict=True)
        ]
        measures = np.array(numbers, np.float32).reshape(-1, 4)
        kinds = self.columns
        return {
            **{name: measures[:, index] for index, name in enumerate(list(kinds)[:4])},
            "boxes": pa.array([list(lines.boxes) for lines in found], kinds["boxes"]),
            "confidences": pa.array([lines.confidences for lines in found], kinds["confidences"]),
            "phrases": pa.array([["text"] * len(lines.boxes) for lines in found], kinds["phrases"]),
        }

    def _measure(self, lines: Lines, width: int, caption: str) -> tuple[float, float, float, float]:
        """The four numbers of one sample."""
        sure = lines.confidences >= np.float32(self.confidence)
        lengths, ratios = lines.lengths[sure], lines.lengths[sure] / lines.heights[sure]
        characters = count_characters(caption)
        return (
            min(1.0, float(lines.areas[sure].sum())),
            float(sure.sum()),
            float(lengths[ratios >= self.wide].sum()) / width,
            min(1.0, float(ratios.sum()) / ADVANCE / characters) if characters else np.nan,
        )


def count_characters(text: str) -> int:
    """Counts how many characters wide a text is when it is written down.

    Args:
        text: any.

    Returns:
        Characters, with wide ones such as Chinese for two, accents that stand above others for none, and each run of
        blanks between words for one.
    """
    return sum(
        1 + (unicodedata.east_asian_width(character) in "WF")
        for character in " ".join(text.split())
        if unicodedata.category(character) not in ("Mn", "Me")
    )


def _find(picture: Prepared, model: Model) -> Lines:
    return find_lines(_run(picture.pixels, model)[0, 0], picture.width, picture.height)


def _run(pixels: np.ndarray, model: Model) -> np.ndarray:
    """(1, 1, rows, columns) float32, the network's map for (rows, columns, 3) uint8."""
    normal = (pixels[:, :, ::-1] / np.float32(255) - _MEAN) / _DEVIATION
    inputs = np.ascontiguousarray(normal.transpose(2, 0, 1)[None])
    return model.session.run({model.input: inputs})[0]


def _wrong(weights: str, reason: str) -> ValueError:
    return ValueError(
        f"weights {weights!r} is no detector of text lines: name one of PaddleOCR's, such as "
        f"ch_PP-OCRv3_det_infer.onnx, which takes float32 [?, 3, ?, ?] and gives float32 [?, 1, ?, ?] ({reason})"
    )
