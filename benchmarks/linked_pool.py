"""A scored pool of very many shards on a small disk: few shards with pictures, each of them there under many names.

What is linked would be equal anyway: an archive, its stamp (size and time of change), and what a scorer measured of it.
Only uids tell shards apart, since samples without one of their own get it from their shard's name; so every
shard has a samples table of its own, and the rest are hard links to what `chaffinch score` wrote for the few.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import measuring
import picture_pool
import pyarrow as pa
import yaml
from pool_store import COLUMNS, SCORERS

from chaffinch.pipeline.samples import derived_uid
from chaffinch.pipeline.shards import find_shards
from chaffinch.pipeline.storage import parquet
from chaffinch.pipeline.storage.ustar import end_archive, write_member
from chaffinch.pipeline.store import Store

ORIGINS = 16
"""Shards with pictures of their own; a file can have 65,000 names on common filesystems, of which none gets near."""


_PORTIONS = 16  # of the writing


@dataclass(frozen=True)
class Place:
    """Where a pool of this kind lies.

    Attributes:
        folder: holds pool, store, output and config.yaml.
    """

    folder: Path

    @property
    def config(self) -> str:
        """The config."""
        return str(self.folder / "config.yaml")

    @property
    def store(self) -> Store:
        """The store."""
        return Store(str(self.folder / "store"))

    def table(self, scorer: str, shard: str) -> Path:
        """One scorer's table of a shard."""
        folder = next((self.folder / "store" / "scores").glob(f"{scorer}-*"))
        return folder / f"{shard}.parquet"


def make(folder: Path, shards: int, rows: int) -> Place:
    """Writes a pool and its store.

    Args:
        folder: where to; must not exist.
        shards: how many.
        rows: samples in each.

    Returns:
        Where it lies: six scorers of one kind under six names are done with every shard.
    """
    first, whole = Place(folder / "few"), Place(folder)
    _write_few(first.folder / "pool", rows)
    for place in (first, whole):
        (place.folder / "config.yaml").write_text(yaml.safe_dump(_settings(place.folder), sort_keys=False))
    measuring.chaffinch("score", first.config)
    pool = folder / "pool"
    pool.mkdir()
    for number in range(shards):
        os.link(first.folder / "pool" / f"{number % ORIGINS:08d}.tar", pool / f"{number:08d}.tar")
    with ProcessPoolExecutor() as workers:
        starts = range(0, shards, -(-shards // _PORTIONS))
        count = len(starts)
        list(workers.map(_write_tables, [first] * count, [whole] * count, starts, [*starts[1:], shards]))
    return whole


def _settings(folder: Path) -> dict[str, Any]:
    filters: dict[str, Any] = {}
    for index, name in enumerate(SCORERS):
        column, other = COLUMNS[index % len(COLUMNS)], COLUMNS[(index + 1) % len(COLUMNS)]
        filters[f"{name}_share"] = {"column": f"{name}.{column}", "keep": f"top {30 + index}%", "drop": "bottom 40%"}
        filters[f"{name}_range"] = {"column": f"{name}.{other}", "keep": [0.1 * index, None]}
    return {
        "input": str(folder / "pool"),
        "store": str(folder / "store"),
        "output": str(folder / "output"),
        "metadata": "none",
        "scorers": {name: {"kind": "pictures"} for name in SCORERS},
        "filters": filters,
        "ensemble": {"label_model": "dawid_skene", "class_prior": 0.4},
        "keep": {"fraction": 0.3},
        "run": {"workers": 2, "device": "cpu"},
    }


def _write_few(pool: Path, rows: int) -> None:
    pool.mkdir(parents=True)
    tars, _ = picture_pool.origin(pool.parent)
    samples = (one for tar in tars for one in picture_pool.read_samples(tar))
    usable = (one for one in samples if {"jpg", "txt"} <= one.keys() and len(one["jpg"]) > 1000)
    for number in range(ORIGINS):
        with (pool / f"{number:08d}.tar").open("wb") as file:
            for row in range(rows):
                one = next(usable)
                for extension in ("jpg", "txt"):  # no json: a uid in it would be that of every copy
                    write_member(file, f"{row:04d}.{extension}", one[extension])
            end_archive(file)


def _write_tables(first: Place, whole: Place, start: int, stop: int) -> None:
    few = find_shards(str(first.folder / "pool"))
    tables = [parquet.read_table(first.store.samples(shard.name)) for shard in few]
    folders = first.store.score_folders()
    for number in range(start, stop):
        origin = few[number % ORIGINS]
        shard = replace(origin, name=f"{number:08d}")
        table = tables[number % ORIGINS]
        uids = pa.array([derived_uid(shard.name, key) for key in table["key"].to_pylist()])
        parquet.write_table(whole.store.samples(shard.name), table.set_column(0, table.schema.field("uid"), uids))
        for folder in folders:
            _link(first.store.scores(folder, origin.name), whole.store.scores(folder, shard.name))
        _link(first.store.stamp(origin.name, origin.stamp), whole.store.stamp(shard.name, shard.stamp))


def _link(old: str, new: str) -> None:
    Path(new).parent.mkdir(parents=True, exist_ok=True)
    os.link(old, new)
