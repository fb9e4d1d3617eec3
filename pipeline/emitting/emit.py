"""Emitting: kept samples as shards a trainer can read. Plan, then copy by range; nothing is decoded."""

import contextlib
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chaffinch.pipeline.deciding.verdicts import TAKEN_DOWN, decisions_path
from chaffinch.pipeline.emitting import subset
from chaffinch.pipeline.emitting.plan import Block, Input, Plan
from chaffinch.pipeline.emitting.spool import Kept, SampleBytes, Spool
from chaffinch.pipeline.emitting.subset import count_beginnings
from chaffinch.pipeline.repeats import parse_uids
from chaffinch.pipeline.rows import Source
from chaffinch.pipeline.storage import files, listings, parquet
from chaffinch.pipeline.storage.ustar import archive_size, end_archive, member_blocks, output_names

if TYPE_CHECKING:
    from chaffinch.pipeline.engines.engine import Engine

SHARD_FORMAT = "{:08d}.tar"
_META = "meta.json"  # there only when all the rest is
_OUTPUT = re.compile(r"(\d{8})(\.tar|\.parquet|_stats\.json)")


@dataclass
class Emitted:
    """What was written.

    Attributes:
        sizes: output shard -> samples in it.
        uids: uids of samples in (n, 2) uint64 parts; none where there are too many for one memory.
        beginnings: (4096,) how many uids begin in each way.
        empty: output shards whose samples were all taken down, with what would lie beside them: a table of no rows.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    uids: list[np.ndarray] = field(default_factory=list)
    beginnings: np.ndarray = field(default_factory=lambda: count_beginnings([]))
    empty: dict[str, pa.Table] = field(default_factory=dict)

    def merge(self, other: Self) -> Self:
        """Adds another block's part."""
        self.sizes |= other.sizes
        self.uids += other.uids
        self.beginnings = self.beginnings + other.beginnings
        self.empty |= other.empty
        return self


