"""What all benchmarks share: the machine in words, peak memory of a process tree, paired runs, and the result file."""

import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
REAL_POOL = Path(__file__).parents[2] / "shared" / "data" / "pool-flickr8k"
"""The real pool beside the repository; benchmarks say so where it is missing."""

_PACKAGES = ("chaffinch", "apache-beam", "numpy", "pyarrow", "pillow", "torch", "open_clip_torch")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_INTERVAL = 0.05


def machine() -> dict[str, Any]:
    """The machine in words: no names, no paths."""
    memory = os.sysconf("SC_PHYS_PAGES") * _PAGE / 2**30
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory),
        "architecture": platform.machine(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def command_line() -> str:
    """How the benchmark was called, with paths outside the repository reduced to their last part."""
    options = [Path(word).name if word.startswith(("/", "~")) else word for word in sys.argv[1:]]
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *options])


def finish(figures: Mapping[str, Any], prose: str, before: Mapping[str, Any], part: str = "") -> None:
    """Writes results/<script>.json, or results/<script>-<part>.json, and prints a line of prose.

    Args:
        figures: what was measured.
        prose: the same as a sentence.
        before: what `machine` said before the first run.
        part: which part of the script this is, where it has several.
    """
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    content = {"command": command_line(), "prose": prose, "figures": figures, "machine": before, "versions": versions}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{'-'.join(filter(None, [Path(sys.argv[0]).stem, part]))}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(prose)


@dataclass
class Run:
    """One run of a program.

    Attributes:
        seconds: from start to end.
        cpu_seconds: of all its processes, which other work on the machine changes less.
        peak_mib: the largest sum of resident memory over the program and its children, in MiB.
        output: what it wrote to standard output.
    """

    seconds: float
    cpu_seconds: float
    peak_mib: float
    output: str


def run(command: Sequence[str], **environment: str) -> Run:
    """Runs a program and watches it.

    Args:
        command: the program and its arguments.
        environment: variables to set for it.

    Returns:
        How long it took and how much memory it had.

    Raises:
        RuntimeError: it failed; holds the end of what it said.
    """
    began, cpu_before = time.perf_counter(), _cpu_of_children()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )
    peak, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(_INTERVAL):
            peak[0] = max(peak[0], tree_memory(process.pid))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    output, errors = process.communicate()
    seconds = time.perf_counter() - began
    over.set()
    watcher.join()
    if process.returncode:
        raise RuntimeError(f"{Path(command[0]).name} ended with {process.returncode}: {errors[-2000:]}")
    return Run(seconds, _cpu_of_children() - cpu_before, peak[0] / 2**20, output)


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def tree_memory(process: int) -> int:
    """Resident bytes of a process and all its children; pages that they share count once for each."""
    total, waiting = 0, [process]
    while waiting:
        one = waiting.pop()
        try:
            total += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * _PAGE
            for thread in os.listdir(f"/proc/{one}/task"):
                waiting += map(int, Path(f"/proc/{one}/task/{thread}/children").read_text().split())
        except OSError:
            continue  # it ended meanwhile
    return total


def chaffinch(*arguments: str, **environment: str) -> Run:
    """Runs the command line of Chaffinch."""
    return run([sys.executable, "-m", "chaffinch.jobs.main", *arguments, "--quiet"], **environment)


def paired(one: Callable[[], float], other: Callable[[], float], rounds: int) -> tuple[list[float], list[float]]:
    """Measures two things in turn, so that whatever else the machine does meets both.

    Args:
        one: returns its measure.
        other: likewise.
        rounds: how often.

    Returns:
        The measures of each, in order.
    """
    pairs = []
    for number in range(rounds):
        # Who goes first alternates: the first of a pair may find colder caches.
        if number % 2:
            second = other()
            pairs.append((one(), second))
        else:
            first = one()
            pairs.append((first, other()))
        print(f"  round {number + 1} of {rounds}: {pairs[-1][0]:.3f} and {pairs[-1][1]:.3f}", file=sys.stderr)
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median of the ratios of pairs."""
    return statistics.median(one / other for one, other in zip(numerators, denominators, strict=True))


def clock(device: str) -> Callable[[], float]:
    """Seconds of this process on the cpu; on cuda, of the clock once the GPU is done."""
    if device == "cpu":
        return time.process_time
    import torch  # a benchmark without torch has no device to wait for

    def waited() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return waited
