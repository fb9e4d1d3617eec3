"""The demo's ensemble against its best single filter: F1 on the planted truth, over several pools.

    python benchmarks/demo_seeds.py

makes `chaffinch demo` with each seed, at its default size and with its own config. Wanted: the ensemble wins on every
seed. What is kept is what the product decided; a filter alone keeps what is usable and what it does not vote to drop.
The best filter is chosen with the truth, seed by seed, which favours it. Intervals are of the bootstrap over samples.
"""

import argparse
import contextlib
import json
import platform
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from chaffinch.jobs.console import Console, table
from chaffinch.jobs.demo.command import run_demo
from chaffinch.jobs.demo.comparison import Planted, f1

_RESAMPLES = 1000


def main() -> None:
    """Runs the demos, prints a line for each and one for all, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--samples", type=int, default=2000, help="of each pool; the demo's own default")
    options = parser.parse_args()
    found = []
    for seed in options.seeds:
        # Whatever the demo says on standard output is not this script's result.
        with tempfile.TemporaryDirectory(prefix="chaffinch-demo-") as folder, contextlib.redirect_stdout(sys.stderr):
            run_demo(folder, options.samples, seed, Console(quiet=True))
            found.append({"seed": seed} | compare(Path(folder), seed))
    won = sum(one["won"] for one in found)
    sure = sum(one["gain"][1] > 0 for one in found)
    gains = [one["gain"][0] for one in found]
    prose = (
        f"The demo's ensemble beats its best single filter on {won} of {len(found)} seeds, by more than chance among "
        f"samples on {sure}: mean F1 "
        f"{statistics.mean(one['ensemble'] for one in found):.3f} against "
        f"{statistics.mean(one['filters'][one['best_filter']] for one in found):.3f}, gains from {min(gains):+.5f} to "
        f"{max(gains):+.5f}."
    )
    rows = [
        [
            str(one["seed"]),
            f"{one['ensemble']:.3f}",
            f"{one['filters'][one['best_filter']]:.3f}",
            one["best_filter"],
            "{:+.4f} ({:+.4f} to {:+.4f})".format(*one["gain"]),
            str(one["beyond_best"]["noise"]),
            str(one["beyond_best"]["good"]),
        ]
        for one in found
    ]
    header = [
        "seed",
        "ensemble F1",
        "best filter F1",
        "which",
        "gain",
        "noise it drops besides",
        "good it drops besides",
    ]
    print(f"{table(header, rows)}\n\n{prose}")
    content = {"command": measuring.command_line(), "prose": prose, "figures": {"won": won, "seeds": found}}
    content["versions"] = {"python": platform.python_version(), "numpy": np.__version__, "pyarrow": pa.__version__}
    measuring.RESULTS.mkdir(exist_ok=True)
    (measuring.RESULTS / "demo_seeds.json").write_text(json.dumps(content, indent=1) + "\n")


def compare(place: Path, seed: int) -> dict[str, Any]:
    """F1 of what a demo kept and of what each of its filters would keep alone.

    Args:
        place: the demo's folder.
        seed: of the bootstrap.

    Returns:
        "ensemble": F1 in [0, 1], higher is better; "filters": name -> the same; "best_filter": its name; "gain": the
        ensemble's F1 less the best filter's with its 95% interval, [figure, low, high]; "won": whether it is above 0;
        "beyond_best": how much noise and how many good samples the ensemble drops that the best filter keeps alone;
        "kept" and "good": how many.
    """
    truth = pq.read_table(place / "pool" / "truth.parquet", columns=["shard", "key", "keep", "kind", "group"])
    parts = []
    for shard in sorted(set(truth["shard"].to_pylist())):
        part = pq.read_table(place / "curated" / "decisions" / f"{shard}.parquet")
        parts.append(part.append_column("shard", pa.array([shard] * part.num_rows)))
    decided = truth.join(pa.concat_tables(parts), ["shard", "key"], right_suffix=" decided")
    if decided.num_rows != truth.num_rows or decided["keep decided"].null_count:
        raise RuntimeError("the decisions are not about the samples of the truth")
    planted, kept = Planted.read(decided), decided["keep decided"].to_numpy()
    usable = np.array([not (reason or "").startswith("rejected") for reason in decided["reason"].to_pylist()])
    alone = {
        name.removeprefix("vote_"): usable & (decided[name].to_numpy() != -1)
        for name in decided.column_names
        if name.startswith("vote_")
    }
    filters = {name: planted.f1(mine) for name, mine in alone.items()}
    best = max(filters, key=lambda name: filters[name])
    # Copies are settled once for each, not draw by draw: a draw may hold one of two.
    good, theirs = planted.settle(kept).good, planted.settle(alone[best]).good
    rng = np.random.default_rng(seed)
    draws = [rng.integers(len(good), size=len(good)) for _ in range(_RESAMPLES)]
    gains = [f1(good[rows], kept[rows]) - f1(theirs[rows], alone[best][rows]) for rows in draws]
    gain = [f1(good, kept) - filters[best], *np.percentile(gains, [2.5, 97.5])]
    return {
        "ensemble": round(f1(good, kept), 4),
        "filters": {name: round(value, 4) for name, value in filters.items()},
        "best_filter": best,
        "gain": [round(float(value), 5) for value in gain],
        "won": bool(gain[0] > 0),
        "beyond_best": {
            "noise": int((alone[best] & ~kept & ~good).sum()),
            "good": int((alone[best] & ~kept & good).sum()),
        },
        "kept": int(kept.sum()),
        "good": int(good.sum()),
    }


if __name__ == "__main__":
    main()
