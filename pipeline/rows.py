"""The rows of one shard as the filters see them: scores, and what is rejected; read from tables, never from pixels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chaffinch.filters.filter import Filter
from chaffinch.pipeline import files
from chaffinch.pipeline.metadata import Metadata
from chaffinch.pipeline.repeats import parse_uids
from chaffinch.pipeline.shards import Shard
from chaffinch.pipeline.store import Store

REPEATED = "uid is repeated"


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
            samples: uid, key and reject of its s samples.
            names: columns as `<scorer>.<column>`.

        Returns:
            Name -> s values.
        """
        wanted: dict[str, list[str]] = {}
        for name in names:
            scorer, _, column = name.partition(".")
            wanted.setdefault(scorer, []).append(column)
        found: dict[str, pa.Array] = {}
        for scorer, columns in wanted.items():
            if scorer == "metadata":
                values: Mapping[str, pa.Array] = self.metadata.read(shard, samples, columns)
            else:
                table = files.read_table(self.store.scores(self.tables[scorer], shard.name), columns)
                values = {column: table[column].combine_chunks() for column in columns}
            found |= {f"{scorer}.{column}": values[column] for column in columns}
        return found

    def rejects(self, shard: Shard, samples: pa.Table) -> pa.Array:
        """Why samples cannot be used: the samples table's reason, else that of the first scorer that has one."""
        reject = samples["reject"].combine_chunks()
        for folder in self.tables.values():
            found = files.read_table(self.store.scores(folder, shard.name), ["reject"])["reject"].combine_chunks()
            if found.null_count < len(found):
                reject = pc.coalesce(reject, found)
        return reject


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
        samples: uid, key and reject of its s samples.
        reject: (s,) reasons, null where a sample can be used.
        usable: (s,) bool.
        scores: (m,) one array of s float32 scores per filter.
    """

    samples: pa.Table
    reject: pa.Array
    usable: np.ndarray
    scores: list[np.ndarray]

    @classmethod
    def read(cls, part: Part, source: Source, filters: Sequence[Filter]) -> "Rows":
        """Reads what the filters need of a shard.

        Args:
            part: the shard and its repeated rows.
            source: where columns come from.
            filters: (m,) filters.
        """
        samples = files.read_table(source.store.samples(part.shard.name), ["uid", "key", "reject"])
        reject = source.rejects(part.shard, samples)
        if part.repeated:
            repeats = np.zeros(len(reject), bool)
            repeats[list(part.repeated)] = True
            reject = pc.if_else(pa.array(repeats), pa.scalar(REPEATED), reject)
        needed = dict.fromkeys(name for judge in filters for name in judge.reads)
        columns = source.columns(part.shard, samples, list(needed))
        scores = [judge.score(columns) for judge in filters]
        return cls(samples, reject, pc.is_null(reject).to_numpy(zero_copy_only=False), scores)

    def uids(self) -> np.ndarray:
        """(s, 2) uint64, the samples' uids."""
        return parse_uids(self.samples["uid"])
