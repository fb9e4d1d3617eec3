"""Disks that are full or may not be written: which errors say so, and in which words they are passed on."""

import contextlib
import errno
import os
from collections.abc import Iterator

SCRATCH = "chaffinch-"
"""How the names of temporary files begin."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class ScratchError(Exception):
    """Temporary files cannot be written on this machine; the message says where and what to do."""


@contextlib.contextmanager
def scratch() -> Iterator[None]:
    """For work on temporary files: what goes wrong with them must not pass for what goes wrong with a shard.

    Raises:
        ScratchError: in place of OSErrors that only writing can raise.
    """
    try:
        yield
    except OSError as error:
        told = error.strerror or ""
        ours = (
            error.errno in _FULL
            if error.filename is None
            else os.path.basename(str(error.filename)).startswith(SCRATCH)
        )
        if ours or "temporary directory" in told:  # Python's own words where it finds none
            folder = os.environ.get("TMPDIR", "/tmp")
            raise ScratchError(
                f"the folder for temporary files, {folder}, cannot be written: {told}; make room there or set TMPDIR "
                "to another folder, then run the same command: it goes on where it stopped"
            ) from error
        raise


def is_about(error: OSError, path: str) -> bool:
    """Whether an error comes of writing a file, and not of what was read to fill it."""
    if error.filename is None:
        return error.errno in _FULL
    name = str(error.filename)
    return name.startswith(path) or path.startswith(name)


def unwritable(path: str, error: OSError) -> OSError:
    """An error that names the file that could not be written, says why, and what to do.

    Args:
        path: the file or folder.
        error: what the system said.

    Returns:
        What to raise in its place, with the same number.
    """
    remedy = "make room there" if error.errno in _FULL else "see to its permissions"
    told = OSError(
        f"{path} cannot be written: {error.strerror}; {remedy} or choose another place, then run the same command: it "
        "goes on where it stopped"
    )
    told.errno = error.errno
    return told
