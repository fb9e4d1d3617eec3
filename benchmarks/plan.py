"""How far `chaffinch plan` is off: what it foretells of the real pool, beside scoring, deciding and emitting it wholly.

Each round asks for a plan and scores the pool right afterwards, with one worker and with two, so that whatever else the
machine does meets both. Times are compared by the clock and, since other work on the machine changes them less, by the
CPU seconds of the whole command. Bytes and kept samples do not depend on the machine.
"""

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import measuring


def bytes_below(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def tables(store: Path) -> int:
    """Bytes of the tables of a store, and of its reference's."""
    sides = [store, store / "reference"]
    return sum(bytes_below(side / part) for side in sides for part in ("samples", "scores"))


def one_round(config: str, sample: int, place: Path, counts: list[int]) -> dict[str, Any]:
    """Foretells and scores once for each number of workers: pairs of (foretold, measured)."""
    words = f"workers={','.join(map(str, counts))}"
    run = measuring.chaffinch("plan", config, f"output={place}", f"sample={sample}", words, "--json")
    plan = json.loads(run.output)
    found: dict[str, Any] = {"plan_seconds": round(run.seconds, 2), "load": []}
    for foretold in plan["workers"]:
        count = foretold["workers"]
        found["load"].append(round(os.getloadavg()[0], 1))
        score = measuring.chaffinch("score", config, f"output={place / str(count)}", f"run.workers={count}")
        found[f"seconds_{count}"] = (foretold["seconds"], round(score.seconds, 1))
        if count == 1:
            found["cpu_seconds"] = (plan["cpu_seconds"], round(score.cpu_seconds, 1))
        found[f"memory_mib_{count}"] = (round(foretold["memory_bytes"] / 2**20), round(score.peak_mib))
    output = place / str(counts[0])
    found["table_bytes"] = (plan["table_bytes"], tables(output / "store"))
    run = measuring.chaffinch("run", config, f"output={output}", "--json")
    summary = json.loads(run.output.splitlines()[-1])
    found["samples"] = (plan["samples"]["input"], summary["read"])
    found["kept"] = (plan["kept"], summary["kept"])
    for name in ("decisions", "shards"):
        found[f"{name}_bytes"] = (plan["output_bytes"][name], bytes_below(output / name))
    return found


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configs", nargs="+", help="configs of a real pool")
    parser.add_argument("--sample", type=int, default=2, help="shards to try")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    before = measuring.machine()
    path = measuring.RESULTS / "plan.json"
    # Configs may be measured at different times, when the machine has time for them: those of earlier runs stay.
    figures: dict[str, Any] = json.loads(path.read_text())["figures"] if path.exists() else {}
    for config in options.configs:
        rounds = []
        for _ in range(options.rounds):
            with tempfile.TemporaryDirectory(prefix="chaffinch-benchmark-") as place:
                rounds.append(one_round(config, options.sample, Path(place), options.workers))
        ratios = {
            key: round(statistics.median(one[key][0] / one[key][1] for one in rounds), 3)
            for key, pair in rounds[0].items()
            if isinstance(pair, tuple)
        }
        found = {"sampled_shards": options.sample, "rounds": rounds, "foretold_over_measured": ratios}
        figures[Path(config).stem] = found
    told = [
        f"{name} ({len(found['rounds'])} rounds): "
        + ", ".join(f"{key} {ratio}" for key, ratio in found["foretold_over_measured"].items())
        for name, found in figures.items()
    ]
    measuring.finish(figures, f"Foretold ÷ measured, medians: {'; '.join(told)}.", before)


if __name__ == "__main__":
    main()
