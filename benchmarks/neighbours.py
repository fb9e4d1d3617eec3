"""K-means and duplicates within clusters, through shards and files, over faiss alone with all vectors in one memory.

The pool is made up: unit vectors of half precision around random centres, one in ten of them a near copy of another.
Both sides are whole programs, started anew for every run, with as many processes as threads. faiss alone reads the same
tables, trains its k-means on as large a sample for as many iterations, assigns, and asks in every cluster for each
vector's two nearest, itself among them: which of a pair is preferred it does not know, so it compares every pair twice.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import pyarrow as pa

from chaffinch.pipeline.deciding.judgement import Pool
from chaffinch.pipeline.engines.engine import Engine
from chaffinch.pipeline.measuring.feeds import Wanted
from chaffinch.pipeline.metadata import Metadata
from chaffinch.pipeline.rows import Source
from chaffinch.pipeline.shards import Shard, find_shards
from chaffinch.pipeline.storage import files, listings, parquet
from chaffinch.pipeline.store import Store
from chaffinch.pipeline.whole_pool import neighbours
from chaffinch.scoring.neighbourhood.kmeans import ITERATIONS
from chaffinch.scoring.neighbours import Neighbours

FOLDER, FOUND = "made-00000000", "neighbours-00000000"
NEAR = 0.95
_COPIES = 0.1
# A copy's cosine to its original is about 0.98, that of two others around one centre about 0.5.
_SPREAD_OF_COPIES = 0.2
_CENTRES = 5000
_BLOCK = 4096


def make(place: Path, shards: int, rows: int, d: int) -> None:
    """Writes shards that are only looked at, and their tables; the same ones for the same sizes."""
    (place / "pool").mkdir(parents=True, exist_ok=True)
    for number in range(shards):
        (place / "pool" / f"{number:08d}.tar").write_bytes(bytes(10240))
    found = find_shards(str(place / "pool"))
    with ProcessPoolExecutor(2) as workers:
        list(workers.map(_write_shard, [place] * shards, range(shards), found, [rows] * shards, [d] * shards))


def _write_shard(place: Path, number: int, shard: Shard, rows: int, d: int) -> None:
    generator = np.random.default_rng(number)
    centres = np.random.default_rng(2**32).standard_normal((_CENTRES, d), np.float32)
    vectors = centres[generator.integers(_CENTRES, size=rows)] + generator.standard_normal((rows, d), np.float32)
    # Originals are those of the first shard, so that copies lie in other shards.
    first = np.random.default_rng(0)
    originals = centres[first.integers(_CENTRES, size=rows)] + first.standard_normal((rows, d), np.float32)
    copied = np.flatnonzero(generator.random(rows) < _COPIES) if number else np.zeros(0, np.int64)
    noise = np.sqrt(2) * _SPREAD_OF_COPIES * generator.standard_normal((len(copied), d), np.float32)
    vectors[copied] = originals[copied] + noise
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    store = Store(str(place / "store"))
    uids = generator.integers(0, 256, (rows, 16), np.uint8).tobytes().hex()
    uid = pa.array([uids[start : start + 32] for start in range(0, 32 * rows, 32)])
    reject = pa.nulls(rows, pa.string())
    parquet.write_table(store.samples(shard.name), pa.table({"uid": uid, "key": uid, "reject": reject}))
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(np.float16).ravel()), d)
    parquet.write_table(store.scores(FOLDER, shard.name), pa.table({"vector": column, "reject": reject}))
    files.write_bytes(store.stamp(shard.name, shard.stamp), b"")


def ours(place: Path, clusters: int, workers: int) -> dict[str, Any]:
    """Measures the pool as `chaffinch score` does; seconds of each pass, and how many are near another."""
    stages: dict[str, float] = {}
    add_up = neighbours.add_up

    def timed(engine: Engine, label: str, *rest: Any) -> Any:
        began = time.perf_counter()
        done = add_up(engine, label, *rest)
        stages[label] = stages.get(label, 0.0) + time.perf_counter() - began
        return done

    neighbours.add_up = timed  # type: ignore[assignment]
    store = Store(str(place / "store"))
    pool = Pool(find_shards(str(place / "pool")), Source(store, {"made": FOLDER}, Metadata("none")))
    scorer = Neighbours(embedding="made.vector", clusters=clusters)
    neighbours.score_pool(Engine(workers), pool, Wanted("neighbours", FOUND, scorer), "cpu", str(place))
    near, sizes = 0, np.zeros(clusters, np.int64)
    for shard in pool.shards:
        table = parquet.read_table(store.scores(FOUND, shard.name))
        near += int((table["similarity"].to_numpy() >= NEAR).sum())
        sizes += np.bincount(table["cluster"].to_numpy(), minlength=clusters)
    listings.remove_below(files.join(store.root, "scores", FOUND))
    return {"stages": stages, "near": near, "largest_over_mean": float(sizes.max() / sizes.mean())}


def faiss_alone(place: Path, clusters: int, threads: int) -> dict[str, Any]:
    """The same from one memory."""
    import faiss

    faiss.omp_set_num_threads(threads)
    stages: dict[str, float] = {}
    began = time.perf_counter()

    def stage(label: str) -> None:
        nonlocal began
        stages[label] = time.perf_counter() - began
        began = time.perf_counter()

    store = Store(str(place / "store"))
    tables = [parquet.read_table(store.scores(FOLDER, shard.name)) for shard in find_shards(str(place / "pool"))]
    d = tables[0]["vector"].type.list_size
    halves = np.concatenate([table["vector"].combine_chunks().flatten().to_numpy() for table in tables])
    del tables
    vectors = halves.reshape(-1, d).astype(np.float32)
    del halves
    faiss.normalize_L2(vectors)
    stage("read")
    sample = np.random.default_rng(0).permutation(len(vectors))[: 256 * clusters]
    kmeans = faiss.Kmeans(d, clusters, niter=ITERATIONS, seed=0, spherical=True)
    kmeans.train(vectors[sample])
    stage("train")
    members = np.concatenate([kmeans.assign(vectors[low : low + _BLOCK])[1] for low in range(0, len(vectors), _BLOCK)])
    stage("assign")
    near, order = 0, np.argsort(members, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(members[order])) + 1):
        one = vectors[rows]
        found, _ = faiss.knn(one, one, min(2, len(one)), metric=faiss.METRIC_INNER_PRODUCT)
        near += int((found[:, -1] >= NEAR).sum()) if len(one) > 1 else 0
    stage("search")
    sizes = np.bincount(members, minlength=clusters)
    return {"stages": stages, "near": near, "largest_over_mean": float(sizes.max() / sizes.mean())}


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--shard-size", type=int, default=10_000)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2, help="processes of ours, threads of faiss alone")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", choices=("ours", "faiss"), help="one side alone, on the pool in --folder")
    parser.add_argument("--folder", type=Path, help="where to make the pool, 2 bytes a number; else a temporary one")
    options = parser.parse_args()
    if options.run:
        side = ours if options.run == "ours" else faiss_alone
        print(json.dumps(side(options.folder, options.clusters, options.workers)))
        return
    before = measuring.machine()
    with tempfile.TemporaryDirectory(prefix="chaffinch-benchmark-") as temporary:
        place = options.folder or Path(temporary)
        make(place, -(-options.rows // options.shard_size), options.shard_size, options.dimensions)
        runs: dict[str, list[measuring.Run]] = {"ours": [], "faiss": []}

        def run(side: str) -> float:
            command = [sys.executable, __file__, "--run", side, "--folder", str(place)]
            command += ["--clusters", str(options.clusters), "--workers", str(options.workers)]
            runs[side].append(measuring.run(command, OMP_NUM_THREADS=str(options.workers)))
            return runs[side][-1].seconds

        seconds, bare = measuring.paired(lambda: run("ours"), lambda: run("faiss"), options.rounds)
    ratio = measuring.median_ratio(seconds, bare)
    figures: dict[str, Any] = {
        name: getattr(options, name) for name in ("rows", "dimensions", "clusters", "shard_size", "workers")
    }
    for side, times in (("ours", seconds), ("faiss", bare)):
        last = json.loads(runs[side][-1].output)
        figures[side] = {
            "seconds": [round(value, 1) for value in times],
            "cpu_seconds": [round(one.cpu_seconds, 1) for one in runs[side]],
            "peak_mib": [round(one.peak_mib) for one in runs[side]],
            "stages": {label: round(value, 1) for label, value in last["stages"].items()},
            "near": last["near"],
            "largest_over_mean": round(last["largest_over_mean"], 2),
        }
    figures["ratio"] = round(ratio, 3)
    memory = {side: max(found["peak_mib"]) for side in runs if (found := figures[side])}
    prose = (
        f"Clusters and duplicates of {options.rows:,} x {options.dimensions} float16 took "
        f"{statistics.median(seconds):.0f} s in {options.workers} processes, faiss alone "
        f"{statistics.median(bare):.0f} s in as many threads: {ratio:.2f} "
        f"times as long (median of {options.rounds} pairs), with {memory['ours']} MiB against {memory['faiss']} MiB."
    )
    measuring.finish(figures, prose, before)


if __name__ == "__main__":
    main()
