"""Captioned pictures to compare with: their embeddings and the words of their captions."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from chaffinch.scoring.text.words import normalise, split


@dataclass(frozen=True)
class CaptionedPictures:
    """N pictures with captions.

    Attributes:
        vectors: (N, d) float64, as `directions` makes them.
        words: (N,) the different words of the captions of each.
        rows: uid -> place, as far as uids are known.
        frequencies: word -> how many of the pictures have it in a caption.
    """

    vectors: np.ndarray
    words: Sequence[frozenset[str]]
    rows: Mapping[str, int]
    frequencies: Mapping[str, int]

    def weight(self, word: str) -> float:
        """Inverse document frequency, ln((N + 1) / (1 + how many of the pictures have the word)): 0 or more."""
        return math.log((len(self.words) + 1) / (1 + self.frequencies.get(word, 0)))

    def nearest(self, vectors: np.ndarray, uids: Sequence[str], count: int) -> tuple[np.ndarray, np.ndarray]:
        """Finds the most similar pictures; a sample that is one of them is not its own neighbour.

        Args:
            vectors: (n, d) as `directions` makes them, without NaN.
            uids: (n,) of the samples.
            count: how many to find, 1 or more.

        Returns:
            (n, k) places and (n, k) cosines, the nearest first, where k is `count` or N; -inf for the sample itself,
            which comes last and is found only where k is N.
        """
        similarities = vectors @ self.vectors.T  # (n, N)
        for row, uid in enumerate(uids):
            if uid in self.rows:
                similarities[row, self.rows[uid]] = -np.inf
        count = min(count, len(self.words))
        places = np.argpartition(-similarities, count - 1, axis=1)[:, :count]
        found = np.take_along_axis(similarities, places, axis=1)
        order = np.lexsort((places, -found), axis=1)
        return np.take_along_axis(places, order, axis=1), np.take_along_axis(found, order, axis=1)


def words_of(captions: Iterable[str]) -> frozenset[str]:
    """The different words of captions; marks without a letter or digit are no words."""
    words = itertools.chain.from_iterable(split(normalise(caption)) for caption in captions)
    return frozenset(word for word in words if any(character.isalnum() for character in word))


def directions(column: pa.Array) -> np.ndarray:
    """Turns vectors into unit vectors of float16 numbers.

    Products of such numbers are multiples of 2**-48, so that float64 holds their sums exactly: neighbours are the same
    alone, in a batch and on any machine.

    Args:
        column: n lists of d numbers, none of them null.

    Returns:
        (n, d) float64; NaN where a vector has no direction.

    Raises:
        ValueError: the lists differ in length.
    """
    values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    if len({len(one) for one in column}) > 1:
        raise ValueError("vectors differ in length")
    vectors = values.reshape(len(column), -1) if len(column) else np.zeros((0, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        units: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units.astype(np.float16).astype(np.float64)
