"""The ensemble: a label model inside each aspect, and P(keep) as their product."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from chaffinch.filters.calibration import Calibration, reliability, share_interval
from chaffinch.filters.dropped_sources import DroppedSource, DropSources
from chaffinch.filters.label_models.alone import Alone
from chaffinch.filters.label_models.evidence import Evidence, Labelled
from chaffinch.filters.label_models.label_model import LabelModel
from chaffinch.filters.label_models.soft_label_model import SoftLabelModel
from chaffinch.filters.label_models.votes import distinct_patterns

FEWEST_FOR_PRIOR = 10
"""Labels on samples drawn at random from which on their share is the class prior, where none is given."""


@dataclass(frozen=True)
class Ensemble:
    """Fitted label models, one per aspect.

    A sample is kept when every aspect holds, so probabilities multiply; filters that judge the same thing share one
    latent class inside their aspect. A second opinion over the scores of all filters may be blended with the product:
    the mean of both log odds, which orders as the geometric mean of the odds does.

    Attributes:
        aspects: aspect -> the positions of its filters among all m, and its fitted label model.
        blend: the positions of the filters of the second opinion, and its fitted label model; or None.
        calibration: what labels say of the probabilities; None without labels. In one aspect, enough of them also give
            a class prior that was left open.
        dropped: filters that were left out of their aspect and of the blend, and why. They have no say in anything.
        prior_interval: 95% interval of the class prior that labels gave; None where they gave none. It is told when the
            ensemble is fitted, and no part of its state.
    """

    aspects: Mapping[str, tuple[tuple[int, ...], LabelModel]]
    blend: tuple[tuple[int, ...], SoftLabelModel] | None = None
    calibration: Calibration | None = None
    dropped: Mapping[int, DroppedSource] = field(default_factory=dict)
    prior_interval: tuple[float, float] | None = None

    @classmethod
    def fit(
        cls,
        aspects: Sequence[str | None],
        models: Mapping[str, LabelModel],
        evidence: Evidence,
        blend: tuple[Sequence[int], SoftLabelModel] | None = None,
        drop_sources: DropSources | None = None,
    ) -> "Ensemble":
        """Fits every aspect's label model.

        Args:
            aspects: (m,) the aspect of each filter; None for those that veto.
            models: aspect -> a label model, not fitted yet.
            evidence: on all m filters.
            blend: the filters of a second opinion, and its label model, not fitted yet.
            drop_sources: which filters to leave out, where that is asked for; those that veto stay as they are. Where
                one is left whose label model learns from peers, it is calibrated by itself.

        Returns:
            The fitted ensemble.

        Raises:
            ValueError: a label model cannot be fitted; names its aspect.
        """
        fitted: dict[str, tuple[tuple[int, ...], LabelModel]] = {}
        dropped: dict[int, DroppedSource] = {}
        prior, interval = None, None  # of several aspects nobody was asked
        if len(models) == 1 and all(model.class_prior is None for model in models.values()):
            prior, interval = _prior_of(evidence.labelled)
        for aspect, model in models.items():
            if prior is not None:
                model = replace(model, class_prior=prior)
            every = tuple(index for index, name in enumerate(aspects) if name == aspect)
            out = {} if drop_sources is None or model.is_rule else drop_sources.find(evidence, every)
            columns = tuple(index for index in every if index not in out)
            if out and len(columns) == 1 and model.needs_peers:
                model = Alone(class_prior=model.class_prior)
            try:
                fitted[aspect] = (columns, model.learn(evidence.of(columns)))
            except ValueError as error:
                why = f" (drop_sources leaves out {len(out)} of its {len(every)} filters)" if out else ""
                raise ValueError(f"label model {model.kind} of the aspect {aspect}: {error}{why}") from error
            dropped |= out
        second = None
        if blend is not None:
            asked = tuple(index for index in blend[0] if index not in dropped)
            second = (asked, blend[1].learn(evidence.of(asked)))
        ensemble = cls(fitted, second, dropped=dropped, prior_interval=interval)
        if evidence.labelled is None or not len(evidence.labelled.keep):
            return ensemble
        return replace(ensemble, calibration=Calibration.fit(ensemble.of(evidence.labelled), evidence.labelled.keep))

    def of(self, labelled: Labelled) -> np.ndarray:
        """(k,) P(keep) of labelled samples."""
        probability: np.ndarray = self.by_votes(labelled.votes)
        if self.is_soft and labelled.soft is not None:
            probability = self.by_scores(probability, labelled.soft)
        return probability

    def against(self, labelled: Labelled) -> dict[str, Any]:
        """What labels say of the ensemble, as plain JSON values.

        Args:
            labelled: samples with a label, one at least.

        Returns:
            samples; at_random; keep_share and its 95% interval among those drawn at random (None without any);
            before and after calibration: see `reliability`, though the labels have seen what is after it.
        """
        drawn = labelled.keep[labelled.at_random]
        before = replace(self, calibration=None)
        return {
            "samples": len(labelled.keep),
            "at_random": len(drawn),
            "keep_share": float(drawn.mean()) if len(drawn) else None,
            "keep_share_interval": list(share_interval(int(drawn.sum()), len(drawn))) if len(drawn) else None,
            "calibration": None if self.calibration is None else asdict(self.calibration),
            "before": reliability(before.of(labelled), labelled.keep),
            "after": reliability(self.of(labelled), labelled.keep),
        }

    @property
    def is_rule(self) -> bool:
        """Whether a probability of 0 is final."""
        return any(model.is_rule for _, model in self.aspects.values())

    @property
    def is_soft(self) -> bool:
        """Whether probabilities depend on scores, and not only on which votes these make."""
        return self.blend is not None or any(model.is_soft for _, model in self.aspects.values())

    def by_votes(self, votes: np.ndarray) -> np.ndarray:
        """P(keep) of each sample as far as votes tell: the product over the aspects that judge by votes.

        Where none judges by scores that is all, and calibrated.

        Args:
            votes: (n samples, m filters) int8.

        Returns:
            (n,) float32; rounded before anything compares it, so that equal votes mean equal probabilities.
        """
        patterns, inverse, _ = distinct_patterns(votes)
        product = np.ones(len(patterns))
        for columns, model in self.aspects.values():
            if not model.is_soft:
                product = product * model.predict_proba(patterns[:, columns])
        rounded: np.ndarray = product.astype(np.float32)
        found: np.ndarray = (rounded if self.is_soft else self._calibrated(rounded))[inverse]
        return found

    def by_scores(self, probability: np.ndarray, soft: np.ndarray) -> np.ndarray:
        """P(keep) of each sample, with what scores tell; only for an ensemble that is soft.

        Args:
            probability: (n,) float32 as far as votes tell.
            soft: (n samples, m filters) int16 soft votes.

        Returns:
            (n,) float32.
        """
        product = probability.astype(np.float64)
        for columns, model in self.aspects.values():
            if isinstance(model, SoftLabelModel):
                product = product * model.predict_soft(np.ascontiguousarray(soft[:, columns]))
        if self.blend is not None:
            columns, model = self.blend
            product = _blend(product, model.predict_soft(np.ascontiguousarray(soft[:, columns])))
        return self._calibrated(product.astype(np.float32))

    def _calibrated(self, probability: np.ndarray) -> np.ndarray:
        return probability if self.calibration is None else self.calibration.apply(probability)

    def weights(self, filters: int) -> np.ndarray:
        """How much each filter's opinion counts where samples have to be ordered.

        Args:
            filters: m.

        Returns:
            (m,) float64, 0 or more; 0 for filters that veto or are left out, and under a plain rule: they say what must
            not be, and a sample that is far from that is no better than one that is near.
        """
        weights = np.zeros(filters)
        for columns, model in self.aspects.values():
            if not model.is_rule:
                weights[list(columns)] = np.nan_to_num(model.weight_)
        return weights

    def accuracies(self, filters: int) -> np.ndarray:
        """(m,) P(vote is right given that the filter votes), as the label models estimate it; NaN where they do not."""
        accuracies = np.full(filters, np.nan)
        for columns, model in self.aspects.values():
            accuracies[list(columns)] = model.accuracy_
        return accuracies

    def state(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "aspects": {aspect: _state(*member) for aspect, member in self.aspects.items()},
            "blend": None if self.blend is None else _state(*self.blend),
            "calibration": None if self.calibration is None else asdict(self.calibration),
            "dropped": [{"filter": index} | asdict(why) for index, why in self.dropped.items()],
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any], model_class: Callable[[str], type[LabelModel]]) -> "Ensemble":
        """The ensemble that `state` described.

        Args:
            state: what `state` returned, also after a trip through JSON.
            model_class: label model kind -> its class.
        """

        def member(part: Mapping[str, Any]) -> tuple[tuple[int, ...], Any]:
            return tuple(part["filters"]), model_class(part["model"]["kind"]).restore(part["model"])

        blend = None if state["blend"] is None else member(state["blend"])
        calibration = None if state["calibration"] is None else Calibration(**state["calibration"])
        dropped = {part["filter"]: DroppedSource.restore(part) for part in state.get("dropped", ())}
        return cls({aspect: member(part) for aspect, part in state["aspects"].items()}, blend, calibration, dropped)


def _prior_of(labelled: Labelled | None) -> tuple[float | None, tuple[float, float] | None]:
    """The share of good samples and its 95% interval, where enough drawn at random have a label."""
    if labelled is None or labelled.at_random.sum() < FEWEST_FOR_PRIOR:
        return None, None
    drawn = labelled.keep[labelled.at_random]
    kept = int(drawn.sum())
    return (kept + 0.5) / (len(drawn) + 1), share_interval(kept, len(drawn))


def _state(columns: Sequence[int], model: LabelModel) -> dict[str, Any]:
    return {"filters": list(columns), "model": model.state()}


def _blend(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(n,) the probability whose log odds are the mean of both; 0 and 1 stay what they are."""
    yes, no = np.sqrt(one * other), np.sqrt((1 - one) * (1 - other))
    total = yes + no
    blended: np.ndarray = np.where(total > 0, yes / np.where(total > 0, total, 1.0), np.minimum(one, other))
    return blended
