"""Files wherever they are: the local disk directly, anything else through Beam's filesystems."""

import contextlib
import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from chaffinch.pipeline.disks import SCRATCH, is_about, scratch, unwritable
from chaffinch.pipeline.processes import here
from chaffinch.pipeline.vectors import from_lists, to_lists

if TYPE_CHECKING:
    from apache_beam.io.filesystems import FileSystems

_BLOCK = 1 << 20
_numbers = itertools.count()
_AS_IT_IS = "uncompressed"  # Beam would otherwise go by the name's ending
_REPEATING = ("reject", "reason", "source_shard")


def _filesystems() -> "type[FileSystems]":
    """Beam's filesystems; imported only where needed, for that takes worker processes a second and 100 MB each."""
    from apache_beam.io.filesystems import FileSystems

    from chaffinch.pipeline.s3 import share_connections

    share_connections()
    return FileSystems


@dataclass(frozen=True)
class FileInfo:
    """One entry of a listing.

    Attributes:
        path: full path.
        size: bytes.
        modified: seconds since the epoch.
    """

    path: str
    size: int
    modified: float


def is_local(path: str) -> bool:
    """Whether a path lies on the local disk."""
    return "://" not in path


def join(folder: str, *names: str) -> str:
    """Joins a folder and names below it, on any filesystem."""
    return "/".join([folder.rstrip("/"), *names])


def info(path: str) -> FileInfo | None:
    """What a listing would say about one file, whose name is taken literally; None where there is none."""
    if is_local(path):
        return next(iter(_stated([path])), None)
    return next((found for found in listing(path) if found.path == path), None)


def listing(pattern: str) -> list[FileInfo]:
    """The files that match a glob, sorted by path; `**` matches across folders.

    Args:
        pattern: a glob on any filesystem.

    Returns:
        One entry per file; empty where nothing matches.
    """
    if is_local(pattern):
        # Beam's own listing does not look into linked folders, of which pools over several disks are made.
        matches = re.compile(_filesystems().get_filesystem(pattern).translate_pattern(pattern)).match
        fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
        return _stated(path for path in _walk(os.path.dirname(fixed)) if matches(path))
    with contextlib.suppress(FileNotFoundError), _plain_errors(pattern):
        found = _filesystems().match([pattern])[0].metadata_list
        infos = (FileInfo(entry.path, entry.size_in_bytes, entry.last_updated_in_seconds or 0.0) for entry in found)
        return sorted(infos, key=lambda info: info.path)
    return []


