"""What a scorer gets for one shard beside its pictures and captions: columns, which rows to measure, what is known."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chaffinch.pipeline.measuring.gate import Gate
from chaffinch.pipeline.rows import Source
from chaffinch.pipeline.shards import Shard
from chaffinch.pipeline.storage import files, parquet
from chaffinch.scoring.scorer import Scorer

# Entry in a table's schema: the fingerprint it would have if no sample had been skipped.
_UNGATED = b"ungated"


@dataclass(frozen=True)
class Feed:
    """What a scorer gets for one shard of s samples.

    Attributes:
        columns: the columns it reads, s values each.
        rows: (s,) bool, which rows it is to measure.
        known: an older table of the s rows to copy from, if there is any.
        copied: (s,) bool, which rows to copy.
    """

    columns: Mapping[str, pa.Array]
    rows: np.ndarray
    known: pa.Table | None = None
    copied: np.ndarray | None = None


@dataclass(frozen=True)
class Wanted:
    """A scorer whose tables are wanted.

    Attributes:
        name: its name in the config.
        folder: its tables' folder in the store.
        scorer: its settings.
        gate: spares it vetoed samples; None where it measures all.
        ungated: the fingerprint of its tables if there were no gate.
        relatives: folders in which the same numbers may lie, measured behind another gate or none.
    """

    name: str
    folder: str
    scorer: Scorer
    gate: Gate | None = None
    ungated: str = ""
    relatives: tuple[str, ...] = ()

    def feed(self, shard: Shard, samples: pa.Table, source: Source) -> Feed:
        """Finds out what there is to measure in a shard.

        Args:
            shard: the shard.
            samples: its samples table, s rows.
            source: where the tables of the scorers are that this one reads.

        Returns:
            The columns and rows.
        """
        columns = source.columns(shard, samples, self.scorer.reads) if self.scorer.reads else {}
        rows = pc.is_null(samples["reject"]).to_numpy()
        for values in columns.values():
            rows = rows & values.is_valid().to_numpy(zero_copy_only=False)
        if self.gate is None:
            return Feed(columns, rows)
        rows = rows & self.gate.passes(shard)
        known = self._known(shard, samples, rows, source)
        if known is None:
            return Feed(columns, rows)
        copied = rows & _measured(known, samples)
        return Feed(columns, rows & ~copied, known, copied)

    def mark(self, table: pa.Table) -> pa.Table:
        """Notes in a table what it would be called without its gate, so that another gate finds it."""
        return table if self.gate is None else table.replace_schema_metadata({_UNGATED: self.ungated})

    def _known(self, shard: Shard, samples: pa.Table, rows: np.ndarray, source: Source) -> pa.Table | None:
        """The table from behind another gate that holds most of the rows.

        Its numbers may differ in the last bits from those of a first run, whose batches would hold other samples; what
        the scorer promises of its independence of the batch holds.
        """
        found, most = None, 0
        for folder in self.relatives:
            path = source.store.scores(folder, shard.name)
            if not files.exists(path):
                continue
            table = parquet.read_table(path)
            ungated = (table.schema.metadata or {}).get(_UNGATED, folder.rpartition("-")[2].encode())
            if ungated.decode() != self.ungated or table.num_rows != samples.num_rows:
                continue
            count = int((rows & _measured(table, samples)).sum())
            if count > most:
                found, most = table, count
        return found


def _measured(table: pa.Table, samples: pa.Table) -> np.ndarray:
    """(s,) bool: usable rows that the scorer looked at, whether it measured or rejected them."""
    looked_at = np.zeros(samples.num_rows, bool)
    for name in table.column_names:
        if name != "reject":
            looked_at |= table[name].is_valid().to_numpy()
    usable = pc.is_null(samples["reject"]).to_numpy()
    return usable & (looked_at | table["reject"].is_valid().to_numpy())
