"""Reading a file of labels: the answers of `chaffinch label`, or anybody's own."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from chaffinch.jobs.documents import ConfigError
from chaffinch.pipeline.deciding.labels import Labels
from chaffinch.pipeline.repeats import parse_uids
from chaffinch.pipeline.storage import files, parquet

_UID = re.compile(r"[0-9a-f]{32}")
_KEEP = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_DRAWN = {"random": True, "picked": False, "": True}

_Row = tuple[str, Sequence[Any]]
"""Where a row stands, and its uid, keep and drawn as they are written."""


def read_labels(path: str) -> Labels:
    """Reads what somebody said of single samples.

    The file is comma-separated text in UTF-8 with a header, or parquet where its name ends so. `uid` has 32 hex digits;
    `keep` is true or false (also yes or no, 1 or 0); `drawn` is random or picked and may be left out, which means
    random. Other columns do not count, nor do blank lines. A uid that is there twice with one answer counts once, as
    drawn at random if it ever was.

    Args:
        path: the file, on any filesystem.

    Returns:
        The labels, in the order of their uids.

    Raises:
        ConfigError: the file cannot be read, holds no label, or a value in it is none, or a uid has two answers; names
            the file, the line (in parquet the row, from 1), the value and what would be right.
    """
    said: dict[str, tuple[bool, bool, str]] = {}
    for where, (uid_cell, keep_cell, drawn_cell) in _rows(path):
        uid = _text(uid_cell)
        if not _UID.fullmatch(uid):
            raise ConfigError(f"{where}: uid: {uid_cell!r} is no uid; write its 32 hex digits")
        keep, at_random = _KEEP.get(_text(keep_cell)), _DRAWN.get(_text(drawn_cell))
        if keep is None:
            raise ConfigError(
                f"{where}: keep: {keep_cell!r} is no answer; write true or false, or leave out samples without one"
            )
        if at_random is None:
            raise ConfigError(f"{where}: drawn: {drawn_cell!r} is neither random nor picked; write one of them")
        before = said.get(uid, (keep, False, where))
        if before[0] != keep:
            raise ConfigError(
                f"{where}: uid {uid} has two answers: keep is {_yes(keep)} here and {_yes(before[0])} at {before[2]}; "
                "leave one of them"
            )
        said[uid] = (keep, at_random or before[1], before[2])
    if not said:
        raise ConfigError(f"{path}: holds no label; give it a row for each sample, or leave `labels:` out")
    uids = sorted(said)  # hex digits of one case sort as the numbers do
    return Labels(
        parse_uids(pa.chunked_array([uids], pa.string())),
        np.array([said[uid][0] for uid in uids], bool),
        np.array([said[uid][1] for uid in uids], bool),
    )


def _rows(path: str) -> Iterator[_Row]:
    yield from _parquet_rows(path) if path.endswith(".parquet") else _text_rows(path)


def _parquet_rows(path: str) -> Iterator[_Row]:
    try:
        table = parquet.read_table(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read as a file of labels: {error}") from error
    _require(path, table.column_names)
    columns = [name for name in ("uid", "keep", "drawn") if name in table.column_names]
    for number, row in enumerate(table.select(columns).to_pylist(), 1):
        yield f"{path}: row {number}", (row["uid"], row["keep"], row.get("drawn") or "")


def _text_rows(path: str) -> Iterator[_Row]:
    try:
        text = files.read_bytes(path).decode("utf-8-sig")
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{path}: cannot be read as a file of labels: {reason}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 ({error}); save it as comma-separated text in UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    try:
        for cells in reader:
            where = f"{path}:{reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [cell.strip().lower() for cell in cells]
                _require(where, header)
                continue
            if len(cells) != len(header):
                raise ConfigError(
                    f"{where}: holds {len(cells)} of {len(header)} values; separate them by commas, and put quotes "
                    "around one that holds a comma"
                )
            row = dict(zip(header, cells, strict=True))
            yield where, (row["uid"], row["keep"], row.get("drawn", ""))
    except csv.Error as error:
        raise ConfigError(f"{path}:{reader.line_num}: is not comma-separated text: {error}") from error


def _require(where: str, names: Sequence[str]) -> None:
    for name in ("uid", "keep", "drawn"):
        if names.count(name) > 1 or (name not in names and name != "drawn"):
            problem = "more than one column" if name in names else "no column"
            found = ", ".join(names[:8]) or "none"
            raise ConfigError(
                f"{where}: has {problem} {name!r} (its columns: {found}); a file of labels begins with uid,keep,drawn"
            )


def _text(cell: Any) -> str:
    """A cell as it would stand in a text file; tables that had gaps hold 1 as 1.0."""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return "null" if cell is None else str(cell).strip().lower()


def _yes(keep: bool) -> str:
    return "true" if keep else "false"
