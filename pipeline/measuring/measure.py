"""Measuring one shard: batch after batch through every scorer, in one pass; and what to say of one that is too big."""

import dataclasses
import itertools
import time
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from chaffinch.pipeline.engines.counters import watch_batch
from chaffinch.pipeline.measuring.batches import LoadedScorer, ScoringError, column_batches, read_batches
from chaffinch.pipeline.measuring.feeds import Feed
from chaffinch.pipeline.measuring.spent import Effort, Spent
from chaffinch.pipeline.tables import TableBuilder
from chaffinch.scoring.devices import free_memory, is_out_of_memory
from chaffinch.scoring.scorer import Batch, Column

_LONGEST_REASON = 400


class MemoryShortage(Exception):  # noqa: N818  # errors are what should not happen; this is to be expected
    """A batch does not fit into memory; the message says of which scorer and shard, and which size would fit."""


def measure(
    path: str,
    samples: pa.Table,
    scorers: Sequence[LoadedScorer],
    batch_size: int,
    spent: Spent | None = None,
    feeds: Mapping[str, Feed] | None = None,
) -> Mapping[str, pa.Table]:
    """Measures one shard with several scorers in one pass; the plain function behind the job.

    Args:
        path: the shard, on the local disk.
        samples: its samples table, s rows.
        scorers: loaded scorers.
        batch_size: rows of the samples table that are scored at once.
        spent: what each scorer does is added to.
        feeds: folder -> the columns its scorer reads, and its rows; no columns and all usable rows by default.

    Returns:
        Each scorer's folder and its table of s rows: the scorer's columns, null where rejected or skipped, and reject.

    Raises:
        ShardError: the shard is not what was indexed, or cannot be read.
        MemoryShortage: a batch does not fit into memory.
        ScoringError: a scorer fails or breaks its contract; names it and the samples.
    """
    spent = Spent() if spent is None else spent
    usable = pc.is_null(samples["reject"]).to_numpy()
    feeds = feeds or {one.folder: Feed({}, usable) for one in scorers}
    builders = {one.folder: TableBuilder(one.scorer, samples) for one in scorers}
    for folder, feed in feeds.items():
        if feed.known is not None and feed.copied is not None:
            builders[folder].copy(feed.known, feed.copied)
    readers = [one for one in scorers if one.reads_samples and feeds[one.folder].rows.any()]
    others = [one for one in scorers if not one.reads_samples]
    preparing: dict[str, float] = {}
    batches = itertools.chain(
        read_batches(path, samples, readers, batch_size, feeds, preparing) if readers else (),
        column_batches(samples, others, batch_size, feeds) if others else (),
    )
    for parts in batches:
        for one in scorers:
            if one.folder not in parts:
                continue
            rows, batch, rejects = parts[one.folder]
            builders[one.folder].reject(rejects)
            effort = spent.effort(one.wanted.name)
            effort.rejects += len(rejects)
            if len(batch):
                began = time.perf_counter()
                _add(one, rows, batch, batch_size, builders[one.folder])
                seconds = time.perf_counter() - began
                effort.merge(Effort(len(batch), 0, batch_size, seconds))
                watch_batch(one.wanted.name, seconds, len(batch) / batch_size)
    for one in scorers:
        spent.effort(one.wanted.name).preparing += preparing.get(one.folder, 0.0)
    return {one.folder: one.wanted.mark(builders[one.folder].finish()) for one in scorers}


def _add(one: LoadedScorer, rows: Sequence[int], batch: Batch, batch_size: int, builder: TableBuilder) -> None:
    """Scores a batch into a table; where that fails, finds out which sample is at fault.

    Args:
        one: the scorer.
        rows: (n,) the samples' rows in the samples table.
        batch: n samples.
        batch_size: what `run.batch_size` says.
        builder: of the scorer's table.

    Raises:
        MemoryShortage: the batch does not fit.
        ScoringError: the scorer fails or breaks its contract.
    """
    try:
        builder.add(rows, _score(one, batch, batch_size))
    except MemoryShortage:
        raise
    except Exception as error:
        reason = f"scorer {one.wanted.name} failed: {type(error).__name__}: {' '.join(str(error).split())}"
        keys = builder.samples["key"]
        alone = _first_that_fails(one, batch)
        if alone is not None:
            place = f"sample {keys[rows[alone]]} fails alone too"
        else:
            place = f"in the batch of {len(batch)} samples from {keys[rows[0]]} to {keys[rows[-1]]}, none of them alone"
        raise ScoringError(f"{reason} ({place})") from error


def _first_that_fails(one: LoadedScorer, batch: Batch) -> int | None:
    """Position of the first sample that cannot be scored by itself; the run ends anyway, so that time is no matter."""
    for position in range(len(batch)):
        try:
            one.scorer.score(_part(batch, position, position + 1), one.model)
        except Exception:
            return position
    return None


def _score(one: LoadedScorer, batch: Batch, batch_size: int) -> Mapping[str, Column]:
    """Scores a batch, and finds out how many samples would have fitted if memory is short.

    Numbers may depend on the size of a batch in their last bits, so it is never changed here.

    Args:
        one: the scorer.
        batch: n samples.
        batch_size: what `run.batch_size` says.

    Returns:
        The scorer's columns, n values each.

    Raises:
        MemoryShortage: they do not fit.
    """
    try:
        return one.scorer.score(batch, one.model)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
    # Outside the handler: the error holds on to all that was being computed.
    fitting = _largest_that_fits(one, batch)
    advice = "not even one of them fits: take a smaller model, or a device with more memory"
    if fitting:
        advice = (
            f"{fitting} of them fit: set run.batch_size={fitting}, or less; it is never changed unasked, since numbers "
            "depend on it in their last bits"
        )
    raise MemoryShortage(
        f"scorer {one.wanted.name} ran out of memory on a batch of {len(batch)} samples (run.batch_size={batch_size}); "
        f"{advice} ({reason})"
    )


def _largest_that_fits(one: LoadedScorer, batch: Batch) -> int:
    """How many of a batch's samples, from the first, can be scored at once; all of them are too many."""
    fitting, too_many = 0, len(batch)
    while too_many - fitting > 1:
        middle = (fitting + too_many) // 2
        free_memory()
        try:
            one.scorer.score(_part(batch, 0, middle), one.model)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            too_many = middle
        else:
            fitting = middle
    return fitting


def _part(batch: Batch, start: int, end: int) -> Batch:
    parts = {name: getattr(batch, name)[start:end] for name in ("uids", "captions", "pictures")}
    columns = {name: values[start:end] for name, values in batch.columns.items()}
    return dataclasses.replace(batch, **parts, columns=columns)
