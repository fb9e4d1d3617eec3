"""An experiment: a checked config with its stores, tables and engine; what all commands share."""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from chaffinch.jobs.config import Config
from chaffinch.jobs.console import Console
from chaffinch.pipeline import files
from chaffinch.pipeline.judgement import Judgement, Pool
from chaffinch.pipeline.metadata import Metadata
from chaffinch.pipeline.rows import Source
from chaffinch.pipeline.runner import Engine
from chaffinch.pipeline.score import Task, find_tasks
from chaffinch.pipeline.shards import Shard
from chaffinch.pipeline.store import Store, table_folder
from chaffinch.scoring.devices import device_class
from chaffinch.scoring.scorer import Scorer


class JobError(Exception):
    """The job failed; the message says what, where and what to do."""


@dataclass(frozen=True)
class Side:
    """A pool of the experiment: the input, or the reference, which is scored the same way into a store of its own.

    Attributes:
        label: "input" or "reference".
        shards: its shards.
        store: its store.
        scorers: name -> scorer.
        device: the device class that `run.device` means here.
        auto: whether the device was left open, so that tables measured on another device will do.
    """

    label: str
    shards: Sequence[Shard]
    store: Store
    scorers: Mapping[str, Scorer]
    device: str
    auto: bool

    def folders(self) -> dict[str, str]:
        """Scorer name -> folder of the tables that scoring here writes."""
        return {name: table_folder(name, scorer, self.device) for name, scorer in self.scorers.items()}

    def found_folders(self) -> dict[str, str]:
        """Scorer name -> folder of the tables to decide by.

        The same, but where the device is left open, tables measured on the other one will do: deciding often runs
        where no GPU is.
        """
        found = self.folders()
        there = set(self.store.score_folders()) if self.auto else set()
        for name, scorer in self.scorers.items():
            other = table_folder(name, scorer, "cpu" if self.device == "cuda" else "cuda")
            if found[name] not in there and other in there:
                found[name] = other
        return found

    def tasks(self, folders: Mapping[str, str], retry_unreadable: bool = True) -> list[Task]:
        """What is missing or out of date in these folders."""
        return find_tasks(self.shards, self.store, list(folders.values()), retry_unreadable)


@dataclass(frozen=True)
class Experiment:
    """A checked config, ready to run.

    Attributes:
        config: the config.
        console: where messages go.
        beam_options: what followed `--` on the command line.
        fitted: a fitted.json whose numbers are to be used unchanged, or None.
    """

    config: Config
    console: Console
    beam_options: tuple[str, ...] = ()
    fitted: str | None = None

    @property
    def output(self) -> str:
        """The experiment's folder."""
        return self.config.sections.output

    @cached_property
    def engine(self) -> Engine:
        """Where Beam runs."""
        return Engine(self.config.sections.run.workers, self.beam_options)

    @cached_property
    def sides(self) -> list[Side]:
        """The input, and the reference if there is one."""
        config, setting = self.config, self.config.sections.run.device
        device, auto = device_class(setting), setting == "auto"
        sides = [Side("input", config.shards, Store(config.store), config.scorers, device, auto)]
        if config.reference:
            store = Store(config.reference_store)
            sides.append(Side("reference", config.reference, store, config.scorers, device, auto))
        return sides

    def pool(self, side: Side, folders: Mapping[str, str]) -> Pool:
        """A side as deciding sees it."""
        return Pool(side.shards, Source(side.store, folders, self.config.metadata))

    @property
    def judgement(self) -> Judgement:
        """What the config asks for."""
        keep = self.config.sections.keep
        return Judgement(
            self.config.filters,
            self.config.models,
            keep.fraction,
            keep.count,
            keep.probability,
            keep.uncovered,
            keep.seed,
        )

    def made_from(self, folders: Sequence[Mapping[str, str]]) -> str:
        """A digest of all that decides the decisions: filters, label models, what to keep, tables, shards."""
        config = self.config
        content: dict[str, Any] = {
            "filters": [[name, judge.identity()] for name, judge in config.filters.items()],
            "models": {aspect: [model.kind, repr(model)] for aspect, model in config.models.items()},
            "keep": config.sections.keep.model_dump(),
            "tables": list(folders),
            "shards": [[shard.name, shard.stamp] for side in self.sides for shard in side.shards],
            "fitted": hashlib.sha256(files.read_bytes(self.fitted)).hexdigest() if self.fitted else None,
        }
        if any(column.startswith("metadata.") for judge in config.filters.values() for column in judge.reads):
            content["metadata"] = _listed(config.metadata, config.shards)
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]

    @contextmanager
    def timed(self, stage: str) -> Iterator[dict[str, Any]]:
        """Measures a stage; what is put into the dictionary goes to timings.json beside its seconds."""
        entry: dict[str, Any] = {}
        began = time.monotonic()
        yield entry
        seconds = time.monotonic() - began
        entry["seconds"] = round(seconds, 3)
        if "samples" in entry:
            entry["samples_per_second"] = round(entry["samples"] / max(seconds, 1e-9), 1)
        path = files.join(self.output, "timings.json")
        known = {}
        if files.exists(path):
            try:
                known = json.loads(files.read_bytes(path))
            except ValueError:
                known = {}
        files.write_bytes(path, (json.dumps(known | {stage: entry}, indent=1) + "\n").encode())


def _listed(metadata: Metadata, shards: Sequence[Shard]) -> list[list[Any]]:
    """What a listing says about the files that hold metadata."""
    if metadata.source == "beside":
        folders = sorted({shard.path.rpartition("/")[0] for shard in shards})
        infos = [info for folder in folders for info in files.listing(files.join(folder, "*.parquet"))]
        wanted = {metadata.path_beside(shard) for shard in shards}
        infos = [info for info in infos if info.path in wanted]
    else:
        infos = files.listing(metadata.source)
    return [[info.path, info.size, info.modified] for info in infos]
