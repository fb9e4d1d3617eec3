"""The rows of one shard as the filters see them: scores, and what is rejected; read from tables, never from pixels."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chaffinch.filters.filter import Filter
from chaffinch.pipeline.metadata import Metadata
from chaffinch.pipeline.repeats import parse_uids
from chaffinch.pipeline.shards import Shard
from chaffinch.pipeline.storage import parquet
from chaffinch.pipeline.store import Store

REPEATED = "uid is repeated"


class FilterError(Exception):
    """A filter broke its contract; the message names it and the shard."""


@dataclass(frozen=True)
class Source:
    """Where the columns of a pool come from.

    Attributes:
        store: the store.
        tables: scorer name -> folder of its tables.
        metadata: columns made elsewhere.
    """

    store: Store
    tables: Mapping[str, str]
    metadata: Metadata

    def columns(self, shard: Shard, samples: pa.Table, names: Sequence[str]) -> dict[str, pa.Array]:
        """Reads columns of a shard.

        Args:
            shard: the shard.
            samples: uid, key and reject of its s samples; not looked at unless a name is of them or of the metadata.
            names: columns as `<scorer>.<column>`; `samples.uid` and `samples.key` are those of the samples.

        Returns:
            Name -> s values.
        """
        return self._read(shard, samples, names, None)[0]

    def columns_and_rejects(
        self, shard: Shard, samples: pa.Table, names: Sequence[str]
    ) -> tuple[dict[str, pa.Array], pa.Array]:
        """Reads columns of a shard, and why samples cannot be used.

        Args:
            shard: the shard.
            samples: reject of its s samples, and uid and key if a name is of them or of the metadata.
            names: columns as `<scorer>.<column>`.

        Returns:
            Name -> s values; and (s,) reasons: the samples table's, else that of the first scorer that has one.
        """
        columns, reject = self._read(shard, samples, names, samples["reject"].combine_chunks())
        assert reject is not None
        return columns, reject

    def _read(
        self, shard: Shard, samples: pa.Table, names: Sequence[str], reject: pa.Array | None
    ) -> tuple[dict[str, pa.Array], pa.Array | None]:
        # Every table is opened once, for that takes as long as reading a column.
        wanted: dict[str, list[str]] = {} if reject is None else {scorer: [] for scorer in self.tables}
        for name in names:
            scorer, _, column = name.partition(".")
            wanted.setdefault(scorer, []).append(column)
        found: dict[str, pa.Array] = {}
        for scorer, columns in wanted.items():
            if scorer == "samples":
                values: Mapping[str, pa.Array] = {column: samples[column].combine_chunks() for column in columns}
            elif scorer == "metadata":
                values = self.metadata.read(shard, samples, columns)
            else:
                reading = columns if reject is None else [*columns, "reject"]
                table = parquet.read_table(self.store.scores(self.tables[scorer], shard.name), reading)
                values = {column: table[column].combine_chunks() for column in reading}
                if reject is not None and not values["reject"].equals(reject):
                    reject = pc.coalesce(reject, values["reject"])
            found |= {f"{scorer}.{column}": values[column] for column in columns}
        return found, reject


@dataclass(frozen=True)
class Part:
    """One shard's share of the work of deciding.

    Attributes:
        number: its position in shard order.
        shard: the shard.
        repeated: rows that repeat an earlier sample's uid.
    """

    number: int
    shard: Shard
    repeated: tuple[int, ...] = ()


@dataclass
class Rows:
    """One shard, ready to be judged.

    Attributes:
        samples: reject of its s samples, and what else was asked for.
        reject: (s,) reasons, null where a sample can be used.
        usable: (s,) bool.
        scores: (m,) one array of s float32 scores per filter.
        seconds: (m,) how long each filter took.
    """

    samples: pa.Table
    reject: pa.Array
    usable: np.ndarray
    scores: list[np.ndarray]
    seconds: list[float]

    @classmethod
    def read(cls, part: Part, source: Source, filters: Sequence[Filter], also: Sequence[str] = ()) -> "Rows":
        """Reads what the filters need of a shard.

        Args:
            part: the shard and its repeated rows.
            source: where columns come from.
            filters: (m,) filters.
            also: further columns of the samples table.
        """
        needed = _needed(filters)
        samples = _read_samples(part, source, needed, {"reject", *also})
        columns, reject = source.columns_and_rejects(part.shard, samples, needed)
        if part.repeated:
            repeats = np.zeros(len(reject), bool)
            repeats[list(part.repeated)] = True
            reject = pc.if_else(pa.array(repeats), pa.scalar(REPEATED), reject)
        scores, seconds = [], []
        for judge in filters:
            began = time.perf_counter()
            scores.append(_score(judge, columns, part.shard))
            seconds.append(time.perf_counter() - began)
        return cls(samples, reject, pc.is_null(reject).to_numpy(zero_copy_only=False), scores, seconds)


def read_scores(part: Part, source: Source, filters: Sequence[Filter]) -> list[np.ndarray]:
    """Reads scores alone, of samples that cannot be used too.

    Args:
        part: the shard.
        source: where columns come from.
        filters: (m,) filters.

    Returns:
        (m,) one array of s float32 scores per filter.
    """
    needed = _needed(filters)
    columns = source.columns(part.shard, _read_samples(part, source, needed, set()), needed)
    return [_score(judge, columns, part.shard) for judge in filters]


def read_counts(part: Part, source: Source, filters: Sequence[Filter]) -> list[Any]:
    """Lets filters count what they learn from, of samples that cannot be used too.

    Args:
        part: the shard.
        source: where columns come from.
        filters: (m,) filters that learn.

    Returns:
        (m,) statistics with `merge`.

    Raises:
        FilterError: one fails; names it and the shard.
    """
    needed = _needed(filters)
    columns = source.columns(part.shard, _read_samples(part, source, needed, set()), needed)
    counted = []
    for judge in filters:
        try:
            counted.append(judge.count(columns))
        except Exception as error:
            place = f"filter kind {judge.kind} on shard {part.shard.name}"
            raise FilterError(f"{place}: {type(error).__name__}: {error}") from error
    return counted


def _score(judge: Filter, columns: Mapping[str, pa.Array], shard: Shard) -> np.ndarray:
    """One filter's scores; FilterError names filter and shard where it breaks its contract."""
    place = f"filter kind {judge.kind} on shard {shard.name}"
    try:
        scores = judge.score(columns)
    except Exception as error:
        raise FilterError(f"{place}: {type(error).__name__}: {error}") from error
    rows = len(next(iter(columns.values()))) if columns else None
    wanted = "one float32 for each of the rows of its columns"
    if not isinstance(scores, np.ndarray) or scores.dtype != np.float32:
        kind = f"{scores.dtype}" if isinstance(scores, np.ndarray) else type(scores).__name__
        raise FilterError(f"{place}: score returned {kind}, not {wanted}")
    if rows is not None and scores.shape != (rows,):
        raise FilterError(f"{place}: score returned the shape {scores.shape}, not {wanted}, {rows}")
    return scores


