"""A pool of any size from few pictures: real or rendered members over and over, under keys and uids of their own."""

import json
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path

import measuring

from chaffinch.jobs.demo.pool import write_pool
from chaffinch.pipeline.storage.archive import split_name
from chaffinch.pipeline.storage.ustar import end_archive, write_member


def read_samples(path: str | Path) -> Iterator[dict[str, bytes]]:
    """The samples of a tar: extension -> bytes, read forwards as webdataset does."""
    key, sample = None, {}
    with tarfile.open(path, "r|") as archive:
        for info in archive:
            parts = split_name(info.name)
            if not info.isfile() or parts is None:
                continue
            if parts[0] != key:
                if sample:
                    yield sample
                key, sample = parts[0], {}
            content = archive.extractfile(info)
            assert content is not None
            sample[parts[1]] = content.read()
            archive.members = []  # type: ignore[attr-defined]  # as webdataset does, or memory grows
    if sample:
        yield sample


def origin(place: Path, rendered: bool = False) -> tuple[list[Path], str]:
    """The shards of the real pool, or of a rendered one where that is asked for or the real one is missing.

    Args:
        place: where a rendered pool may be written.
        rendered: whether it has to be a rendered one.

    Returns:
        The shards, and what they are.
    """
    if measuring.REAL_POOL.is_dir() and not rendered:
        return sorted(measuring.REAL_POOL.glob("*.tar")), "real photos (pool-flickr8k)"
    if not (place / "rendered").is_dir():
        write_pool(place / "rendered", 1500, 500)
    return sorted((place / "rendered").glob("*.tar")), "rendered pictures"


def link(place: Path, tars: list[Path], copies: int) -> None:
    """Fills a folder with links to shards, once more under each of several folders."""
    for number in range(copies):
        folder = place / f"{number:03d}"
        folder.mkdir(parents=True)
        for tar in tars:
            (folder / tar.name).symlink_to(tar.resolve())


def write(place: Path, tars: list[Path], shards: int, rows: int) -> None:
    """Writes a pool as DataComp's tools do, every sample with a uid of its own.

    Args:
        place: the folder, made where it is missing.
        tars: where members come from.
        shards: how many to write.
        rows: samples in each.
    """
    place.mkdir(parents=True)
    usable = [
        one for tar in tars for one in read_samples(tar) if {"jpg", "txt"} <= one.keys() and len(one["jpg"]) > 1000
    ]
    generator = random.Random(0)
    for number in range(shards):
        with (place / f"{number:08d}.tar").open("wb") as file:
            for row in range(rows):
                one, key = usable[(number * rows + row) % len(usable)], f"{number:08d}{row:04d}"
                uid = f"{generator.getrandbits(128):032x}"
                members = {"jpg": one["jpg"], "json": json.dumps({"uid": uid, "key": key}).encode(), "txt": one["txt"]}
                for extension, content in members.items():
                    write_member(file, f"{key}.{extension}", content)
            end_archive(file)
        (place / f"{number:08d}_stats.json").write_text(json.dumps({"successes": rows}))
