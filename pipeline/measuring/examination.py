"""What a process that is to score says of itself and of what it can reach: its machine, models and filesystems."""

import importlib.metadata
import os
import platform
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import apache_beam as beam

from chaffinch.pipeline.engines.local_workers import cores
from chaffinch.pipeline.measuring.leases import visible_gpus
from chaffinch.pipeline.measuring.workbench import LoadError, check_loading
from chaffinch.pipeline.storage import files
from chaffinch.scoring.devices import Gpu, describe_gpus
from chaffinch.scoring.scorer import Scorer, fingerprint

PACKAGES = (
    "chaffinch",
    "apache-beam",
    "torch",
    "torchvision",
    "open_clip_torch",
    "transformers",
    "onnxruntime",
    "webdataset",
    "pyarrow",
    "numpy",
    "pillow",
)
"""Packages whose versions change numbers or what can be read."""
FAISS = ("faiss-cpu", "faiss-gpu")
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
THREADS = "OMP_NUM_THREADS"
_READ = 1 << 16
# A process that has reported takes so long over an element, so that it does not take those that are for others.
_SECONDS_EACH = 0.2


@dataclass(frozen=True)
class Folder:
    """A folder as one process sees it.

    Attributes:
        problem: why nothing can be written there, "" where it can.
        sees: whether what the launching process has written there is seen.
        free: bytes left there; None on object stores.
        probe: what this process has left there for the launching one to see, "" where it could not.
    """

    problem: str
    sees: bool
    free: int | None
    probe: str = ""


@dataclass(frozen=True)
class Examined:
    """What one process says.

    Attributes:
        host: its machine's name.
        process: its number there.
        versions: "python" and packages -> version; those that are missing are left out.
        cores: that it may use.
        memory: bytes that it may use.
        variables: environment variables that matter and are set -> value.
        gpus: NVIDIA devices that it sees, by name or number.
        described: what torch says of them, where the GPU is asked for.
        fingerprints: scorer -> what its numbers depend on, weights included; a scorer that could not tell is left out.
        loading: scorer -> seconds until it was loaded.
        problems: scorer -> why it cannot be loaded.
        unreadable: shards that cannot be read -> why.
        folders: folder -> what it sees there.
    """

    host: str
    process: int
    versions: Mapping[str, str]
    cores: int
    memory: int
    variables: Mapping[str, str]
    gpus: Sequence[str] = ()
    described: Sequence[Gpu] = ()
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    loading: Mapping[str, float] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)
    folders: Mapping[str, Folder] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Which process this is, in words."""
        return f"process {self.process} on {self.host}"


@dataclass(frozen=True)
class Examination:
    """What to look at.

    Attributes:
        token: names this examination.
        scorers: name -> settings, to be loaded.
        device: "cpu" or "cuda".
        shards: some shards' paths, to be read.
        folders: to be written to; the launching process has left `doctor-<token>` there.
    """

    token: str
    scorers: Mapping[str, Scorer]
    device: str
    shards: Sequence[str]
    folders: Sequence[str]

    def probe(self, folder: str, whose: str = "") -> str:
        """The file that a process leaves in a folder; that of the launching one by default."""
        return files.join(folder, f"doctor-{self.token}{whose}")

    def examine(self, loads: bool = True) -> Examined:
        """Looks at everything from this process.

        Args:
            loads: whether to load the scorers.

        Returns:
            What it found; problems are part of it.
        """
        loading, problems = self._load() if loads else ({}, {})
        gpu = self.device == "cuda" and any(one.uses_device for one in self.scorers.values())
        return Examined(
            socket.gethostname(),
            os.getpid(),
            versions(),
            cores(),
            memory(),
            {name: os.environ[name] for name in (*OFFLINE, THREADS, "CUDA_VISIBLE_DEVICES") if name in os.environ},
            visible_gpus(),
            describe_gpus() if gpu and loads else (),
            self._fingerprints(),
            loading,
            problems,
            dict(_unreadable(self.shards)),
            {folder: self._look_at(folder) for folder in self.folders},
        )

    def _load(self) -> tuple[dict[str, float], dict[str, str]]:
        loading, problems = {}, {}
        for name, scorer in self.scorers.items():
            began = time.perf_counter()
            try:
                check_loading({name: scorer}, self.device)
                loading[name] = time.perf_counter() - began
            except (LoadError, OSError) as error:  # the latter where no GPU can be leased
                problems[name] = str(error)
        return loading, problems

    def _fingerprints(self) -> dict[str, str]:
        found = {}
        for name, scorer in self.scorers.items():
            try:
                found[name] = fingerprint(scorer, self.device)
            except (OSError, ValueError):  # files are missing here; loading says so in words
                continue
        return found

    def _look_at(self, folder: str) -> Folder:
        probe = self.probe(folder, f"-{socket.gethostname()}-{os.getpid()}")
        free = _free(folder)
        try:
            files.write_bytes(probe, b"from a worker")
        except Exception as error:  # each filesystem has errors of its own
            return Folder(_words(error), files.exists(self.probe(folder)), free)
        return Folder("", files.exists(self.probe(folder)), free, probe)


@dataclass
class Reports:
    """What all processes say.

    Attributes:
        found: machine and process -> what it says.
    """

    found: dict[tuple[str, int], Examined] = field(default_factory=dict)

    def merge(self, other: Self) -> Self:
        """Adds others'."""
        self.found |= other.found
        return self


_reported: set[str] = set()
_one_at_a_time = threading.Lock()


class Examine(beam.DoFn):
    """Looks at everything from wherever an element comes by; a process that has reported has nothing to add."""

    def __init__(self, examination: Examination) -> None:
        """Keeps what to look at."""
        self._examination = examination

    def process(self, element: int) -> Iterator[Reports]:
        """Reports once, and nothing after that."""
        del element  # it only brings the question here
        reports = Reports()
        with _one_at_a_time:
            if first := self._examination.token not in _reported:
                _reported.add(self._examination.token)
                found = self._examination.examine()
                reports.found[found.host, found.process] = found
        if not first:
            time.sleep(_SECONDS_EACH)
        yield reports


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter, as this process would import them."""
    found = {"python": platform.python_version()}
    for package in (*PACKAGES, *FAISS):
        try:
            name = "faiss" if package in FAISS else package
            found[name] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def memory() -> int:
    """Bytes that this process may use: the machine's, or its container's where that has less."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        text = path.read_text().strip() if path.exists() else ""
        if text.isdigit():
            limits.append(int(text))
    return min(limits)


def _unreadable(shards: Sequence[str]) -> Iterator[tuple[str, str]]:
    for path in shards:
        try:
            with files.open_binary(path) as file:
                file.read(_READ)
        except Exception as error:
            yield path, _words(error)


def _free(folder: str) -> int | None:
    if not files.is_local(folder):
        return None
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def _words(error: BaseException) -> str:
    """What went wrong in the first place; what to do about it is for others to say."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
