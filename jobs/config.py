"""The config: checked as a whole before anything starts, every error with its place and the nearest valid name."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import yaml
from pydantic import TypeAdapter

from chaffinch.filters.filter import Filter
from chaffinch.filters.label_models.label_model import LabelModel
from chaffinch.filters.label_models.soft_label_model import SoftLabelModel
from chaffinch.filters.ranges import ByLabels, Share, check_ranges, parse_ranges
from chaffinch.jobs import kinds
from chaffinch.jobs.documents import Document, Place, read_document
from chaffinch.jobs.label_models import make_label_models
from chaffinch.jobs.labels import read_labels
from chaffinch.jobs.sections import Sections, train_settings
from chaffinch.jobs.validation import make, validate
from chaffinch.pipeline.deciding.labels import Labels
from chaffinch.pipeline.engines.runners import SettingError
from chaffinch.pipeline.measuring.order import Order
from chaffinch.pipeline.measuring.slices import Slice
from chaffinch.pipeline.metadata import Metadata
from chaffinch.pipeline.shards import Shard, find_shards
from chaffinch.pipeline.storage import files
from chaffinch.scoring.neighbours import Neighbours
from chaffinch.scoring.scorer import Scorer

_RESERVED = {"metadata": "columns made elsewhere", "samples": "the samples themselves: samples.uid and samples.key"}


@dataclass(frozen=True)
class Config:
    """A config that was checked.

    Attributes:
        sections: the file, defaults filled in.
        scorers: name -> scorer, the built-in ones included where filters read their columns.
        filters: name -> filter, in the order of the file.
        models: aspect -> label model, not fitted.
        blend: a label model over the scores of all filters that is blended with theirs, not fitted; or None.
        shards: the input.
        reference: the reference's shards, or none.
        labels: what somebody said of single samples; None without a file of them.
        order: which scorer comes after which.
    """

    sections: Sections
    scorers: Mapping[str, Scorer]
    filters: Mapping[str, Filter]
    models: Mapping[str, LabelModel]
    blend: SoftLabelModel | None
    shards: list[Shard]
    reference: list[Shard]
    labels: Labels | None
    order: Order

    @property
    def gates(self) -> dict[str, dict[str, Filter]]:
        """Scorers that skip vetoed samples -> the required filters that they wait for."""
        return {name: {one: self.filters[one] for one in names} for name, names in self.order.gates.items()}

    @property
    def store(self) -> str:
        """Where the pool's tables are."""
        return self.sections.store or files.join(self.sections.output, "store")

    @property
    def reference_store(self) -> str:
        """Where the reference's tables are: it is a pool of its own."""
        return files.join(self.store, "reference")

    @property
    def slice(self) -> Slice | None:
        """The part of the pool to score; None for all of it."""
        text = self.sections.run.slice
        return None if text is None else Slice.parse(text)

    @property
    def metadata(self) -> Metadata:
        """Columns made elsewhere."""
        return Metadata(self.sections.metadata)

    def dump(self) -> str:
        """The config as YAML, defaults filled in."""
        content = self.sections.model_dump(mode="json")
        content["store"] = self.store
        if self.sections.train is None:
            del content["train"]
        for name in {"prism", "flink", "dataflow"} - {self.sections.run.runner}:
            del content["run"][name]
        rules = ("fraction", "probability", "count")
        content["keep"] = {k: v for k, v in content["keep"].items() if k not in rules or v is not None}
        for part, entries in (("scorers", self.scorers), ("filters", self.filters)):
            content[part] = {name: _settings(one) for name, one in entries.items()}
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _settings(one: Any) -> dict[str, Any]:
    plain: dict[str, Any] = TypeAdapter(type(one)).dump_python(one, mode="json")
    return {"kind": one.kind} | plain


