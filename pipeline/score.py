"""Scoring: for every shard its samples table and, in one pass over its pictures, every score table that is missing."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import apache_beam as beam
import numpy as np
import pyarrow as pa

from chaffinch.pipeline import files
from chaffinch.pipeline.batches import LoadedScorer, read_batches
from chaffinch.pipeline.runner import Engine, add_up
from chaffinch.pipeline.samples import CANNOT_READ, index_shard
from chaffinch.pipeline.shards import Shard
from chaffinch.pipeline.store import UNREADABLE, Inventory, Store
from chaffinch.scoring.scorer import Column, Scorer

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """What one shard still needs.

    Attributes:
        shard: the shard.
        stamps: stamps it had before, to be removed; none where its samples table is current.
        indexed: whether its samples table is current.
        folders: score folders in which its table is missing.
        outdated: score folders that may hold tables of another version of it.
    """

    shard: Shard
    stamps: tuple[str, ...]
    indexed: bool
    folders: tuple[str, ...]
    outdated: tuple[str, ...]


def find_tasks(
    shards: Sequence[Shard], store: Store, folders: Sequence[str], retry_unreadable: bool = True
) -> list[Task]:
    """Compares the input with the store by listing both.

    Args:
        shards: the pool.
        store: where its tables are.
        folders: the score folders that are wanted.
        retry_unreadable: whether shards that could not be read are to be tried again.

    Returns:
        One task per shard that lacks anything.
    """
    inventory = Inventory.of(store, folders)
    known: tuple[str, ...] | None = None
    tasks = []
    for shard in shards:
        current = inventory.is_current(shard) or (not retry_unreadable and inventory.is_unreadable(shard))
        missing = [folder for folder in folders if not current or shard.name not in inventory.scores[folder]]
        outdated: tuple[str, ...] = ()
        if not current and shard.name in inventory.samples:
            known = tuple(store.score_folders()) if known is None else known
            outdated = known
        if not current or missing:
            old = inventory.stamps.get(shard.name, frozenset()) - {shard.stamp}
            tasks.append(Task(shard, tuple(sorted(old)), current, tuple(missing), outdated))
    return tasks


@dataclass
class Spent:
    """Where the time went.

    Attributes:
        samples: samples found.
        seconds: scorer -> seconds in its `score`, over all workers.
    """

    samples: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def merge(self, other: Self) -> Self:
        """Adds another shard's part."""
        self.samples += other.samples
        for name, seconds in other.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        return self


def score_shard(task: Task, store: Store, scorers: Sequence[LoadedScorer], batch_size: int) -> Spent:
    """Makes the tables that one shard lacks; what is there and current is left alone.

    Args:
        task: what to do.
        store: where tables are read and written.
        scorers: loaded scorers, at least those of `task.folders`.
        batch_size: rows of the samples table that are scored at once.

    Returns:
        Where the time went.
    """
    shard, folders = task.shard, list(task.folders)
    if task.indexed:
        samples = files.read_table(store.samples(shard.name))
    else:
        samples = index_shard(shard)
        _adopt(task, samples, store)
        folders = [folder for folder in folders if not files.exists(store.scores(folder, shard.name))]
    wanted = [loaded for loaded in scorers if loaded.folder in folders]
    spent = Spent(samples.num_rows)
    if not wanted:
        tables: Mapping[str, pa.Table] = {}
    elif samples["reject"].null_count:
        with files.local_copy(shard.path) as path:
            tables = measure(path, samples, wanted, batch_size, spent.seconds)
    else:
        tables = {loaded.folder: TableBuilder(loaded.scorer, samples).finish() for loaded in wanted}
    for folder, table in tables.items():
        files.write_table(store.scores(folder, shard.name), table)
    if not task.indexed:
        unreadable = samples.num_rows and (samples["reject"][-1].as_py() or "").startswith(CANNOT_READ)
        stamp = UNREADABLE if unreadable else shard.stamp
        for old in task.stamps:
            files.remove(store.stamp(shard.name, old))
        files.write_bytes(store.stamp(shard.name, stamp), b"")
    return spent


def _adopt(task: Task, samples: pa.Table, store: Store) -> None:
    """Writes a new samples table; if the shard's content is not what was measured before, its old scores go first."""
    path = store.samples(task.shard.name)
    if files.exists(path):
        known = files.open_table(path).schema_arrow.metadata or {}
        if known.get(b"content") == samples.schema.metadata[b"content"]:
            return
    for folder in task.outdated:
        files.remove(store.scores(folder, task.shard.name))
    files.write_table(path, samples)


