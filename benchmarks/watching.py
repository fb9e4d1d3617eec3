"""What a launch asks of a filesystem, seen by strace, and what its driver and its workers take, each for itself.

strace follows every process of the launch, those that only C++ opens files in too. What lies outside the places that
are asked about, such as Python's own modules, does not count.
"""

import re
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

_CALLS = "openat,getdents64,newfstatat,statx,stat,access,read,pread64"
_OPEN = re.compile(r'openat\([^"]*"(?P<path>[^"]*)", (?P<flags>[A-Z_|]+)[^=]*= \d')
_GOT = re.compile(r"(?P<call>getdents64|read|pread64)\(\d+<(?P<path>[^>]*)>.* = (?P<bytes>\d+)$")
_ASKED = re.compile(r'(?:newfstatat|statx|stat|access)\([^"]*"(?P<path>[^"]*)"')
_INTERVAL = 0.05
_COMMAND = [sys.executable, "-m", "chaffinch.jobs.main"]


@dataclass
class Asked:
    """What a launch asked of the files below some places; each place has a name.

    Attributes:
        listings: place -> folders listed.
        entries_bytes: place -> bytes of folder entries that came back.
        looks: place -> questions whether a file is there and what it is, none of which opens it.
        opens: place -> files opened to be read.
        writes: place -> files opened to be written.
        bytes: place -> bytes read.
    """

    listings: Counter[str] = field(default_factory=Counter)
    entries_bytes: Counter[str] = field(default_factory=Counter)
    looks: Counter[str] = field(default_factory=Counter)
    opens: Counter[str] = field(default_factory=Counter)
    writes: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)

    def add(self, line: str, places: dict[str, str]) -> None:
        """Counts one line of strace's."""
        if match := _OPEN.search(line):
            if place := _place(match["path"], places):
                flags = match["flags"].split("|")
                kind = self.listings if "O_DIRECTORY" in flags else self.opens if "O_RDONLY" in flags else self.writes
                kind[place] += 1
        elif match := _GOT.search(line):
            if place := _place(match["path"], places):
                (self.entries_bytes if match["call"] == "getdents64" else self.bytes)[place] += int(match["bytes"])
        elif (match := _ASKED.search(line)) and (place := _place(match["path"], places)):
            self.looks[place] += 1

    def described(self) -> dict[str, dict[str, int]]:
        """For the result file."""
        return {name: dict(sorted(counts.items())) for name, counts in vars(self).items()}


def _place(path: str, places: dict[str, str]) -> str | None:
    return next((name for name, folder in places.items() if path == folder or path.startswith(folder + "/")), None)


def asked(arguments: Sequence[str], places: dict[str, Path], status: int = 0) -> Asked:
    """Runs a command of Chaffinch's below strace.

    Args:
        arguments: the command's.
        places: name -> folder.
        status: how it is to end.

    Returns:
        What it asked of these folders.

    Raises:
        RuntimeError: it ended otherwise.
    """
    found, folders = Asked(), {name: str(folder) for name, folder in places.items()}
    with tempfile.TemporaryDirectory(prefix="chaffinch-benchmark-") as temporary:
        log = Path(temporary) / "strace"
        tracing = ["strace", "-f", "--seccomp-bpf", "-y", "-qq", "-e", f"trace={_CALLS}", "-o", str(log)]
        done = subprocess.run([*tracing, *_COMMAND, *arguments], capture_output=True, text=True, check=False)
        if done.returncode != status:
            raise RuntimeError(f"{arguments[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
        begun: dict[str, str] = {}  # strace cuts a call in two where another thread's comes between
        with log.open() as lines:
            for line in lines:
                thread = line.split(" ", 1)[0]
                if line.endswith("<unfinished ...>\n"):
                    begun[thread] = line.removesuffix("<unfinished ...>\n")
                    continue
                if " resumed>" in line:
                    line = begun.pop(thread, "") + line.split(" resumed>", 1)[1]
                found.add(line.rstrip(), folders)
    return found


@dataclass
class Taken:
    """What a launch took.

    Attributes:
        cpu_seconds: of all its processes.
        seconds: by the clock, which other work on the machine changes.
        driver_mib: the most memory that the launched process had at a time.
        worker_mib: the most that one of its worker processes had; 0 where there were none.
    """

    cpu_seconds: float
    seconds: float
    driver_mib: float
    worker_mib: float


def taken(arguments: Sequence[str], status: int = 0) -> Taken:
    """Runs a command of Chaffinch's.

    Args:
        arguments: the command's.
        status: how it is to end.

    Returns:
        What it took.

    Raises:
        RuntimeError: it ended otherwise.
    """
    peaks: dict[int, int] = {}
    over = threading.Event()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            ["bash", "-c", 'TIMEFORMAT="times %R %U %S"; time "$@"', "bash", *_COMMAND, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )

        def watch() -> None:
            while not over.wait(_INTERVAL):
                _note_peaks(process.pid, peaks)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        ended = process.wait()
        over.set()
        watcher.join()
        errors.seek(0)
        told = errors.read()
    if ended != status:
        raise RuntimeError(f"{arguments[0]} ended with {ended}: {told[-2000:]}")
    seconds, user, system = map(float, told.rstrip().rpartition("times ")[2].split())
    peaks.pop(process.pid, None)  # bash
    first = min(peaks)
    workers = [peak for number, peak in peaks.items() if number != first]
    return Taken(user + system, seconds, peaks[first] / 1024, max(workers, default=0) / 1024)


def _note_peaks(process: int, peaks: dict[int, int]) -> None:
    """Notes the most KiB that a process and those below it had so far, as the kernel keeps count."""
    waiting = [process]
    while waiting:
        one = waiting.pop()
        try:
            status = Path(f"/proc/{one}/status").read_text()
            if match := re.search(r"VmHWM:\s+(\d+)", status):
                peaks[one] = int(match[1])
            for thread in Path(f"/proc/{one}/task").iterdir():
                waiting += map(int, (thread / "children").read_text().split())
        except OSError:
            continue  # it ended meanwhile
