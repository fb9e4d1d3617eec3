"""Codes counted shard by shard with sums beside them; whole numbers throughout, so any order gives the same."""

from dataclasses import dataclass
from typing import Self

import numpy as np

# Parts are brought together when so many codes have gathered, so that each is sorted a few times only.
_MOST_LOOSE = 1 << 20


@dataclass
class Tally:
    """Sums of whole numbers for each code that occurs.

    Attributes:
        codes: parts of (k,) uint64, distinct and ascending within a part.
        sums: parts of (k, c) int64, what was added up for each code.
    """

    codes: list[np.ndarray]
    sums: list[np.ndarray]

    @classmethod
    def of(cls, codes: np.ndarray, numbers: np.ndarray) -> Self:
        """Adds up numbers of equal codes.

        Args:
            codes: (n,) whole numbers, 0 or more.
            numbers: (n, c) whole numbers.
        """
        added = _add(np.asarray(codes, np.uint64), np.asarray(numbers, np.int64))
        return cls([added[0]], [added[1]])

    def merge(self, other: Self) -> Self:
        """Adds another shard's sums to these."""
        self.codes += other.codes
        self.sums += other.sums
        if sum(map(len, self.codes[1:])) > max(_MOST_LOOSE, len(self.codes[0])):
            self.arrays()
        return self

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """All of it: (k,) uint64 distinct codes, ascending, and (k, c) int64 sums."""
        if len(self.codes) > 1:
            codes, sums = _add(np.concatenate(self.codes), np.concatenate(self.sums))
            self.codes, self.sums = [codes], [sums]
        return self.codes[0], self.sums[0]


def _add(codes: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(codes, kind="stable")
    codes, numbers = codes[order], numbers[order]
    first = np.flatnonzero(np.concatenate([np.ones(min(len(codes), 1), bool), codes[1:] != codes[:-1]]))
    return codes[first], np.add.reduceat(numbers, first) if len(first) else numbers
