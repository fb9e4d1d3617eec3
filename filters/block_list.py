"""Samples that somebody wants to be left out: a list of uids, addresses, domains or hashes."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chaffinch.filters.addresses import hosts, places
from chaffinch.filters.entries import Keys, Neighbours, hex_keys, read_entries, text_keys
from chaffinch.filters.filter import Bounds, Filter

By = Literal["uid", "url", "domain", "sha256", "hash", "text"]

MOST_DISTANCE = 16
"""Bits; the hashes of two unrelated pictures differ in 32 of 64, give or take 4, so that more would block at random."""

_COLUMNS: Mapping[By, str] = {
    "uid": "samples.uid",
    "url": "metadata.url",
    "domain": "metadata.url",
    "sha256": "metadata.sha256",
    "hash": "pictures.hash",
}
_DIGITS = {"uid": 32, "sha256": 64, "hash": 16}


@dataclass(frozen=True, kw_only=True)
class BlockList(Filter):
    """Score: 1 where a sample is on the list, 0 where it is not; lower is better.

    The list is a text file in UTF-8 with an entry a line, where blank lines and lines that begin with # do not count,
    or a column of a parquet file. What its entries are is said by `by`:

    uid: the sample's uid, 32 hex digits.
    url: its address. Scheme, user, password, the ports 80 and 443, what follows a #, the case and the encoding of the
        host, and how characters are percent-encoded make no difference; everything else does.
    domain: the host of its address, or any domain that it lies below: example.org blocks example.org and
        www.example.org, not badexample.org. An entry may be written as an address without a path, as .example.org or
        as *.example.org, and in the letters of its language.
    sha256: the digest of its picture as it was downloaded, 64 hex digits.
    hash: the perceptual hash of its picture, 16 hex digits, or whole numbers in parquet; `distance` bits may differ.
    text: any other column, letter by letter.

    It is a veto unless told otherwise. What it drops leaves its place in the emitted shards and is not replaced:
    nothing is learned from the list, no other sample is kept in its stead, and where the list grows, only the shards
    that hold what was added are written anew. Every worker process keeps 16 bytes of each entry (of hashes 16 to 20,
    and 6 more for each bit of `distance`): 10 million take 0.25 to 0.6 GB, up to 1 GB while they are read, which takes
    20 seconds to a minute.

    Attributes:
        file: the list.
        by: what it lists.
        column: the column of the pool to look up; metadata.url for url and domain, metadata.sha256, samples.uid and
            pictures.hash where nothing is said. LAION's pools have metadata.URL.
        list_column: the column of a parquet file that has more than one.
        distance: how many bits of a hash may differ, 0 to 16; near duplicates differ in few. More than 3 are slow among
            millions of entries.
        missing: what becomes of samples without a value in a column made elsewhere (no address, or one without a host
            by domain): `drop` blocks them, since nothing shows that they are not on the list; `keep` lets them pass. In
            columns that were measured here only rejected samples have none.
        refill: whether a sample that is dropped gives way to another, as with any other veto, so that as many are kept
            as `keep:` says and output shards are full: for lists that are there from the start and do not change.
        require: as of every filter; true where nothing is said.
        drop: as of every filter; 1 where nothing is said.
    """

    file: str
    by: By
    column: str | None = None
    list_column: str | None = None
    distance: int = 0
    missing: Literal["drop", "keep"] = "drop"
    refill: bool = False
    require: bool = True
    drop: Bounds | None = (1, None)

    @property
    def reads(self) -> tuple[str, ...]:
        """The one column to look up."""
        return (self.column or _COLUMNS.get(self.by, ""),)

    @property
    def takes_down(self) -> bool:
        """Whether what it drops leaves a place that stays empty."""
        return self.require and not self.refill

    def identity(self) -> dict[str, object]:
        """The settings, with the digest of the list in the place of its path: a moved list is no other, a changed is.

        Raises:
            ValueError: the list cannot be used.
        """
        listed = load_list(self.file, self.by, self.list_column, self.distance)
        return super().identity() | {"file": listed.digest, "list_column": None}

    def check(self) -> None:
        """Reads the list.

        Raises:
            ValueError: the list cannot be used (names file, line and remedy), or settings do not go together.
        """
        if self.by not in get_args(By):
            raise ValueError(f"by {self.by!r} is unknown: use one of {', '.join(get_args(By))}")
        if not 0 <= self.distance <= MOST_DISTANCE:
            raise ValueError(f"distance is {self.distance}: give 0 to {MOST_DISTANCE} of the 64 bits")
        if self.distance and self.by != "hash":
            raise ValueError("distance counts the bits of hashes; leave it out, or look them up with by: hash")
        if not self.reads[0]:
            raise ValueError("by: text needs column: the column of the pool to look up, such as metadata.licence")
        scorer, dot, column = self.reads[0].partition(".")
        if not (scorer and dot and column):
            raise ValueError(f"column {self.column!r} is not of the form <scorer>.<column>, such as metadata.url")
        load_list(self.file, self.by, self.list_column, self.distance)

    def score(self, columns: Mapping[str, pa.Array]) -> np.ndarray:
        """Looks n values up.

        Args:
            columns: the column; n strings, or n whole numbers by hash; null for rejected samples and where there is no
                such value.

        Returns:
            (n,) float32, 1 or 0; NaN where there is no value, unless `missing` says that this is to be blocked too.

        Raises:
            ValueError: the list cannot be used, or the column holds something else.
        """
        name = self.reads[0]
        values = columns[name]
        scores = np.full(len(values), np.nan, np.float32)
        if not pa.types.is_null(values.type):
            values = self._comparable(name, values)
            known = values.is_valid().to_numpy(zero_copy_only=False)
            listed = load_list(self.file, self.by, self.list_column, self.distance)
            scores[known] = listed.has(values.drop_null())
        if self.missing == "drop" and name.startswith("metadata."):
            scores[np.isnan(scores)] = 1
        return scores

    def _comparable(self, name: str, values: pa.Array) -> pa.Array:
        """The n values in the form in which the list has its entries; null where there is nothing to compare."""
        if self.by == "hash":
            if not pa.types.is_integer(values.type):
                raise ValueError(f"column {name!r} holds {values.type}, not hashes of 64 bits; name another column")
            return _unsigned(values)
        text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
        if not text and not (self.by == "text" and pa.types.is_integer(values.type)):
            raise ValueError(f"column {name!r} holds {values.type}, nothing that can be listed by {self.by}")
        texts = _FORMS[self.by](values.cast(pa.string()))
        return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)


@dataclass(frozen=True)
class Listed:
    """A list, ready to be looked things up in.

    Attributes:
        by: what its entries are.
        entries: the entries.
    """

    by: By
    entries: Keys | Neighbours

    @property
    def digest(self) -> str:
        """16 hex digits of the entries, whatever their order."""
        return f"{self.by} {self.entries.digest}"

    def has(self, values: pa.Array) -> np.ndarray:
        """Which of n values are on the list.

        Args:
            values: n values in the form of the list's entries, without nulls.

        Returns:
            (n,) bool.
        """
        if isinstance(self.entries, Neighbours):
            return self.entries.has(values.to_numpy())
        if self.by != "domain":
            return self.entries.has(text_keys(values))
        # Pictures come in numbers from one host, so each is looked up once, with all it lies below.
        encoded = values.dictionary_encode()
        names = encoded.dictionary
        found, rows = np.zeros(len(names), bool), np.arange(len(names))
        while len(rows):
            found[rows] |= self.entries.has(text_keys(names))
            names = pc.replace_substring_regex(names, r"^[^.]*\.?", "")
            left = pc.not_equal(names, "")
            names, rows = names.filter(left), rows[left.to_numpy(zero_copy_only=False)]
        blocked: np.ndarray = found[encoded.indices.to_numpy()]
        return blocked


def _small(texts: pa.Array) -> pa.Array:
    return pc.utf8_lower(pc.utf8_trim_whitespace(texts))


_FORMS: Mapping[By, Callable[[pa.Array], pa.Array]] = {
    "uid": _small,
    "sha256": _small,
    "url": places,
    "domain": hosts,
    "text": pc.utf8_trim_whitespace,
}
"""In which form values are compared; hashes are numbers."""


def load_list(file: str, by: By, column: str | None, distance: int) -> Listed:
    """Reads a list, or recalls it, unless the file has changed since.

    Args:
        file: a text or parquet file.
        by: what its entries are.
        column: the column of a parquet file.
        distance: how many bits of a hash may differ.

    Returns:
        The list.

    Raises:
        ValueError: the list cannot be used; names file, line and remedy.
    """
    path = Path(file)
    try:
        written = path.stat()
    except OSError as error:
        raise ValueError(f"block list {file}: {error.strerror}; give the path of a file") from error
    return _read(path, by, column, distance, written.st_mtime_ns, written.st_size)


@functools.lru_cache(maxsize=32)
def _read(path: Path, by: By, column: str | None, distance: int, modified: int, size: int) -> Listed:
    """A list as it was when last modified; the last two arguments only tell versions of the file apart."""
    parts = []
    for values, numbers in read_entries(path, column):
        wrong, problem, keys = _numbers(values, by)
        if len(wrong):
            row = int(wrong[0])
            raise ValueError(f"block list {path}:{numbers[row]}: {values[row].as_py()!r} {problem}")
        parts.append(keys)
    width = 1 if by == "hash" else 2
    keys = np.concatenate([np.zeros((0, width), np.uint64), *parts])
    return Listed(by, Neighbours.of(keys[:, 0], distance) if by == "hash" else Keys.of(keys))


def _numbers(values: pa.Array, by: By) -> tuple[np.ndarray, str, np.ndarray]:
    """Which of n entries are none and what is wrong with them; and, where nothing is, all as (n, w) uint64."""
    if by == "hash" and pa.types.is_integer(values.type):
        return np.zeros(0, int), "", _unsigned(values).to_numpy()[:, None]
    texts = values.cast(pa.string())
    if by in _DIGITS:
        texts = pc.replace_substring_regex(_small(texts), "^0x", "")
        good = pc.match_substring_regex(texts, f"^[0-9a-f]{{{_DIGITS[by]}}}$")
        problem = f"is no {by}: give {_DIGITS[by]} hex digits"
    elif by == "domain":
        texts = pc.replace_substring_regex(texts, r"^\*?\.", "")
        only = pc.match_substring_regex(places(texts), "^[^/]*/$")
        texts = hosts(texts)
        good = pc.and_(texts.is_valid(), pc.fill_null(only, False))
        problem = "is no domain: give a host's name alone, without a path, or list addresses with by: url"
    elif by == "url":
        good = hosts(texts).is_valid()
        texts, problem = places(texts), "is no address: it names no host"
    else:
        good, problem = pc.not_equal(texts, ""), "is empty"
    wrong = np.flatnonzero(~pc.fill_null(good, False).to_numpy(zero_copy_only=False))
    if len(wrong):
        return wrong, problem, np.zeros((0, 0), np.uint64)
    return wrong, "", hex_keys(texts) if by == "hash" else text_keys(texts)


def _unsigned(values: pa.Array) -> pa.Array:
    """Hashes of 64 bits, which other tools keep in signed numbers."""
    signed = pa.types.is_signed_integer(values.type)
    return values.cast(pa.int64()).view(pa.uint64()) if signed else values.cast(pa.uint64())
