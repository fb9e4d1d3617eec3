"""The sections of a config and what each may hold, as far as that can be said without knowing any kind."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from chaffinch.filters.dropped_sources import DropSources
from chaffinch.pipeline.engines.runners import Choice, DataflowSettings, FlinkSettings, PrismSettings, Runner, refuse
from chaffinch.pipeline.measuring.slices import Slice
from chaffinch.scoring.light.recipe import LightRecipe
from chaffinch.scoring.training.recipe import ClassifierRecipe, Recipe

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_-]*"
Fraction = Annotated[float, Field(ge=0, le=1)]
Settings = dict[Annotated[str, Field(pattern=f"^{_NAME}$")], dict[str, Any]]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DropSourcesSection(_Section):
    """`ensemble.drop_sources:` filters that label models do without; see `DropSources`."""

    extreme: Annotated[float, Field(ge=0, lt=0.5)] | None = 0.1
    useless: bool = True


class EnsembleSection(_Section):
    """`ensemble:` a label model and its settings; `aspects:` others for single aspects; `blend:` a second opinion.

    `drop_sources:` true, or which filters label models do without.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    label_model: str = "dawid_skene"
    aspects: dict[str, dict[str, Any]] = {}
    blend: str | dict[str, Any] | None = None
    drop_sources: bool | DropSourcesSection = False

    @property
    def dropping(self) -> DropSources | None:
        """What `drop_sources` asks for; None where nothing is to be left out."""
        asked = self.drop_sources
        if isinstance(asked, DropSourcesSection):
            return DropSources(asked.extreme, asked.useless)
        return DropSources() if asked else None


class KeepSection(_Section):
    """`keep:` how much: a fraction of the usable samples, a count, or a least probability."""

    fraction: Fraction | None = None
    probability: Fraction | None = None
    count: Annotated[int, Field(ge=0)] | None = None
    uncovered: bool = False
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _one_rule(cls, values: Any) -> Any:
        rules = ("fraction", "probability", "count")
        if isinstance(values, dict):
            given = [name for name in rules if values.get(name) is not None]
            if len(given) > 1:
                raise ValueError(f"give one of {', '.join(rules)}, not {' and '.join(given)}")
            if not given:
                values = {**values, "probability": 0.5}
        return values


class EmitSection(_Section):
    """`emit:` how output shards are cut."""

    samples_per_shard: Annotated[int, Field(ge=1)] = 10000
    shuffle_seed: int | None = None


class LabelSection(_Section):
    """`label:` how many samples `chaffinch label` asks about, and by which seed they are drawn and shuffled."""

    samples: Annotated[int, Field(ge=1, le=2000)] = 60
    seed: int = 0


class RunSection(_Section):
    """`run:` where and how; nothing here but batch_size and device changes a number.

    `workers:` is how many shards are worked on at once: one by default, all cores with `runner: processes`, and what
    the cluster is set up for on a cluster. Each runner with settings has a section of its own.
    """

    batch_size: Annotated[int, Field(ge=1)] = 64
    device: Literal["auto", "cpu", "cuda"] = "auto"
    runner: Runner = "local"
    workers: Annotated[int, Field(ge=1)] | None = None
    prism: PrismSettings = PrismSettings()
    flink: FlinkSettings = FlinkSettings()
    dataflow: DataflowSettings = DataflowSettings()
    max_rejected: Fraction = 0.1
    slice: str | None = None

    @field_validator("slice", mode="before")
    @classmethod
    def _check_slice(cls, value: Any) -> str | None:
        return None if value is None else str(Slice.parse(str(value)))

    @field_validator("runner", mode="before")
    @classmethod
    def _check_runner(cls, value: Any) -> Any:
        refuse(str(value))
        return value

    @property
    def choice(self) -> Choice:
        """The runner with its settings."""
        return Choice(self.runner, self.workers, self.prism, self.flink, self.dataflow)


class EvaluateSection(_Section):
    """`train.evaluate:` samples to try a model on: where they are, after how many steps, whose captions or labels."""

    input: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)]
    every: Annotated[int, Field(ge=1)] | None = None
    captions_key: str | None = None
    labels: str | None = None


@dataclass(frozen=True, kw_only=True)
class TrainPlaces:
    """Where a training's samples come from and its results go, which changes no number.

    Attributes:
        input: shards to train on; by default what `emit` wrote, and the config's own input where it has no filters. For
            light heads, which learn from trusted pairs, the config's reference.
        folder: where checkpoints, log and results go; by default <output>/training.
        evaluate: pairs to try retrieval on, or labelled pictures, at the end and while training; light heads are tried
            at the end alone.
        workers: how many samples to read at a time; by default as many as there are cores.
    """

    input: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)] | None = None
    folder: Annotated[str, Field(min_length=1)] | None = None
    evaluate: EvaluateSection | None = None
    workers: Annotated[int, Field(ge=1)] | None = None


@dataclass(frozen=True)
class TrainSettings(TrainPlaces, Recipe):
    """`train:` for a model of open_clip's: a recipe and places.

    Attributes:
        checkpoint_every: steps after which weights are kept and from which a stopped training goes on.
        checkpoint_first: whether the first weights are kept too, as step_0.pt.
    """

    checkpoint_every: Annotated[int, Field(ge=1)] = 1000
    checkpoint_first: bool = False


@dataclass(frozen=True)
class ClassifierSettings(TrainSettings, ClassifierRecipe):
    """`train:` with `labels`: a recipe for a classifier, and places."""


@dataclass(frozen=True)
class LightSettings(TrainPlaces, LightRecipe):
    """`train:` with `model: light_clip`: a recipe for light heads, and places.

    Attributes:
        checkpoint_every: epochs after which heads are kept, as epoch_<number>.pt; then epoch_0.pt, the first weights,
            is kept too. An epoch takes each whole batch of pairs once.
    """

    checkpoint_every: Annotated[int, Field(ge=1)] | None = None


def train_settings(section: Mapping[str, Any]) -> type[TrainSettings] | type[LightSettings]:
    """Which settings a `train:` section is checked against: its model says so, and whether it reads labels."""
    if section.get("model") == "light_clip":
        return LightSettings
    return ClassifierSettings if {"labels", "classes", "freeze"} & section.keys() else TrainSettings


class Sections(_Section):
    """The whole file, as far as it can be checked without knowing any kind."""

    input: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)]
    output: Annotated[str, Field(min_length=1)]
    store: str | None = None
    reference: str | list[str] | None = None
    metadata: str = "beside"
    labels: str | None = None
    scorers: Settings = {}
    filters: Settings = {}
    ensemble: EnsembleSection = EnsembleSection()
    keep: KeepSection = KeepSection(probability=0.5)
    emit: EmitSection = EmitSection()
    label: LabelSection = LabelSection()
    run: RunSection = RunSection()
    train: dict[str, Any] | None = None
