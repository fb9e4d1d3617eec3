"""What is asked of a pool before anything is counted: filters, label models, how much to keep; and the pool itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chaffinch.filters.dropped_sources import DropSources
from chaffinch.filters.filter import Filter
from chaffinch.filters.label_models.label_model import LabelModel
from chaffinch.filters.label_models.soft_label_model import SoftLabelModel
from chaffinch.pipeline.deciding.labels import Labels
from chaffinch.pipeline.rows import Part, Source
from chaffinch.pipeline.shards import Shard


@dataclass(frozen=True)
class Judgement:
    """What a config asks for, before anything was counted.

    Attributes:
        filters: name -> filter, in the order of the config.
        models: aspect -> label model, not fitted.
        blend: a label model over the scores of all filters, not fitted, whose opinion is blended with theirs.
        fraction: keep this share of the usable samples, in [0, 1].
        count: keep this many.
        probability: keep samples of at least this P(keep).
        uncovered: whether samples on which every filter abstains may be kept.
        seed: of the hash that orders samples when nothing else does.
        labels: what somebody said of single samples, or None.
        drop_sources: which filters label models are to do without, or None.
    """

    filters: Mapping[str, Filter]
    models: Mapping[str, LabelModel]
    blend: SoftLabelModel | None = None
    fraction: float | None = None
    count: int | None = None
    probability: float | None = None
    uncovered: bool = False
    seed: int = 0
    labels: Labels | None = None
    drop_sources: DropSources | None = None

    @property
    def is_soft(self) -> bool:
        """Whether label models judge by scores, and not only by which votes these make."""
        return self.blend is not None or any(model.is_soft for model in self.models.values())

    @property
    def orders(self) -> bool:
        """Whether samples have to be ordered, because so many are to be kept."""
        return self.probability is None

    def wanted(self, usable: int) -> int:
        """How many samples are to be kept of so many usable ones."""
        return self.count if self.count is not None else round((self.fraction or 0.0) * usable)


@dataclass(frozen=True)
class Pool:
    """Scored shards and where their columns lie.

    Attributes:
        shards: in shard order.
        source: where columns come from.
    """

    shards: Sequence[Shard]
    source: Source

    def parts(self, repeated: Mapping[str, tuple[int, ...]] | None = None) -> list[Part]:
        """The units of work, with the rows that repeat a uid where they are known."""
        found = repeated or {}
        return [Part(number, shard, found.get(shard.name, ())) for number, shard in enumerate(self.shards)]
