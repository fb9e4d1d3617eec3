"""Pools of rendered samples on disk, as DataComp's tools write them, and the truth about each sample."""

import hashlib
import io
import json
import random
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from chaffinch.jobs.demo.noise import BROKEN, Members
from chaffinch.jobs.demo.samples import KINDS, NOISE, Sample, clean_sample, noisy_sample, plan

_FAILED = 0.05
"""The share of downloads that failed: they have a row in the metadata, but no sample in the shard."""

_METADATA = pa.schema(
    [
        ("uid", pa.string()),
        ("url", pa.string()),
        ("caption", pa.string()),
        ("key", pa.string()),
        ("status", pa.string()),
        ("error_message", pa.string()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("original_width", pa.int64()),
        ("original_height", pa.int64()),
        ("exif", pa.string()),
        ("sha256", pa.string()),
    ]
)
_TRUTH = pa.schema(
    [
        ("uid", pa.string()),
        ("shard", pa.string()),
        ("key", pa.string()),
        ("keep", pa.bool_()),
        ("kind", pa.string()),
        ("group", pa.string()),
    ]
)


def write_pool(
    folder: str | Path,
    samples: int = 2000,
    shard_size: int = 250,
    seed: int = 0,
    noise: Mapping[str, float] | None = None,
    annotations: bool = False,
) -> dict[str, int]:
    """Writes a pool with planted noise and, as truth.parquet, what is true of each sample.

    The shards' numbering has a gap, and the metadata beside them has rows of failed downloads, as real pools do.
    The truth has one row per sample of the shards, in order: uid, shard and key (together they name a sample), keep,
    kind, and group: the uid of the clean sample that this one repeats or that is repeated, else null.

    Args:
        folder: made where it is missing.
        samples: how many samples the shards hold in all.
        shard_size: samples per shard; the last shard may have fewer.
        seed: the same seed gives the same bytes.
        noise: share of each kind of noise, `NOISE` by default; every kind named gets at least one sample.
        annotations: whether the json members list the objects: name, colour and box (x0, y0, x1, y1 as shares of the
            picture); an empty list where noise moved or hid them.

    Returns:
        How many samples there are of each kind.

    Raises:
        ValueError: `noise` names an unknown kind or leaves no clean sample.
        FileExistsError: the folder holds shards that are none of this pool's; nothing was written.
    """
    stream = f"pool/{seed}"
    kinds = plan(samples, NOISE if noise is None else noise, random.Random(f"{stream}/plan"))
    return _write(Path(folder), stream, kinds, shard_size, annotations, truth=True)


def write_clean(
    folder: str | Path, samples: int = 500, shard_size: int = 250, seed: int = 0, annotations: bool = False
) -> None:
    """Writes a pool of clean samples only, of scenes that are in no pool of `write_pool`; there is no truth beside it.

    Args:
        folder: made where it is missing.
        samples: how many samples the shards hold in all.
        shard_size: samples per shard; the last shard may have fewer.
        seed: the same seed gives the same bytes.
        annotations: as for `write_pool`.
    """
    _write(Path(folder), f"clean/{seed}", ["clean"] * samples, shard_size, annotations, truth=False)


def _write(
    folder: Path, stream: str, kinds: list[str], shard_size: int, annotations: bool, truth: bool
) -> dict[str, int]:
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(f"{stream}/write")
    rows: list[dict[str, object]] = []
    starts = range(0, len(kinds), shard_size)
    gap = rng.randrange(1, len(starts)) if len(starts) > 1 else len(starts)
    names = [f"{number + (number >= gap):08d}" for number in range(len(starts))]
    strangers = sorted({path.name for path in folder.glob("*.tar")} - {f"{name}.tar" for name in names})
    if strangers:
        raise FileExistsError(f"{folder} already holds shards of another pool: {', '.join(strangers[:3])}")
    for shard, start in zip(names, starts, strict=True):
        indices = range(start, min(start + shard_size, len(kinds)))
        rows.extend(_write_shard(folder, shard, list(_samples(stream, kinds, indices)), annotations, rng))
    if truth:
        repeated = {row["group"] for row in rows} - {None}
        for row in rows:
            if row["kind"] == "clean" and row["uid"] in repeated:
                row["group"] = row["uid"]
        pq.write_table(pa.Table.from_pylist(rows, _TRUTH), folder / "truth.parquet")
    return {kind: kinds.count(kind) for kind in KINDS if kind in kinds}


def _samples(stream: str, kinds: list[str], indices: range) -> Iterator[Sample]:
    for index in indices:
        if kinds[index] == "clean":
            yield clean_sample(stream, index)
        else:
            earlier = [other for other in range(index) if kinds[other] == "clean"]
            yield noisy_sample(stream, index, kinds[index], random.Random(f"{stream}/{index}/original").choice(earlier))


def _write_shard(
    folder: Path, shard: str, samples: list[Sample], annotations: bool, rng: random.Random
) -> list[dict[str, object]]:
    """Writes a shard, its metadata and its counts; returns the rows of the truth."""
    truth: list[dict[str, object]] = []
    metadata: list[dict[str, object]] = []
    position = 0
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for sample in samples:
            while rng.random() < _FAILED:
                metadata.append(_failed_row(f"{shard}{position:04d}", rng))
                position += 1
            key = f"{shard}{position:04d}"
            position += 1
            members, row = _members(sample, key, annotations)
            if sample.kind in BROKEN:
                members = BROKEN[sample.kind](members, random.Random(f"{sample.uid}/broken"))
            for extension, data in members:
                entry = tarfile.TarInfo(f"{key}.{extension}")
                entry.size = len(data)  # the time stays 0, so that the bytes depend on the seed alone
                archive.addfile(entry, io.BytesIO(data))
            metadata.append(row)
            truth.append(
                {
                    "uid": hashlib.sha256(f"{shard}/{key}".encode()).hexdigest()[:32]
                    if sample.kind == "broken_json"
                    else sample.uid,
                    "shard": shard,
                    "key": key,
                    "keep": sample.kind == "clean",
                    "kind": sample.kind,
                    "group": sample.group or None,
                }
            )
    path = folder / f"{shard}.tar"
    if not path.exists() or path.read_bytes() != content.getvalue():  # written anew, it would be measured anew
        path.write_bytes(content.getvalue())
    pq.write_table(pa.Table.from_pylist(metadata, _METADATA), folder / f"{shard}.parquet")
    failed = len(metadata) - len(samples)
    counts = {
        "count": len(metadata),
        "successes": len(samples),
        "failed_to_download": failed,
        "failed_to_resize": 0,
        "status_dict": {"success": len(samples)} | ({"HTTP Error 404: Not Found": failed} if failed else {}),
    }
    (folder / f"{shard}_stats.json").write_text(json.dumps(counts, indent=4))
    return truth


def _members(sample: Sample, key: str, annotations: bool) -> tuple[Members, dict[str, object]]:
    """The members of a sample, and its row of the metadata."""
    buffer = io.BytesIO()
    sample.picture.save(buffer, "JPEG", quality=sample.quality)
    picture = buffer.getvalue()
    width, height = sample.picture.size
    row: dict[str, object] = {
        "uid": sample.uid,
        "url": f"https://pictures.example.org/{sample.uid[:2]}/{sample.uid[2:14]}.jpg",
        "caption": sample.caption,
        "key": key,
        "status": "success",
        "error_message": None,
        "width": width,
        "height": height,
        "original_width": width,
        "original_height": height,
        "exif": "{}",
        "sha256": hashlib.sha256(picture).hexdigest(),
    }
    described = dict(row)
    if annotations:
        moved = sample.kind in ("blank", "strip", "duplicate")
        described["objects"] = [
            {"name": thing.name, "colour": thing.colour, "box": [round(edge, 4) for edge in thing.box]}
            for thing in sample.scene.things
            if not moved
        ]
    text = json.dumps(described, indent=4, ensure_ascii=False)
    return [("jpg", picture), ("txt", sample.caption.encode()), ("json", text.encode())], row


def _failed_row(key: str, rng: random.Random) -> dict[str, object]:
    uid = f"{rng.getrandbits(128):032x}"
    return {
        "uid": uid,
        "url": f"https://pictures.example.org/{uid[:2]}/{uid[2:14]}.jpg",
        "caption": "This picture could not be downloaded",
        "key": key,
        "status": "failed_to_download",
        "error_message": "HTTP Error 404: Not Found",
    }
