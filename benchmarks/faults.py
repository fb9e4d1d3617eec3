"""Kills what works on a run, at seeded random moments, runs the same command again, and looks for what is amiss.

    python benchmarks/faults.py --kills 20 --seed 0              every victim so often; Flink if its jars are here

Victims: the driver of a run of one process, a worker process of one with two, and, on a Flink of this machine with two
TaskManagers, the driver, a worker that a TaskManager started, and a TaskManager itself (which is then started again,
as whoever runs a cluster would). Each is killed by SIGKILL while scores or shards are being written, in turns: when so
many of them are there, a number drawn beforehand. Then the command is given again until it ends well, at most
`AGAIN` times, and everything in store and output is compared, byte by byte, with a run that nothing happened to.
"""

import argparse
import collections
import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measuring

from chaffinch.jobs.demo.pool import write_pool

FLINK = Path(__file__).resolve().parents[1] / "examples" / "flink"
sys.path.insert(0, str(FLINK))
import cluster  # noqa: E402  (an example, not a package)

PROGRAM = (sys.executable, "-m", "chaffinch.jobs.main")
SHARDS, SHARD_SIZE = 16, 8
AGAIN = 3
PATIENCE_SECONDS = 120.0
ABOUT_THE_RUN = {"config.yaml", "timings.json"}
MOMENTS = {"score": "store/scores/pictures-*/*.parquet", "emit": "shards/*.tar"}
CONFIG = """\
input: {pool}
output: {output}
filters:
  words: {{column: captions.words, keep: top 60%, drop: bottom 20%}}
  entropy: {{column: pictures.entropy, keep: top 60%, drop: bottom 20%}}
keep: {{fraction: 0.4}}
emit: {{samples_per_shard: 3, shuffle_seed: 5}}
run: {{max_rejected: 1}}
"""


@dataclass(frozen=True)
class Outcome:
    """What came of one kill.

    Attributes:
        moment: score or emit.
        files: how many files of it were there when the victim was chosen.
        died: whether the victim was there to be killed, and the run had not ended.
        status: exit status of the run that was disturbed.
        again: how many runs it took until one ended well.
        same: whether store and output are then those of an undisturbed run.
        lost: samples that are not in the shards, but should be.
        doubled: samples that are in the shards more than once.
    """

    moment: str
    files: int
    died: bool
    status: int
    again: int
    same: bool
    lost: int
    doubled: int


