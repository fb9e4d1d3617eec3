"""An experiment: a checked config with its stores, tables and engine; what all commands share."""

import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import chaffinch.filters
from chaffinch.jobs.config import Config
from chaffinch.jobs.console import Console
from chaffinch.jobs.side import Side
from chaffinch.pipeline.deciding.judgement import Judgement, Pool
from chaffinch.pipeline.engines.elsewhere import unreachable
from chaffinch.pipeline.engines.engine import Engine, add_up
from chaffinch.pipeline.storage import files
from chaffinch.pipeline.store import Store
from chaffinch.scoring.devices import device_class


class JobError(Exception):
    """The job failed; the message says what, where and what to do."""


@dataclass(frozen=True)
class Experiment:
    """A checked config, ready to run.

    Attributes:
        config: the config.
        console: where messages go.
        beam_options: what followed `--` on the command line; it wins over what the config says.
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
        choice = self.config.sections.run.choice
        options = (*choice.beam_options(), *self.beam_options)
        if problem := unreachable(options):
            raise JobError(problem)
        return Engine(choice.at_once, options, choice.runner == "processes", choice.flink.rest)

    @cached_property
    def sides(self) -> list[Side]:
        """The input, and the reference if there is one."""
        config, setting = self.config, self.config.sections.run.device
        device, auto = device_class(setting), setting == "auto"
        common = (config.scorers, config.order, config.metadata, device, auto)
        reference = None
        if config.reference:
            store = Store(config.reference_store)
            reference = Side("reference", config.reference, store, *common, slice=config.slice)
        pool = Side("input", config.shards, Store(config.store), *common, config.gates, reference, config.slice)
        return [pool] if reference is None else [pool, reference]

    def count(self, label: str, parts: Sequence[Any], function: Callable[[Any], Any]) -> Any:
        """Adds up what a function counts in every part of a pool."""
        return add_up(self.engine, label, parts, function, self.output)

    def pool(self, side: Side, folders: Mapping[str, str]) -> Pool:
        """A side as deciding sees it."""
        return Pool(side.shards, side.source(folders))

    @property
    def judgement(self) -> Judgement:
        """What the config asks for."""
        keep = self.config.sections.keep
        return Judgement(
            filters=self.config.filters,
            models=self.config.models,
            blend=self.config.blend,
            fraction=keep.fraction,
            count=keep.count,
            probability=keep.probability,
            uncovered=keep.uncovered,
            seed=keep.seed,
            labels=self.config.labels,
            drop_sources=self.config.sections.ensemble.dropping,
        )

    def made_from(self, folders: Sequence[Mapping[str, str]]) -> str:
        """A digest of all that decides the decisions: filters, label models, what to keep, tables, shards."""
        config = self.config
        content: dict[str, Any] = {
            "filters": [[name, judge.identity()] for name, judge in config.filters.items()],
            "code": _code(),
            "models": {aspect: [model.kind, repr(model)] for aspect, model in config.models.items()},
            "blend": None if config.blend is None else [config.blend.kind, repr(config.blend)],
            "keep": config.sections.keep.model_dump(),
            "drop_sources": repr(config.sections.ensemble.dropping),
            "tables": list(folders),
            "shards": [[shard.name, shard.stamp] for side in self.sides for shard in side.shards],
            "fitted": hashlib.sha256(files.read_bytes(self.fitted)).hexdigest() if self.fitted else None,
        }
        if config.labels is not None:
            labels = (config.labels.uids, config.labels.keep, config.labels.at_random)
            content["labels"] = [hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest() for part in labels]
        if any(column.startswith("metadata.") for judge in config.filters.values() for column in judge.reads):
            content["metadata"] = config.metadata.listed(config.shards)
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


@functools.cache
def _code() -> str:
    """A digest of the package of filters: who edits a filter wants its samples judged again."""
    digest = hashlib.sha256()
    for folder in chaffinch.filters.__path__:
        for path in sorted(Path(folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
