"""Columns made elsewhere: the parquet beside each shard, or files for the whole pool that are joined on uid."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from chaffinch.pipeline.shards import Shard
from chaffinch.pipeline.storage import files, listings, parquet


@dataclass(frozen=True)
class Metadata:
    """Where a pool's own columns come from.

    Attributes:
        source: "beside" for `<shard>.parquet` next to each shard, "none", or a glob of parquet files.
    """

    source: str

    def path_beside(self, shard: Shard) -> str:
        """The parquet beside a shard."""
        return shard.path.removesuffix(".tar") + ".parquet"

    def available(self, shards: Sequence[Shard]) -> dict[str, pa.DataType]:
        """Which columns there are, from the first file found.

        Args:
            shards: the pool.

        Returns:
            Column -> arrow type; empty where there is no metadata.
        """
        if self.source == "none":
            return {}
        if self.source == "beside":
            path = next((path for path in map(self.path_beside, shards) if files.exists(path)), None)
        else:
            path = next((info.path for info in listings.listing(self.source)), None)
        return {} if path is None else {field.name: field.type for field in parquet.open_table(path).schema_arrow}

    def listed(self, shards: Sequence[Shard]) -> list[list[str | int | float]]:
        """What a listing says about the files: path, size and time of change; tells whether any is another one."""
        if self.source == "beside":
            folders = sorted({shard.path.rpartition("/")[0] for shard in shards})
            infos = [info for folder in folders for info in listings.listing(files.join(folder, "*.parquet"))]
            wanted = {self.path_beside(shard) for shard in shards}
            infos = [info for info in infos if info.path in wanted]
        else:
            infos = listings.listing(self.source)
        return [[info.path, info.size, info.modified] for info in infos]

    def read(self, shard: Shard, samples: pa.Table, columns: Sequence[str]) -> dict[str, pa.Array]:
        """Reads a shard's columns in the order of its samples.

        Beside a shard rows are found by `key` where there is such a column, otherwise by `uid`.

        Args:
            shard: the shard.
            samples: uid, key and reject of its s samples.
            columns: which columns.

        Returns:
            Column -> s values; null for rejected samples and those without metadata.
        """
        if self.source == "beside":
            path = self.path_beside(shard)
            if not files.exists(path):
                return {name: pa.nulls(samples.num_rows) for name in columns}
            known = parquet.open_table(path).schema_arrow.names
            on = "key" if "key" in known else "uid"
            table = parquet.read_table(path, [on, *columns])
        else:
            on, table = "uid", _read_all(self.source, tuple(columns))
        # Others write keys as whole numbers or in arrow's other types for text, and uids in capitals.
        known_as = table[on].cast(pa.string()).combine_chunks()
        known_as = pc.utf8_lower(known_as) if on == "uid" else known_as
        found = pc.index_in(samples[on].combine_chunks(), value_set=known_as)
        found = pc.if_else(pc.is_null(samples["reject"].combine_chunks()), found, pa.scalar(None, pa.int32()))
        return {name: table[name].combine_chunks().take(found) for name in columns}


@functools.lru_cache(maxsize=1)
def _read_all(pattern: str, columns: tuple[str, ...]) -> pa.Table:
    """All files of a glob; held by each worker, so its size bounds the pools this is for."""
    tables = [parquet.read_table(info.path, ["uid", *columns]) for info in listings.listing(pattern)]
    return pa.concat_tables(tables).combine_chunks()
