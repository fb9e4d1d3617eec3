"""DataComp's subset file: the uids of all samples that were emitted, sorted; never more than some of them in memory."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from chaffinch.pipeline.repeats import parse_uids
from chaffinch.pipeline.storage import files, parquet

MOST_AT_ONCE = 1 << 24
"""Uids that are sorted in one memory: 256 MiB of them, a few times over. More take turns, by how they begin."""

_TYPE = np.dtype("u8,u8")
_BITS = 12  # of a uid, that say whose turn it is

CountShards = Callable[[str, Sequence[str], Callable[[str], Any]], Any]
"""Adds up what a function says of every output shard; the label is shown by Beam."""


@dataclass
class Uids:
    """Uids of some samples.

    Attributes:
        parts: (n, 2) uint64 each, high and low halves.
    """

    parts: list[np.ndarray] = field(default_factory=list)

    def merge(self, other: Self) -> Self:
        """Adds another shard's part."""
        self.parts += other.parts
        return self


@dataclass(frozen=True)
class ReadUids:
    """Reads the uids of an output shard that begin in some way.

    Attributes:
        folder: holds the output shards and the tables beside them.
        low: first beginning of interest.
        high: the first one after them that is of none.
    """

    folder: str
    low: int
    high: int

    def __call__(self, name: str) -> Uids:
        """Reads them from the table beside the shard, whose name without an ending this is."""
        uids = parse_uids(parquet.read_table(files.join(self.folder, f"{name}.parquet"), ["uid"])["uid"])
        begin = beginnings(uids)
        return Uids([uids[(begin >= self.low) & (begin < self.high)]])


def beginnings(uids: np.ndarray) -> np.ndarray:
    """(n,) how (n, 2) uids begin, as numbers below 4,096."""
    begin: np.ndarray = (uids[:, 0] >> np.uint64(64 - _BITS)).astype(np.int64)
    return begin


def count_beginnings(uids: Sequence[np.ndarray]) -> np.ndarray:
    """(4096,) int64, how many of (n, 2) uids begin in each way."""
    return sum((np.bincount(beginnings(part), minlength=1 << _BITS) for part in uids), np.zeros(1 << _BITS, np.int64))


def subset_file(uids: Sequence[np.ndarray]) -> bytes:
    """DataComp's subset file.

    Args:
        uids: (n, 2) uint64 parts, high and low halves.

    Returns:
        An .npy file of n sorted `dtype("u8,u8")`.
    """
    content = io.BytesIO()
    np.save(content, _sorted(uids).view(_TYPE).ravel())
    return content.getvalue()


def write_in_turns(path: str, folder: str, names: Sequence[str], counts: np.ndarray, count: CountShards) -> None:
    """Writes the same file from the tables beside the output shards, some beginnings of uids after the other.

    Args:
        path: the file.
        folder: holds the output shards.
        names: theirs, without an ending.
        counts: (4096,) how many uids begin in each way; of one beginning all are sorted at once.
        count: adds up over the output shards.
    """
    total = int(counts.sum())
    header = {"descr": np.lib.format.dtype_to_descr(_TYPE), "fortran_order": False, "shape": (total,)}
    with files.writing(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        written = low = 0
        while low < len(counts):
            most = np.searchsorted(np.cumsum(counts[low:]), MOST_AT_ONCE, side="right")
            high = low + max(int(most), 1)
            found: Uids = count("List uids", names, ReadUids(folder, low, high))
            halves = _sorted(found.parts)
            file.write(halves.tobytes())
            written, low = written + len(halves), high
        if written != total:
            raise RuntimeError(f"{total} samples were emitted, but the tables in {folder} name {written}: emit again")


def _sorted(uids: Sequence[np.ndarray]) -> np.ndarray:
    """(n, 2) uint64 of all parts, in order."""
    halves = np.concatenate([*uids, np.zeros((0, 2), np.uint64)])
    return np.ascontiguousarray(halves[np.lexsort((halves[:, 1], halves[:, 0]))])
