"""Batches: consecutive samples of a shard, read and decoded ahead of the scorers, each picture once for all of them."""

import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from chaffinch.pipeline.measuring.feeds import Feed, Wanted
from chaffinch.pipeline.shards import ShardError
from chaffinch.scoring.devices import is_out_of_memory
from chaffinch.scoring.images import decode
from chaffinch.scoring.scorer import Batch, SampleError, Scorer

THREADS = min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
# How many batches are decoded ahead: enough to keep a model fed, few enough to keep memory flat.
_BATCHES_AHEAD = 2


class ScoringError(RuntimeError):
    """A scorer failed, which is a bug in it or a fault of its machine; the message names it and the samples."""


@dataclass(frozen=True)
class LoadedScorer:
    """A scorer with its model, as a worker holds it.

    Attributes:
        wanted: the scorer, its name and its tables' folder.
        model: what its `load` returned.
    """

    wanted: Wanted
    model: Any

    @property
    def folder(self) -> str:
        """Its tables' folder in the store."""
        return self.wanted.folder

    @property
    def scorer(self) -> Scorer:
        """Its settings."""
        return self.wanted.scorer

    @property
    def reads_samples(self) -> bool:
        """Whether it needs anything of the shard itself."""
        return self.scorer.reads_pictures or self.scorer.reads_captions


Parts = Mapping[str, tuple[list[int], Batch, dict[int, str]]]
"""For each scorer's folder: the rows of the samples it gets, the batch, and reject reasons by row."""


@dataclass
class _Loaded:
    """One sample on its way: what each of its scorers prepared of it in how long, or why a scorer cannot use it."""

    row: int
    uid: str
    caption: str
    prepared: dict[str, Any] = field(default_factory=dict)
    rejects: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Location:
    """Where a usable sample's picture and caption lie."""

    row: int
    uid: str
    key: str
    picture: tuple[int, int]
    caption: tuple[int, int]


def _locations(samples: pa.Table) -> list[list[_Location]]:
    """Usable samples, by row; a list per row so that batches stay cut by position."""
    columns = {
        name: samples[name].to_pylist() for name in ("uid", "key", "offsets", "sizes", "picture", "caption", "reject")
    }
    found: list[list[_Location]] = []
    for row, (uid, key, offsets, sizes, picture, caption, reject) in enumerate(zip(*columns.values(), strict=True)):
        if reject is not None:
            found.append([])
            continue
        spans = [(offsets[index], sizes[index]) for index in (picture, caption)]
        found.append([_Location(row, uid, key, *spans)])
    return found


def read_batches(
    path: str,
    samples: pa.Table,
    scorers: Sequence[LoadedScorer],
    batch_size: int,
    feeds: Mapping[str, Feed],
    preparing: dict[str, float] | None = None,
) -> Iterator[Parts]:
    """Reads a shard as batches of consecutive rows, a few batches ahead of whoever consumes them.

    Batches are cut by position in the samples table, so that they are the same on every runner and after any retry.
    Pictures are decoded only if one of the scorers reads them.

    Args:
        path: the shard, on the local disk.
        samples: its samples table, s rows.
        scorers: the scorers to read for.
        batch_size: rows of the samples table in a batch; rejected and skipped ones leave theirs smaller.
        feeds: folder -> the columns its scorer reads, and its rows.
        preparing: folder -> seconds of a core in `prepare`; added to.

    Yields:
        What each scorer gets.

    Raises:
        ShardError: the shard is not what was indexed, or cannot be read.
        ScoringError: a scorer fails on a picture; names both.
    """
    rows = _locations(samples)
    chunks = [
        [place for row in rows[start : start + batch_size] for place in row]
        for start in range(0, len(rows), batch_size)
    ]
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise ShardError(error.strerror) from error
    try:
        with ThreadPoolExecutor(THREADS, "read") as threads:
            ahead: deque[list[Future[_Loaded]]] = deque()
            for chunk in chunks:
                takers = [(place, [one for one in scorers if feeds[one.folder].rows[place.row]]) for place in chunk]
                ahead.append([threads.submit(_load, handle, place, some) for place, some in takers if some])
                if len(ahead) > _BATCHES_AHEAD:
                    yield _collect(ahead.popleft(), scorers, feeds, preparing)
            while ahead:
                yield _collect(ahead.popleft(), scorers, feeds, preparing)
    finally:
        os.close(handle)


