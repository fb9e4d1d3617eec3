"""Lists of millions of entries: read from a file, and kept as sorted numbers, 16 bytes or less for each."""

import binascii
import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_MAGIC = b"PAR1"
_LINES_AT_ONCE = 1 << 18
# Pairs of values that are compared at once: 32 MB of each intermediate array.
_PAIRS_AT_ONCE = 1 << 22


def read_entries(file: Path, column: str | None) -> Iterator[tuple[pa.Array, np.ndarray]]:
    """Reads a list a part at a time.

    A text file in UTF-8 has an entry a line; blank lines and lines that begin with # do not count. Of a parquet file
    one column is read; null does not count.

    Args:
        file: the list.
        column: which column of a parquet file; None where it has but one, and for a text file.

    Yields:
        N strings or whole numbers as they stand in the file, blanks around them taken away; and (n,) the line or row
        of each, from 1.

    Raises:
        ValueError: the file cannot be read; names it, and the remedy.
    """
    try:
        with file.open("rb") as opened:
            is_parquet = opened.read(len(_MAGIC)) == _MAGIC
        yield from _read_parquet(file, column) if is_parquet else _read_lines(file, column)
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"block list {file} cannot be read: {reason}; give a text file in UTF-8 or parquet") from error


def _read_lines(file: Path, column: str | None) -> Iterator[tuple[pa.Array, np.ndarray]]:
    if column is not None:
        raise ValueError(f"block list {file} is a text file and has no column {column!r}; leave list_column out")
    first = 1
    with file.open(encoding="utf-8-sig", newline="\n") as lines:
        while part := list(itertools.islice(lines, _LINES_AT_ONCE)):
            texts = pc.utf8_trim_whitespace(pa.array(part, pa.string()))
            rows = np.flatnonzero(pc.match_substring_regex(texts, "^[^#]").to_numpy(zero_copy_only=False))
            yield texts.take(pa.array(rows)), rows + first
            first += len(part)


def _read_parquet(file: Path, column: str | None) -> Iterator[tuple[pa.Array, np.ndarray]]:
    table = pq.ParquetFile(file)
    names = table.schema_arrow.names
    if column is None and len(names) != 1:
        raise ValueError(f"block list {file} has the columns {', '.join(names)}: say list_column: which of them")
    if column is not None and column not in names:
        raise ValueError(f"block list {file} has no column {column!r}; it has {', '.join(names)}")
    first = 1
    for batch in table.iter_batches(_LINES_AT_ONCE, columns=[column or names[0]], use_threads=False):
        values = batch.column(0)
        if not pa.types.is_integer(values.type):
            values = pc.utf8_trim_whitespace(values.cast(pa.string()))
        rows = np.flatnonzero(values.is_valid().to_numpy(zero_copy_only=False))
        yield values.take(pa.array(rows)), rows + first
        first += len(batch)


@dataclass(frozen=True)
class Keys:
    """A set of 128-bit numbers.

    Attributes:
        high: (k,) uint64 upper halves, ascending.
        low: (k,) uint64 lower halves.
    """

    high: np.ndarray
    low: np.ndarray

    @classmethod
    def of(cls, keys: np.ndarray) -> "Keys":
        """The set of n numbers, which may repeat.

        Args:
            keys: (n, 2) uint64, upper and lower halves.
        """
        order = np.lexsort((keys[:, 1], keys[:, 0]))
        high, low = keys[order, 0], keys[order, 1]
        new = np.ones(len(order), bool)
        new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        return cls(high[new], low[new])

    @property
    def digest(self) -> str:
        """16 hex digits of what the set holds."""
        return hashlib.sha256(self.high.tobytes() + self.low.tobytes()).hexdigest()[:16]

    def has(self, keys: np.ndarray) -> np.ndarray:
        """Which of n numbers are in the set.

        Args:
            keys: (n, 2) uint64.

        Returns:
            (n,) bool.
        """
        left, right = (np.searchsorted(self.high, keys[:, 0], side) for side in ("left", "right"))
        found = np.zeros(len(keys), bool)
        while len(rows := np.flatnonzero(left < right)):
            found[rows] |= self.low[left[rows]] == keys[rows, 1]
            left = left + 1  # upper halves that repeat are one in a million lists of a million
        return found


