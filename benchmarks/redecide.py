"""Re-deciding after a range changed, over a bare loop of pyarrow and numpy in as many processes.

The pool is made up: tables of six scorers, twelve filters of which six leave their ranges to the pool, two samples in a
hundred rejected, one value in a hundred NaN. Both sides are whole programs, started anew for every run, and both read
the same columns in the same number of passes, count the same, and write the same decisions tables. Which uids are
repeated was found when the pool was first decided, and is not looked for again by either.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import measuring
import pool_store


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=1280)
    parser.add_argument("--rows", type=int, default=10_000, help="samples in each shard")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to make the pool, 1.5 GB; kept for the next time")
    options = parser.parse_args()
    before = measuring.machine()
    with tempfile.TemporaryDirectory(prefix="chaffinch-benchmark-") as temporary:
        place = options.folder or Path(temporary)
        config = pool_store.make(place, pool_store.Size(options.shards, options.rows))
        measuring.chaffinch("decide", str(config))  # what is decided again below
        runs: list[measuring.Run] = []
        stages: list[float] = []
        bare_runs: list[measuring.Run] = []
        percent = iter(range(29, 0, -1))

        def ours() -> float:
            changed = f"filters.alpha_share.keep=top {next(percent)}%"
            runs.append(measuring.chaffinch("decide", str(config), changed, "--json"))
            timings = json.loads((place / "output" / "timings.json").read_text())
            stages.append(timings["decide"]["seconds"])
            return runs[-1].seconds

        def bare() -> float:
            script = str(Path(__file__).parent / "bare_decide.py")
            bare_runs.append(measuring.run([sys.executable, script, str(config), str(place / "bare")]))
            return bare_runs[-1].seconds

        seconds, bare_seconds = measuring.paired(ours, bare, options.rounds)
        counts, bare_counts = json.loads(runs[-1].output), json.loads(bare_runs[-1].output)
        if any(counts[name] != bare_counts[name] for name in bare_counts):
            raise SystemExit(f"the two disagree: {bare_counts} and {counts['kept']} kept")
        size = sum(path.stat().st_size for path in (place / "store").rglob("*.parquet"))
    ratio = measuring.median_ratio(seconds, bare_seconds)
    figures = {
        "rows": options.shards * options.rows,
        "shards": options.shards,
        "store_mib": round(size / 2**20),
        "seconds": [round(value, 2) for value in seconds],
        "seconds_without_start": [round(value, 2) for value in stages],
        "bare_seconds": [round(value, 2) for value in bare_seconds],
        "ratio": round(ratio, 3),
        "cpu_seconds": [round(one.cpu_seconds, 1) for one in runs],
        "bare_cpu_seconds": [round(one.cpu_seconds, 1) for one in bare_runs],
        "peak_mib": round(max(one.peak_mib for one in runs)),
        "bare_peak_mib": round(max(one.peak_mib for one in bare_runs)),
        "kept": counts["kept"],
    }
    prose = (
        f"Re-deciding {figures['rows']:,} rows took {statistics.median(seconds):.1f} s, the bare loop "
        f"{statistics.median(bare_seconds):.1f} s: {ratio:.2f} times as long (median of {options.rounds} pairs; "
        f"at most 1.3 wanted); {figures['peak_mib']} MiB at most over all processes."
    )
    measuring.finish(figures, prose, before)


if __name__ == "__main__":
    main()
