"""Tar archives as WebDataset wants them written: USTAR, nothing in a header that differs between two runs."""

from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from chaffinch.pipeline.storage.archive import BLOCK

_RECORD = 20 * BLOCK
# mode, uid, gid; then size; then mtime, the checksum, the type of a regular file; then no link's name, magic, no owner
_OWNER = b"0000644\0" + b"0000000\0" * 2
_TIME = b"00000000000\0"
_MAGIC = b"\0" * 100 + b"ustar\x0000" + b"\0" * 80
# The checksum takes its own eight bytes for blanks.
_CHECKSUM = sum(_OWNER + _TIME + b" " * 8 + b"0" + _MAGIC)
_EMPTY = bytes(BLOCK)
_LARGEST = 8**11 - 1


class UnfitNameError(ValueError):
    """A name does not fit into a USTAR header."""


def split_for_header(name: str) -> tuple[bytes, bytes]:
    """Splits a member's name into the two fields of a USTAR header.

    Args:
        name: full name.

    Returns:
        Prefix, up to 155 bytes, and name, up to 100.

    Raises:
        UnfitNameError: it does not fit.
    """
    data = name.encode("utf-8", "surrogateescape")
    if len(data) <= 100:
        return b"", data
    slash = data.find(b"/", len(data) - 101, 156)
    if slash < 1 or slash == len(data) - 1:
        raise UnfitNameError(name)
    return data[:slash], data[slash + 1 :]


def header(name: str, size: int) -> bytes:
    """The 512 bytes before a member.

    Args:
        name: full name.
        size: bytes that follow.

    Returns:
        A USTAR header: mode 0644, no owner, mtime 0.

    Raises:
        UnfitNameError: the name does not fit.
        ValueError: the size does not fit.
    """
    if size > _LARGEST:
        raise ValueError(f"{name!r} has {size} bytes; a USTAR archive takes members below 8 GiB")
    prefix, base = split_for_header(name)
    octal = b"%011o\0" % size
    # Summing all 512 bytes would take longer than all the rest.
    total = _CHECKSUM + sum(base) + sum(octal) + sum(prefix)
    return b"%b%b%b%b%06o\0 0%b%b" % (
        base.ljust(100, b"\0"),
        _OWNER,
        octal,
        _TIME,
        total,
        _MAGIC,
        prefix.ljust(167, b"\0"),
    )


def member_blocks(name: str, data: bytes | memoryview) -> tuple[bytes, bytes | memoryview, bytes]:
    """One member: header, bytes, padding."""
    return header(name, len(data)), data, _EMPTY[: -len(data) % BLOCK]


def write_member(file: BinaryIO, name: str, data: bytes | memoryview) -> None:
    """Writes one member."""
    file.write(b"".join(member_blocks(name, data)))


def end_archive(file: BinaryIO) -> None:
    """Writes the end-of-archive blocks and pads to whole records, as tar does."""
    file.write(b"\0" * (2 * BLOCK))
    if rest := file.tell() % _RECORD:
        file.write(b"\0" * (_RECORD - rest))


def archive_size(sizes: np.ndarray) -> int:
    """How long an archive is.

    Args:
        sizes: (n,) bytes of each of its members.
    """
    blocks = len(sizes) + int((-(-sizes // BLOCK)).sum()) + 2
    return -(-blocks * BLOCK // _RECORD) * _RECORD


def output_names(key: str, uid: str, members: Sequence[str], taken: set[str]) -> tuple[str, list[str]]:
    """Names a kept sample's members.

    Args:
        key: the sample's key in its source.
        uid: its uid.
        members: its members' names in its source.
        taken: keys already used in this output shard; the one chosen is added.

    Returns:
        The key it gets, and its members' names: unchanged unless another sample has the key or a name does not fit.
    """
    names = list(members)
    chosen, copies = key, 0
    if 4 * max(map(len, names), default=0) > 100:  # a character has four bytes at most
        try:
            for name in names:
                split_for_header(name)
        except UnfitNameError:
            chosen = uid
    while chosen in taken:
        # Another sample may even have this one's uid for its key.
        chosen = f"{uid}-{copies}" if copies else uid
        copies += 1
    if chosen != key:
        names = [chosen + name[len(key) :] for name in names]
    taken.add(chosen)
    return chosen, names
