"""Comparing a pool: every row goes to its cells, in each cell all are compared, and what was found comes back."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa

from chaffinch.pipeline.measuring.spent import Effort, Spent
from chaffinch.pipeline.rows import Part
from chaffinch.pipeline.storage import files, parquet
from chaffinch.pipeline.tables import TableBuilder
from chaffinch.pipeline.whole_pool.cell_work import Work
from chaffinch.pipeline.whole_pool.exchange import Group
from chaffinch.scoring.neighbourhood.cells import order_of_preference

# Entry in a table's schema: which versions of all shards it was measured among.
_AMONG = b"among"


@dataclass
class Sent:
    """How many records went to each cell.

    Attributes:
        sizes: (c,) int64.
        spent: where the time went.
    """

    sizes: np.ndarray
    spent: Spent

    def merge(self, other: Self) -> Self:
        """Adds another shard's."""
        self.sizes = self.sizes + other.sizes
        self.spent.merge(other.spent)
        return self

    def beam_counts(self) -> Mapping[str, Mapping[str, int]]:
        """For Beam's counters."""
        return self.spent.beam_counts()


@dataclass(frozen=True)
class SendToCells:
    """Finds the cells of a shard's samples, sends what is compared there, and notes what is known already.

    Attributes:
        work: what all passes share.
    """

    work: Work

    def __call__(self, part: Part) -> Sent:
        """Sends one shard."""
        began, work = time.perf_counter(), self.work
        count = work.cells.count
        if not work.exchange.has(part.shard.name):
            found = work.participants(part)
            placed = work.cells.place(found.column, work.search)
            records = np.zeros(len(placed.owners), work.record)
            records["key"] = placed.keys
            records["prefer"], records["uid"] = found.prefer[placed.owners], found.uids[placed.owners]
            parquet.write_table(work.draft_path(part.shard.name), pa.table({"row": found.rows, **placed.columns}))
            # Last of all, for it says that the draft is there too.
            work.exchange.send(part.shard.name, placed.cells, count, records, placed.owners)
        sizes = work.exchange.sizes(part.shard.name, count)
        return Sent(sizes, Spent(scorers={work.name: Effort(seconds=time.perf_counter() - began)}))


@dataclass(frozen=True)
class CompareInCells:
    """Compares all that meet in some cells.

    Attributes:
        work: what all passes share.
    """

    work: Work

    def __call__(self, group: Group) -> Spent:
        """Compares in one group of cells."""
        began, work = time.perf_counter(), self.work
        if not work.exchange.is_answered(group):
            records, cells, sizes = work.exchange.receive(group, work.cells.count, work.record)
            order = order_of_preference(cells, records["prefer"], records["uid"])
            values = np.zeros(len(records), np.float32)
            for members in np.split(order, np.flatnonzero(np.diff(cells[order])) + 1):
                if len(members):
                    values[members] = work.cells.compare(records["key"][members], int(cells[members[0]]), work.search)
            work.exchange.answer(group, sizes, values)
        return Spent(scorers={work.name: Effort(seconds=time.perf_counter() - began)})


@dataclass(frozen=True)
class WriteNeighbours:
    """Writes a shard's table from what is known and what was found, unless it is there and of this very pool.

    Attributes:
        work: what all passes share.
        groups: all groups of cells.
        among: digest of the versions of all shards.
    """

    work: Work
    groups: tuple[Group, ...]
    among: str

    def __call__(self, part: Part) -> Spent:
        """Writes one shard."""
        began, work = time.perf_counter(), self.work
        path = work.source.store.scores(work.folder, part.shard.name)
        samples = parquet.read_table(work.source.store.samples(part.shard.name), ["reject"])
        if not (files.exists(path) and self._is_of_this_pool(path)):
            draft = parquet.read_table(work.draft_path(part.shard.name))
            columns = {name: draft[name].combine_chunks() for name in work.scorer.columns}
            owners = work.exchange.owners(part.shard.name, work.cells.count, work.record)
            answers = work.exchange.answers(part.number, self.groups)
            result = work.cells.result
            columns[result] = pa.array(work.cells.nearer(columns[result].to_numpy(), owners, answers))
            builder = TableBuilder(work.scorer, samples)
            builder.add(draft["row"].to_pylist(), columns)
            parquet.write_table(path, builder.finish().replace_schema_metadata({_AMONG: self.among}))
        effort = Effort(samples["reject"].null_count, seconds=time.perf_counter() - began)
        return Spent(samples.num_rows, scorers={work.name: effort})

    def _is_of_this_pool(self, path: str) -> bool:
        known = parquet.open_table(path).schema_arrow.metadata or {}
        return bool(known.get(_AMONG) == self.among.encode())
