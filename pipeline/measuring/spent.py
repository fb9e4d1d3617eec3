"""What measuring cost: by scorer and by shard, added up over all workers."""

import resource
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self


@dataclass
class Effort:
    """What one scorer did.

    Attributes:
        samples: samples it measured.
        rejects: samples that it could not use, beyond those that nobody can.
        places: samples for which the batches that it got had room, which is run.batch_size each.
        seconds: in its `score`, over all workers.
        preparing: seconds of a core in its `prepare`, in threads beside `score`.
    """

    samples: int = 0
    rejects: int = 0
    places: int = 0
    seconds: float = 0.0
    preparing: float = 0.0

    @property
    def fill(self) -> float | None:
        """Mean share of a batch's room that was used, in (0, 1]; None for a scorer that gets no batches."""
        return self.samples / self.places if self.places else None

    def merge(self, other: Self) -> Self:
        """Adds another part."""
        self.samples += other.samples
        self.rejects += other.rejects
        self.places += other.places
        self.seconds += other.seconds
        self.preparing += other.preparing
        return self


@dataclass
class Spent:
    """Where the time went.

    Attributes:
        samples: samples found.
        rejects: those of them that no scorer can use.
        scorers: scorer -> what it did.
        shards: shards that were worked on.
        seconds: on them, from opening each to its last table, over all workers; loading models apart.
        cpu_seconds: of the processes that worked on them meanwhile; more than `seconds` where threads shared the work.
            Where several workers are threads of one process, each counts what all of them used.
        loading: scorer -> seconds until its model was loaded, the longest of all workers.
        memory: the largest resident memory of a process that worked on them, bytes.
    """

    samples: int = 0
    rejects: int = 0
    scorers: dict[str, Effort] = field(default_factory=dict)
    shards: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    loading: dict[str, float] = field(default_factory=dict)
    memory: int = 0

    def effort(self, scorer: str) -> Effort:
        """What a scorer did so far, to be added to."""
        return self.scorers.setdefault(scorer, Effort())

    def merge(self, other: Self) -> Self:
        """Adds another shard's part."""
        self.samples += other.samples
        self.rejects += other.rejects
        for name, effort in other.scorers.items():
            self.effort(name).merge(effort)
        self.shards += other.shards
        self.seconds += other.seconds
        self.cpu_seconds += other.cpu_seconds
        for name, seconds in other.loading.items():
            self.loading[name] = max(seconds, self.loading.get(name, 0.0))
        self.memory = max(self.memory, other.memory)
        return self

    def follow(self, other: Self) -> None:
        """Adds another pass over the same samples, which count once."""
        samples, rejects = max(self.samples, other.samples), max(self.rejects, other.rejects)
        self.merge(other)
        self.samples, self.rejects = samples, rejects

    def summary(self) -> dict[str, Any]:
        """What timings.json says of it; nothing where nothing was done."""
        if not self.samples:
            return {}
        scorers = {
            name: {
                "samples": effort.samples,
                "rejects": effort.rejects,
                "seconds": round(effort.seconds, 3),
                "preparing_seconds": round(effort.preparing, 3),
                "loading_seconds": round(self.loading.get(name, 0.0), 3),
                "batch_fill": None if effort.fill is None else round(effort.fill, 3),
            }
            for name, effort in sorted(self.scorers.items())
        }
        return {
            "samples": self.samples,
            "rejects": self.rejects,
            "shard_seconds": round(self.seconds, 3),
            "peak_mib": round(self.memory / 2**20),
            "scorers": scorers,
        }

    def beam_counts(self) -> Mapping[str, Mapping[str, int]]:
        """For Beam's counters: namespace -> counter -> by how much it grew."""
        found = {
            f"scorers.{name}": {
                "samples": effort.samples,
                "rejects": effort.rejects,
                "milliseconds": round(1000 * effort.seconds),
            }
            for name, effort in self.scorers.items()
        }
        if self.shards:
            found["shards"] = {"scored": self.shards, "samples": self.samples, "rejects": self.rejects}
        return found


def peak_memory() -> int:
    """The most resident memory that this process had so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    # Elsewhere: the same, unless the process was started by a larger one, whose peak it then inherits.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