def count_rows(part: Part, source: Source) -> int:
    """How many samples were found in a shard."""
    rows: int = parquet.open_table(source.store.samples(part.shard.name)).metadata.num_rows
    return rows


def read_uids(part: Part, source: Source, chosen: np.ndarray | None = None) -> np.ndarray:
    """Reads uids of a shard.

    Args:
        part: the shard.
        source: where its samples table is.
        chosen: (s,) bool, which of its samples; all by default. Nothing is read where there is none.

    Returns:
        (n, 2) uint64.
    """
    if chosen is not None and not chosen.any():
        return np.zeros((0, 2), np.uint64)
    uids = parquet.read_table(source.store.samples(part.shard.name), ["uid"])["uid"]
    return parse_uids(uids if chosen is None or chosen.all() else uids.filter(pa.array(chosen)))


def _needed(filters: Sequence[Filter]) -> list[str]:
    return list(dict.fromkeys(name for judge in filters for name in judge.reads))


def _read_samples(part: Part, source: Source, needed: Sequence[str], wanted: set[str]) -> pa.Table:
    if any(name.startswith(("metadata.", "samples.")) for name in needed):
        wanted = wanted | {"uid", "key", "reject"}
    return parquet.read_table(source.store.samples(part.shard.name), sorted(wanted)) if wanted else pa.table({})
