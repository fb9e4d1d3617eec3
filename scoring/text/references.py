"""Finding and reading captioned pictures: in a store that was scored, or in parquet files of the user's own."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from chaffinch.scoring.text.captioned_pictures import CaptionedPictures, directions, words_of
from chaffinch.scoring.weights import digest_all


@dataclass(frozen=True)
class Part:
    """Where the same rows of captioned pictures lie; all may be one file.

    Attributes:
        vectors: the table with the embeddings.
        captions: the table with the captions.
        uids: the table with the uids; None where they are not known.
    """

    vectors: Path
    captions: Path
    uids: Path | None


@dataclass(frozen=True)
class Reference:
    """Where captioned pictures lie.

    Attributes:
        parts: at least one.
        vectors: the name of the column of embeddings.
        captions: the name of the column of captions.
        identity: 16 hex digits of what is there, wherever it lies.
    """

    parts: tuple[Part, ...]
    vectors: str
    captions: str
    identity: str

    def dimensions(self) -> int:
        """The length of the embeddings; ValueError where they are no vectors, or there is none."""
        for part in self.parts:
            for vector in _vectors(part.vectors, self.vectors):
                if vector.is_valid:
                    return len(vector)
        raise ValueError(f"{str(self.parts[0].vectors)!r} and what lies beside it hold no {self.vectors!r}")

    def rows(self, number: int) -> list[tuple[str | None, list[str]]]:
        """What identifies each row of a part, its uid or else its place, and its captions; ValueError as `read`."""
        part = self.parts[number]
        captions = [_texts(entry) for entry in _column(part.captions, self.captions).to_pylist()]
        uids: list[str | None] = [f"{number} {row}" for row in range(len(captions))]
        if part.uids is not None:
            uids = _column(part.uids, "uid").to_pylist()
        return list(zip(uids, captions, strict=True))

    def vectors_of(self, number: int) -> pa.Array:
        """The vectors of a part's rows, null where there is none; ValueError as `read`."""
        return _vectors(self.parts[number].vectors, self.vectors)

    def read(self, most: int) -> CaptionedPictures:
        """Reads the pictures that have an embedding with a direction, and a caption with words.

        Args:
            most: how many at most; of more, those whose uids, or else places, have the least hashes.

        Returns:
            The pictures, of equal uids the first.

        Raises:
            ValueError: there are none, or tables do not belong together.
        """
        found: dict[str, tuple[int, int, frozenset[str]]] = {}
        for number in range(len(self.parts)):
            for row, (uid, texts) in enumerate(self.rows(number)):
                if uid is not None and (words := words_of(texts)):
                    found.setdefault(uid, (number, row, words))
        names = sorted(found, key=lambda uid: hashlib.blake2b(uid.encode(), digest_size=8).digest())[:most]
        names.sort(key=lambda uid: found[uid][:2])
        kept: list[str] = []
        vectors: list[np.ndarray] = []
        for number, part in enumerate(self.parts):
            column = self.vectors_of(number)
            here = [uid for uid in names if found[uid][0] == number and column[found[uid][1]].is_valid]
            try:
                units = directions(column.take(pa.array([found[uid][1] for uid in here], pa.int64())))
            except ValueError as error:
                raise ValueError(f"{str(part.vectors)!r}: {self.vectors}: {error}") from error
            usable = ~np.isnan(units).any(axis=1)
            vectors += [units[usable]] if usable.any() else []
            kept += [uid for uid, one in zip(here, usable.tolist(), strict=True) if one]
        if not kept:
            raise ValueError(f"{str(self.parts[0].captions)!r} and what lies beside it hold no picture with a caption")
        said = [found[uid][2] for uid in kept]
        rows = {uid: place for place, uid in enumerate(kept)} if self.parts[0].uids is not None else {}
        return CaptionedPictures(np.concatenate(vectors), said, rows, Counter(word for one in said for word in one))