@dataclass(frozen=True)
class EmitBlock:
    """Writes a few output shards, unless they are there as they should be.

    Attributes:
        source: where columns come from.
        output: the experiment's folder.
        scores: columns that are written beside the samples, as `<scorer>.<column>`.
        brings_uids: whether all uids fit into one memory, so that they need not be read again.
    """

    source: Source
    output: str
    scores: tuple[str, ...]
    brings_uids: bool = True

    def __call__(self, block: Block) -> Emitted:
        """Writes one block."""
        sources = block.sources()
        wanted = np.sort(sources)
        kept = [part for one in block.inputs if len((part := self._kept(one, wanted)).sources)]
        table = _joined([part.table for part in kept])
        # Rows in input order; where each sample of the output lies among them:
        rows = np.searchsorted(np.concatenate([part.sources for part in kept]), sources)
        present = np.concatenate([part.present for part in kept])
        owners = np.repeat(np.arange(len(kept)), [len(part.sources) for part in kept])
        bounds = np.concatenate([[0], np.cumsum(block.sizes)])
        outputs = {}
        for number, (low, high) in enumerate(itertools.pairwise(bounds)):
            placed = rows[low:high]
            content = "".join(kept[owner].content for owner in np.unique(owners[placed[present[placed]]]))
            outputs[SHARD_FORMAT.format(block.first + number)] = _Output(table, placed, present[placed], content)
        stale = {name: one for name, one in outputs.items() if len(one.rows) and not self._is_there(name, one)}
        if stale:
            files.remove(self._path(_META))
            with contextlib.ExitStack() as stack:
                direct = stack.enter_context(SampleBytes(kept))
                samples: SampleBytes | Spool = direct
                if block.shuffle_seed is not None:
                    needed = np.unique(np.concatenate([one.rows for one in stale.values()]))
                    samples = stack.enter_context(Spool(direct, table, needed))
                for name, one in stale.items():
                    self._write(name, one, samples)
        sizes = {name: len(one.rows) for name, one in outputs.items()}
        uids = [parse_uids(table["uid"].take(pa.array(one.rows))) for one in outputs.values()]
        empty = {name: one.chosen for name, one in outputs.items() if not sizes[name]}
        return Emitted(sizes, uids if self.brings_uids else [], count_beginnings(uids), empty)

    def write_empty(self, name: str, nothing: pa.Table) -> None:
        """Writes an output shard without samples, unless it is there, so that the numbers of the others have no gap.

        Args:
            name: the shard.
            nothing: no rows of what would lie beside it.
        """
        one = _Output(nothing, np.zeros(0, np.int64), np.zeros(0, bool), "")
        if not self._is_there(name, one):
            files.remove(self._path(_META))
            with SampleBytes([]) as samples:
                self._write(name, one, samples)

    def _kept(self, one: Input, wanted: np.ndarray) -> Kept:
        """Reads which samples of an input shard have a place, and where their bytes are."""
        name = one.shard.name
        reading = ["keep", "probability", *(["reason"] if one.taken_down else [])]
        decisions = parquet.read_table(decisions_path(self.output, name), reading)
        keep = decisions["keep"].to_numpy()
        placed = keep
        if one.taken_down:
            placed = keep | pc.starts_with(decisions["reason"].fill_null(""), TAKEN_DOWN).to_numpy()
        rows = np.flatnonzero(placed)
        low, high = np.searchsorted(wanted, [one.start, one.start + len(rows)])
        sources = wanted[low:high]
        rows = rows[sources - one.start]
        samples = parquet.read_table(self.source.store.samples(name))
        scores = self.source.columns(one.shard, samples, self.scores)
        table = samples.select(["uid", "key", "members", "offsets", "sizes"])
        table = table.append_column("source_shard", pa.array([name] * samples.num_rows, pa.string()))
        table = table.append_column("probability", decisions["probability"])
        for column, values in scores.items():
            table = table.append_column(column, values)
        content = samples.schema.metadata[b"content"].decode()
        table = table.take(pa.array(rows)).replace_schema_metadata()
        return Kept(one.shard.path, content, table, sources, keep[rows])

    def _path(self, name: str) -> str:
        return files.join(self.output, "shards", name)

    def _is_there(self, name: str, one: "_Output") -> bool:
        """Whether an output shard was made from this and is as long as it was then; its statistics are written last."""
        path = self._path(name.replace(".tar", "_stats.json"))
        archive = listings.info(self._path(name))
        if archive is None or not files.exists(path) or not files.exists(self._path(name.replace(".tar", ".parquet"))):
            return False
        try:
            found = json.loads(files.read_bytes(path))["digest"]
        except (ValueError, TypeError, KeyError):
            return False
        sizes = pc.list_flatten(one.chosen["sizes"])
        return bool(found == one.digest and archive.size == archive_size(sizes.to_numpy()))

    def _write(self, name: str, one: "_Output", samples: SampleBytes | Spool) -> None:
        statistics = self._path(name.replace(".tar", "_stats.json"))
        files.remove(statistics)
        chosen, keys = one.chosen, []
        spans = (chosen[column].to_pylist() for column in ("offsets", "sizes"))
        with files.writing(self._path(name)) as file:
            for row, (key, names), offsets, sizes in zip(one.rows.tolist(), one.names(), *spans, strict=True):
                keys.append(key)
                data = samples.read(row, offsets[0], offsets[-1] + sizes[-1])
                blocks: list[bytes | memoryview] = []
                for member, offset, size in zip(names, offsets, sizes, strict=True):
                    blocks += member_blocks(member, data[offset - offsets[0] : offset - offsets[0] + size])
                file.write(b"".join(blocks))  # many small writes would take longer
            end_archive(file)
        beside = chosen.drop_columns(["members", "offsets", "sizes"])
        beside = beside.set_column(1, "key", pa.array(keys, pa.string()))
        parquet.write_table(self._path(name.replace(".tar", ".parquet")), beside)
        counts = {"count": len(keys), "successes": len(keys), "failed_to_download": 0, "failed_to_resize": 0}
        files.write_bytes(statistics, json.dumps(counts | {"digest": one.digest}).encode())


