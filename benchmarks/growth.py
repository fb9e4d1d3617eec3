"""How time and memory grow with the pool: score, decide and emit over 1, 4 and 16 times as many shards.

Each figure is a whole command in a process of its own. What a command takes however small the pool is, its fixed cost,
is measured on one shard of ten samples and stated apart; the rest, over the samples, should not depend on how many
there are, and neither should resident memory. Seconds of CPU are told beside seconds: other work on the machine
changes them less.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import measuring
import picture_pool
import pool_store
import yaml

FACTORS = (1, 4, 16)
_TINY = pool_store.Size(1, 10)


def pictures(place: Path, shards: int, rows: int, tars: list[Path], scorers: dict[str, Any]) -> Path:
    """Writes a pool with pictures; returns its config."""
    picture_pool.write(place / "pool", tars, shards, rows)
    settings = {
        "input": str(place / "pool"),
        "output": str(place / "output"),
        "metadata": "none",
        "scorers": scorers,
        "filters": {"words": {"column": "captions.words", "keep": "top 50%"}},
        "keep": {"fraction": 0.3},
        "emit": {"samples_per_shard": rows},
        "run": {"device": "cpu", "workers": 1},
    }
    config = place / "config.yaml"
    config.write_text(yaml.safe_dump(settings))
    return config


def summary(runs: list[tuple[int, measuring.Run]]) -> dict[str, Any]:
    """Figures of one command; the first run is that of the tiny pool."""
    (_, fixed), *rest = runs
    per_sample = [(run.seconds - fixed.seconds) / samples * 1e6 for samples, run in rest]
    cpu = [(run.cpu_seconds - fixed.cpu_seconds) / samples * 1e6 for samples, run in rest]
    memory = [run.peak_mib for _, run in rest]
    return {
        "samples": [samples for samples, _ in rest],
        "fixed_seconds": round(fixed.seconds, 2),
        "fixed_cpu_seconds": round(fixed.cpu_seconds, 2),
        "seconds": [round(run.seconds, 2) for _, run in rest],
        "microseconds_per_sample": [round(value, 1) for value in per_sample],
        "cpu_microseconds_per_sample": [round(value, 1) for value in cpu],
        "per_sample_16_over_4": round(per_sample[2] / per_sample[1], 3),
        "per_sample_16_over_1": round(per_sample[2] / per_sample[0], 3),
        "cpu_per_sample_16_over_1": round(cpu[2] / cpu[0], 3),
        "peak_mib": [round(value) for value in memory],
        "fixed_peak_mib": round(fixed.peak_mib),
    }


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--score", type=int, nargs=2, default=(2, 1000), help="shards and samples in each, times 1")
    parser.add_argument("--decide", type=int, nargs=2, default=(40, 10_000), help="likewise")
    parser.add_argument("--emit", type=int, nargs=2, default=(4, 5000), help="likewise")
    parser.add_argument("--rendered", action="store_true", help="rendered pictures although real ones are there")
    options = parser.parse_args()
    before = measuring.machine()
    runs: dict[str, list[tuple[int, measuring.Run]]] = {"score": [], "decide": [], "emit": []}
    with tempfile.TemporaryDirectory(prefix="chaffinch-benchmark-") as temporary:
        place = Path(temporary)
        tars, words = picture_pool.origin(place, options.rendered)
        shards, rows = options.score
        for number, (many, each) in enumerate([(1, 10), *((shards * factor, rows) for factor in FACTORS)]):
            config = pictures(place / f"score{number}", many, each, tars, {"captions": {}, "pictures": {}})
            runs["score"].append((many * each, measuring.chaffinch("score", str(config))))
        shards, rows = options.decide
        for number, size in enumerate([_TINY, *(pool_store.Size(shards * factor, rows) for factor in FACTORS)]):
            config = pool_store.make(place / f"decide{number}", size)
            runs["decide"].append((size.shards * size.rows, measuring.chaffinch("decide", str(config))))
        shards, rows = options.emit
        for number, (many, each) in enumerate([(1, 10), *((shards * factor, rows) for factor in FACTORS)]):
            config = pictures(place / f"emit{number}", many, each, tars, {})
            measuring.chaffinch("score", str(config), "run.workers=2")
            measuring.chaffinch("decide", str(config))
            runs["emit"].append((many * each, measuring.chaffinch("emit", str(config))))
    figures: dict[str, Any] = {"pool": words, "factors": FACTORS}
    figures |= {command: summary(found) for command, found in runs.items()}
    told = [
        f"{command} {part['microseconds_per_sample']} us a sample, {part['peak_mib']} MiB at most, "
        f"{part['fixed_seconds']} s fixed"
        for command, part in figures.items()
        if isinstance(part, dict)
    ]
    measuring.finish(figures, "At 1, 4 and 16 times the shards: " + "; ".join(told) + ".", before)


if __name__ == "__main__":
    main()
