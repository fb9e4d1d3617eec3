"""Emitting: kept samples as shards a trainer can read. Plan, then copy by range; nothing is decoded."""

import bisect
import contextlib
import hashlib
import io
import itertools
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chaffinch.pipeline import files
from chaffinch.pipeline.plan import Block, Input, Plan
from chaffinch.pipeline.repeats import parse_uids
from chaffinch.pipeline.rows import Source
from chaffinch.pipeline.ustar import archive_size, end_archive, member_blocks, output_names
from chaffinch.pipeline.verdicts import decisions_path

if TYPE_CHECKING:
    from chaffinch.pipeline.runner import Engine

SHARD_FORMAT = "{:08d}.tar"
_META = "meta.json"  # there only when all the rest is
_OUTPUT = re.compile(r"(\d{8})(\.tar|\.parquet|_stats\.json)")
_UID_TYPE = np.dtype("u8,u8")


@dataclass
class Emitted:
    """What was written.

    Attributes:
        sizes: output shard -> samples in it.
        uids: uids of samples in (n, 2) uint64 parts.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    uids: list[np.ndarray] = field(default_factory=list)

    def merge(self, other: Self) -> Self:
        """Adds another block's part."""
        self.sizes |= other.sizes
        self.uids += other.uids
        return self


@dataclass(frozen=True)
class Kept:
    """The kept samples of one input shard that a block needs.

    Attributes:
        path: the shard.
        content: digest of what was listed when it was measured.
        table: uid, key, members, offsets, sizes, source_shard, probability and scores, n rows.
        sources: (n,) positions in input order, ascending.
    """

    path: str
    content: str
    table: pa.Table
    sources: np.ndarray


@dataclass(frozen=True)
class EmitBlock:
    """Writes a few output shards, unless they are there as they should be.

    Attributes:
        source: where columns come from.
        output: the experiment's folder.
        scores: columns that are written beside the samples, as `<scorer>.<column>`.
    """

    source: Source
    output: str
    scores: tuple[str, ...]

    def __call__(self, block: Block) -> Emitted:
        """Writes one block."""
        sources = block.sources()
        wanted = np.sort(sources)
        kept = [part for one in block.inputs if len((part := self._kept(one, wanted)).sources)]
        table = _joined([part.table for part in kept])
        # Rows in input order; where each sample of the output lies among them:
        rows = np.searchsorted(np.concatenate([part.sources for part in kept]), sources)
        bounds = np.concatenate([[0], np.cumsum(block.sizes)])
        names = [SHARD_FORMAT.format(block.first + number) for number in range(len(block.sizes))]
        outputs = [rows[low:high] for low, high in itertools.pairwise(bounds)]
        content = "".join(part.content for part in kept)
        digests = [_digest(table.take(pa.array(chosen)), content) for chosen in outputs]
        stale = [
            number
            for number, name in enumerate(names)
            if not self._is_there(name, digests[number], table, outputs[number])
        ]
        if stale:
            files.remove(self._path(_META))
            with contextlib.ExitStack() as stack:
                direct = stack.enter_context(_Bytes(kept))
                shuffled = block.shuffle_seed is not None
                samples = stack.enter_context(_Spool(direct, table)) if shuffled else direct
                for number in stale:
                    self._write(names[number], table, outputs[number], samples, digests[number])
        uids = [parse_uids(table["uid"].take(pa.array(chosen))) for chosen in outputs]
        return Emitted(dict(zip(names, block.sizes, strict=True)), uids)

    def _kept(self, one: Input, wanted: np.ndarray) -> Kept:
        """Reads which samples of an input shard are kept, and where their bytes are."""
        name = one.shard.name
        decisions = files.read_table(decisions_path(self.output, name), ["keep", "probability"])
        rows = np.flatnonzero(decisions["keep"].to_numpy())
        low, high = np.searchsorted(wanted, [one.start, one.start + len(rows)])
        sources = wanted[low:high]
        chosen = pa.array(rows[sources - one.start])
        samples = files.read_table(self.source.store.samples(name))
        scores = self.source.columns(one.shard, samples, self.scores)
        table = samples.select(["uid", "key", "members", "offsets", "sizes"])
        table = table.append_column("source_shard", pa.array([name] * samples.num_rows, pa.string()))
        table = table.append_column("probability", decisions["probability"])
        for column, values in scores.items():
            table = table.append_column(column, values)
        content = samples.schema.metadata[b"content"].decode()
        return Kept(one.shard.path, content, table.take(chosen).replace_schema_metadata(), sources)

    def _path(self, name: str) -> str:
        return files.join(self.output, "shards", name)

    def _is_there(self, name: str, digest: str, table: pa.Table, rows: np.ndarray) -> bool:
        """Whether an output shard was made from this and is as long as it was then; its statistics are written last."""
        path = self._path(name.replace(".tar", "_stats.json"))
        archive = files.info(self._path(name))
        if archive is None or not files.exists(path) or not files.exists(self._path(name.replace(".tar", ".parquet"))):
            return False
        try:
            found = json.loads(files.read_bytes(path))["digest"]
        except (ValueError, TypeError, KeyError):
            return False
        sizes = pc.list_flatten(table["sizes"].take(pa.array(rows)))
        return bool(found == digest and archive.size == archive_size(sizes.to_numpy()))

    def _write(self, name: str, table: pa.Table, rows: np.ndarray, samples: "_Bytes | _Spool", digest: str) -> None:
        statistics = self._path(name.replace(".tar", "_stats.json"))
        files.remove(statistics)
        chosen = table.take(pa.array(rows))
        columns = {column: chosen[column].to_pylist() for column in ("uid", "key", "members", "offsets", "sizes")}
        taken: set[str] = set()
        keys = []
        with files.writing(self._path(name)) as file:
            for row, uid, key, members, offsets, sizes in zip(rows.tolist(), *columns.values(), strict=True):
                key, names = output_names(key, uid, members, taken)
                keys.append(key)
                data = samples.read(row, offsets[0], offsets[-1] + sizes[-1])
                blocks: list[bytes | memoryview] = []
                for member, offset, size in zip(names, offsets, sizes, strict=True):
                    blocks += member_blocks(member, data[offset - offsets[0] : offset - offsets[0] + size])
                file.write(b"".join(blocks))  # many small writes would take longer
            end_archive(file)
        beside = chosen.drop_columns(["members", "offsets", "sizes"])
        beside = beside.set_column(1, "key", pa.array(keys, pa.string()))
        files.write_table(self._path(name.replace(".tar", ".parquet")), beside)
        counts = {"count": len(rows), "successes": len(rows), "failed_to_download": 0, "failed_to_resize": 0}
        files.write_bytes(statistics, json.dumps(counts | {"digest": digest}).encode())


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


