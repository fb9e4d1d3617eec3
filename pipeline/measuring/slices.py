"""Slices: parts of a pool that are scored apart, each shard in the part that its name says."""

import hashlib
import json
import re
from dataclasses import dataclass

from chaffinch.pipeline.storage import files
from chaffinch.pipeline.store import Store

_SLICE = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True)
class Slice:
    """One of `count` parts of any pool.

    Attributes:
        number: which, from 0.
        count: how many there are.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Slice":
        """Reads `3/128`.

        Args:
            text: the number of a slice, from 0, and how many there are.

        Returns:
            The slice.

        Raises:
            ValueError: it is no slice; says what one looks like.
        """
        match = _SLICE.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no slice; write 0/128 for the first of 128, 127/128 for the last")
        number, count = int(match[1]), int(match[2])
        if number >= count:
            known = f"those of {count} are 0/{count} to {count - 1}/{count}" if count else "there is at least one"
            raise ValueError(f"there is no slice {text}: slices count from 0, and {known}")
        return cls(number, count)

    def holds(self, shard: str) -> bool:
        """Whether a shard is in this slice; its name alone decides, so that it stays when the pool grows."""
        return slice_of(shard, self.count) == self.number

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def slice_of(shard: str, count: int) -> int:
    """Which of `count` slices a shard is in: the first 64 bits of its name's sha256, modulo their number."""
    return int.from_bytes(hashlib.sha256(shard.encode("utf-8", "surrogateescape")).digest()[:8], "big") % count


def note_count(store: Store, count: int) -> None:
    """Writes down into how many slices a pool was cut last, so that whoever misses tables can name the slice."""
    files.write_changed(_path(store), (json.dumps({"count": count}) + "\n").encode())


def noted_count(store: Store) -> int | None:
    """Into how many slices the pool was cut last; None where it never was, or nobody can tell."""
    if not files.exists(_path(store)):
        return None
    try:
        count = json.loads(files.read_bytes(_path(store)))["count"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return count if isinstance(count, int) and count > 0 else None


def _path(store: Store) -> str:
    return files.join(store.root, "slices.json")
