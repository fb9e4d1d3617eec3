"""The diagnosis of one fitted label model by itself: what it makes of its sources, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chaffinch.filters.diagnosis.accuracy import Accuracy, measure_accuracy
from chaffinch.filters.diagnosis.redundancy import count_sources, list_correlated, measure_excess
from chaffinch.filters.diagnosis.refits import WORK, gather_refits
from chaffinch.filters.label_models.evidence import Evidence, Votes
from chaffinch.filters.label_models.label_model import LabelModel
from chaffinch.filters.label_models.tables import Table, read_scores, read_votes
from chaffinch.filters.label_models.votes import count_patterns

_MOST_PAIRS = 5  # told when printed; the others are counted


@dataclass(frozen=True)
class SourceDiagnosis:
    """What a label model makes of one source.

    Attributes:
        name: its column, or "source 0" and so on.
        coverage: the share of samples that it votes on or has a score for, in [0, 1].
        conflict: the share of samples on which another source votes otherwise, in [0, 1]; None for scores.
        accuracy: P(right given that it votes), in [0, 1]; None where the model does not estimate it.
        interval: its 95% interval; None where there is none.
        weight: how much it counts, in the model's own measure, 0 or more; higher: more.
        worse_than_chance: it is right less often than one that votes at random, and the whole interval says so; or,
            with a reference, it speaks against known-good samples.
    """

    name: str
    coverage: float
    conflict: float | None
    accuracy: float | None
    interval: tuple[float, float] | None
    weight: float
    worse_than_chance: bool


@dataclass(frozen=True)
class LabelModelDiagnosis:
    """What a label model makes of its sources; `print` it.

    Attributes:
        label_model: its kind; for `auto` of the model that it has chosen.
        reasons: what `auto` chose by; empty for others.
        samples: n.
        class_prior: P(keep), or a share per class; None where the model has none.
        class_prior_interval: 95% interval of an estimate; None where there is none.
        class_prior_note: what that rests on, or why there is none, such as "given".
        uncovered: the share of samples on which no source says anything, in [0, 1].
        effective_sources: how many sources that err independently these are worth; None where not known.
        correlated: pairs of sources that agree beyond what the class explains, and by how much, in (0, 1].
        log_likelihood_per_sample: of the votes, in nats; None for models without a likelihood.
        sources: one for each, in the order of columns.
        notes: what intervals rest on, or why there are none.
    """

    label_model: str
    reasons: tuple[str, ...]
    samples: int
    class_prior: float | tuple[float, ...] | None
    class_prior_interval: tuple[float, float] | None
    class_prior_note: str
    uncovered: float
    effective_sources: float | None
    correlated: tuple[tuple[str, str, float], ...]
    log_likelihood_per_sample: float | None
    sources: tuple[SourceDiagnosis, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{self.label_model}: {self.samples:,} samples, {len(self.sources)} sources", *self._summary(), ""]
        width = max([len(source.name) for source in self.sources] + [6])
        lines.append(f"{'source':{width}}  coverage  conflict  accuracy  95% interval    weight")
        lines += [
            f"{source.name:{width}}  {_share(source.coverage)}  {_share(source.conflict)}  {_share(source.accuracy)}  "
            f"{_range(source.interval)}  {source.weight:6.2f}{'  worse than chance' * source.worse_than_chance}"
            for source in self.sources
        ]
        lines += [f"accuracies: {note}" for note in self.notes]
        return "\n".join(lines)

    def _summary(self) -> list[str]:
        lines = list(self.reasons[:1])
        if self.class_prior is not None:
            shares = self.class_prior if isinstance(self.class_prior, tuple) else (self.class_prior,)
            sure = "" if self.class_prior_interval is None else f"95% interval {_range(self.class_prior_interval)}, "
            lines.append(f"class prior {', '.join(f'{share:.3f}' for share in shares)} ({sure}{self.class_prior_note})")
        lines.append(f"{self.uncovered:.1%} of the samples have no vote")
        if self.effective_sources is not None:
            lines.append(f"worth {self.effective_sources:.1f} independent sources")
        pairs = [f"{one} and {other} ({excess:.2f})" for one, other, excess in self.correlated[:_MOST_PAIRS]]
        if len(self.correlated) > _MOST_PAIRS:
            pairs.append(f"and {len(self.correlated) - _MOST_PAIRS} more pairs")
        if pairs:
            lines.append(f"agree beyond what the class explains: {', '.join(pairs)}")
        if self.log_likelihood_per_sample is not None:
            lines.append(f"log likelihood {self.log_likelihood_per_sample:.4f} nats a sample")
        return lines


def diagnose_model(model: LabelModel, votes: Table) -> LabelModelDiagnosis:
    """Says what a fitted label model makes of its sources; no truth is needed.

    Accuracies are the model's own belief, and their intervals the spread of refits to resampled votes: they cover
    chance, not a wrong model. With more than two classes there are no intervals.

    Args:
        model: fitted.
        votes: (n samples, m sources) what it was fitted to, in any form that `fit` takes; for a model of scores, those.

    Returns:
        The diagnosis; the same votes give the same numbers.

    Raises:
        ValueError: the model has not been fitted, or has other sources.
    """
    if not hasattr(model, "weight_"):
        raise ValueError(f"this {type(model).__name__} has not been fitted: call fit first")
    columns = getattr(model, "feature_names_in_", None)
    names = None if columns is None else tuple(map(str, columns))
    read, found = (read_scores if model.is_soft else read_votes)(votes, names)
    if read.shape[1] != len(model.weight_):
        raise ValueError(f"there are {read.shape[1]} sources, but the model was fitted on {len(model.weight_)}")
    names = found or tuple(f"source {number}" for number in range(read.shape[1]))
    reasons = tuple(getattr(model, "reasons_", ()))
    judge = getattr(model, "chosen", model)
    samples, unknown = max(len(read), 1), np.full(len(names), np.nan)
    if model.is_soft:
        covered = ~np.isnan(read)
        accuracy = Accuracy.without_intervals(judge, unknown, f"{judge.kind} judges by scores, not by votes")
        conflict, excess = None, None
    else:
        patterns, counts = count_patterns(read)
        refits = gather_refits(judge, Evidence(Votes(patterns, counts)), range(len(names)), WORK)
        excess = measure_excess(refits)
        covered = read != 0
        conflict = _conflicts(patterns, counts) / samples
        if getattr(judge, "classes", 2) > 2:
            accuracy = Accuracy.without_intervals(judge, unknown, "there are intervals for two classes only")
        else:
            accuracy = measure_accuracy(refits)
    likelihood = getattr(judge, "log_likelihood_", None)
    return LabelModelDiagnosis(
        label_model=judge.kind,
        reasons=reasons,
        samples=len(read),
        class_prior=_prior(judge),
        class_prior_interval=accuracy.prior_interval,
        class_prior_note=accuracy.prior_note,
        uncovered=float((~covered.any(axis=1)).sum()) / samples,
        effective_sources=None if excess is None else count_sources(excess),
        correlated=() if excess is None else _pairs(names, excess),
        log_likelihood_per_sample=None if likelihood is None or not len(read) else float(likelihood) / len(read),
        sources=_sources(names, judge, covered.sum(axis=0) / samples, conflict, accuracy),
        notes=tuple(dict.fromkeys(accuracy.notes)),
    )


def _sources(
    names: Sequence[str], model: LabelModel, coverage: np.ndarray, conflict: np.ndarray | None, accuracy: Accuracy
) -> tuple[SourceDiagnosis, ...]:
    turned = np.asarray(getattr(model, "turned_", np.zeros(len(names), bool)), bool)
    return tuple(
        SourceDiagnosis(
            name=name,
            coverage=float(coverage[place]),
            conflict=None if conflict is None else float(conflict[place]),
            accuracy=None if np.isnan(model.accuracy_[place]) else float(model.accuracy_[place]),
            interval=_bounds(accuracy.interval[place]),
            weight=float(model.weight_[place]),
            worse_than_chance=bool(accuracy.worse_than_chance[place] | turned[place]),
        )
        for place, name in enumerate(names)
    )


def _conflicts(patterns: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(m,) on how many samples another source votes otherwise, of any number of classes."""
    cast = (patterns != 0).sum(axis=1)
    found = np.zeros(patterns.shape[1])
    for vote in np.unique(patterns[patterns != 0]):
        own = patterns == vote
        opposed = counts * (cast > own.sum(axis=1))
        found += opposed @ own
    return found


def _prior(model: LabelModel) -> float | tuple[float, ...] | None:
    prior = getattr(model, "class_prior_", model.class_prior)
    if prior is None or isinstance(prior, float):
        return prior
    shares = np.asarray(prior, np.float64).ravel().tolist()
    return tuple(shares) if len(shares) > 1 else shares[0]


def _bounds(interval: np.ndarray) -> tuple[float, float] | None:
    return None if np.isnan(interval).any() else (float(interval[0]), float(interval[1]))


def _pairs(names: Sequence[str], excess: np.ndarray) -> tuple[tuple[str, str, float], ...]:
    found = list_correlated(names, excess)
    return tuple((*pair["filters"], pair["excess_correlation"]) for pair in found)


def _share(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"{value:8.3f}"


def _range(interval: tuple[float, float] | None) -> str:
    return f"{'-':14}" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
