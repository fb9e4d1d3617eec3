"""Captions of a corpus that the user names: text files, tables or shards on the local disk."""

import functools
import glob
import hashlib
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

ENDINGS = (".txt", ".csv", ".tsv", ".parquet", ".tar")

Places = str | tuple[str, ...]


def find_files(corpus: Places, captions_key: str | None) -> list[Path]:
    """The files of a corpus, sorted by path.

    Args:
        corpus: files, globs, or folders, which stand for the .tar shards below them.
        captions_key: as of `read_captions`.

    Returns:
        At least one file, each with one of the known endings.

    Raises:
        ValueError: a place holds nothing, or nothing that can be read; or captions_key is missing or has no meaning.
    """
    files: set[Path] = set()
    for place in [corpus] if isinstance(corpus, str) else corpus:
        if "://" in place:
            raise ValueError(f"corpus {place!r} is not on the local disk: copy it there, and name the copy")
        path = Path(place).expanduser()
        if path.is_dir():
            found = list(path.rglob("*.tar"))
        else:
            found = [path] if path.is_file() else [Path(name) for name in glob.glob(str(path), recursive=True)]
        if not found:
            raise ValueError(
                f"corpus {place!r} is nothing that is there: name a file, a glob, or a folder of .tar shards"
            )
        files.update(found)
    for path in sorted(files):
        if path.suffix not in ENDINGS:
            raise ValueError(
                f"corpus {str(path)!r} does not end in one of {', '.join(ENDINGS)}: convert it, or rename it"
            )
        if path.suffix == ".txt" and captions_key is not None:
            raise ValueError(
                f"corpus {str(path)!r} holds a caption a line and no {captions_key!r}: leave captions_key out"
            )
        if path.suffix in (".csv", ".tsv", ".parquet"):
            names = _column_names(path)
            if captions_key not in names:
                raise ValueError(
                    f"corpus {str(path)!r} has no column {captions_key!r}: "
                    f"set captions_key to one of {', '.join(names)}"
                )
    if not files:
        raise ValueError("corpus is empty: name a file, a glob, or a folder of .tar shards")
    return sorted(files)


def read_captions(corpus: Places, captions_key: str | None) -> Iterator[str]:
    """The captions of a corpus, file after file in the order of their paths.

    Args:
        corpus: what `find_files` reads.
        captions_key: the column of tables, or the entry of each sample's json in shards, that holds a caption or a list
            of captions; None for text files, which hold a caption a line, and for the .txt members of shards.

    Yields:
        One caption at a time, runs of blanks made one; blank captions, and samples without any, are passed over.

    Raises:
        ValueError: a file cannot be read; names the file.
    """
    for path in find_files(corpus, captions_key):
        try:
            for caption in _read(path, captions_key):
                if isinstance(caption, str) and (words := caption.split()):
                    yield " ".join(words)
        except (OSError, UnicodeDecodeError, tarfile.TarError, pa.ArrowException) as error:
            raise ValueError(f"corpus {str(path)!r} cannot be read: {error}; repair it, or leave it out") from error


def digest(corpus: Places, captions_key: str | None) -> str:
    """Says which captions a corpus holds, wherever and in whatever form it lies.

    All is read for it, once per process and state of the files.

    Args:
        corpus: what `find_files` reads.
        captions_key: as of `read_captions`.

    Returns:
        16 hex digits of the captions, in their order.

    Raises:
        ValueError: the corpus cannot be read, or holds no caption.
    """
    files = find_files(corpus, captions_key)
    states = tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    return _digest(states, captions_key)


@functools.lru_cache(maxsize=32)
def _digest(states: tuple[tuple[str, int, int], ...], captions_key: str | None) -> str:
    """The digest of files as they are; sizes and times only tell versions of them apart."""
    places, found = tuple(glob.escape(path) for path, _, _ in states), hashlib.sha256()
    empty = found.hexdigest()
    for caption in read_captions(places, captions_key):
        found.update(caption.encode("utf-8", "replace") + b"\n")
    if found.hexdigest() == empty:
        where = "no caption" if captions_key is None else f"no caption under {captions_key!r}"
        raise ValueError(
            f"corpus {states[0][0]!r} and whatever lies beside it holds {where}: name another place or key"
        )
    return found.hexdigest()[:16]


def _column_names(path: Path) -> list[str]:
    try:
        if path.suffix == ".parquet":
            return list(pq.read_schema(path).names)
        with _open_csv(path, None) as reader:
            return list(reader.schema.names)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"corpus {str(path)!r} cannot be read: {error}; repair it, or leave it out") from error


def _open_csv(path: Path, column: str | None) -> Any:
    """A reader of one column as text, or of all where none is named; tabs need no quotes, so that none are read."""
    tabs = path.suffix == ".tsv"
    return pyarrow.csv.open_csv(
        path,
        parse_options=pyarrow.csv.ParseOptions(
            delimiter="\t" if tabs else ",", quote_char=False if tabs else '"', newlines_in_values=not tabs
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=[] if column is None else [column],
            column_types={} if column is None else {column: pa.string()},
        ),
    )


def _read(path: Path, captions_key: str | None) -> Iterator[Any]:
    """Whatever stands where captions should be."""
    if path.suffix == ".txt":
        with path.open(encoding="utf-8") as lines:
            yield from lines
    elif path.suffix == ".tar":
        yield from _read_shard(path, captions_key)
    elif path.suffix == ".parquet":
        for rows in pq.ParquetFile(path).iter_batches(columns=[captions_key]):
            yield from _each(rows.column(0).to_pylist())
    else:
        with _open_csv(path, captions_key) as reader:
            for rows in reader:
                yield from rows.column(0).to_pylist()


def _read_shard(path: Path, captions_key: str | None) -> Iterator[Any]:
    """Captions of a WebDataset shard; pictures are skipped, not read."""
    wanted = "txt" if captions_key is None else "json"
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            _, _, ending = os.path.basename(member.name).partition(".")
            content = archive.extractfile(member) if ending.lower() == wanted and member.isfile() else None
            if content is None:
                continue
            try:
                text = content.read().decode("utf-8")
                described = text if captions_key is None else json.loads(text)
            except ValueError:  # not UTF-8, or no json: broken samples of a shard are nothing to learn from
                continue
            yield from _each([described.get(captions_key) if isinstance(described, dict) else described])


def _each(entries: Sequence[Any]) -> Iterator[Any]:
    """Entries that are one caption, or the captions of those that are several."""
    for entry in entries:
        if isinstance(entry, list):
            yield from entry
        else:
            yield entry
