"""A run that is disturbed: one process of it is killed, the command is given again, and what comes of it is compared.

Tests load this file, too: it imports nothing but the product, and whatever brings Flink up is handed to it.
"""

import collections
import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaffinch.jobs.demo.pool import write_pool

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
    """How often each sample is in the shards, by what its json file holds."""
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

    def disturb(self, victim: "Victim", moment: str, files: int) -> Outcome:
        """Kills once, mends, runs again and compares.

        Args:
            victim: what is killed.
            moment: whose files are counted.
            files: how many of them have to be there.
        """
        shutil.rmtree(self.output, ignore_errors=True)
        run, died, until = self.run(victim.settings), False, time.monotonic() + PATIENCE_SECONDS
        while run.poll() is None and not died and time.monotonic() < until:
            if len(list(self.output.glob(MOMENTS[moment]))) >= files:
                process = victim.find(run)
                if process is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
                        died = True
            time.sleep(0.002)
        try:
            status = run.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:  # it waits for ever for what was killed: that is a fault, too
            run.kill()
            status = run.wait()
        victim.mend()
        again = 1
        while self.run(victim.settings).wait() and again < AGAIN:
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


@dataclass(frozen=True)
class Victim:
    """What is killed.

    Attributes:
        name: in words.
        settings: of the run that it works for.
        find: from the run's process to the number of the one to be killed; None while there is none.
        mend: what whoever runs the machines does before the command is given again.
    """

    name: str
    settings: tuple[str, ...]
    find: Callable[[subprocess.Popen[bytes]], int | None]
    mend: Callable[[], None]


def victims_here() -> list[Victim]:
    """The processes of runs that need no cluster."""

    def nothing() -> None:
        pass

    return [
        Victim("local driver", ("run.workers=1",), lambda run: run.pid, nothing),
        Victim("worker process", ("run.runner=processes", "run.workers=2"), lambda run: python_below(run.pid), nothing),
    ]


def victims_of_flink(running: Any) -> list[Victim]:
    """The driver, a worker and a TaskManager of a run on a cluster that `examples/flink/cluster.py` has brought up."""
    settings = (*running.settings(), "run.workers=2")

    def cancel() -> None:
        for identifier, state, _ in running.jobs():
            if state in ("RUNNING", "RESTARTING", "CREATED"):
                running.cancel(identifier)

    def manager(_: object) -> int:
        process: int = running.processes["task-manager-0"][0]
        return process

    def start_again() -> None:
        cancel()
        running.start_task_manager(0)
        until = time.monotonic() + PATIENCE_SECONDS
        while running.ask("/overview").get("slots-available") != 2 and time.monotonic() < until:
            time.sleep(0.2)  # Flink also has to notice that the old one is gone

    return [
        Victim("flink driver", settings, lambda run: run.pid, cancel),
        Victim("flink worker", settings, lambda run: python_below(manager(run)), cancel),
        Victim("flink task manager", settings, manager, start_again),
    ]
