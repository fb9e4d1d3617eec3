"""Scoring: for every shard its samples table and, in one pass over its pictures, every score table that is missing."""

import contextlib
import hashlib
import itertools
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chaffinch.pipeline import files
from chaffinch.pipeline.batches import LoadedScorer, column_batches, read_batches
from chaffinch.pipeline.feeds import Feed, Wanted
from chaffinch.pipeline.rows import Source
from chaffinch.pipeline.runner import Engine, add_up
from chaffinch.pipeline.samples import CANNOT_READ, index_shard, unreadable
from chaffinch.pipeline.shards import Shard, ShardError
from chaffinch.pipeline.store import UNREADABLE, Inventory, Store
from chaffinch.pipeline.tables import TableBuilder

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
        # Where only the samples table was deleted, what was measured of this very shard holds.
        deleted = shard.name not in inventory.samples and inventory.stamps.get(shard.name) == {shard.stamp}
        if not current and not deleted:
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


def score_shard(task: Task, source: Source, scorers: Sequence[LoadedScorer], batch_size: int) -> Spent:
    """Makes the tables that one shard lacks; what is there and current is left alone.

    Args:
        task: what to do.
        source: the store in which tables are read and written, and where the columns are that scorers read.
        scorers: loaded scorers, at least those of `task.folders`.
        batch_size: rows of the samples table that are scored at once.

    Returns:
        Where the time went.
    """
    store, shard, folders = source.store, task.shard, list(task.folders)
    opens = not task.indexed or any(one.reads_samples for one in scorers if one.folder in folders)
    with contextlib.ExitStack() as copies:
        path = shard.path
        with contextlib.suppress(OSError):  # indexing and measuring meet the same error, and know what to do
            path = copies.enter_context(files.local_copy(shard.path)) if opens else path
        if task.indexed:
            samples = files.read_table(store.samples(shard.name))
        else:
            samples = index_shard(replace(shard, path=path))
            _adopt(task, samples, store)
            folders = [folder for folder in folders if not files.exists(store.scores(folder, shard.name))]
        missing = [loaded for loaded in scorers if loaded.folder in folders]
        feeds = {one.folder: one.wanted.feed(shard, samples, source) for one in missing}
        spent = Spent(samples.num_rows)
        failed, problem = unreadable(samples["reject"]), ""
        try:
            tables = measure(path, samples, missing, batch_size, spent.seconds, feeds)
        except ShardError as error:
            _log.warning("%s cannot be read: %s", shard.path, error)
            failed, problem = True, f"{CANNOT_READ}: {error}"
            tables = _rejected(samples, missing, problem)
    if failed:
        # First of all: tables that only say so must not pass for measurements, even if this process ends here.
        files.remove(store.stamp(shard.name, shard.stamp))
    for folder, table in tables.items():
        files.write_table(store.scores(folder, shard.name), table)
    if problem or not task.indexed:
        for old in task.stamps:
            files.remove(store.stamp(shard.name, old))
        # Like that of a shard that was read, it is another one when the tables are.
        state = f"{samples.schema.metadata} {problem} {sorted(tables)}"
        stamp = UNREADABLE + hashlib.sha256(state.encode()).hexdigest()[:8] if failed else shard.stamp
        files.write_bytes(store.stamp(shard.name, stamp), stamp.encode())
    return spent


def _adopt(task: Task, samples: pa.Table, store: Store) -> None:
    """Writes a new samples table; if the shard's content is not what was measured before, its old scores go first."""
    path = store.samples(task.shard.name)
    tables = [store.scores(folder, task.shard.name) for folder in task.outdated]
    if files.exists(path):
        known = files.open_table(path).schema_arrow.metadata or {}
        if known.get(b"content") == samples.schema.metadata[b"content"]:
            for table in tables:
                if files.exists(table) and unreadable(files.read_table(table, ["reject"])["reject"]):
                    files.remove(table)
            return
    for table in tables:
        files.remove(table)
    files.write_table(path, samples)


