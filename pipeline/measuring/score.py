"""Scoring: for every shard its samples table and, in one pass over its pictures, every score table that is missing."""

import contextlib
import hashlib
import logging
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chaffinch.pipeline.engines.counters import watch_shard
from chaffinch.pipeline.engines.engine import Engine, add_up
from chaffinch.pipeline.measuring.batches import LoadedScorer, ScoringError
from chaffinch.pipeline.measuring.feeds import Wanted
from chaffinch.pipeline.measuring.measure import MemoryShortage, measure
from chaffinch.pipeline.measuring.spent import Spent, peak_memory
from chaffinch.pipeline.measuring.workbench import LoadError, Workbench, has_failed, note_failure, set_up, workbench
from chaffinch.pipeline.rows import Source
from chaffinch.pipeline.samples import CANNOT_READ, index_shard, unreadable
from chaffinch.pipeline.shards import Shard, ShardError
from chaffinch.pipeline.storage import files, parquet
from chaffinch.pipeline.storage.disks import ScratchError
from chaffinch.pipeline.store import UNREADABLE, Inventory, Store
from chaffinch.pipeline.tables import TableBuilder

_log = logging.getLogger(__name__)
_REASONS_LOGGED = 8


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


def narrow(tasks: Sequence[Task], folders: Collection[str]) -> list[Task]:
    """What is left of some work where only some folders are wanted.

    Args:
        tasks: what `find_tasks` found for these folders and others.
        folders: the score folders that are wanted.

    Returns:
        What it would have found for these alone.
    """
    narrowed = [replace(task, folders=tuple(one for one in task.folders if one in folders)) for task in tasks]
    return [task for task in narrowed if task.folders or not task.indexed]


def score_shard(task: Task, source: Source, scorers: Sequence[LoadedScorer], batch_size: int) -> Spent:
    """Makes the tables that one shard lacks; what is there and current is left alone.

    Args:
        task: what to do.
        source: the store in which tables are read and written, and where the columns are that scorers read.
        scorers: loaded scorers, at least those of `task.folders`.
        batch_size: rows of the samples table that are scored at once.

    Returns:
        Where the time went.

    Raises:
        MemoryShortage: a batch does not fit into memory; no table was written.
        ScoringError: a scorer fails; no table was written. Both name the shard.
    """
    began, cpu_began = time.perf_counter(), time.process_time()
    store, shard, folders = source.store, task.shard, list(task.folders)
    opens = not task.indexed or any(one.reads_samples for one in scorers if one.folder in folders)
    with contextlib.ExitStack() as copies:
        path = shard.path
        with contextlib.suppress(OSError):  # indexing and measuring meet the same error, and know what to do
            path = copies.enter_context(files.local_copy(shard.path)) if opens else path
        if task.indexed:
            samples = parquet.read_table(store.samples(shard.name))
        else:
            samples = index_shard(replace(shard, path=path))
            _adopt(task, samples, store)
            folders = [folder for folder in folders if not files.exists(store.scores(folder, shard.name))]
        missing = [loaded for loaded in scorers if loaded.folder in folders]
        feeds = {one.folder: one.wanted.feed(shard, samples, source) for one in missing}
        spent = Spent(samples.num_rows, samples.num_rows - samples["reject"].null_count, shards=1)
        failed, problem = unreadable(samples["reject"]), ""
        try:
            tables = measure(path, samples, missing, batch_size, spent, feeds)
        except MemoryShortage as error:
            raise MemoryShortage(f"shard {shard.name}: {error}") from error
        except ScoringError as error:
            raise ScoringError(f"shard {shard.name}: {error}") from error
        except ShardError as error:
            _log.warning("shard %s cannot be read: %s: %s", shard.name, shard.path, error)
            failed, problem = True, f"{CANNOT_READ}: {error}"
            tables = _rejected(samples, missing, problem)
    if failed:
        # First of all: tables that only say so must not pass for measurements, even if this process ends here.
        files.remove(store.stamp(shard.name, shard.stamp))
    for folder, table in tables.items():
        parquet.write_table(store.scores(folder, shard.name), table)
    if problem or not task.indexed:
        for old in task.stamps:
            files.remove(store.stamp(shard.name, old))
        # Like that of a shard that was read, it is another one when the tables are.
        state = f"{samples.schema.metadata} {problem} {sorted(tables)}"
        stamp = UNREADABLE + hashlib.sha256(state.encode()).hexdigest()[:8] if failed else shard.stamp
        files.write_bytes(store.stamp(shard.name, stamp), stamp.encode())
    _log_rejects(shard.name, samples, None if task.indexed else samples["reject"], "")
    for loaded in missing:
        _log_rejects(shard.name, samples, tables[loaded.folder]["reject"], f" by {loaded.wanted.name}")
    spent.seconds, spent.cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    spent.memory = peak_memory()
    watch_shard(spent.seconds)
    return spent