@contextlib.contextmanager
def _plain_errors(path: str) -> Iterator[None]:
    """Turns what Beam's filesystems raise into OSErrors that name the path: each has errors of its own."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        cause: Any = error
        while details := getattr(cause, "exception_details", None):  # one within the other
            cause = next(iter(details.values()))
        told = str(cause) or type(cause).__name__
        raise OSError(told if path.partition("://")[0] + "://" in told else f"{path}: {told}") from error


def listing_below(folder: str, ending: str = "") -> list[FileInfo]:
    """The files below a folder, sorted by path.

    Args:
        folder: a folder on any filesystem, taken literally; it need not exist.
        ending: only files that end so.

    Returns:
        One entry per file.
    """
    if is_local(folder):
        return _stated(path for path in _walk(folder.rstrip("/")) if path.endswith(ending))
    return listing(join(folder, "**" + ending))


def _walk(folder: str) -> Iterator[str]:
    """All files below a local folder, in linked folders too."""
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place) + "/"
        # A link to a folder that it lies in leads round and round.
        folders[:] = [name for name in folders if not real.startswith(os.path.realpath(f"{place}/{name}") + "/")]
        yield from (f"{place}/{name}" for name in names)


def _stated(paths: Iterable[str]) -> list[FileInfo]:
    infos = []
    for path in sorted(paths):
        with contextlib.suppress(OSError):  # it went away meanwhile
            status = os.stat(path)
            infos.append(FileInfo(path, status.st_size, status.st_mtime))
    return infos


def names_below(folder: str, ending: str = "") -> set[str]:
    """Paths of all files below a folder, relative to it and without their ending.

    Args:
        folder: a folder on any filesystem; it need not exist.
        ending: only files that end so.

    Returns:
        Relative paths.
    """
    root = folder.rstrip("/") + "/"
    paths: Iterable[str] = _walk(root[:-1]) if is_local(folder) else (info.path for info in listing_below(folder))
    return {path[len(root) : len(path) - len(ending)] for path in paths if path.endswith(ending)}


def folders_in(folder: str, ending: str) -> list[str]:
    """Names of the folders right below one in which files lie, sorted.

    On the local disk only as much is listed as shows that there are any: a folder may hold very many.

    Args:
        folder: a folder on any filesystem; it need not exist.
        ending: of the files.

    Returns:
        Names.
    """
    if is_local(folder):
        try:
            found = sorted(entry.path for entry in os.scandir(folder) if entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):  # whoever writes there says which it is
            return []
        return [os.path.basename(path) for path in found if _holds(path, ending)]
    return sorted({name.split("/", 1)[0] for name in names_below(folder, ending) if "/" in name})


def _holds(folder: str, ending: str) -> bool:
    """Whether a file that ends so lies somewhere below a local folder."""
    below = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                below.append(entry.path)
            elif entry.name.endswith(ending):
                return True
    return any(_holds(path, ending) for path in below)


def exists(path: str) -> bool:
    """Whether there is a file or folder of this name."""
    if is_local(path):
        return os.path.exists(path)
    with _plain_errors(path):
        return _filesystems().exists(path)


def read_bytes(path: str) -> bytes:
    """The content of a file."""
    with open_binary(path) as file:
        return file.read()


def open_binary(path: str) -> BinaryIO:
    """Opens a file to read and seek in its bytes as they are.

    Raises:
        OSError: it cannot be opened, on whatever filesystem.
    """
    if is_local(path):
        return open(path, "rb")
    with _plain_errors(path):
        return _filesystems().open(path, compression_type=_AS_IT_IS)


@contextlib.contextmanager
def local_copy(path: str) -> Iterator[str]:
    """A local path to a file's bytes: its own, or that of a copy which is removed afterwards.

    Shards are read more than once and in ranges; one copy is cheaper than thousands of ranged requests.
    """
    if is_local(path):
        yield path
        return
    with scratch():
        copy = tempfile.NamedTemporaryFile(prefix=SCRATCH, suffix=os.path.basename(path))  # noqa: SIM115
    with copy:
        with open_binary(path) as source, scratch():
            while block := source.read(_BLOCK):
                copy.write(block)
            copy.flush()
        yield copy.name


@contextlib.contextmanager
def writing(path: str) -> Iterator[BinaryIO]:
    """Writes a file whole or not at all: under a temporary name, then renamed; one put on object stores.

    An error inside the block leaves neither the file nor the temporary one.
    """
    if is_local(path):
        temporary = temporary_name(path)
        try:
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            with open(temporary, "wb", buffering=_BLOCK) as file:
                yield file
            os.replace(temporary, path)
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            if isinstance(error, OSError) and is_about(error, path):
                raise unwritable(path, error) from error
            raise
        return
    # Object stores have no rename; the object appears when its single put ends, so it is written from a whole file.
    with scratch(), tempfile.TemporaryFile(prefix=SCRATCH) as whole:
        yield whole
        whole.seek(0)
        with _plain_errors(path):
            _put(path, whole)


def check_writable(folder: str) -> None:
    """Makes sure, before any work is done, that files can be written in a local folder; makes it if need be.

    Args:
        folder: a folder; of other filesystems nothing is asked.

    Raises:
        OSError: they cannot; says why and what to do.
    """
    if is_local(folder):
        probe = temporary_name(join(folder, "probe"))
        try:
            os.makedirs(folder, exist_ok=True)
            with open(probe, "wb"):
                pass
            os.unlink(probe)
        except OSError as error:
            raise unwritable(folder, error) from error


def _put(path: str, whole: BinaryIO) -> None:
    """Writes an object from a local file."""
    filesystem = _filesystems().get_filesystem(path)
    if path.startswith("s3://"):
        from chaffinch.pipeline.s3 import put

        put(filesystem._options, path, whole)
        return
    sink = filesystem.create(path, compression_type=_AS_IT_IS)
    try:
        while block := whole.read(_BLOCK):
            sink.write(block)
    except BaseException:
        # To close it would end the upload as if it were whole; nothing else ends it, so it has to go afterwards.
        with contextlib.suppress(Exception):
            sink.close()
        remove(path)
        raise
    sink.close()


def temporary_name(path: str) -> str:
    """A name that nobody else uses, beside a file; it tells which process to ask whether it is still in use."""
    return f"{path}.{here()}-{os.getpid()}-{next(_numbers)}.partial"


def write_bytes(path: str, data: bytes) -> None:
    """Writes a small file whole or not at all."""
    with writing(path) as file:
        file.write(data)


def write_changed(path: str, data: bytes) -> None:
    """Writes a small file unless it holds just this."""
    if not exists(path) or read_bytes(path) != data:
        write_bytes(path, data)


def remove(path: str) -> None:
    """Removes a file; it is no error if there is none."""
    if is_local(path):
        Path(path).unlink(missing_ok=True)
    elif exists(path):
        with _plain_errors(path):
            _filesystems().delete([path])


def remove_below(folder: str) -> None:
    """Removes a folder and all that is in it; it is no error if there is none."""
    if is_local(folder):
        shutil.rmtree(folder, ignore_errors=True)
    elif found := [info.path for info in listing_below(folder)]:
        with _plain_errors(folder):
            _filesystems().delete(found)


def read_table(path: str, columns: list[str] | None = None) -> pa.Table:
    """Reads a parquet file.

    Args:
        path: the file.
        columns: only these; all by default.

    Returns:
        The table, with the file's own metadata in its schema.

    Raises:
        OSError: it is damaged or not there; names the file.
    """
    try:
        return from_lists(open_table(path).read(columns=columns, use_threads=False))
    except (pa.ArrowInvalid, OSError) as error:
        raise OSError(f"{path}: cannot be read as parquet: {error}") from error


def open_table(path: str) -> pq.ParquetFile:
    """Opens a parquet file to read its schema or some of its columns."""
    # Given a name, pyarrow would first work out which filesystem it is on, which takes as long as reading a column.
    return pq.ParquetFile(pa.OSFile(path) if is_local(path) else pa.BufferReader(read_bytes(path)))


def write_table(path: str, table: pa.Table) -> None:
    """Writes a parquet file whole or not at all; the same table gives the same bytes."""
    # Measurements hardly repeat: a dictionary would only be built and thrown away.
    repeating = [name for name in table.column_names if name in _REPEATING or name.startswith("vote_")]
    with writing(path) as file:
        pq.write_table(to_lists(table), file, compression="zstd", use_dictionary=repeating or False)