class _Bytes:
    """The bytes of kept samples, by row."""

    def __init__(self, kept: Sequence[Kept]) -> None:
        self._ends = list(itertools.accumulate(len(part.sources) for part in kept))
        self._paths = [part.path for part in kept]
        self._open: tuple[int, BinaryIO] | None = None

    def read(self, row: int, start: int, end: int) -> memoryview:
        """The bytes from `start` to `end` of the shard that holds a row."""
        number = bisect.bisect_right(self._ends, row)
        if self._open is None or self._open[0] != number:
            self.close()
            self._open = (number, files.open_binary(self._paths[number]))
        file = self._open[1]
        file.seek(start)
        data = file.read(end - start)
        if len(data) != end - start:
            raise OSError(f"{self._paths[number]} ends at byte {start + len(data)}; it changed since it was scored")
        return memoryview(data)

    def close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def __enter__(self) -> "_Bytes":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Spool:
    """A copy of a block's samples in one temporary file, for outputs that read them in shuffled order.

    Made in input order, so that every input shard is opened once and read forwards.
    """

    def __init__(self, samples: _Bytes, table: pa.Table) -> None:
        self._file = tempfile.TemporaryFile(prefix="chaffinch-")  # noqa: SIM115  # closed by __exit__
        ends = []
        spans = zip(table["offsets"].to_pylist(), table["sizes"].to_pylist(), strict=True)
        for row, (offsets, sizes) in enumerate(spans):
            self._file.write(samples.read(row, offsets[0], offsets[-1] + sizes[-1]))
            ends.append(self._file.tell())
        self._starts = [0, *ends]

    def read(self, row: int, start: int, end: int) -> memoryview:
        """The bytes of a row; `start` and `end` are those in its shard."""
        self._file.seek(self._starts[row])
        return memoryview(self._file.read(end - start))

    def __enter__(self) -> "_Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def emit(engine: "Engine", plan: Plan, source: Source, output: str, scores: Sequence[str]) -> Emitted:
    """Writes kept samples as shards, with everything a trainer or DataComp's tools expect beside them.

    Output shards that are there as they should be are left alone; those of a larger predecessor are removed.

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
    from chaffinch.pipeline.runner import add_up  # worker processes need no Beam, which takes a second to import

    folder = files.join(output, "shards")
    work = EmitBlock(source, output, tuple(scores))
    emitted = add_up(engine, "Emit shards", plan.blocks(), work, output) or Emitted()
    if sum(emitted.sizes.values()) != plan.total:
        raise RuntimeError(f"{plan.total} samples were kept, but {sum(emitted.sizes.values())} were emitted")
    _remove_beyond(folder, len(plan.sizes))
    sizes = dict(sorted(emitted.sizes.items()))
    files.write_changed(files.join(folder, "sizes.json"), json.dumps(sizes, indent=1).encode())
    files.write_changed(files.join(output, "sample_ids.npy"), subset_file(emitted.uids))
    meta = {"output_shard_count": len(sizes), "output_shard_format": SHARD_FORMAT}
    files.write_changed(files.join(folder, _META), json.dumps(meta).encode())
    return emitted


def _remove_beyond(folder: str, count: int) -> None:
    for name in files.names_below(folder):
        match = _OUTPUT.fullmatch(name)
        if match and int(match[1]) >= count:
            files.remove(files.join(folder, _META))
            files.remove(files.join(folder, name))


def subset_file(uids: Sequence[np.ndarray]) -> bytes:
    """DataComp's subset file.

    Args:
        uids: (n, 2) uint64 parts, high and low halves.

    Returns:
        An .npy file of n sorted `dtype("u8,u8")`.
    """
    halves = np.concatenate([*uids, np.zeros((0, 2), np.uint64)])
    halves = halves[np.lexsort((halves[:, 1], halves[:, 0]))]
    content = io.BytesIO()
    np.save(content, np.ascontiguousarray(halves).view(_UID_TYPE).ravel())
    return content.getvalue()
