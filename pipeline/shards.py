"""Shards: which there are, what they are called, and whether one has changed since it was measured."""

import hashlib
import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from chaffinch.pipeline.storage import files, listings

_WILDCARD = re.compile(r"[*?\[]")


class ShardError(Exception):
    """A shard went away or was replaced while it was read; its samples are rejected until it can be read again."""


@dataclass(frozen=True)
class Shard:
    """One tar archive of a pool.

    Attributes:
        name: its path below the common root of the input, without .tar.
        path: where it is.
        size: bytes.
        modified: seconds since the epoch.
    """

    name: str
    path: str
    size: int
    modified: float

    @property
    def stamp(self) -> str:
        """8 hex digits that change when the file is replaced: a listing shows whether it was measured as it is."""
        return hashlib.sha256(f"{self.size} {self.modified!r}".encode()).hexdigest()[:8]


def find_shards(inputs: str | Sequence[str]) -> list[Shard]:
    """Lists the shards of a pool.

    Names depend on what was asked for, not on what was found, so that they stay when the pool grows.

    Args:
        inputs: a folder, a glob, a .tar file, or a list of them.

    Returns:
        Shards in the order of their names.
    """
    places = [inputs] if isinstance(inputs, str) else list(inputs)
    places = [place if not files.is_local(place) else os.path.abspath(place) for place in places]
    root = _common_root([_root(place) for place in places])
    found = {info.path: info for place in places for info in _list(place) if info.path.endswith(".tar")}
    shards = [
        Shard(path[len(root) :].removesuffix(".tar"), path, info.size, info.modified) for path, info in found.items()
    ]
    return sorted(shards, key=lambda shard: shard.name)


def _list(place: str) -> list[listings.FileInfo]:
    if not _is_glob(place):
        one = listings.info(place) if place.endswith(".tar") else None
        return listings.listing_below(place, ".tar") if one is None else [one]
    if place.endswith(".tar"):
        return listings.listing(place)
    # A glob may name shards as well as folders of them.
    return listings.listing(place) + listings.listing(files.join(place, "**.tar"))


def _is_glob(place: str) -> bool:
    """Whether a place is a pattern; a folder that is there may have brackets in its name."""
    return bool(_WILDCARD.search(place)) and not (files.is_local(place) and files.exists(place))


def _root(place: str) -> str:
    """The folder that a place's shard names are relative to, ending in a slash."""
    wildcard = _WILDCARD.search(place)
    if wildcard and _is_glob(place):
        return place[: place.rindex("/", 0, wildcard.start()) + 1]
    return place[: place.rindex("/") + 1] if place.endswith(".tar") else place.rstrip("/") + "/"


def _common_root(roots: Sequence[str]) -> str:
    parts = zip(*(root.rstrip("/").split("/") for root in roots), strict=False)
    shared = itertools.takewhile(lambda part: len(set(part)) == 1, parts)
    return "".join(f"{part[0]}/" for part in shared)