def measure(
    path: str,
    samples: pa.Table,
    scorers: Sequence[LoadedScorer],
    batch_size: int,
    seconds: dict[str, float] | None = None,
) -> Mapping[str, pa.Table]:
    """Measures one shard with several scorers in one pass; the plain function behind the job.

    Args:
        path: the shard, on the local disk.
        samples: its samples table, s rows.
        scorers: loaded scorers.
        batch_size: rows of the samples table that are scored at once.
        seconds: scorer -> seconds in its `score`; added to.

    Returns:
        Each scorer's folder and its table of s rows: the scorer's columns, null where rejected, and reject.
    """
    builders = {loaded.folder: TableBuilder(loaded.scorer, samples) for loaded in scorers}
    for parts in read_batches(path, samples, scorers, batch_size):
        for loaded in scorers:
            rows, batch, rejects = parts[loaded.folder]
            builders[loaded.folder].reject(rejects)
            if len(batch):
                began = time.perf_counter()
                builders[loaded.folder].add(rows, loaded.scorer.score(batch, loaded.model))
                if seconds is not None:
                    seconds[loaded.name] = seconds.get(loaded.name, 0.0) + time.perf_counter() - began
    return {folder: builder.finish() for folder, builder in builders.items()}


@dataclass
class TableBuilder:
    """Collects one scorer's columns batch by batch into a table with a row for every sample found.

    Attributes:
        scorer: whose columns.
        samples: the samples table, s rows; its rejects are copied.
    """

    scorer: Scorer
    samples: pa.Table
    _rows: list[int] = field(default_factory=list)
    _parts: dict[str, list[pa.Array]] = field(default_factory=dict)
    _rejects: dict[int, str] = field(default_factory=dict)

    def reject(self, reasons: Mapping[int, str]) -> None:
        """Notes rows that this scorer cannot use."""
        self._rejects |= reasons

    def add(self, rows: Sequence[int], columns: Mapping[str, Column]) -> None:
        """Adds what a batch of n samples measured.

        Args:
            rows: (n,) their rows in the samples table.
            columns: what `score` returned.

        Raises:
            ValueError: the scorer broke its contract; names the scorer and the column.
        """
        expected = self.scorer.columns
        if set(columns) != set(expected):
            raise ValueError(f"scorer {self.scorer.kind} wrote {sorted(columns)} instead of {sorted(expected)}")
        for name, kind in expected.items():
            values = columns[name]
            # from_pandas=False: NaN means "cannot judge" and must not become null, which means rejected.
            array = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, from_pandas=False)
            if len(array) != len(rows):
                raise ValueError(
                    f"scorer {self.scorer.kind} wrote {len(array)} values of {name} for {len(rows)} samples"
                )
            self._parts.setdefault(name, []).append(array.cast(kind) if array.type != kind else array)
        self._rows.extend(rows)

    def finish(self) -> pa.Table:
        """The table: s rows, the scorer's columns and reject."""
        total = self.samples.num_rows
        positions = np.full(total, -1)
        positions[self._rows] = np.arange(len(self._rows))
        indices = pa.array(positions, mask=positions < 0)
        arrays = {}
        for name, kind in self.scorer.columns.items():
            parts = self._parts.get(name)
            arrays[name] = pa.concat_arrays(parts).take(indices) if parts else pa.nulls(total, kind)
        rejects = self.samples["reject"].to_pylist()
        for row, reason in self._rejects.items():
            rejects[row] = reason
        return pa.table({**arrays, "reject": pa.array(rejects, pa.string())})


class ScoreShard(beam.DoFn):
    """Scores shards; models are loaded once per worker, when the first shard needs them."""

    def __init__(self, store: Store, scorers: Mapping[str, tuple[str, Scorer]], batch_size: int, device: str) -> None:
        """Keeps the settings.

        Args:
            store: where the tables are.
            scorers: folder -> name and settings.
            batch_size: rows that are scored at once.
            device: "cpu" or "cuda".
        """
        self._store = store
        self._scorers = scorers
        self._batch_size = batch_size
        self._device = device
        self._models: dict[str, Any] = {}

    def process(self, task: Task) -> Iterator[Spent]:
        """Scores one shard."""
        loaded = []
        for folder in task.folders:
            name, scorer = self._scorers[folder]
            if folder not in self._models:
                self._models[folder] = scorer.load(self._device)
            loaded.append(LoadedScorer(name, folder, scorer, self._models[folder]))
        _log.info("scoring %s: %s", task.shard.name, ", ".join(task.folders) or "samples")
        yield score_shard(task, self._store, loaded, self._batch_size)


def score(
    engine: Engine,
    tasks: Sequence[Task],
    store: Store,
    scorers: Mapping[str, tuple[str, Scorer]],
    batch_size: int,
    device: str,
    scratch: str,
) -> Spent:
    """Measures everything that a pool lacks.

    Args:
        engine: where to run.
        tasks: what `find_tasks` found.
        store: where tables are read and written.
        scorers: folder -> name in the config and settings.
        batch_size: rows of the samples table that are scored at once.
        device: "cpu" or "cuda".
        scratch: a path that workers and driver share.

    Returns:
        Where the time went.
    """
    work = ScoreShard(store, scorers, batch_size, device)
    return add_up(engine, "Score shards", tasks, work, scratch) or Spent()
