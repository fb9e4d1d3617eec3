"""What lies in folders, wherever they are: listed by a glob or below one of them, and removed with it."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from chaffinch.pipeline.storage.files import filesystems, is_local, join, plain_errors


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
        matches = re.compile(filesystems().get_filesystem(pattern).translate_pattern(pattern)).match
        fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
        return _stated(path for path in _walk(os.path.dirname(fixed)) if matches(path))
    with contextlib.suppress(FileNotFoundError), plain_errors(pattern):
        found = filesystems().match([pattern])[0].metadata_list
        infos = (FileInfo(entry.path, entry.size_in_bytes, entry.last_updated_in_seconds or 0.0) for entry in found)
        return sorted(infos, key=lambda info: info.path)
    return []


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


def remove_below(folder: str) -> None:
    """Removes a folder and all that is in it; it is no error if there is none."""
    if is_local(folder):
        shutil.rmtree(folder, ignore_errors=True)
    elif found := [info.path for info in listing_below(folder)]:
        with plain_errors(folder):
            filesystems().delete(found)