def load_config(path: str, overrides: list[str], is_fitted: bool = False) -> Config:
    """Reads and checks a config; starts nothing.

    Args:
        path: a YAML file.
        overrides: `key=value` settings from the command line.
        is_fitted: all numbers come from a fitted.json, so that ranges that labels decide need none here.

    Returns:
        The config.

    Raises:
        ConfigError: anything that can be seen to be wrong: names file, line, value and the nearest valid name.
    """
    document = read_document(path, overrides)
    sections: Sections = validate(document, (), TypeAdapter(Sections), document.content)
    if sections.train is not None:
        make(document, ("train",), train_settings(sections.train), sections.train)
    scorers = {name: make_scorer(document, name, settings) for name, settings in sections.scorers.items()}
    filters = {name: _filter(document, name, settings) for name, settings in sections.filters.items()}
    for column in _columns_read(filters, scorers):
        scorer = column.partition(".")[0]
        if scorer in kinds.BUILT_IN and scorer not in scorers:
            scorers[scorer] = kinds.scorers()[scorer]()
    try:
        order = Order.of(scorers, filters)
    except ValueError as error:
        raise document.error(("scorers",), str(error)) from error
    _check_ranges_by_labels(document, filters, order, sections.labels is not None or is_fitted)
    _check_places(document, sections)
    _check_runner(document, sections)
    shards = list_shards(document, ("input",), sections.input)
    reference = [] if sections.reference is None else list_shards(document, ("reference",), sections.reference)
    labels = None if sections.labels is None else read_labels(sections.labels)
    models, blend = make_label_models(document, sections, filters)
    config = Config(sections, scorers, filters, models, blend, shards, reference, labels, order)
    _check_columns(document, config)
    return config


def _check_places(document: Document, sections: Sections) -> None:
    """Refuses to write where the next run would read."""
    for which, inputs in (("input", sections.input), ("reference", sections.reference)):
        for place in [inputs] if isinstance(inputs, str) else inputs or []:
            folder = place if "://" in place else os.path.abspath(place)
            output = sections.output if "://" in sections.output else os.path.abspath(sections.output)
            if f"{output.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/"):
                problem = f"lies inside the {which} {place!r}, and what is written would be read by the next run"
                raise document.error(("output",), f"{sections.output!r} {problem}; choose another place")


def _check_runner(document: Document, sections: Sections) -> None:
    """Refuses a runner that lacks settings, and Dataflow where its workers could not see a place."""
    try:
        sections.run.choice.check()
    except SettingError as error:
        raise document.error(("run", *error.place), str(error)) from error
    if sections.run.runner != "dataflow":
        return
    for name in ("input", "reference", "store", "output"):
        given = getattr(sections, name)
        for place in [given] if isinstance(given, str) else given or []:
            if "://" not in place:
                raise document.error((name,), f"{place!r} is on this machine, and Dataflow's are others; take gs://...")


def _kind(document: Document, place: Place, kind: str, known: Mapping[str, type[Any]]) -> type[Any]:
    if kind not in known:
        spot = (*place, "kind") if (*place, "kind") in document.lines else place
        raise document.error(spot, f"there is no kind {kind!r}; {kinds.nearest(kind, list(known))}")
    return known[kind]


def make_scorer(document: Document, name: str, settings: dict[str, Any]) -> Scorer:
    """Builds and checks one entry of `scorers:`; ConfigError where something is wrong with it."""
    place: Place = ("scorers", name)
    if name in _RESERVED:
        raise document.error(place, f"this name stands for {_RESERVED[name]}; choose another")
    rest = {key: value for key, value in settings.items() if key != "kind"}
    cls = _kind(document, place, str(settings.get("kind", name)), kinds.scorers())
    made: Scorer = make(document, place, cls, rest)
    return made