def find_reference(place: str, embedding: str, captions_key: str | None) -> Reference:
    """Finds captioned pictures.

    Args:
        place: a store; the folder of one scorer's tables in a store's scores; a .parquet file, or a folder of them.
        embedding: the column of embeddings, as `<scorer>.<column>`; in files of the user's own, what follows the dot.
        captions_key: the column of captions in files of the user's own; None for stores, which have them.

    Returns:
        Where they lie.

    Raises:
        ValueError: they are not there, or not all of them; the remedy.
    """
    if "://" in place:
        raise ValueError(f"reference {place!r} is not on the local disk: copy it there, and name the copy")
    path, (scorer, _, column) = Path(place).expanduser(), embedding.partition(".")
    if path.parent.name == "scores":
        return _in_store(path.parent.parent, [path], column, captions_key)
    if (path / "scores").is_dir():
        return _in_store(path, _versions(path, scorer), column, captions_key)
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files or not all(file.is_file() and file.suffix == ".parquet" for file in files):
        raise ValueError(
            f"reference {place!r} is no store that was scored, no .parquet file and no folder of them: "
            "correct the path, or score the reference first, with a config that has it as input"
        )
    columns = [set(_schema(file).names) for file in files]
    for name, setting in ((column, "embedding"), (captions_key, "captions_key")):
        for file, names in zip(files, columns, strict=True):
            if name not in names:
                raise ValueError(f"{str(file)!r} has no column {name!r} ({setting}), but {', '.join(sorted(names))}")
    has_uids = all("uid" in names for names in columns)
    parts = tuple(Part(file, file, file if has_uids else None) for file in files)
    return Reference(parts, column, str(captions_key), digest_all(files)[:16])


def _in_store(store: Path, embeddings: list[Path], column: str, captions_key: str | None) -> Reference:
    captions, samples = _versions(store, "captions"), store / "samples"
    if captions_key is not None:
        raise ValueError(f"{str(store)!r} is a store, which has the captions: leave captions_key out")
    if not embeddings or not captions:
        raise ValueError(
            f"{str(store)!r} lacks embeddings or captions: score the reference first, with the same scorers and "
            "`captions: {}`"
        )
    if len(embeddings) > 1:
        raise ValueError(
            f"{str(store)!r} has {len(embeddings)} versions of the embeddings: name one as reference, "
            f"such as {str(embeddings[0])!r}"
        )
    tables, texts = embeddings[0], captions[-1]  # every version has the same texts
    names = sorted(path.relative_to(samples) for path in samples.rglob("*.parquet"))
    missing = [folder / name for folder in (tables, texts) for name in names if not (folder / name).is_file()]
    if missing or not names:
        raise ValueError(f"{str([*missing, samples][0])!r} is not there: score the reference to its end first")
    if column not in (schema := _schema(tables / names[0])).names:
        raise ValueError(f"{str(tables)!r} has no column {column!r}, but {', '.join(schema.names)}")
    # A stamp says which version of a shard was measured, and a folder how, so that no table has to be read for this.
    stamps = sorted(path.relative_to(store).as_posix() for path in (store / "stamps").rglob("*") if path.is_file())
    identity = hashlib.sha256("\n".join([tables.name, texts.name, *stamps]).encode()).hexdigest()[:16]
    return Reference(
        tuple(Part(tables / name, texts / name, samples / name) for name in names), column, "text", identity
    )


def _versions(store: Path, scorer: str) -> list[Path]:
    """The folders of a scorer's tables."""
    return sorted(path for path in (store / "scores").iterdir() if path.name.rpartition("-")[0] == scorer)


def _texts(entry: str | list[str] | None) -> list[str]:
    """The captions of a picture, of which there may be one, several or none."""
    return [text for text in (entry if isinstance(entry, list) else [entry]) if isinstance(text, str)]


def _vectors(file: Path, name: str) -> pa.Array:
    column = _column(file, name)
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(belongs(column.type) for belongs in lists) or not pa.types.is_floating(column.type.value_type):
        raise ValueError(f"{str(file)!r}: {name} holds {column.type}, not vectors")
    return column


def _schema(file: Path) -> pa.Schema:
    try:
        return pq.read_schema(file)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{str(file)!r} cannot be read: {error}; repair it, or leave it out") from error


def _column(file: Path, name: str) -> pa.Array:
    try:
        return pq.read_table(file, columns=[name], partitioning=None)[name].combine_chunks()
    except (OSError, KeyError, pa.ArrowException) as error:
        raise ValueError(f"{str(file)!r} cannot be read: {error}; repair it, or leave it out") from error