def text_keys(texts: pa.Array) -> np.ndarray:
    """Names texts by numbers; a list of 10^7 and a pool of 10^10 have one in common by accident with chance 10^-21.

    Args:
        texts: n strings without nulls.

    Returns:
        (n, 2) uint64.
    """
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts.to_pylist())
    return np.frombuffer(digests, ">u8").astype(np.uint64).reshape(-1, 2)


def hex_keys(texts: pa.Array) -> np.ndarray:
    """The numbers that hex digits say.

    Args:
        texts: n strings of equally many hex digits, a multiple of 16, without nulls.

    Returns:
        (n, w) uint64, from the highest 16 digits down.
    """
    digits = "".join(texts.to_pylist())
    width = len(digits) // 16 // max(len(texts), 1)
    return np.frombuffer(binascii.unhexlify(digits), ">u8").astype(np.uint64).reshape(len(texts), width or 1)


@dataclass(frozen=True)
class Neighbours:
    """A set of 64-bit hashes that finds those at most so many bits away.

    Two numbers that differ in d bits agree in at least one of d + 1 parts, so that only those are compared.

    Attributes:
        values: (k,) uint64, ascending and distinct.
        distance: bits.
        parts: for each of distance + 1 parts of a number its lowest bit, its mask, and (k,) the values' places in the
            order of that part, with the part itself.
    """

    values: np.ndarray
    distance: int
    parts: tuple[tuple[np.uint64, np.uint64, np.ndarray, np.ndarray], ...]

    @classmethod
    def of(cls, values: np.ndarray, distance: int) -> "Neighbours":
        """The set of n hashes, which may repeat.

        Args:
            values: (n,) uint64.
            distance: bits, 0 to 63.
        """
        values = np.unique(values)
        edges = np.linspace(0, 64, distance + 2).astype(int)
        parts = []
        for low, high in itertools.pairwise(edges.tolist()):
            shift, mask = np.uint64(low), np.uint64((1 << (high - low)) - 1)
            part = ((values >> shift) & mask).astype(np.min_scalar_type(int(mask)))
            order = np.argsort(part, kind="stable").astype(np.uint32)
            parts.append((shift, mask, order, part[order]))
        return cls(values, distance, tuple(parts))

    @property
    def digest(self) -> str:
        """16 hex digits of what the set holds."""
        return hashlib.sha256(self.values.tobytes()).hexdigest()[:16]

    def has(self, values: np.ndarray) -> np.ndarray:
        """Which of n hashes are near one of the set.

        Args:
            values: (n,) uint64.

        Returns:
            (n,) bool.
        """
        found = np.zeros(len(values), bool)
        for shift, mask, order, known in self.parts:
            part = ((values >> shift) & mask).astype(known.dtype)
            left, right = (np.searchsorted(known, part, side) for side in ("left", "right"))
            counts = np.where(found, 0, right - left)
            for rows in _portions(counts):
                owners = np.repeat(rows, counts[rows])
                steps = np.arange(len(owners)) - np.repeat(np.cumsum(counts[rows]) - counts[rows], counts[rows])
                candidates = self.values[order[left[owners] + steps]]
                near = np.bitwise_count(candidates ^ values[owners]) <= self.distance
                found[owners[near]] = True
        return found


def _portions(counts: np.ndarray) -> Iterator[np.ndarray]:
    """Rows with any candidates, so many at a time that their candidates fit into memory."""
    rows = np.flatnonzero(counts)
    if len(rows):
        groups = np.cumsum(counts[rows]) // _PAIRS_AT_ONCE
        yield from np.split(rows, np.flatnonzero(np.diff(groups)) + 1)