def digests(folder: Path) -> dict[str, str]:
    """A digest of every file below, but those that tell of the run itself."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ABOUT_THE_RUN
    }


def emitted(folder: Path) -> collections.Counter[str]:
    """How often each sample is in the shards, by the name of its caption file and what that holds."""
    found: collections.Counter[str] = collections.Counter()
    for shard in sorted((folder / "shards").glob("*.tar")):
        with tarfile.open(shard) as archive:
            for member in archive:
                content = archive.extractfile(member)
                if member.name.endswith(".json") and content is not None:
                    found[hashlib.sha256(content.read()).hexdigest()] += 1
    return found


@dataclass
class Scene:
    """A pool, and what an undisturbed run makes of it.

    Attributes:
        folder: where everything is.
        expected: digests of the undisturbed output.
        samples: what is in its shards.
    """

    folder: Path
    expected: dict[str, str]
    samples: collections.Counter[str]

    @classmethod
    def make(cls, folder: Path) -> "Scene":
        """Writes the pool and runs once."""
        write_pool(folder / "pool", samples=SHARDS * SHARD_SIZE, shard_size=SHARD_SIZE, seed=11)
        (folder / "config.yaml").write_text(CONFIG.format(pool=folder / "pool", output=folder / "out"))
        scene = cls(folder, {}, collections.Counter())
        if scene.run(()).wait():
            raise SystemExit("the undisturbed run failed")
        scene.expected, scene.samples = digests(scene.output), emitted(scene.output)
        return scene

    @property
    def output(self) -> Path:
        """Where runs write, one after the other."""
        return self.folder / "out"

    def run(self, settings: tuple[str, ...]) -> subprocess.Popen[bytes]:
        """Starts a run."""
        command = [*PROGRAM, "run", str(self.folder / "config.yaml"), *settings, "--quiet"]
        with (self.folder / "log.txt").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def disturb(
        self,
        settings: tuple[str, ...],
        moment: str,
        files: int,
        find: Callable[[subprocess.Popen[bytes]], int | None],
        mend: Callable[[], None],
    ) -> Outcome:
        """Kills once, mends, runs again and compares.

        Args:
            settings: of the run.
            moment: whose files are counted.
            files: how many of them have to be there.
            find: from the run's process to the number of the one to be killed; None while there is none.
            mend: what whoever runs the machines does before the command is given again.
        """
        shutil.rmtree(self.output, ignore_errors=True)
        run, died, until = self.run(settings), False, time.monotonic() + PATIENCE_SECONDS
        while run.poll() is None and not died and time.monotonic() < until:
            if len(list(self.output.glob(MOMENTS[moment]))) >= files:
                victim = find(run)
                if victim is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(victim, signal.SIGKILL)
                        died = True
            time.sleep(0.002)
        try:
            status = run.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:  # it waits for ever for what was killed: that is a fault, too
            run.kill()
            status = run.wait()
        mend()
        again = 1
        while self.run(settings).wait() and again < AGAIN:
            again += 1
        there = emitted(self.output)
        return Outcome(
            moment=moment,
            files=files,
            died=died,
            status=status,
            again=again,
            same=digests(self.output) == self.expected,
            lost=sum((self.samples - there).values()),
            doubled=sum((there - self.samples).values()),
        )


def descendants(process: int) -> list[int]:
    """Processes that a process started, and those that these did, in ascending order."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found, level = [], {process}
    while level:
        level = {child for child, parent in parents.items() if parent in level}
        found += level
    return sorted(found)


def python_below(process: int) -> int | None:
    """The newest Python process that a process started, directly or not."""
    for child in reversed(descendants(process)):
        with contextlib.suppress(OSError):
            if b"python" in Path(f"/proc/{child}/cmdline").read_bytes():
                return child
    return None


def victims(running: cluster.Cluster | None) -> Iterator[tuple[str, tuple[str, ...], Any, Callable[[], None]]]:
    """Name, settings of the run, what finds the process, and what is done before the command is given again."""

    def nothing() -> None:
        pass

    yield "local driver", ("run.workers=1",), lambda run: run.pid, nothing
    yield "worker process", ("run.runner=processes", "run.workers=2"), lambda run: python_below(run.pid), nothing
    if running is None:
        return
    settings = (*running.settings(), "run.workers=2")

    def cancel() -> None:
        for identifier, state, _ in running.jobs():
            if state in ("RUNNING", "RESTARTING", "CREATED"):
                running.cancel(identifier)

    def manager(_: subprocess.Popen[bytes]) -> int:
        return running.processes["task-manager-0"][0]

    def worker(_: subprocess.Popen[bytes]) -> int | None:
        return python_below(running.processes["task-manager-0"][0])

    def start_again() -> None:
        cancel()
        running.start_task_manager(0)
        until = time.monotonic() + PATIENCE_SECONDS
        while running.ask("/overview").get("slots-available") != 2 and time.monotonic() < until:
            time.sleep(0.2)  # Flink also has to notice that the old one is gone

    yield "flink driver", settings, lambda run: run.pid, cancel
    yield "flink worker", settings, worker, cancel
    yield "flink task manager", settings, manager, start_again


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
        for victim, settings, find, mend in victims(running):
            if options.victims is not None and victim not in options.victims:
                continue
            random_moments = random.Random(f"{options.seed} {victim}")
            outcomes = []
            for number in range(options.kills):
                moment = list(MOMENTS)[number % 2]
                most = SHARDS if moment == "score" else len(list((scene.output / "shards").glob("*.tar"))) or SHARDS
                outcomes.append(scene.disturb(settings, moment, random_moments.randrange(1, most), find, mend))
                print(victim, outcomes[-1], flush=True)
            figures[victim] = {
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
