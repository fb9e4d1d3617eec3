"""What runners cost and give: scoring on the processor by one worker and by two, and the overhead of each engine.

Every figure comes from `chaffinch score`, and each worker has one thread. How workers scale is told by the times at
which tables appear, on a pool of large shards: shards per second from the first that every worker has finished to the
last, and start-up, which is the rest, apart. What an engine costs is told by the line through runs on pools of a few
and of more very small shards: the fixed seconds, and the seconds to hand a shard over.

    python benchmarks/runners.py [--prism PROGRAM]

Flink is brought up by examples/flink/cluster.py, and left out where that says that it cannot be.
"""

import argparse
import contextlib
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import measuring
import picture_pool
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples" / "flink"))
import cluster

_BEAM_PROCESSES = ("--", "--direct_running_mode=multi_processing", "--direct_num_workers=2")


@contextlib.contextmanager
def flink(place: Path) -> Iterator[list[str]]:
    """Settings that lead to a cluster with two TaskManagers of one slot each; none where there can be none."""
    if problem := cluster.missing():
        print(f"without Flink: {problem}", file=sys.stderr)
        yield []
        return
    with cluster.running(place) as running:
        yield running.settings()


def scored(config: Path, settings: Sequence[str]) -> float:
    """Scores a pool from nothing, every worker with one thread; the seconds it took."""
    shutil.rmtree(config.parent / "output", ignore_errors=True)
    command = [sys.executable, "-m", "chaffinch.jobs.main", "score", str(config), "--quiet", *settings]
    return measuring.run(command, OMP_NUM_THREADS="1").seconds


def pool(place: Path, tars: list[Path], shards: int, rows: int, scorers: Mapping[str, Any]) -> Path:
    """Writes a pool; returns its config."""
    picture_pool.write(place / "pool", tars, shards, rows)
    settings = {
        "input": str(place / "pool"),
        "output": str(place / "output"),
        "metadata": "none",
        "scorers": dict(scorers),
        "run": {"device": "cpu"},
    }
    config = place / "config.yaml"
    config.write_text(yaml.safe_dump(settings))
    return config


def overhead(configs: Mapping[int, Path], engines: Mapping[str, Sequence[str]], rounds: int) -> dict[str, Any]:
    """The least-squares line through the median seconds of each count of shards, for every engine."""
    found: dict[str, dict[int, list[float]]] = {name: {count: [] for count in configs} for name in engines}
    for number in range(rounds):
        for count, config in configs.items():
            for name in sorted(engines, reverse=bool(number % 2)):
                found[name][count].append(scored(config, engines[name]))
                print(f"{name}: {count} shards in {found[name][count][-1]:.1f} s", file=sys.stderr)
    figures = {}
    for name, runs in found.items():
        slope, fixed = statistics.linear_regression(list(runs), [statistics.median(part) for part in runs.values()])
        figures[name] = {
            "seconds": {str(count): [round(value, 2) for value in part] for count, part in runs.items()},
            "fixed_seconds": round(fixed, 2),
            "seconds_per_shard": round(slope, 4),
        }
    return figures


def scaling(config: Path, engines: Mapping[str, tuple[int, Sequence[str]]], rounds: int) -> dict[str, Any]:
    """Shards per second while all workers work, and the seconds of start-up, for every engine with its workers."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
    for number in range(rounds):
        for name in sorted(engines, reverse=bool(number % 2)):
            workers, settings = engines[name]
            took = scored(config, settings)
            tables = (config.parent / "output" / "store" / "scores").glob("perplexity-*/*.parquet")
            times = sorted(table.stat().st_mtime for table in tables)
            rate = (len(times) - workers) / (times[-1] - times[workers - 1])
            found[name].append((rate, took - len(times) / rate))
            print(f"{name}: {rate:.3f} shards/s, start-up {found[name][-1][1]:.1f} s", file=sys.stderr)
    return {
        name: {
            "shards_per_second": [round(rate, 4) for rate, _ in runs],
            "median_shards_per_second": round(statistics.median(rate for rate, _ in runs), 4),
            "start_up_seconds": [round(start, 2) for _, start in runs],
        }
        for name, runs in found.items()
    }


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400, help="samples of a shard where scoring takes time")
    parser.add_argument("--shards", type=int, default=24, help="how many of those")
    parser.add_argument("--small-shards", type=int, nargs="+", default=(4, 32, 96), help="of four samples each")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--prism", default="prism", help="Beam's runner in Go; left out where it is not found")
    options = parser.parse_args()
    before = measuring.machine()
    with tempfile.TemporaryDirectory(prefix="chaffinch-benchmark-") as temporary, flink(Path(temporary) / "f") as led:
        place = Path(temporary)
        tars, words = picture_pool.origin(place)
        corpus = place / "corpus.csv"
        captions = [sample.get("txt", b"").decode("utf-8", "replace") for sample in picture_pool.read_samples(tars[0])]
        corpus.write_text("\n".join(["caption", *(f'"{one}"' for one in map(_plain, captions) if one)]))
        # A model of captions in numpy, which keeps Python's lock, and statistics of pictures, which let go of it.
        scorers = {"perplexity": {"corpus": str(corpus), "captions_key": "caption"}, "captions": {}, "pictures": {}}
        ways: dict[str, tuple[int, Sequence[str]]] = {
            "1 thread": (1, ("run.workers=1",)),
            "2 threads": (2, ("run.workers=2",)),
            "2 processes": (2, ("run.runner=processes", "run.workers=2")),
            "2 processes of Beam's own": (2, _BEAM_PROCESSES),
        }
        if led:
            ways |= {"1 Flink slot": (1, (*led, "run.workers=1")), "2 Flink slots": (2, (*led, "run.workers=2"))}
        scaled = scaling(pool(place / "large", tars, options.shards, options.rows, scorers), ways, options.rounds)
        small = {
            count: pool(place / f"small{count}", tars, count, 4, {"captions": {}}) for count in options.small_shards
        }
        engines: dict[str, Sequence[str]] = {"local": ()}
        if shutil.which(options.prism):
            engines["prism"] = ("run.runner=prism", f"run.prism.binary={options.prism}")
        if led:
            engines["Flink"] = (*led, "run.workers=2")
        costs = overhead(small, engines, options.rounds)
    ratios = {}
    for name in scaled:
        one = "1 Flink slot" if "Flink" in name else "1 thread"
        if name != one:
            ratios[f"{name} / {one}"] = round(
                scaled[name]["median_shards_per_second"] / scaled[one]["median_shards_per_second"], 2
            )
    sizes = {"pool": words, "shards": options.shards, "rows": options.rows}
    told = "; ".join(f"{name}: {value}" for name, value in ratios.items())
    engines_told = "; ".join(
        f"{name} {part['fixed_seconds']} s and {1000 * part['seconds_per_shard']:.0f} ms a shard"
        for name, part in costs.items()
    )
    measuring.finish(
        sizes | {"scaling": scaled, "ratios": ratios, "overhead": costs},
        f"Shards per second, start-up apart: {told}. Engines: {engines_told}.",
        before,
    )


def _plain(caption: str) -> str:
    return " ".join(caption.replace('"', " ").split())


if __name__ == "__main__":
    main()
