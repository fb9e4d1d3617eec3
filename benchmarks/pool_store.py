"""A scored pool without pictures: sample and score tables as `score` writes them, for as many rows as are asked for."""

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml

from chaffinch.pipeline.samples import SCHEMA
from chaffinch.pipeline.shards import Shard, find_shards
from chaffinch.pipeline.storage import files, parquet
from chaffinch.pipeline.store import Store, table_folder
from chaffinch.scoring.pictures import Pictures

SCORERS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta")
COLUMNS = ("sharpness", "brightness", "contrast", "entropy")
"""What is written of each scorer's columns; filters read the first two."""

_REJECTED = 0.02
_UNJUDGED = 0.01


@dataclass(frozen=True)
class Size:
    """How large a pool is.

    Attributes:
        shards: how many.
        rows: samples in each.
    """

    shards: int
    rows: int


def folders() -> dict[str, str]:
    """Scorer name -> folder of its tables: six scorers of one kind under six names."""
    return {name: table_folder(name, Pictures(), "cpu") for name in SCORERS}


def make(place: Path, size: Size) -> Path:
    """Writes the pool and its store, unless they are there.

    Args:
        place: the folder to write to.
        size: how large.

    Returns:
        The config.
    """
    marker = place / "made.json"
    wanted = {"shards": size.shards, "rows": size.rows, "folders": folders()}
    if not (marker.exists() and json.loads(marker.read_text()) == wanted):
        pool = place / "pool"
        pool.mkdir(parents=True, exist_ok=True)
        for number in range(size.shards):
            # Deciding looks at a shard's size and date only.
            (pool / f"{number:08d}.tar").write_bytes(bytes(10240))
        shards = find_shards(str(pool))
        with ProcessPoolExecutor() as workers:
            list(
                workers.map(_write_shard, [place] * len(shards), range(len(shards)), shards, [size.rows] * len(shards))
            )
        marker.write_text(json.dumps(wanted))
    config = place / "config.yaml"
    config.write_text(yaml.safe_dump(settings(place), sort_keys=False))
    return config


def settings(place: Path) -> dict[str, object]:
    """The config: six scorers and twelve filters, of which half leave their ranges to the pool."""
    filters: dict[str, object] = {}
    for index, name in enumerate(SCORERS):
        keep, drop = 30 - index, 40 - index
        filters[f"{name}_share"] = {
            "column": f"{name}.{COLUMNS[0]}",
            "keep": f"top {keep}%",
            "drop": f"bottom {drop}%",
        }
        filters[f"{name}_range"] = {"column": f"{name}.{COLUMNS[1]}", "keep": [-0.1 * index, None]}
    return {
        "input": str(place / "pool"),
        "store": str(place / "store"),
        "output": str(place / "output"),
        "metadata": "none",
        "scorers": {name: {"kind": "pictures"} for name in SCORERS},
        "filters": filters,
        "keep": {"fraction": 0.3},
        "run": {"workers": 2, "device": "cpu"},
    }


def _write_shard(place: Path, number: int, shard: Shard, rows: int) -> None:
    generator = np.random.default_rng(number)
    store = Store(str(place / "store"))
    uids = generator.integers(0, 256, (rows, 16), np.uint8).tobytes().hex()
    keys = [f"{number:08d}{row:04d}" for row in range(rows)]
    rejected = generator.random(rows) < _REJECTED
    reject = pa.array(np.where(rejected, "picture is empty", ""), mask=rejected == 0)
    extensions = ("jpg", "json", "txt")
    ends = pa.array(np.arange(rows + 1, dtype=np.int32) * 3)
    sizes = generator.integers(100, 40000, rows * 3)
    samples = pa.table(
        [
            pa.array([uids[start : start + 32] for start in range(0, 32 * rows, 32)]),
            pa.array(keys),
            pa.ListArray.from_arrays(ends, pa.array([f"{key}.{end}" for key in keys for end in extensions])),
            pa.ListArray.from_arrays(ends, pa.array(np.cumsum(sizes // 512 * 512 + 1024) - sizes)),
            pa.ListArray.from_arrays(ends, pa.array(sizes)),
            pa.array(np.zeros(rows, np.int16)),
            pa.array(np.full(rows, 2, np.int16)),
            reject,
        ],
        schema=SCHEMA,
    )
    parquet.write_table(store.samples(shard.name), samples.replace_schema_metadata({"content": f"{number:064x}"}))
    truth = np.where(generator.random(rows) < 0.4, 1.0, 0.0)
    for folder in folders().values():
        columns = {}
        for name in COLUMNS:
            values = (truth + generator.normal(0, 1, rows)).astype(np.float32)
            values[generator.random(rows) < _UNJUDGED] = np.nan
            columns[name] = pa.array(values, mask=rejected, from_pandas=False)
        parquet.write_table(store.scores(folder, shard.name), pa.table({**columns, "reject": reject}))
    files.write_bytes(store.stamp(shard.name, shard.stamp), b"")