class _Output:
    """What an output shard is to hold."""

    def __init__(self, table: pa.Table, placed: np.ndarray, present: np.ndarray, content: str) -> None:
        """Chooses its samples.

        Args:
            table: what `Kept` has, of all samples of the block.
            placed: (p,) which of them have a place in it, in order.
            present: (p,) bool, which of those it holds; the others were taken down.
            content: digests of the input shards they lie in.
        """
        self.rows = placed[present]
        self.chosen = table.take(pa.array(self.rows))
        self._named, self._present = self.chosen, present
        absent: list[str] = []
        if not present.all():
            self._named = table.select(["key", "uid", "members"]).take(pa.array(placed))
            absent = self._named["key"].filter(pa.array(~present)).to_pylist()
        self.digest = _digest(self.chosen, "".join([content, *absent]))

    def names(self) -> list[tuple[str, list[str]]]:
        """The key and the members' names of each sample: what they were with those that were taken down among them."""
        keys, uids, members = (self._named[column].to_pylist() for column in ("key", "uid", "members"))
        taken: set[str] = set()
        found = [output_names(key, uid, names, taken) for key, uid, names in zip(keys, uids, members, strict=True)]
        return [named for named, present in zip(found, self._present.tolist(), strict=True) if present]


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    """One table of several, whose metadata may differ in type, or be missing here and there."""
    table = pa.concat_tables(tables, promote_options="permissive")
    missing = [(field.name, pa.float32()) for field in table.schema if pa.types.is_null(field.type)]
    return table.cast(pa.schema([(field.name, dict(missing).get(field.name, field.type)) for field in table.schema]))


def _digest(chosen: pa.Table, content: str) -> str:
    """Names what an output shard is made from: its samples, what is written beside them, and their bytes' origin."""
    digest = hashlib.sha256(content.encode())
    digest.update(str(chosen.schema).encode())
    for name in chosen.schema.names:
        for buffer in chosen[name].combine_chunks().buffers():
            if buffer is not None:
                digest.update(buffer)
    return digest.hexdigest()[:16]


def emit(engine: "Engine", plan: Plan, source: Source, output: str, scores: Sequence[str]) -> Emitted:
    """Writes kept samples as shards, with everything a trainer or DataComp's tools expect beside them.

    Output shards that are there as they should be are left alone; those of a larger predecessor are removed. A shard
    whose samples were all taken down is removed where it is the last, and otherwise left empty.

    Args:
        engine: where to run.
        plan: what goes where.
        source: where columns come from.
        output: the experiment's folder.
        scores: columns that are written beside the samples.

    Returns:
        What is there now.

    Raises:
        RuntimeError: fewer or more samples arrived than were kept.
    """
    from chaffinch.pipeline.engines.engine import (
        add_up,  # worker processes need no Beam, which takes a second to import
    )

    folder = files.join(output, "shards")
    at_once = plan.total <= subset.MOST_AT_ONCE
    work = EmitBlock(source, output, tuple(scores), at_once)
    emitted = add_up(engine, "Emit shards", plan.blocks(), work, output) or Emitted()
    if sum(emitted.sizes.values()) != plan.total:
        raise RuntimeError(f"{plan.total} samples were kept, but {sum(emitted.sizes.values())} were emitted")
    sizes = dict(sorted(emitted.sizes.items()))
    while sizes and not sizes[max(sizes)]:
        del sizes[max(sizes)]
    for name in sorted(emitted.empty.keys() & sizes.keys()):
        work.write_empty(name, emitted.empty[name])
    _remove_beyond(folder, len(sizes))
    emitted.sizes = sizes
    files.write_changed(files.join(folder, "sizes.json"), json.dumps(sizes, indent=1).encode())
    path = files.join(output, "sample_ids.npy")
    if at_once:
        files.write_changed(path, subset.subset_file(emitted.uids))
    else:
        names = [name.removesuffix(".tar") for name in sizes]

        def count(label: str, items: Sequence[str], function: Callable[[str], Any]) -> Any:
            return add_up(engine, label, items, function, output)

        subset.write_in_turns(path, folder, names, emitted.beginnings, count)
    meta = {"output_shard_count": len(sizes), "output_shard_format": SHARD_FORMAT}
    files.write_changed(files.join(folder, _META), json.dumps(meta).encode())
    return emitted


def _remove_beyond(folder: str, count: int) -> None:
    for name in listings.names_below(folder):
        match = _OUTPUT.fullmatch(name)
        if match and int(match[1]) >= count:
            files.remove(files.join(folder, _META))
            files.remove(files.join(folder, name))
