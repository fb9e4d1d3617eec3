"""The bank of negatives: trusted pairs, drawn once, among which every sample has to find its own."""

import glob
import hashlib
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from chaffinch.scoring.clips.drafts import check_shape
from chaffinch.scoring.images import decode
from chaffinch.scoring.scorer import SampleError

PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")


@dataclass(frozen=True)
class Negative:
    """One pair.

    Attributes:
        uid: as in its json, in lower case; None where it has none.
        caption: never empty.
        picture: what the towers' `transform` takes: of mode RGB where they read pictures, its features otherwise.
    """

    uid: str | None
    caption: str
    picture: Any


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a pair lies: its uid, and where in the archive its files begin and how long they are."""

    uid: str | None
    path: Path
    picture: tuple[int, int]
    caption: tuple[int, int]


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
        At least 2 pairs, of at least 2 captions; none is there twice.

    Raises:
        ValueError: there are fewer that can be used; an archive is damaged.
    """
    known: dict[str, _Place] = {}
    for path in paths:
        for name, place in _pairs(path):
            known.setdefault(name, place)
    drawn: list[Negative] = []
    for name in shuffled(known, seed):
        negative = _load(known[name])
        if negative is not None:
            drawn.append(negative)
        if len(drawn) == count:
            break
    captions = {caption_key(negative.caption) for negative in drawn}
    if len(captions) < 2:
        found = f"{len(drawn)} pairs that can be used" if len(drawn) < 2 else f"{len(drawn)} pairs of one caption"
        raise ValueError(
            f"negatives: in {', '.join(map(str, paths[:3]))} there are {found}, and 2 with different captions are the "
            "least: name shards of trusted pairs"
        )
    return drawn


def shuffled(names: Iterable[str], seed: int) -> list[str]:
    """Names in an order that follows from them and a seed, so that who is drawn depends on no place or machine."""
    return sorted(names, key=lambda name: (hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest(), name))


def caption_key(caption: str) -> str:
    """Captions that differ in blanks or capitals alone say the same: they have one key."""
    return " ".join(caption.split()).casefold()


def _pairs(path: Path) -> Iterator[tuple[str, _Place]]:
    """What to call each sample that has a picture and a caption, and where it is."""
    try:
        with tarfile.open(path, "r:") as archive, path.open("rb") as file:
            for parts in _samples(archive):
                picture = next((parts[one] for one in PICTURES if one in parts), None)
                if picture is not None and "txt" in parts:
                    uid = _uid(_read(file, parts["json"])) if "json" in parts else None
                    place = _Place(uid, path, picture, parts["txt"])
                    yield uid or _digest(file, place), place
            file.seek(archive.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile takes much for the end
                raise tarfile.ReadError("a header is damaged or its end is missing")
    except (OSError, tarfile.TarError) as error:
        raise ValueError(
            f"negatives: {path} cannot be read to its end ({error}): repair it, or leave it out"
        ) from error


def _samples(archive: tarfile.TarFile) -> Iterator[dict[str, tuple[int, int]]]:
    """Samples as WebDataset has them: runs of members of one key; extension -> where the member's bytes are."""
    key: str | None = None
    parts: dict[str, tuple[int, int]] = {}
    for member in archive:
        folder, _, base = member.name.rpartition("/")
        stem, _, extension = base.partition(".")
        if not member.isreg() or member.issparse() or not stem or not extension:
            continue
        here, extension = f"{folder}/{stem}", extension.lower()
        if here != key or extension in parts:
            yield parts
            key, parts = here, {}
        parts[extension] = (member.offset_data, member.size)
    yield parts


def _uid(content: bytes) -> str | None:
    try:
        described = json.loads(content)
    except (ValueError, RecursionError):
        return None
    uid = described.get("uid") if isinstance(described, dict) else None
    return uid.lower() if isinstance(uid, str) and uid else None


def _digest(file: BinaryIO, place: _Place) -> str:
    """A name for a pair that has no uid."""
    content = hashlib.sha256(_read(file, place.caption))
    content.update(b"\0" + _read(file, place.picture))
    return content.hexdigest()


def _load(place: _Place) -> Negative | None:
    """The pair, or None where it is none that a model could be shown."""
    with place.path.open("rb") as file:
        try:
            caption = _read(file, place.caption).decode("utf-8").strip()
            picture = decode(_read(file, place.picture))
            check_shape(picture.size)
        except (SampleError, UnicodeDecodeError):
            return None
    return Negative(place.uid, caption, picture) if caption else None


def _read(file: BinaryIO, where: tuple[int, int]) -> bytes:
    file.seek(where[0])
    return file.read(where[1])