def _filter(document: Document, name: str, settings: dict[str, Any]) -> Filter:
    place: Place = ("filters", name)
    default = "column" if "column" in settings else name
    rest = {key: value for key, value in settings.items() if key != "kind"}
    if ("keep" in rest) != ("drop" in rest):
        # One given: the other is its complement, also where a kind has a range of its own for those who give none.
        rest = {"keep": None, "drop": None} | rest
    cls = _kind(document, place, str(settings.get("kind", default)), kinds.filters())
    made: Filter = make(document, place, cls, rest)
    try:
        check_ranges(made.keep, made.drop)
    except ValueError as error:
        raise document.error(place, str(error)) from error
    for which, parsed in parse_ranges(made.keep, made.drop).items():
        if isinstance(parsed, Share) and parsed.of_reference and not document.content.get("reference"):
            bounds = getattr(made, which)
            raise document.error((*place, which), f"{bounds!r} needs a reference:, known-good samples")
    return made


def _check_ranges_by_labels(document: Document, filters: Mapping[str, Filter], order: Order, has_labels: bool) -> None:
    """Refuses ranges that labels decide where there are none, or where they are needed before anything has a label."""
    waiting = {judge: scorer for scorer, judges in order.gates.items() for judge in judges}
    for name, judge in filters.items():
        for which, parsed in parse_ranges(judge.keep, judge.drop).items():
            if not isinstance(parsed, ByLabels):
                continue
            place, asked = ("filters", name, which), f"{getattr(judge, which)!r}"
            if not has_labels:
                raise document.error(
                    place,
                    f"{asked} needs labels:, a file of samples that somebody judged; begin with numbers or a share of "
                    "the pool, and `chaffinch label` makes one",
                )
            if name in waiting:
                raise document.error(
                    place,
                    f"{asked} cannot decide what scorers.{waiting[name]} measures with `where: required`: labels come "
                    "after scoring; write numbers here, or let that scorer measure all samples",
                )


def list_shards(document: Document, place: Place, inputs: str | list[str]) -> list[Shard]:
    """Lists the shards that a setting names; ConfigError where there are none."""
    try:
        shards = find_shards(inputs)
    except Exception as error:  # a filesystem that is not installed, no credentials: whatever it is, nothing starts
        raise document.error(place, f"cannot be listed: {error}") from error
    if not shards:
        raise document.error(place, f"no .tar shards are found at {inputs!r}")
    return shards


def _check_columns(document: Document, config: Config) -> None:
    columns = {"samples.uid": pa.string(), "samples.key": pa.string()}
    columns |= {
        f"{name}.{column}": kind for name, scorer in config.scorers.items() for column, kind in scorer.columns.items()
    }
    for name in kinds.BUILT_IN:
        built_in = kinds.scorers()[name]()
        columns |= {f"{name}.{column}": kind for column, kind in built_in.columns.items()}
    if any(column.startswith("metadata.") for column in _columns_read(config.filters, config.scorers)):
        available = config.metadata.available(config.shards)
        columns |= {f"metadata.{column}": kind for column, kind in available.items()}
    for name, scorer in config.scorers.items():
        for column in scorer.reads:
            if column not in columns:
                # The setting that names it, where one does.
                named = [setting for setting, value in vars(scorer).items() if value == column]
                spot: Place = ("scorers", name, *named[:1])
                raise document.error(spot, f"no scorer writes {column!r}; {kinds.nearest(column, list(columns))}")
        try:
            scorer.check_columns({column: columns[column] for column in scorer.reads})
        except ValueError as error:
            raise document.error(("scorers", name), str(error)) from error
        if isinstance(scorer, Neighbours) and scorer.needs_reference and not config.reference:
            raise document.error(("scorers", name, "reference"), "needs a reference:, pictures like those wanted")
    for name, judge in config.filters.items():
        spot = ("filters", name, "column") if hasattr(judge, "column") else ("filters", name)
        for column in judge.reads:
            if column not in columns:
                raise document.error(spot, f"no scorer writes {column!r}; {kinds.nearest(column, list(columns))}")
        try:
            judge.check_columns({column: columns[column] for column in judge.reads})
        except ValueError as error:
            raise document.error(spot, str(error)) from error


def _columns_read(filters: Mapping[str, Filter], scorers: Mapping[str, Scorer]) -> list[str]:
    found = [column for judge in filters.values() for column in judge.reads]
    return found + [column for scorer in scorers.values() for column in scorer.reads]
