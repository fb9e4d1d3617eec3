"""An exchange of rows between shards and cells through files, for what is compared lies in other shards.

Every shard writes what it has for all cells into one file, in the order of the cells. Whoever works on a group of cells
reads that part of every shard's file, and writes what it found for all shards into one file, in the order of the
shards. So nothing but files is shared, each is written whole or not at all, and what is there need not be made again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from chaffinch.pipeline.storage import files

_COUNT = np.dtype("<i8")


@dataclass(frozen=True)
class Group:
    """Cells that are worked on together: `first` to `last`, the last not included; and how many records they hold."""

    first: int
    last: int
    size: int


@dataclass(frozen=True)
class Exchange:
    """Files below a folder.

    Attributes:
        root: the folder.
        shards: names of all shards, in shard order.
    """

    root: str
    shards: Sequence[str]

    def path(self, *names: str) -> str:
        """A file or folder below the root."""
        return files.join(self.root, *names)

    def has(self, shard: str) -> bool:
        """Whether a shard has sent its rows."""
        return files.exists(self._sent(shard))

    def send(self, shard: str, cells: np.ndarray, count: int, records: np.ndarray, owners: np.ndarray) -> None:
        """Sends rows of a shard to cells.

        Args:
            shard: the shard's name.
            cells: (m,) where each record goes.
            count: how many cells there are.
            records: (m,) structured, or with further dimensions; plain bytes are what is sent.
            owners: (m,) int64, which row of the shard each record is of; kept for `owners`.
        """
        order = np.argsort(cells, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(cells, minlength=count))])
        with files.writing(self._sent(shard)) as file:
            for part in (offsets.astype(_COUNT), records[order], owners[order].astype(_COUNT)):
                file.write(np.ascontiguousarray(part).tobytes())

    def sizes(self, shard: str, count: int) -> np.ndarray:
        """(c,) int64: how many records a shard has sent to each cell."""
        with files.open_binary(self._sent(shard)) as file:
            return np.diff(_read(file, 0, count + 1, _COUNT))

    def owners(self, shard: str, count: int, record: np.dtype[Any]) -> np.ndarray:
        """(m,) int64: which row of the shard each of its records is of, in the order of the cells."""
        with files.open_binary(self._sent(shard)) as file:
            total = int(_read(file, count * _COUNT.itemsize, 1, _COUNT)[0])
            return _read(file, (count + 1) * _COUNT.itemsize + total * record.itemsize, total, _COUNT)

    def receive(self, group: Group, count: int, record: np.dtype[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Reads what all shards have sent to a group of cells.

        Args:
            group: which cells.
            count: how many cells there are in all.
            record: what one record is.

        Returns:
            (m,) records in the order of the shards; (m,) int64 their cells; and (s,) int64 how many each shard sent.
        """
        records, cells = np.zeros(group.size, record), np.zeros(group.size, np.int64)
        sizes, start = np.zeros(len(self.shards), np.int64), 0
        for number, shard in enumerate(self.shards):
            with files.open_binary(self._sent(shard)) as file:
                offsets = _read(file, group.first * _COUNT.itemsize, group.last - group.first + 1, _COUNT)
                place = (count + 1) * _COUNT.itemsize + int(offsets[0]) * record.itemsize
                sizes[number] = offsets[-1] - offsets[0]
                part = slice(start, start + int(sizes[number]))
                records[part] = _read(file, place, int(sizes[number]), record)
            cells[part] = np.repeat(np.arange(group.first, group.last), np.diff(offsets))
            start = part.stop
        return records, cells, sizes

    def is_answered(self, group: Group) -> bool:
        """Whether a group's results are there."""
        return files.exists(self._found(group))

    def answer(self, group: Group, sizes: np.ndarray, values: np.ndarray) -> None:
        """Writes what was found for the records of a group of cells.

        Args:
            group: which cells.
            sizes: (s,) how many of the records are of each shard.
            values: (m,) float32, in the order of the shards.
        """
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(_COUNT)
        files.write_bytes(self._found(group), offsets.tobytes() + values.astype("<f4").tobytes())

    def answers(self, number: int, groups: Sequence[Group]) -> np.ndarray:
        """Reads what was found for the records of one shard.

        Args:
            number: the shard's position in shard order.
            groups: all groups, in the order of their cells.

        Returns:
            (m,) float32, in the order of the cells, as `owners` are.
        """
        parts = [np.zeros(0, "<f4")]
        for group in groups:
            with files.open_binary(self._found(group)) as file:
                start, end = _read(file, number * _COUNT.itemsize, 2, _COUNT).tolist()
                place = (len(self.shards) + 1) * _COUNT.itemsize + start * 4
                parts.append(_read(file, place, end - start, np.dtype("<f4")))
        return np.concatenate(parts)

    def _sent(self, shard: str) -> str:
        return self.path("sent", shard + ".rows")

    def _found(self, group: Group) -> str:
        return self.path("found", f"{group.first}-{group.last}")


def group_cells(sizes: np.ndarray, most: int) -> list[Group]:
    """Cuts cells into groups of consecutive ones.

    Args:
        sizes: (c,) records in each cell.
        most: records that a group may hold; a cell that holds more is a group by itself.

    Returns:
        The groups, in the order of their cells.
    """
    groups: list[Group] = []
    first, held = 0, 0
    for cell, size in enumerate(sizes.tolist()):
        if cell > first and held + size > most:
            groups.append(Group(first, cell, held))
            first, held = cell, 0
        held += size
    return [*groups, Group(first, len(sizes), held)] if len(sizes) else []


def _read(file: BinaryIO, place: int, count: int, kind: np.dtype[Any]) -> np.ndarray:
    """(count,) of a kind, from a place in a file."""
    found = np.zeros(count, kind)
    if not count or not kind.itemsize:
        return found
    file.seek(place)
    content = file.read(count * kind.itemsize)
    if len(content) != count * kind.itemsize:
        raise OSError(
            "a file of the exchange is shorter than when it was written: remove <store>/exchange and run again"
        )
    return np.frombuffer(content, kind)
