"""The samples table: one row per sample found in a shard, where its bytes are, and why it cannot be used if it cannot.

Columns: uid, key; members, offsets, sizes (lists: the members' names and where their bytes lie in the shard); picture,
caption (index of that member, null where there is none); reject (null, or the reason).
"""

import hashlib
import io
import json
import re
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from chaffinch.pipeline.shards import Shard
from chaffinch.pipeline.storage import files
from chaffinch.pipeline.storage.archive import Group, Member, read_groups
from chaffinch.scoring.images import sniff

PICTURES = ("jpg", "jpeg", "png", "webp")
_UID = re.compile("[0-9a-fA-F]{32}")
# Captions and json are read while a shard is listed; nothing that long is a caption.
_LONGEST_TEXT = 1 << 24
LONGEST_EXTENSION = 60
"""Bytes; a USTAR header holds names of 100 bytes, and a sample may have to be named by its uid."""

CANNOT_READ = "shard cannot be read"
"""How the reject reason begins where a shard could not be opened or a disk failed, rather than its content."""

SCHEMA = pa.schema(
    [
        ("uid", pa.string()),
        ("key", pa.string()),
        ("members", pa.list_(pa.string())),
        ("offsets", pa.list_(pa.int64())),
        ("sizes", pa.list_(pa.int64())),
        ("picture", pa.int32()),
        ("caption", pa.int32()),
        ("reject", pa.string()),
    ]
)


def derived_uid(shard: str, key: str) -> str:
    """The uid of a sample that brings none of its own.

    Args:
        shard: the shard's name.
        key: the sample's key.

    Returns:
        32 hex digits.
    """
    return hashlib.sha256(f"{shard}/{key}".encode("utf-8", "surrogateescape")).hexdigest()[:32]


def index_shard(shard: Shard) -> pa.Table:
    """Lists the samples of a shard; no picture is decoded.

    Args:
        shard: a shard on any filesystem.

    Returns:
        The samples table; the schema's metadata holds `content`, a digest of the table and of all of the shard's
        bytes. A shard that cannot be opened, and one whose damage leaves nothing, has one row that says so.
    """
    digest = hashlib.sha256()
    rows: list[dict[str, object]] = []
    try:
        with files.local_copy(shard.path) as path, open(path, "rb") as file:
            size = file.seek(0, 2)
            rows.extend(_row(shard, group, file) for group in read_groups(file, size))
            # All of it: a picture may be replaced by another that begins alike and is as long.
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256")
    except OSError as error:
        damage = f"{CANNOT_READ}: {error.strerror or error}"
        if rows:
            rows[-1]["reject"] = damage
        else:
            rows.append(_row(shard, Group("", damage=damage), io.BytesIO()))
    digest.update(repr(rows).encode())
    return pa.Table.from_pylist(rows, SCHEMA).replace_schema_metadata({"content": digest.hexdigest()})


def unreadable(rejects: pa.ChunkedArray) -> bool:
    """Whether a table's reject column says that its shard could not be read, so that it is worth another try."""
    return bool(pc.any(pc.starts_with(rejects, CANNOT_READ)).as_py())


def _row(shard: Shard, group: Group, file: BinaryIO) -> dict[str, object]:
    metadata, json_problem = _read_metadata(group, file)
    picture, picture_problem = _find_picture(group, file)
    caption, caption_problem = _find_caption(group, file)
    reject = group.damage or _name_problem(group) or json_problem or picture_problem or caption_problem
    uid = metadata.get("uid")
    return {
        "uid": uid.lower() if isinstance(uid, str) and _UID.fullmatch(uid) else derived_uid(shard.name, group.key),
        "key": _printable(group.key),
        "members": [_printable(member.name) for member in group.members],
        "offsets": [member.offset for member in group.members],
        "sizes": [member.size for member in group.members],
        "picture": picture,
        "caption": caption,
        "reject": reject,
    }


def _printable(name: str) -> str:
    r"""A name as text: bytes that are no UTF-8, which tarfile hides in lone surrogates, are written as \xff."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _name_problem(group: Group) -> str | None:
    """Why a sample could not be written again under names that mean the same."""
    for member in group.members:
        if _printable(member.name) != member.name or "\0" in member.name:
            return "member name is not UTF-8"
        if len(member.extension.encode()) > LONGEST_EXTENSION:
            return "member name is too long after its first dot"
    return None


def _read(file: BinaryIO, member: Member, most: int = _LONGEST_TEXT) -> bytes:
    file.seek(member.offset)
    return file.read(min(most, member.size))


def _read_metadata(group: Group, file: BinaryIO) -> tuple[dict[str, object], str | None]:
    found = next((member for member in group.members if member.extension == "json"), None)
    if found is None:
        return {}, None
    if found.size > _LONGEST_TEXT:
        return {}, f"json is {found.size} bytes long"
    try:
        metadata = json.loads(_read(file, found))
    except (ValueError, RecursionError):
        return {}, "json cannot be read"
    return (metadata, None) if isinstance(metadata, dict) else ({}, "json is no object")


def _find_picture(group: Group, file: BinaryIO) -> tuple[int | None, str | None]:
    found = [index for index, member in enumerate(group.members) if member.extension in PICTURES]
    if len(found) != 1:
        return None, "more than one picture" if found else "no picture"
    return found[0], sniff(_read(file, group.members[found[0]], 16))


def _find_caption(group: Group, file: BinaryIO) -> tuple[int | None, str | None]:
    found = next((index for index, member in enumerate(group.members) if member.extension == "txt"), None)
    if found is None:
        return None, "no caption"
    if group.members[found].size > _LONGEST_TEXT:
        return None, f"caption is {group.members[found].size} bytes long"
    try:
        text = _read(file, group.members[found]).decode("utf-8")
    except UnicodeDecodeError:
        return None, "caption is not UTF-8"
    return found, None if text.strip() else "caption is empty"
