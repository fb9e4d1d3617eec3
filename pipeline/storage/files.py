"""Files wherever they are: the local disk directly, anything else through Beam's filesystems."""

import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from chaffinch.pipeline.storage.disks import SCRATCH, is_about, scratch, unwritable
from chaffinch.pipeline.storage.processes import here

if TYPE_CHECKING:
    from apache_beam.io.filesystems import FileSystems

_BLOCK = 1 << 20
_numbers = itertools.count()
_AS_IT_IS = "uncompressed"  # Beam would otherwise go by the name's ending


def filesystems() -> "type[FileSystems]":
    """Beam's filesystems; imported only where needed, for that takes worker processes a second and 100 MB each."""
    from apache_beam.io.filesystems import FileSystems

    from chaffinch.pipeline.storage.s3 import share_connections

    share_connections()
    return FileSystems


def is_local(path: str) -> bool:
    """Whether a path lies on the local disk."""
    return "://" not in path


def join(folder: str, *names: str) -> str:
    """Joins a folder and names below it, on any filesystem."""
    return "/".join([folder.rstrip("/"), *names])


@contextlib.contextmanager
def plain_errors(path: str) -> Iterator[None]:
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


def exists(path: str) -> bool:
    """Whether there is a file or folder of this name."""
    if is_local(path):
        return os.path.exists(path)
    with plain_errors(path):
        return filesystems().exists(path)


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
    with plain_errors(path):
        return filesystems().open(path, compression_type=_AS_IT_IS)


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
        with plain_errors(path):
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
    filesystem = filesystems().get_filesystem(path)
    if path.startswith("s3://"):
        from chaffinch.pipeline.storage.s3 import put

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
        with plain_errors(path):
            filesystems().delete([path])
