"""Measures how usual a caption is, word by word, for a corpus of captions that the user names."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from chaffinch.scoring.scorer import Batch, Column, Scorer
from chaffinch.scoring.text.caption_model import CaptionModel, take, train
from chaffinch.scoring.text.corpus import Places, digest, read_captions
from chaffinch.scoring.text.words import normalise, split


@dataclass(frozen=True)
class Perplexity(Scorer):
    """Columns: float32 each; how surprising a caption is to a model of a corpus of good ones.

    bits_per_word: cross-entropy, -log2 P(caption) / (words + 1), in bits, above 0; lower is more like the corpus. The
        end of the caption counts as a word, and so does a punctuation mark. Perplexity is 2 to the power of it.
    bits_per_character: -log2 P(caption) / characters, blanks included; lower is more like the corpus. It is kinder to
        long words.
    unknown_share: words that the corpus does not have, in [0, 1]; lower is more like the corpus.

    Captions of blanks alone have no words: NaN. Captions are read in lower case (NFKC). Alt text, file names, other
    languages and boilerplate stand out; a good caption of what the corpus never speaks of does, too, so the corpus
    should be broad, and in the style that you want. Nothing is said about the picture.

    The model is an interpolated modified Kneser-Ney model of word n-grams, of which `scoring/text/ngrams.py` gives the
    formulas. What it leaves to unknown words is shared out by their spelling: a character 5-gram model of the same
    kind, of the different words of the corpus, so that an unknown word costs less than one of another language, and
    that less than one in another script. Models are not kept but trained when scoring starts: 15 s of one core, 0.7 GB
    for that time and 60 MB afterwards for 5 million words.

    Captions that are in the corpus would look too good, and ranges that lean on a `reference:` would be too narrow
    where it is also the corpus. Therefore captions are dealt into folds by a hash of their words, and each is measured
    by a model of the other folds, whether or not the corpus has it. Other captions of the same picture stay in.

    Source: Chen and Goodman 1999; for filtering web text Wenzek et al. 2020, CCNet, arXiv 1911.00359.

    Attributes:
        corpus: captions to learn from, on the local disk: files, globs, or folders, which stand for the .tar shards
            below them. Files are .txt (one caption a line), .csv, .tsv (with names in the first line), .parquet or
            .tar. They are read at the start of every command, since tables are named by what is in them.
        captions_key: the column of tables, or the entry of each sample's json in shards, that holds a caption or a list
            of them; not needed for .txt files, nor for the .txt members of shards.
        order: words that are looked at together, 1 to 5.
        folds: how many parts the corpus is dealt into. Models of f parts take f - 1 times the time and memory of one,
            and each has seen (f - 1) / f of the corpus. 1 is one model of all, for corpora that share no caption with
            what is measured.
        max_words: of a larger corpus so many words are learned from, those of the captions with the least hashes.
    """

    corpus: Places
    captions_key: str | None = None
    order: int = 3
    folds: int = 2
    max_words: int = 5_000_000

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """Three numbers."""
        return dict.fromkeys(("bits_per_word", "bits_per_character", "unknown_share"), pa.float32())

    def identity(self) -> dict[str, Any]:
        """The settings, with the digest of the captions in the place of where and in what form they lie.

        Raises:
            ValueError: the corpus cannot be read.
        """
        identity = dataclasses.asdict(self) | {"corpus": digest(self.corpus, self.captions_key)}
        del identity["captions_key"]
        return identity

    def check(self) -> None:
        """Checks the numbers, and reads the corpus, since the name of the tables needs that too.

        Raises:
            ValueError: what is wrong, and the remedy.
        """
        for name, least, most in (("order", 1, 5), ("folds", 1, 100), ("max_words", 1, 1_000_000_000)):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}: give a whole number from {least} to {most}")
        digest(self.corpus, self.captions_key)

    def load(self, device: str) -> CaptionModel:
        """Reads the corpus and trains the model on it.

        Args:
            device: of no consequence.

        Returns:
            The model.

        Raises:
            ValueError: the corpus cannot be read, or is too small.
        """
        captions = take(read_captions(self.corpus, self.captions_key), self.max_words)
        return train(captions, self.order, self.folds)

    def score(self, batch: Batch, model: CaptionModel) -> Mapping[str, Column]:
        """Measures n captions, in time and memory that grow with their length.

        Args:
            batch: n samples.
            model: what `load` returned.

        Returns:
            The columns, n values each.
        """
        texts = [normalise(caption) for caption in batch.captions]
        captions = [split(text) for text in texts]
        bits, unknown = model.measure(captions)
        words = np.array([len(caption) for caption in captions], np.int64)
        characters = np.array([len(text) for text in texts], np.int64)
        shares = (bits / (words + 1), bits / np.maximum(characters, 1), unknown / np.maximum(words, 1))
        return {
            name: np.where(words == 0, np.nan, values).astype(np.float32)
            for name, values in zip(self.columns, shares, strict=True)
        }
