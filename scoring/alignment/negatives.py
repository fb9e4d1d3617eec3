"""The bank of negatives: trusted pairs, drawn once, among which every sample has to find its own."""

import glob
import hashlib
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaffinch.scoring.images import decode
from chaffinch.scoring.scorer import SampleError

PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")


@dataclass(frozen=True)
class Negative:
    """One pair.

    Attributes:
        uid: as in its json; None where it has none.
        caption: never empty.
        picture: what the towers' `transform` takes: of mode RGB where they read pictures, its features otherwise.
    """

    uid: str | None
    caption: str
    picture: Any


@dataclass(frozen=True)
class _Place:
    """Where a pair lies: its uid and the members of the archive."""

    uid: str | None
    path: Path
    picture: tarfile.TarInfo
    caption: tarfile.TarInfo


def find_negatives(places: Sequence[str]) -> list[Path]:
    """The shards that a setting names.

    Args:
        places: .tar files, folders of them, or patterns, on the local disk.

    Returns:
        At least one path, ordered.

    Raises:
        ValueError: a place has none.
    """
    found: list[Path] = []
    for place in places:
        if "://" in place:
            raise ValueError(f"negatives {place!r} are not on the local disk: copy them there, and name the copy")
        path = Path(place).expanduser()
        here = [*path.rglob("*.tar")] if path.is_dir() else [Path(one) for one in glob.glob(str(path))]
        here = [one for one in here if one.is_file() and one.suffix == ".tar"]
        if not here:
            raise ValueError(f"negatives {place!r} is no .tar file and no folder of them: name shards of trusted pairs")
        found += here
    if not found:
        raise ValueError("negatives is empty: name shards of trusted pairs")
    return sorted(set(found), key=lambda path: (path.name, str(path)))


def draw_negatives(paths: Sequence[Path], count: int, seed: int) -> list[Negative]:
    """Draws pairs; which ones follows from what they are, not from where or in which order they lie.

    Args:
        paths: what `find_negatives` gave.
        count: how many, at least 2; all where there are fewer.
        seed: another one draws others.

    Returns:
        At least 2 pairs.

    Raises:
        ValueError: there are fewer that can be read; an archive is damaged.
    """
    known: dict[str, _Place] = {}
    for path in paths:
        for name, place in _pairs(path):
            known.setdefault(place.uid or name, place)
    drawn: list[Negative] = []
    for name in shuffled(known, seed):
        negative = _read(known[name])
        if negative is not None:
            drawn.append(negative)
        if len(drawn) == count:
            break
    if len(drawn) < 2:
        raise ValueError(
            f"negatives: {', '.join(map(str, paths[:3]))} hold {len(drawn)} pairs that can be read, and 2 are the "
            "least: name shards of trusted pairs"
        )
    return drawn


def shuffled(names: Iterable[str], seed: int) -> list[str]:
    """Names in an order that follows from them and a seed, so that who is drawn depends on no place or machine."""
    return sorted(names, key=lambda name: (hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest(), name))


def _pairs(path: Path) -> Iterator[tuple[str, _Place]]:
    """Name and place of each sample that has a picture and a caption."""
    try:
        with tarfile.open(path) as archive:
            members: dict[str, dict[str, tarfile.TarInfo]] = {}
            for member in archive:
                folder, _, base = member.name.rpartition("/")
                stem, dot, extension = base.partition(".")
                if member.isfile() and stem and dot:
                    members.setdefault(f"{folder}/{stem}", {})[extension.lower()] = member
            for name, parts in members.items():
                picture = next((parts[one] for one in PICTURES if one in parts), None)
                if picture is not None and "txt" in parts:
                    uid = _uid(archive, parts["json"]) if "json" in parts else None
                    yield f"{path.stem}/{name}", _Place(uid, path, picture, parts["txt"])
    except (OSError, tarfile.TarError) as error:
        raise ValueError(
            f"negatives: {path} cannot be read to its end ({error}): repair it, or leave it out"
        ) from error


def _uid(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str | None:
    try:
        content = json.loads(_content(archive, member))
    except ValueError:
        return None
    uid = content.get("uid") if isinstance(content, dict) else None
    return uid if isinstance(uid, str) else None


def _read(place: _Place) -> Negative | None:
    """The pair, or None where it is none that a model could be shown."""
    with tarfile.open(place.path) as archive:
        try:
            caption = _content(archive, place.caption).decode("utf-8").strip()
            picture = decode(_content(archive, place.picture))
        except (SampleError, UnicodeDecodeError):
            return None
    return Negative(place.uid, caption, picture) if caption else None


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None  # only files were listed
    return file.read()
