"""Counts the words of a caption that name things: those of a list, or WordNet's nouns for ImageNet's classes."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from chaffinch.scoring.scorer import Batch, Column, Scorer
from chaffinch.scoring.text.nouns import Nouns, packaged_synsets, read_wordnet, read_words
from chaffinch.scoring.weights import digest

REMEDY = (
    "give words, a text file with a word a line, or wordnet, a folder with WordNet 3.0's index.noun and noun.exc, such "
    "as /usr/share/wordnet (apt install wordnet-base) or nltk's corpora/wordnet; nothing is downloaded"
)
REMEMBERED_WORDS = 100_000
_EDGES = re.compile(r"^[\W_]+|[\W_]+$")


@dataclass(frozen=True)
class CaptionWords(Scorer):
    """Columns: float32 each; how many words of a caption are in a list.

    listed_words: count; more is better, and 1 is what DataComp's text-based filter asks for.
    listed_share: share of all words, in [0, 1]; NaN where there are none.

    Words are what stands between blanks, in lower case. One counts if it is in the list, or if what is left of it
    without an English plural's ending is.

    With `wordnet` the list is that of DataComp's text-based filter: a word counts if the first meaning of it as a noun,
    in WordNet's order, is one of ImageNet-21k's synsets. Plurals go by WordNet's own rules and exceptions. So "dogs"
    counts, and "glasses" do as spectacles, not as several glasses. DataComp joins this to English captions alone: add
    the `language` filter. Its code leaves punctuation at the words, so that "dog." is unknown: `strip_punctuation:
    false` does the same.

    Source: Gadre et al. 2023, DataComp, arXiv 2304.14108; Miller 1995, WordNet, Communications of the ACM 38.

    Attributes:
        words: a text file, one word a line, what follows a # being a comment.
        wordnet: a folder with the files index.noun and noun.exc of WordNet 3.0. One of the two is needed.
        synsets: with `wordnet`, a text file of the noun synsets that count, one a line, such as n02084071; by default
            ImageNet-21k's 21,841, which the package timm carries.
        strip_punctuation: whether a word that is not found is looked for again without punctuation at its ends.
    """

    words: str | None = None
    wordnet: str | None = None
    synsets: str | None = None
    strip_punctuation: bool = True

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """Two numbers."""
        return {"listed_words": pa.float32(), "listed_share": pa.float32()}

    def identity(self) -> dict[str, Any]:
        """The settings, with the digests of files in the place of their paths.

        Raises:
            ValueError: a file cannot be read.
        """
        names = ("words", "wordnet", "synsets")
        identity = {name: value for name, value in dataclasses.asdict(self).items() if name not in names}
        return identity | {"files": [digest(path) for path in self._files()]}

    def check(self) -> None:
        """Reads the files.

        Raises:
            ValueError: none is named, or one cannot be used; the remedy.
        """
        self._nouns()

    def load(self, device: str) -> Callable[[str], bool]:
        """Reads the files, and looks each frequent word up but once.

        Args:
            device: of no consequence.

        Returns:
            Whether a word, in lower case, counts.

        Raises:
            ValueError: none is named, or one cannot be used; the remedy.
        """
        nouns = self._nouns()

        @functools.lru_cache(maxsize=REMEMBERED_WORDS)
        def counts(word: str) -> bool:
            return nouns.counts(word) or (self.strip_punctuation and nouns.counts(_EDGES.sub("", word)))

        return counts

    def score(self, batch: Batch, model: Callable[[str], bool]) -> Mapping[str, Column]:
        """Looks up the words of n captions.

        Args:
            batch: n samples.
            model: what `load` returned.

        Returns:
            The columns, n values each.
        """
        captions = [caption.lower().split() for caption in batch.captions]
        listed = np.array([sum(map(model, words)) for words in captions], np.float32)
        total = np.array([len(words) for words in captions], np.float32)
        share = np.divide(listed, total, out=np.full(len(listed), np.nan, np.float32), where=total > 0)
        return {"listed_words": listed, "listed_share": share}

    def _files(self) -> tuple[Path, ...]:
        """The file of words; or WordNet's index and exceptions, and the synsets."""
        if (self.words is None) == (self.wordnet is None):
            raise ValueError(f"{'there is no list' if self.words is None else 'there are two lists'}: {REMEDY}")
        if self.words is not None:
            if self.synsets is not None:
                raise ValueError("synsets say which words of WordNet count: give wordnet, or leave them out")
            files: tuple[Path, ...] = (Path(self.words).expanduser(),)
        else:
            folder = Path(str(self.wordnet)).expanduser()
            synsets = packaged_synsets() if self.synsets is None else Path(self.synsets).expanduser()
            files = (folder / "index.noun", folder / "noun.exc", synsets)
        for path in files:
            if not path.is_file():
                raise ValueError(f"{str(path)!r} is not a file here: {REMEDY}")
        return files

    def _nouns(self) -> Nouns:
        files = self._files()
        return read_words(*files) if self.words is not None else read_wordnet(*files)