def _log_rejects(shard: str, samples: pa.Table, rejects: pa.ChunkedArray | None, who: str) -> None:
    """Says how many samples of a shard were rejected and why, with a key for each reason; the tables hold them all."""
    if rejects is None or not _log.isEnabledFor(logging.INFO):
        return
    already = samples["reject"].to_pylist() if who else [None] * len(rejects)
    reasons: dict[str, list[str]] = {}
    for key, known, reason in zip(samples["key"].to_pylist(), already, rejects.to_pylist(), strict=True):
        if reason is not None and known is None:
            reasons.setdefault(reason, []).append(key)
    for reason, keys in sorted(reasons.items(), key=lambda item: -len(item[1]))[:_REASONS_LOGGED]:
        _log.info("shard %s: %d samples rejected%s, such as %s: %s", shard, len(keys), who, keys[0], reason)


def _adopt(task: Task, samples: pa.Table, store: Store) -> None:
    """Writes a new samples table; if the shard's content is not what was measured before, its old scores go first."""
    path = store.samples(task.shard.name)
    tables = [store.scores(folder, task.shard.name) for folder in task.outdated]
    if files.exists(path):
        known = parquet.open_table(path).schema_arrow.metadata or {}
        if known.get(b"content") == samples.schema.metadata[b"content"]:
            for table in tables:
                if files.exists(table) and unreadable(parquet.read_table(table, ["reject"])["reject"]):
                    files.remove(table)
            return
    for table in tables:
        files.remove(table)
    parquet.write_table(path, samples)


def _rejected(samples: pa.Table, scorers: Sequence[LoadedScorer], reason: str) -> dict[str, pa.Table]:
    """Tables of scorers that measured nothing, because the shard could not be read."""
    usable = np.flatnonzero(pc.is_null(samples["reject"]).to_numpy())
    tables = {}
    for loaded in scorers:
        builder = TableBuilder(loaded.scorer, samples)
        builder.reject(dict.fromkeys(usable.tolist(), reason))
        tables[loaded.folder] = builder.finish()
    return tables


class ScoreShard(beam.DoFn):
    """Scores shards; models are loaded once per worker, before its first shard is read."""

    def __init__(
        self, source: Source, wanted: Sequence[Wanted], batch_size: int, device: str, prepared: str = ""
    ) -> None:
        """Keeps the settings.

        Args:
            source: the store, and where the columns are that scorers read.
            wanted: the scorers.
            batch_size: rows that are scored at once.
            device: "cpu" or "cuda".
            prepared: key of what was set up ahead in this process, if anything was.
        """
        self._source = source
        self._wanted = wanted
        self._batch_size = batch_size
        self._device = device
        self._prepared = prepared
        self._bench: Workbench | None = None

    def setup(self) -> None:
        """Loads the models; Beam calls it before the first shard."""
        with self._noting():
            self._bench = workbench(self._prepared, self._device, self._wanted)

    def process(self, task: Task) -> Iterator[Spent]:
        """Scores one shard."""
        if self._bench is None and not has_failed(self._prepared):
            self.setup()
        if self._bench is None or has_failed(self._prepared):
            return
        _log.info("shard %s: scoring %s", task.shard.name, ", ".join(task.folders) or "samples")
        with self._noting():
            with self._bench.active():
                spent = score_shard(task, self._source, self._bench.scorers(task.folders), self._batch_size)
            spent.loading = dict(self._bench.loading)
            yield spent

    def teardown(self) -> None:
        """Lets the models go."""
        if self._bench is not None:
            self._bench.close()
            self._bench = None

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        """Notes what the user is to be told, where somebody waits for that; the job then ends without more ado."""
        try:
            yield
        except (LoadError, MemoryShortage, OSError, ScratchError) as error:
            if not note_failure(self._prepared, error):
                raise


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

    Raises:
        LoadError: a scorer cannot be loaded; no shard was read.
        MemoryShortage: a batch does not fit into memory.
    """
    folders = {folder for task in tasks for folder in task.folders}
    needed = [one for one in wanted if one.folder in folders]
    # Workers in other processes load for themselves, and elsewhere this process may have no GPU.
    with set_up(device, needed) if engine.scores_in_threads else contextlib.nullcontext("") as prepared:
        work = ScoreShard(source, needed, batch_size, device, prepared)
        return add_up(engine, "Score shards", tasks, work, scratch) or Spent()
