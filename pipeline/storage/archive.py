"""Tar archives as WebDataset reads them: members with offsets, grouped into samples, damage noticed."""

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Self, cast

BLOCK = 512
_END_OF_ARCHIVE = 2 * BLOCK
_CHUNK = 1 << 20


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
        Groups in order. Damage ends the archive: only the last group can have it, and one with a sparse member, whose
        bytes do not lie in the archive as they are.

    Raises:
        OSError: the disk or the network failed, which says nothing about the archive.
    """
    group: Group | None = None
    extensions: set[str] = set()
    damage = None
    try:
        for info in _read_members(file, size):
            parts = split_name(info.name)
            if parts is None:
                continue
            key, extension = parts
            if group is None or key != group.key or extension in extensions:
                if group is not None:
                    yield group
                group, extensions = Group(key), set()
            extensions.add(extension)
            group.members.append(Member(info.name, extension, info.offset_data, 0 if info.issparse() else info.size))
            if info.issparse():
                group.damage = f"member {info.name!r} is sparse"
    except (tarfile.TarError, ValueError, OverflowError) as error:
        # Beside tar's own errors: what a damaged header holds in place of numbers and texts.
        damage = str(error) or type(error).__name__
    if damage is not None:
        group = group or Group("")
        group.damage = f"shard is damaged: {damage}"
    if group is not None:
        yield group


class _Strict:
    """The archive as tarfile is to see it: what leads beyond its ends is damage.

    Headers that lie about sizes make tarfile ask for more memory than there is, or read at the end of the file for
    ever.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int) -> int:
        if not 0 <= offset <= self._size:
            raise tarfile.ReadError(f"it is cut at byte {self._size}, or a header points beyond its end")
        return self._file.seek(offset)

    def read(self, count: int) -> bytes:
        data = self._file.read(count) if 0 <= count <= self._size - self._file.tell() else b""
        if len(data) != count:
            raise tarfile.ReadError(f"it is cut at byte {self._size}, before its end-of-archive blocks")
        return data


class _Header(tarfile.TarInfo):
    """A header as tarfile reads it, with a short way for regular files whose fields are all as tar programs write them.

    Most of the time of listing a shard went into fields that nobody asks for. Only name and size are read here.
    """

    # mode, owner and group; size; time; checksum and the type of a regular file; before them the name
    _FIELDS = re.compile(rb"[0-7]{7}[\0 ][0-7]{7}[\0 ][0-7]{7}[\0 ]([0-7]{11})[\0 ][0-7]{11}[\0 ]([0-7]{6})\0 0")
    _DEVICES = (b"\0" * 16, b"0000000\0" * 2)

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Reads a header of 512 bytes."""
        fields = cls._FIELDS.match(buf, 100) if len(buf) == BLOCK and buf[329:345] in cls._DEVICES else None
        # Blanks stand for the checksum in its own sum.
        if fields is None or sum(buf) - sum(buf[148:156]) + 256 != int(fields[2], 8):
            return super().frombuf(buf, encoding, errors)
        info = cls(buf[:100].split(b"\0", 1)[0].decode(encoding, errors))
        info.size = int(fields[1], 8)
        if prefix := buf[345:500].split(b"\0", 1)[0]:
            info.name = prefix.decode(encoding, errors) + "/" + info.name
        return info


def _read_members(file: BinaryIO, size: int) -> Iterator[tarfile.TarInfo]:
    if size == 0:
        raise tarfile.ReadError("it is empty")
    file.seek(0)
    strict = cast(BinaryIO, _Strict(file, size))
    with tarfile.open(fileobj=strict, mode="r:", tarinfo=_Header) as archive:
        end = 0
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # kept by tarfile for look-up by name: memory that grows
            if archive.offset <= end:
                raise tarfile.ReadError(f"the header at byte {info.offset} points backwards")
            end = archive.offset
            if info.isfile():
                if not info.issparse() and info.offset_data + info.size > size:
                    missing = info.offset_data + info.size - size
                    raise tarfile.ReadError(f"it is cut inside {info.name!r}, {missing} bytes are missing")
                yield info
        end = archive.offset
    file.seek(end)
    ending = file.read(_END_OF_ARCHIVE)
    if any(ending):
        raise tarfile.ReadError(f"no readable header at byte {end}")
    if len(ending) < _END_OF_ARCHIVE:
        raise tarfile.ReadError(f"it is cut at byte {size}, before its end-of-archive blocks")
    # Nothing but padding follows a whole archive; anything else are samples that no reader would find.
    while padding := file.read(_CHUNK):
        if padding.count(0) != len(padding):
            raise tarfile.ReadError(f"there is more after its end at byte {end}")
