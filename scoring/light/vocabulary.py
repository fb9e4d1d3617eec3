"""Words of captions as numbers: those that trusted captions use, and one number for all others."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

UNKNOWN = 0
"""The number of every word that is not in the vocabulary."""

# Of longer captions the beginning is read: it bounds what one of them costs.
MOST_WORDS = 256
_MOST_CHARACTERS = 10_000
_WORD = re.compile(r"[^\W_]+")


def words(caption: str) -> list[str]:
    """The words of a caption in their order: runs of letters and digits, without case; at most 256 of them."""
    return _WORD.findall(caption[:_MOST_CHARACTERS].casefold())[:MOST_WORDS]


@dataclass(frozen=True)
class Vocabulary:
    """The words that have a number of their own.

    Attributes:
        entries: (v,) words; that at position i has the number i + 1.
    """

    entries: tuple[str, ...]

    @classmethod
    def of(cls, captions: Iterable[str], least: int) -> "Vocabulary":
        """The words of captions, in the order of the alphabet.

        Args:
            captions: to learn from.
            least: in how many captions a word has to occur.
        """
        counts = Counter(word for caption in captions for word in set(words(caption)))
        return cls(tuple(sorted(word for word, count in counts.items() if count >= least)))

    def __len__(self) -> int:
        return len(self.entries) + 1

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.entries, 1)}

    def numbers(self, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Looks captions up.

        Args:
            captions: (n,) texts. One without any word is read as one unknown word.

        Returns:
            (w,) int64 numbers of all their words, one caption after the other, and (n,) int64 where each begins.
        """
        found = [[self._numbers.get(word, UNKNOWN) for word in words(caption)] or [UNKNOWN] for caption in captions]
        lengths = np.array([len(one) for one in found], np.int64)
        starts = np.cumsum(lengths) - lengths
        return np.array([number for one in found for number in one], np.int64), starts
