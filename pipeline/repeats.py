"""Repeated uids: of samples that share one, the first in shard order counts; found without all uids in one memory."""

import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa

from chaffinch.filters.cut import hash_uids

BITS_PER_SAMPLE = 16
"""About one sample in twenty is then looked at a second time."""

MOST_BITS = 1 << 31
"""Bits of a table at most: two of 256 MiB where sums are made, one in every worker. Larger pools take turns."""

_BITS_PER_SHARD = BITS_PER_SAMPLE * 10_000
_SEED = 0


def parse_uids(column: pa.ChunkedArray) -> np.ndarray:
    """Turns uids of 32 hex digits into numbers.

    Args:
        column: n strings without nulls.

    Returns:
        (n, 2) uint64, high and low halves.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not len(array):
        return np.zeros((0, 2), np.uint64)
    # All digits lie side by side in the array's own buffer.
    ends = np.frombuffer(array.buffers()[1], np.int32)[array.offset : array.offset + len(array) + 1]
    digits = array.buffers()[2][int(ends[0]) : int(ends[-1])]
    return np.frombuffer(binascii.unhexlify(digits), ">u8").astype(np.uint64).reshape(len(array), 2)


def table_size(shards: int) -> int:
    """How many bits the search for repeats uses: a power of two that grows with the pool."""
    return 1 << max(16, (shards * _BITS_PER_SHARD - 1).bit_length())


def fits_at_once(shards: int) -> bool:
    """Whether the bits of a pool fit into one table of `MOST_BITS`; otherwise `find_repeats` is to look for repeats."""
    return table_size(shards) <= MOST_BITS


@dataclass
class Seen:
    """Which hashes occurred at all, and which more than once. Merging adds up in any order.

    What shards saw is kept as lists until two bit tables take less room.

    Attributes:
        size: number of bits in a table.
        hashes: parts of (n,) hashes below `size`, distinct in each part.
        twice: parts of (n,) hashes that occurred more than once in a part.
        tables: (2, size / 8) uint8, bits of hashes that occurred, and of those that did more than once; or None.
    """

    size: int
    hashes: list[np.ndarray]
    twice: list[np.ndarray]
    tables: np.ndarray | None = None

    @classmethod
    def of(cls, uids: np.ndarray, size: int) -> Self:
        """Notes the uids of one shard.

        Args:
            uids: (n, 2) uint64.
            size: number of bits, a power of two.
        """
        hashes, counts = np.unique(positions(uids, size), return_counts=True)
        kind = np.min_scalar_type(size - 1)
        return cls(size, [hashes.astype(kind)], [hashes[counts > 1].astype(kind)])

    def merge(self, other: Self) -> Self:
        """Adds another part."""
        self.hashes += other.hashes
        self.twice += other.twice
        if other.tables is not None:
            if self.tables is not None:
                other.tables[1] |= self.tables[1] | (self.tables[0] & other.tables[0])
                other.tables[0] |= self.tables[0]
            self.tables = other.tables
        if sum(part.nbytes for part in self.hashes) > self.size // 8:
            self._fill_tables()
        return self

    def suspects(self) -> "Suspects":
        """What is needed to pick the uids that may be repeated."""
        again = self._fill_tables()[1]
        # A copy, since a part would hold on to both tables.
        return Suspects(self.size, again.copy() if again.any() else None)

    def _fill_tables(self) -> np.ndarray:
        """Moves the lists into the tables."""
        if self.tables is None:
            self.tables = np.zeros((2, self.size // 8), np.uint8)
        once, again = self.tables
        for hashes in self.hashes:
            _set(again, hashes[_get(once, hashes)])
            _set(once, hashes)
        for hashes in self.twice:
            _set(again, hashes)
        self.hashes, self.twice = [], []
        return self.tables


@dataclass(frozen=True)
class Suspects:
    """Hashes that occurred more than once.

    Attributes:
        size: number of bits.
        bits: (size / 8,) uint8, or None where there are none.
    """

    size: int
    bits: np.ndarray | None

    def rows(self, uids: np.ndarray) -> np.ndarray:
        """Rows whose uid may be repeated.

        Args:
            uids: (n, 2) uint64.

        Returns:
            Row numbers, ascending.
        """
        if self.bits is None:
            return np.zeros(0, np.int64)
        return np.flatnonzero(_get(self.bits, positions(uids, self.size)))


@dataclass
class Claims:
    """Samples whose uid may be repeated.

    Attributes:
        uids: (n, 2) uint64.
        places: (n, 2) int64: number of the shard in shard order, and row.
    """

    uids: np.ndarray
    places: np.ndarray

    def merge(self, other: Self) -> Self:
        """Adds another shard's part."""
        self.uids = np.concatenate([self.uids, other.uids])
        self.places = np.concatenate([self.places, other.places])
        return self

    def repeated(self, shards: Sequence[str]) -> Mapping[str, tuple[int, ...]]:
        """Settles who comes first.

        Args:
            shards: shard names in shard order.

        Returns:
            Shard -> rows that repeat an earlier sample's uid.
        """
        order = np.lexsort((self.places[:, 1], self.places[:, 0], self.uids[:, 1], self.uids[:, 0]))
        uids, places = self.uids[order], self.places[order]
        later = np.flatnonzero((uids[1:] == uids[:-1]).all(axis=1)) + 1
        found: dict[str, list[int]] = {}
        for shard, row in places[later].tolist():
            found.setdefault(shards[shard], []).append(row)
        return {name: tuple(sorted(rows)) for name, rows in found.items()}


def positions(uids: np.ndarray, size: int) -> np.ndarray:
    """(n,) hashes of uids below `size`, a power of two."""
    masked: np.ndarray = (hash_uids(uids, _SEED) & np.uint64(size - 1)).astype(np.int64)
    return masked


def _set(bits: np.ndarray, where: np.ndarray) -> None:
    np.bitwise_or.at(bits, where >> 3, np.left_shift(np.uint8(1), (where & 7).astype(np.uint8)))


def _get(bits: np.ndarray, where: np.ndarray) -> np.ndarray:
    found: np.ndarray = (bits[where >> 3] >> (where & 7).astype(np.uint8)) & np.uint8(1)
    return found.astype(bool)