def column_batches(
    samples: pa.Table, scorers: Sequence[LoadedScorer], batch_size: int, feeds: Mapping[str, Feed]
) -> Iterator[Parts]:
    """Batches of the same rows as `read_batches` cuts, for scorers that need nothing of the shard itself.

    Args:
        samples: its samples table, s rows.
        scorers: scorers that read columns alone.
        batch_size: rows of the samples table in a batch.
        feeds: folder -> the columns its scorer reads, and its rows.

    Yields:
        What each scorer gets.
    """
    uids = np.array(samples["uid"].to_pylist(), object)
    for start in range(0, samples.num_rows, batch_size):
        parts: dict[str, tuple[list[int], Batch, dict[int, str]]] = {}
        for one in scorers:
            feed = feeds[one.folder]
            rows = start + np.flatnonzero(feed.rows[start : start + batch_size])
            parts[one.folder] = (rows.tolist(), Batch(uids[rows].tolist(), (), (), _taken(feed, rows.tolist())), {})
        yield parts


def _load(handle: int, place: _Location, scorers: Sequence[LoadedScorer]) -> _Loaded:
    """Reads one sample, decodes its picture once and lets every scorer take what it needs of it.

    Scorers that decode by themselves get the file, so that what they see does not depend on who else is there.
    """
    loaded = _Loaded(place.row, place.uid, "")
    if any(one.scorer.reads_captions for one in scorers):
        loaded.caption = _read(handle, place.caption).decode("utf-8")
    readers = [one for one in scorers if one.scorer.reads_pictures]
    loaded.prepared = {one.folder: None for one in scorers}
    if not readers:
        return loaded
    file = _read(handle, place.picture)
    sharing = [one for one in readers if not one.scorer.decodes]
    picture = None
    try:
        if sharing:
            picture = decode(file)
    except SampleError as error:
        loaded.rejects = {one.folder: str(error) for one in sharing}
    for one in readers:
        began = time.thread_time()
        try:
            if one.scorer.decodes:
                loaded.prepared[one.folder] = one.scorer.prepare_file(file, one.model)
            elif picture is not None:
                loaded.prepared[one.folder] = one.scorer.prepare(picture, one.model)
        except SampleError as error:
            loaded.rejects[one.folder] = str(error)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ScoringError(f"scorer {one.wanted.name} failed on sample {place.key}: {reason}") from error
        loaded.seconds[one.folder] = time.thread_time() - began
    return loaded


def _read(handle: int, span: tuple[int, int]) -> bytes:
    offset, size = span
    parts = []
    while size > 0:
        try:
            part = os.pread(handle, size, offset)
        except OSError as error:
            raise ShardError(error.strerror) from error
        if not part:
            raise ShardError("it became shorter while it was read")
        parts.append(part)
        offset, size = offset + len(part), size - len(part)
    return b"".join(parts)


def _collect(
    futures: Sequence[Future[_Loaded]],
    scorers: Sequence[LoadedScorer],
    feeds: Mapping[str, Feed],
    preparing: dict[str, float] | None,
) -> Parts:
    samples = [future.result() for future in futures]
    if preparing is not None:
        for sample in samples:
            for folder, seconds in sample.seconds.items():
                preparing[folder] = preparing.get(folder, 0.0) + seconds
    collected = {}
    for one in scorers:
        usable = [sample for sample in samples if one.folder in sample.prepared and one.folder not in sample.rejects]
        rows = [sample.row for sample in usable]
        batch = Batch(
            uids=[sample.uid for sample in usable],
            captions=[sample.caption for sample in usable] if one.scorer.reads_captions else (),
            pictures=[sample.prepared[one.folder] for sample in usable] if one.scorer.reads_pictures else (),
            columns=_taken(feeds[one.folder], rows),
        )
        rejects = {sample.row: sample.rejects[one.folder] for sample in samples if one.folder in sample.rejects}
        collected[one.folder] = (rows, batch, rejects)
    return collected


def _taken(feed: Feed, rows: Sequence[int]) -> dict[str, pa.Array]:
    places = pa.array(rows, pa.int64())
    return {name: values.take(places) for name, values in feed.columns.items()}
