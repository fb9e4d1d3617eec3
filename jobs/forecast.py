"""A forecast: what a whole pool will cost, from what a sample of its shards did. Arithmetic alone.

Shards of a pool may differ in size, and how many samples are in one is not known before it is read, so everything that
grows with the pool is taken to grow with the bytes of its shards. What does not grow, start-up and loading models, is
told apart.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chaffinch.pipeline.measuring.spent import Effort, Spent


@dataclass(frozen=True)
class Sampled:
    """A side of an experiment of which some shards were scored.

    Attributes:
        spent: what scoring them cost, with one worker.
        sampled: (s shards,) bytes of the shards that were scored.
        sizes: (t shards,) bytes of all shards.
        tables: "samples" and scorers -> bytes of the tables that were written.
        whole_pool: scorers that look at all shards at once; their time is no shard's.
        beside: what scoring the same shards cost two workers at once; None where that was not tried.
    """

    spent: Spent
    sampled: Sequence[int]
    sizes: Sequence[int]
    tables: Mapping[str, int]
    whole_pool: frozenset[str] = frozenset()
    beside: Spent | None = None

    @property
    def factor(self) -> float:
        """How many times as large as the sample the side is."""
        return sum(self.sizes) / max(sum(self.sampled), 1)

    @property
    def shard_seconds(self) -> list[float]:
        """(t shards,) seconds that one worker takes for each shard."""
        return self._seconds_of(self.sizes)

    @property
    def crowding(self) -> float:
        """How many times as long a shard takes while another worker is at work, too; 1 where that was not tried.

        Threads of one process take turns where code holds Python's lock, and all workers share caches and memory.
        """
        together = self.spent.seconds - self._alone
        if self.beside is None or together <= 0:
            return 1.0
        return max(1.0, (self.beside.seconds - self._alone) / together)

    @property
    def seconds_beside(self) -> float:
        """Seconds from the first shard to the last with two workers; 0 where that was not tried."""
        return 0.0 if self.beside is None else (self.beside.seconds + self._alone) / 2

    @property
    def _alone(self) -> float:
        """Seconds that the second of two workers has nothing left to do, while the first is at the last shard."""
        return 2 * makespan(self._seconds_of(self.sampled), 2) - self.spent.seconds

    def _seconds_of(self, sizes: Sequence[int]) -> list[float]:
        """Seconds that one worker takes for shards of so many bytes each."""
        rate = self.spent.seconds / max(sum(self.sampled), 1)
        return [size * rate for size in sizes]

    @property
    def pool_seconds(self) -> float:
        """Seconds of scorers that look at all shards at once."""
        return self.factor * sum(self.spent.scorers[name].seconds for name in self.whole_pool & set(self.spent.scorers))


@dataclass(frozen=True)
class Place:
    """Where workers run.

    Attributes:
        cores: that all workers share; None where each has cores of its own, like those the sample was scored on.
        gpus: that all workers share, 0 where none is used; None where each has one of its own.
        memory: bytes that a process has before any model is loaded, where workers are threads of one; None where each
            worker is a process.
    """

    cores: int | None = None
    gpus: int | None = 0
    memory: int | None = None


@dataclass(frozen=True)
class Times:
    """What so many workers take.

    Attributes:
        workers: how many.
        seconds: from the start of the command to the last table.
        gpu_hours: hours that GPUs are held, all workers together.
        memory: bytes, of one worker; of all of them where they are threads of one process.
    """

    workers: int
    seconds: float
    gpu_hours: float
    memory: int


@dataclass(frozen=True)
class Forecast:
    """What scoring a pool and its reference will cost.

    Attributes:
        sides: what was sampled; "input" and "reference".
        start_up: seconds that no sample is scored in, loading included.
        place: where workers run.
        start_up_cpu: seconds of a core in the start-up.
        devices: scorers that run on the GPU.
        output: what emitting and deciding the sample wrote, "decisions" and "shards" -> bytes; empty where not known.
        kept: how many samples of the sample were kept.
        start_up_of_more: seconds that the start-up takes longer where there is more than one worker.
    """

    sides: Mapping[str, Sampled]
    start_up: float
    place: Place
    start_up_cpu: float = 0.0
    devices: frozenset[str] = frozenset()
    output: Mapping[str, int] = field(default_factory=dict)
    kept: int | None = None
    start_up_of_more: float = 0.0

    @property
    def samples(self) -> dict[str, int]:
        """Side -> samples in all of its shards."""
        return {name: round(side.factor * side.spent.samples) for name, side in self.sides.items()}

    @property
    def scorers(self) -> dict[str, Effort]:
        """Scorer -> what it does on both sides."""
        found: dict[str, Effort] = {}
        for side in self.sides.values():
            for name, effort in side.spent.scorers.items():
                parts = (effort.samples, effort.rejects, effort.places)
                times = (effort.seconds, effort.preparing)
                scaled = Effort(*(round(side.factor * part) for part in parts), *(side.factor * part for part in times))
                found.setdefault(name, Effort()).merge(scaled)
        return dict(sorted(found.items()))

    @property
    def loading(self) -> dict[str, float]:
        """Scorer -> seconds until its model is loaded, once in every worker."""
        total = Spent()
        for side in self.sides.values():
            total.merge(Spent(loading=side.spent.loading))
        return total.loading

    @property
    def shard_seconds(self) -> float:
        """Seconds of one worker on all shards of both sides; loading apart."""
        return sum(sum(side.shard_seconds) for side in self.sides.values())

    @property
    def cpu_seconds(self) -> float:
        """Seconds of a core, with one worker."""
        return self.start_up_cpu + sum(
            side.factor * side.spent.cpu_seconds + side.pool_seconds for side in self.sides.values()
        )

    @property
    def tables(self) -> dict[str, int]:
        """Scorers and "samples" -> bytes of their tables of both sides."""
        found: dict[str, int] = {}
        for side in self.sides.values():
            for name, size in side.tables.items():
                found[name] = found.get(name, 0) + round(side.factor * size)
        return dict(sorted(found.items()))

    @property
    def written(self) -> dict[str, int]:
        """Bytes below the output of "decisions" and "shards"; empty where not known."""
        return {name: round(self.sides["input"].factor * size) for name, size in self.output.items()}

    @property
    def samples_kept(self) -> int | None:
        """How many samples will be kept; None where not known."""
        return None if self.kept is None else round(self.sides["input"].factor * self.kept)

    def times(self, workers: int) -> Times:
        """What so many workers take.

        Each takes the next shard when it is done with one, the reference's before the input's. Where they share cores
        or GPUs that are too few for them, all slow down by as much as is missing, or by as much as each further worker
        was seen to hold up the others.
        """
        seconds = sum(
            makespan(side.shard_seconds, workers) * self._slowdown(side, min(workers, len(side.sizes)))
            + side.pool_seconds / min(workers, self.place.cores or workers)
            for side in self.sides.values()
        )
        total = self.start_up + seconds + (self.start_up_of_more if workers > 1 else 0.0)
        held = workers if self.place.gpus is None else min(workers, self.place.gpus)
        return Times(workers, total, total * held / 3600, self._memory(workers))

    def _memory(self, workers: int) -> int:
        """Bytes of one worker; of all of them where they are threads of one process."""
        peak = max((side.spent.memory for side in self.sides.values()), default=0)
        of_two = max((side.beside.memory for side in self.sides.values() if side.beside), default=0)
        if self.place.memory is None:
            return of_two if of_two and workers > 1 else peak
        each = of_two - peak if of_two else peak - self.place.memory
        return peak + (workers - 1) * max(each, 0)

    def _slowdown(self, side: Sampled, workers: int) -> float:
        """How many times as long a shard takes where so many are worked on at once, at least 1."""
        seconds = max(side.spent.seconds, 1e-9)
        slowest = 1.0 + (workers - 1) * (side.crowding - 1.0)
        if self.place.cores:
            slowest = max(slowest, workers * (side.spent.cpu_seconds / seconds) / self.place.cores)
        if self.place.gpus:
            busy = sum(effort.seconds for name, effort in side.spent.scorers.items() if name in self.devices)
            slowest = max(slowest, workers * (busy / seconds) / self.place.gpus)
        return slowest

    def summary(self, workers: Sequence[int]) -> dict[str, Any]:
        """The forecast as plain numbers, for so many workers each."""
        times = [self.times(count) for count in workers]
        return {
            "shards": {name: len(side.sizes) for name, side in self.sides.items()},
            "sampled_shards": {name: len(side.sampled) for name, side in self.sides.items()},
            "bytes": {name: sum(side.sizes) for name, side in self.sides.items()},
            "samples": self.samples,
            "start_up_seconds": round(self.start_up, 2),
            "shard_seconds": round(self.shard_seconds, 2),
            "cpu_seconds": round(self.cpu_seconds, 2),
            "scorers": {
                name: {
                    "device": "cuda" if name in self.devices else "cpu",
                    "samples": effort.samples,
                    "rejects": effort.rejects,
                    "seconds": round(effort.seconds, 2),
                    "preparing_seconds": round(effort.preparing, 2),
                    "loading_seconds": round(self.loading.get(name, 0.0), 2),
                    "batch_fill": None if effort.fill is None else round(effort.fill, 3),
                    "bytes": self.tables.get(name, 0),
                }
                for name, effort in self.scorers.items()
            },
            "table_bytes": sum(self.tables.values()),
            "output_bytes": self.written,
            "kept": self.samples_kept,
            "workers": [
                {
                    "workers": one.workers,
                    "seconds": round(one.seconds, 1),
                    "gpu_hours": round(one.gpu_hours, 4),
                    "memory_bytes": one.memory,
                }
                for one in times
            ],
        }


def makespan(seconds: Sequence[float], workers: int) -> float:
    """When the last of some workers is done, each of whom takes the next piece of work when it is done with one.

    Args:
        seconds: (t,) of each piece, in the order in which they are taken.
        workers: how many.

    Returns:
        Seconds; 0 where there is nothing to do.
    """
    ends = [0.0] * max(1, min(workers, len(seconds)))
    for piece in seconds:
        heapq.heapreplace(ends, ends[0] + piece)
    return max(ends)
