"""Tar archives as WebDataset reads them: members with offsets, grouped into samples, damage noticed."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

BLOCK = 512
_END_OF_ARCHIVE = 2 * BLOCK


@dataclass(frozen=True)
class Member:
    """One file in an archive.

    Attributes:
        name: its full name.
        extension: what follows the first dot of its base name, in lower case.
        offset: where its bytes begin in the archive.
        size: how many there are.
    """

    name: str
    extension: str
    offset: int
    size: int


@dataclass
class Group:
    """A sample as found: consecutive members that share a key.

    Attributes:
        key: the members' common name up to the first dot of its last part.
        members: in order of appearance.
        damage: why the group may be incomplete, or None.
    """

    key: str
    members: list[Member] = field(default_factory=list)
    damage: str | None = None


def split_name(name: str) -> tuple[str, str] | None:
    """Splits a member's name at the first dot of its base name.

    Args:
        name: full name in the archive.

    Returns:
        Key (with folders) and extension in lower case; None for names that are no part of a sample: those whose base
        name begins with a dot or has none.
    """
    folder, slash, base = name.rpartition("/")
    stem, dot, extension = base.partition(".")
    if not stem or not dot:
        return None
    return folder + slash + stem, extension.lower()


def read_groups(file: BinaryIO, size: int) -> Iterator[Group]:
    """Reads an archive's headers and groups its members into samples.

    Python's tar reader takes an archive that ends between two members for a whole one; here the blocks that end every
    archive are asked for, and all that could be incomplete is marked. Where nothing was found before the damage, a
    group without members and with an empty key stands for it.

    Args:
        file: the archive, open for reading and seeking.
        size: its length in bytes.

    Yields:
        Groups in order. Only the last one can have `damage`.
    """
    group: Group | None = None
    damage = None
    try:
        for member in _read_members(file, size):
            parts = split_name(member.name)
            if parts is None:
                continue
            key, extension = parts
            if group is None or key != group.key or any(extension == other.extension for other in group.members):
                if group is not None:
                    yield group
                group = Group(key)
            group.members.append(member)
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        # Beside tar's own errors: numbers in a damaged header may ask for impossible seeks.
        damage = str(error) or type(error).__name__
    if damage is not None:
        group = group or Group("")
        group.damage = f"shard is damaged: {damage}"
    if group is not None:
        yield group


def _read_members(file: BinaryIO, size: int) -> Iterator[Member]:
    if size == 0:
        raise tarfile.ReadError("it is empty")
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # kept by tarfile for look-up by name: memory that grows
            if info.isfile():
                if info.offset_data + info.size > size:
                    missing = info.offset_data + info.size - size
                    raise tarfile.ReadError(f"it is cut inside {info.name!r}, {missing} bytes are missing")
                name = info.name
                yield Member(name, (split_name(name) or ("", ""))[1], info.offset_data, info.size)
        end = archive.offset
    file.seek(end)
    ending = file.read(_END_OF_ARCHIVE)
    if any(ending):
        raise tarfile.ReadError(f"no readable header at byte {end}")
    if len(ending) < _END_OF_ARCHIVE:
        raise tarfile.ReadError(f"it is cut at byte {size}, before its end-of-archive blocks")
