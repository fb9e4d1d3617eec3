"""Local files of weights: found where a setting says, and digested, so that moving one changes no fingerprint."""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path


def find(path: str) -> Path:
    """Finds a file of weights.

    Args:
        path: what the setting `weights` says.

    Returns:
        The file.

    Raises:
        ValueError: there is none.
    """
    found = Path(path).expanduser()
    if not path or not found.is_file():
        raise ValueError(f"weights {path!r} is not a file here: correct the path")
    return found


def digest(path: Path) -> str:
    """Digests a file, once as long as it stays the same.

    Args:
        path: the file.

    Returns:
        64 hex digits, its sha256.
    """
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


def digest_all(paths: Sequence[Path]) -> str:
    """Digests several files with their names, in whatever order they come.

    Args:
        paths: the files; their names, not their folders, count.

    Returns:
        64 hex digits.
    """
    parts = sorted(f"{path.name} {digest(path)}" for path in paths)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@functools.lru_cache(maxsize=256)
def _digest(path: Path, size: int, changed: int) -> str:
    """Size and time of change are here to remember the digest only while the file stays the same."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
