"""A model of captions: n-grams of words, and the spelling of those words that it has not seen."""

import hashlib
import itertools
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from chaffinch.scoring.text.ngrams import FIRST, UNSEEN, NGrams, Sequences, fit
from chaffinch.scoring.text.words import normalise, split

SPELLING_ORDER = 5
# Before anything is known of spelling, a character is any of Unicode's.
_LOG2_CHARACTER = -float(np.log2(sys.maxunicode + 1))


@dataclass(frozen=True)
class CaptionModel:
    """Models of captions, one per fold, each of which has not seen the captions of its fold.

    P(caption) is that of its words, one after the other, and of the end. P_0 of a word, which is what the n-gram model
    of words asks for where it has not seen it, is that of its characters and the end of the word in an n-gram model of
    the different words of the same captions; P_0 of a character is 1 / 1,114,112.

    Attributes:
        vocabulary: words of all folds -> their symbols.
        words: n-grams of words; root f is of all captions but those of fold f.
        spellings: n-grams of characters, likewise.
    """

    vocabulary: Mapping[str, int]
    words: NGrams
    spellings: NGrams

    @property
    def folds(self) -> int:
        """How many models there are."""
        return len(self.words.roots)

    def measure(self, captions: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
        """Measures n captions, each by the model of its fold.

        Args:
            captions: the words of each.

        Returns:
            (n,) float64, -log2 P, in bits; (n,) how many words the model does not know.
        """
        flat = list(itertools.chain.from_iterable(captions))
        symbols = np.fromiter(map(self.vocabulary.get, flat, itertools.repeat(UNSEEN)), np.int64, len(flat))
        folds = np.fromiter((_hash(caption) % self.folds for caption in captions), np.int64, len(captions))
        sequences = Sequences.of(symbols, [len(caption) for caption in captions], folds)
        log2, known = self.words.log2(sequences)
        inner = np.flatnonzero(sequences.symbols >= FIRST)
        unknown = ~known[inner]
        strange = inner[unknown]
        if len(strange):
            spelled = _spelled([flat[index] for index in np.flatnonzero(unknown).tolist()], sequences.roots[strange])
            log2[strange] += _spelling(self.spellings, spelled)
        # Added caption by caption: a running sum would make a score depend on the captions before it.
        bits = -np.bincount(sequences.owners, weights=log2, minlength=len(captions))
        return bits, np.bincount(sequences.owners[strange], minlength=len(captions))


@dataclass(frozen=True)
class Encoded:
    """Captions as numbers.

    Attributes:
        names: v different words.
        symbols: (sum of lengths,) uint32, the places of the captions' words in `names`.
        lengths: (n,) words of each caption, 1 or more.
        hashes: (n,) uint64, which caption it is.
    """

    names: Sequence[str]
    symbols: np.ndarray
    lengths: np.ndarray
    hashes: np.ndarray

    def least(self, most: int) -> tuple["Encoded", int]:
        """The captions with the least hashes, as many as have so many words in all, but at least one.

        Args:
            most: how many words.

        Returns:
            The captions in the order of their hashes; the least hash that was left out, 2**64 where none was.
        """
        order, lengths = np.argsort(self.hashes, kind="stable"), self.lengths.astype(np.int64)
        count = max(1, int(np.searchsorted(np.cumsum(lengths[order]), most, side="right")))
        limit = int(self.hashes[order[count]]) if count < len(order) else 1 << 64
        order = order[:count]
        starts, lengths = (np.cumsum(lengths) - lengths)[order], lengths[order]
        inside = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        symbols = self.symbols[np.repeat(starts, lengths) + inside]
        used = np.bincount(symbols, minlength=len(self.names)) > 0
        names = [self.names[place] for place in np.flatnonzero(used).tolist()]
        return Encoded(names, (np.cumsum(used) - 1).astype(np.uint32)[symbols], lengths, self.hashes[order]), limit


def take(captions: Iterable[str], most: int) -> Encoded:
    """Splits captions into words; where there are too many, keeps those with the least hashes.

    What comes out does not depend on the order of the captions.

    Args:
        captions: any number of texts; blank ones are passed over.
        most: words to take at most, unless the first caption by hash has more.

    Returns:
        Captions in the order of their hashes, and their words in alphabetical order.
    """
    taken = Encoded([], *(np.empty(0, kind) for kind in (np.uint32, np.uint32, np.uint64)))
    numbers: dict[str, int] = {}
    symbols, lengths, hashes = array("I"), array("I"), array("Q")

    def collected() -> tuple[Encoded, int]:
        """What was taken before and what has come since, as far as there is room for."""
        added = (np.array(part) for part in (symbols, lengths, hashes))
        before = (taken.symbols, taken.lengths, taken.hashes)
        parts = (np.concatenate(pair) for pair in zip(before, added, strict=True))
        return Encoded(list(numbers), *parts).least(most)

    limit = 1 << 64
    for caption in captions:
        words = split(normalise(caption))
        place = _hash(words)
        if not words or place >= limit:
            continue
        symbols.extend([numbers.setdefault(word, len(numbers)) for word in words])
        lengths.append(len(words))
        hashes.append(place)
        if len(symbols) > most:
            taken, limit = collected()
            numbers = {name: number for number, name in enumerate(taken.names)}
            symbols, lengths, hashes = array("I"), array("I"), array("Q")
    taken, _ = collected()
    order = sorted(range(len(taken.names)), key=taken.names.__getitem__)
    places = np.empty(len(order), np.uint32)
    places[order] = np.arange(len(order))
    return replace(taken, names=[taken.names[place] for place in order], symbols=places[taken.symbols])


def train(captions: Encoded, order: int, folds: int) -> CaptionModel:
    """Fits a model per fold to all captions that are not of that fold; where there is one fold, to all captions.

    Args:
        captions: what `take` returned.
        order: length of the longest n-grams of words.
        folds: how many.

    Returns:
        The models.

    Raises:
        ValueError: there is nothing to fit one of them to.
    """
    own = captions.hashes % np.uint64(folds)
    parts = [own != fold if folds > 1 else np.ones(len(own), bool) for fold in range(folds)]
    if not all(part.any() for part in parts):
        raise ValueError(
            f"corpus has {len(own)} captions, too few for {folds} folds: name a larger one, or set folds: 1"
        )
    symbols = captions.symbols.astype(np.int64) + FIRST
    sequences = Sequences.of(
        np.concatenate([symbols[np.repeat(part, captions.lengths)] for part in parts]),
        np.concatenate([captions.lengths[part] for part in parts]),
        np.repeat(np.arange(folds), [int(part.sum()) for part in parts]),
    )
    words = fit(sequences, order, folds)
    roots, seen = words.unigrams()
    inner = seen >= FIRST
    spelled = _spelled([captions.names[symbol - FIRST] for symbol in seen[inner].tolist()], roots[inner])
    letters = fit(spelled, SPELLING_ORDER, folds)
    spellings = letters.over(np.full(len(letters.unigrams()[0]), _LOG2_CHARACTER))
    floors = np.full(len(seen), -np.inf)  # the end of a caption is no word
    floors[inner] = _spelling(spellings, spelled)
    vocabulary = {name: symbol for symbol, name in enumerate(captions.names, start=FIRST)}
    return CaptionModel(vocabulary, words.over(floors), spellings)


def _hash(words: Sequence[str]) -> int:
    """64 bits that say which caption this is, on any machine."""
    content = " ".join(words).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest())


def _spelled(words: Sequence[str], roots: np.ndarray) -> Sequences:
    """Words as sequences of code points."""
    codes = np.frombuffer("".join(words).encode("utf-32-le", "surrogatepass"), np.uint32)
    return Sequences.of(codes.astype(np.int64) + FIRST, [len(word) for word in words], roots)


def _spelling(spellings: NGrams, words: Sequences) -> np.ndarray:
    """(k,) log2 P of k words by their characters."""
    log2, known = spellings.log2(words)
    log2[~known & (words.positions > 0)] += _LOG2_CHARACTER
    spelled: np.ndarray = np.bincount(words.owners, weights=log2)
    return spelled