def _rejected(samples: pa.Table, scorers: Sequence[LoadedScorer], reason: str) -> dict[str, pa.Table]:
    """Tables of scorers that measured nothing, because the shard could not be read."""
    usable = np.flatnonzero(pc.is_null(samples["reject"]).to_numpy())
    tables = {}
    for loaded in scorers:
        builder = TableBuilder(loaded.scorer, samples)
        builder.reject(dict.fromkeys(usable.tolist(), reason))
        tables[loaded.folder] = builder.finish()
    return tables


def measure(
    path: str,
    samples: pa.Table,
    scorers: Sequence[LoadedScorer],
    batch_size: int,
    seconds: dict[str, float] | None = None,
    feeds: Mapping[str, Feed] | None = None,
) -> Mapping[str, pa.Table]:
    """Measures one shard with several scorers in one pass; the plain function behind the job.

    Args:
        path: the shard, on the local disk.
        samples: its samples table, s rows.
        scorers: loaded scorers.
        batch_size: rows of the samples table that are scored at once.
        seconds: scorer -> seconds in its `score`; added to.
        feeds: folder -> the columns its scorer reads, and its rows; no columns and all usable rows by default.

    Returns:
        Each scorer's folder and its table of s rows: the scorer's columns, null where rejected or skipped, and reject.

    Raises:
        ShardError: the shard is not what was indexed, or cannot be read.
    """
    usable = pc.is_null(samples["reject"]).to_numpy()
    feeds = feeds or {one.folder: Feed({}, usable) for one in scorers}
    builders = {one.folder: TableBuilder(one.scorer, samples) for one in scorers}
    for folder, feed in feeds.items():
        if feed.known is not None and feed.copied is not None:
            builders[folder].copy(feed.known, feed.copied)
    readers = [one for one in scorers if one.reads_samples and feeds[one.folder].rows.any()]
    others = [one for one in scorers if not one.reads_samples]
    batches = itertools.chain(
        read_batches(path, samples, readers, batch_size, feeds) if readers else (),
        column_batches(samples, others, batch_size, feeds) if others else (),
    )
    for parts in batches:
        for one in scorers:
            if one.folder not in parts:
                continue
            rows, batch, rejects = parts[one.folder]
            builders[one.folder].reject(rejects)
            if len(batch):
                began = time.perf_counter()
                builders[one.folder].add(rows, one.scorer.score(batch, one.model))
                if seconds is not None:
                    name = one.wanted.name
                    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - began
    return {one.folder: one.wanted.mark(builders[one.folder].finish()) for one in scorers}


class ScoreShard(beam.DoFn):
    """Scores shards; models are loaded once per worker, when the first shard needs them."""

    def __init__(self, source: Source, wanted: Sequence[Wanted], batch_size: int, device: str) -> None:
        """Keeps the settings.

        Args:
            source: the store, and where the columns are that scorers read.
            wanted: the scorers.
            batch_size: rows that are scored at once.
            device: "cpu" or "cuda".
        """
        self._source = source
        self._wanted = {one.folder: one for one in wanted}
        self._batch_size = batch_size
        self._device = device
        self._models: dict[str, Any] = {}

    def process(self, task: Task) -> Iterator[Spent]:
        """Scores one shard."""
        loaded = []
        for folder in task.folders:
            if folder not in self._models:
                self._models[folder] = self._wanted[folder].scorer.load(self._device)
            loaded.append(LoadedScorer(self._wanted[folder], self._models[folder]))
        _log.info("scoring %s: %s", task.shard.name, ", ".join(task.folders) or "samples")
        yield score_shard(task, self._source, loaded, self._batch_size)


def score(
    engine: Engine,
    tasks: Sequence[Task],
    source: Source,
    wanted: Sequence[Wanted],
    batch_size: int,
    device: str,
    scratch: str,
) -> Spent:
    """Measures everything that a pool lacks.

    Args:
        engine: where to run.
        tasks: what `find_tasks` found.
        source: the store in which tables are read and written, and where the columns are that scorers read.
        wanted: the scorers.
        batch_size: rows of the samples table that are scored at once.
        device: "cpu" or "cuda".
        scratch: a path that workers and driver share.

    Returns:
        Where the time went.
    """
    work = ScoreShard(source, wanted, batch_size, device)
    return add_up(engine, "Score shards", tasks, work, scratch) or Spent()
