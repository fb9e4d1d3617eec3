"""A side of an experiment: a pool with its store, and which tables its scorers make there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

from chaffinch.filters.filter import Filter
from chaffinch.filters.ranges import Share, parse_ranges
from chaffinch.pipeline.measuring.order import Order
from chaffinch.pipeline.measuring.score import Task, find_tasks
from chaffinch.pipeline.measuring.slices import Slice
from chaffinch.pipeline.metadata import Metadata
from chaffinch.pipeline.rows import Source
from chaffinch.pipeline.shards import Shard
from chaffinch.pipeline.store import Store, table_folder
from chaffinch.scoring.neighbours import Neighbours
from chaffinch.scoring.scorer import Scorer, fingerprint


@dataclass(frozen=True)
class Side:
    """A pool of the experiment: the input, or the reference, which is scored the same way into a store of its own.

    Attributes:
        label: "input" or "reference".
        shards: its shards.
        store: its store.
        scorers: name -> scorer.
        order: which of them comes after which.
        metadata: columns made elsewhere.
        device: the device class that `run.device` means here.
        auto: whether the device was left open, so that tables measured on another device will do.
        gates: scorer -> the required filters, by name, whose vetoes it heeds. Known-good samples are all measured.
        reference: the side that ranges may lean on.
        slice: the part of the shards to score; all of them by default.
    """

    label: str
    shards: Sequence[Shard]
    store: Store
    scorers: Mapping[str, Scorer]
    order: Order
    metadata: Metadata
    device: str
    auto: bool
    gates: Mapping[str, Mapping[str, Filter]] = field(default_factory=dict)
    reference: Self | None = None
    slice: Slice | None = None

    @cached_property
    def mine(self) -> Sequence[Shard]:
        """The shards that are scored here: those of the slice, or all."""
        return [one for one in self.shards if self.slice.holds(one.name)] if self.slice else self.shards

    def folders(self) -> dict[str, str]:
        """Scorer name -> folder of the tables that scoring here writes."""
        return self._name([self.device], set())

    def found_folders(self) -> dict[str, str]:
        """Scorer name -> folder of the tables to decide by.

        The same, but where the device is left open, tables measured on the other one will do: deciding often runs
        where no GPU is.
        """
        if not self.auto:
            return self.folders()
        other = "cpu" if self.device == "cuda" else "cuda"
        return self._name([self.device, other], set(self.store.score_folders()))

    def tasks(self, folders: Mapping[str, str], retry_unreadable: bool = True) -> list[Task]:
        """What is missing or out of date in these folders, of the shards that are scored here."""
        return find_tasks(self.mine, self.store, list(folders.values()), retry_unreadable)

    def is_whole(self, folders: Mapping[str, str]) -> bool:
        """Whether these folders hold tables of all shards, of other slices too, and every shard could be read."""
        return not find_tasks(self.shards, self.store, list(folders.values()))

    def source(self, folders: Mapping[str, str]) -> Source:
        """Where this side's columns come from."""
        return Source(self.store, folders, self.metadata)

    def needs_reference(self, name: str) -> bool:
        """Whether a scorer looks at the experiment's reference; where that is scored, it is its own."""
        scorer = self.scorers[name]
        return isinstance(scorer, Neighbours) and scorer.needs_reference

    def ungated(self, name: str, folders: Mapping[str, str]) -> str:
        """The fingerprint that a scorer's tables would have if it skipped no sample.

        Args:
            name: the scorer.
            folders: the tables of those it reads.
        """
        return fingerprint(self.scorers[name], self.device, self._read(name, folders))

    def _name(self, devices: Sequence[str], there: set[str]) -> dict[str, str]:
        """Names every scorer's tables: for the first device, unless only those for another are there."""
        found: dict[str, str] = {}
        for level in self.order.levels:
            for name in level:
                beneath = self._read(name, found) | self._gated(name, found)
                names = [table_folder(name, self.scorers[name], device, beneath) for device in devices]
                found[name] = next((one for one in names if one in there), names[0])
        return {name: found[name] for name in self.scorers}

    def _read(self, name: str, folders: Mapping[str, str]) -> dict[str, Any]:
        """What a scorer's numbers depend on: the tables it reads, and the pool where it looks at all of it."""
        tables = [folders[one] for one in self.order.reads[name]]
        content: dict[str, Any] = {"reads": tables} if tables else {}
        if any(column.startswith("metadata.") for column in self.scorers[name].reads):
            content["metadata"] = self.metadata.listed(self.shards)
        if self.scorers[name].whole_pool:
            content["pool"] = self._listed()
        if self.needs_reference(name) and self.reference is not None:
            content["reference"] = self.reference._listed()
        return content

    def _gated(self, name: str, folders: Mapping[str, str]) -> dict[str, Any]:
        """What decides which samples a scorer skips."""
        filters = self.gates.get(name, {})
        if not filters:
            return {}
        columns = [column for judge in filters.values() for column in judge.reads]
        owners = {column.partition(".")[0] for column in columns}
        content: dict[str, Any] = {
            "gate": [judge.identity() for judge in filters.values()],
            "gate_reads": [folders[one] for one in sorted(owners & folders.keys())],
        }
        if "metadata" in owners:
            content["gate_metadata"] = self.metadata.listed(self.shards)
        ranges = [one for judge in filters.values() for one in parse_ranges(judge.keep, judge.drop).values()]
        if any(isinstance(one, Share) for one in ranges) or any(judge.learns for judge in filters.values()):
            content["gate_pool"] = [self._listed(), self.reference._listed() if self.reference else []]
        return content

    def _listed(self) -> list[list[str]]:
        return [[shard.name, shard.stamp] for shard in self.shards]
