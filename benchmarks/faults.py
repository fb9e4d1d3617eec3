"""Kills what works on a run, at seeded random moments, runs the same command again, and looks for what is amiss.

    python benchmarks/faults.py --kills 20 --seed 0              every victim so often; Flink if its jars are here

Victims: the driver of a run of one process, a worker process of one with two, and, on a Flink of this machine with two
TaskManagers, the driver, a worker that a TaskManager started, and a TaskManager itself (which is then started again,
as whoever runs a cluster would). Each is killed by SIGKILL while scores or shards are being written, in turns: when so
many of them are there, a number drawn beforehand. Then the command is given again until it ends well, at most
`fault_scene.AGAIN` times, and everything in store and output is compared, byte by byte, with a run that nothing
happened to.
"""

import argparse
import contextlib
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import measuring
from fault_scene import MOMENTS, SHARDS, Scene, victims_here, victims_of_flink

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples" / "flink"))
import cluster


def main() -> None:
    """Runs all kills and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of each victim (default: 20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--victims", nargs="*", help="only these, such as 'local driver' (default: all)")
    options = parser.parse_args()
    before = measuring.machine()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="chaffinch-faults-") as name, contextlib.ExitStack() as stack:
        scene = Scene.make(Path(name))
        wants_flink = options.victims is None or any(victim.startswith("flink") for victim in options.victims)
        problem = cluster.missing()
        running = stack.enter_context(cluster.running(Path(name) / "flink")) if wants_flink and not problem else None
        if wants_flink and problem:
            print(f"without Flink: {problem}", file=sys.stderr)
        for victim in [*victims_here(), *(victims_of_flink(running) if running else [])]:
            if options.victims is not None and victim.name not in options.victims:
                continue
            random_moments = random.Random(f"{options.seed} {victim.name}")
            outcomes = []
            for number in range(options.kills):
                moment = list(MOMENTS)[number % 2]
                most = SHARDS if moment == "score" else len(list((scene.output / "shards").glob("*.tar"))) or SHARDS
                outcomes.append(scene.disturb(victim, moment, random_moments.randrange(1, most)))
                print(victim.name, outcomes[-1], flush=True)
            figures[victim.name] = {
                "kills": sum(outcome.died for outcome in outcomes),
                "tried": len(outcomes),
                "runs_that_failed": sum(outcome.status != 0 for outcome in outcomes),
                "most_runs_again": max(outcome.again for outcome in outcomes),
                "different_bytes": sum(not outcome.same for outcome in outcomes),
                "samples_lost": sum(outcome.lost for outcome in outcomes),
                "samples_doubled": sum(outcome.doubled for outcome in outcomes),
            }
    bad = sum(one["different_bytes"] + one["samples_lost"] + one["samples_doubled"] for one in figures.values())
    kills = sum(one["kills"] for one in figures.values())
    prose = (
        f"{kills} kills of {', '.join(figures)}, while scores or shards were written: after the same command again "
        + ("store and output were the same, byte for byte, no sample lost, none doubled." if not bad else f"{bad} bad.")
    )
    measuring.finish({"seed": options.seed, "victims": figures}, prose, before)
    if bad:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
