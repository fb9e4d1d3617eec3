"""Everything learned from a pool, as plain numbers that judge any other rows the same way: what fitted.json holds."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chaffinch.filters.cut import Cut, quantise
from chaffinch.filters.ensemble import Ensemble
from chaffinch.filters.filter import Filter
from chaffinch.filters.label_models.label_model import LabelModel
from chaffinch.filters.ranges import FittedRanges, Interval
from chaffinch.filters.soft_votes import MISSING, soften
from chaffinch.filters.statistics import Ranks


@dataclass(frozen=True)
class Fitted:
    """The frozen judgement.

    Attributes:
        names: (m,) the filters, in the order of the config.
        required: (m,) whether each vetoes.
        ranges: (m,) each filter's ranges.
        ranks: filter -> ranks of its scores in the pool, for the soft score.
        ensemble: label models over the filters that do not veto.
        uncovered: whether samples on which every filter abstains may be kept.
        cut: which samples are kept.
        takes_down: (m,) whether each vetoes only once everything else is decided; none by default.
        learned: filter -> what it has learned from the pool before it could score, for those that do.
    """

    names: Sequence[str]
    required: Sequence[bool]
    ranges: Sequence[FittedRanges]
    ranks: Mapping[str, Ranks]
    ensemble: Ensemble
    uncovered: bool
    cut: Cut
    takes_down: Sequence[bool] = ()
    learned: Mapping[str, Any] = field(default_factory=dict)

    def teach(self, filters: Mapping[str, Filter]) -> dict[str, Filter]:
        """The same filters by name, with what was learned."""
        return {
            name: judge.with_learned(self.learned[name]) if name in self.learned else judge
            for name, judge in filters.items()
        }

    @property
    def judges(self) -> list[int]:
        """Positions of the filters that do not veto; those that the ensemble leaves out are not among them."""
        left_out = self.ensemble.dropped
        return [index for index, required in enumerate(self.required) if not required and index not in left_out]

    def votes(self, scores: Sequence[np.ndarray], samples: int) -> np.ndarray:
        """All filters' votes.

        Args:
            scores: (m,) arrays of n float32 scores.
            samples: n, which no array tells where there are no filters.

        Returns:
            (n samples, m filters) int8.
        """
        votes = np.empty((samples, len(self.names)), np.int8)
        for index, (ranges, score) in enumerate(zip(self.ranges, scores, strict=True)):
            votes[:, index] = ranges.vote(score)
        return votes

    def vetoed(self, votes: np.ndarray) -> np.ndarray:
        """Which samples a required filter drops: (n,) bool."""
        return self._dropped_by_any(votes, [index for index, required in enumerate(self.required) if required])

    def ruled_out(self, votes: np.ndarray) -> np.ndarray:
        """Which samples are dropped before anything is learned: (n,) bool; those taken down are not among them."""
        late = set(self.withdrawing)
        columns = [index for index, required in enumerate(self.required) if required and index not in late]
        return self._dropped_by_any(votes, columns)

    def taken_down(self, votes: np.ndarray) -> np.ndarray:
        """Which samples are not to be emitted even if they are kept: (n,) bool."""
        return self._dropped_by_any(votes, self.withdrawing)

    @property
    def withdrawing(self) -> list[int]:
        """Positions of the filters that veto once everything else is decided."""
        return [index for index, late in enumerate(self.takes_down) if late]

    @staticmethod
    def _dropped_by_any(votes: np.ndarray, columns: Sequence[int]) -> np.ndarray:
        return np.asarray((votes[:, columns] == -1).any(axis=1))

    def soft_scores(self, scores: Sequence[np.ndarray], samples: int) -> np.ndarray:
        """Orders samples of equal probability: the label-model-weighted mean of the filters' pool ranks.

        Each filter's rank is turned so that more is better; a band gives 1 inside, 0 outside, 0.5 between. Filters that
        cannot judge a sample are left out of its mean.

        Args:
            scores: (m,) arrays of n float32 scores.
            samples: n.

        Returns:
            (n,) uint32, higher is better.
        """
        total, mass = np.zeros(samples), np.zeros(samples)
        weights = self.ensemble.weights(len(self.names))
        if not weights.any():
            weights[self.judges] = 1.0
        for index in self.judges:
            rank = self._ranks(index, scores[index])
            known = ~np.isnan(rank)
            total[known] += weights[index] * rank[known]
            mass[known] += weights[index]
        return quantise(np.divide(total, mass, out=np.full_like(total, 0.5), where=mass > 0))

    def soft_votes(self, scores: Sequence[np.ndarray], samples: int) -> np.ndarray:
        """All filters' soft votes, for label models that judge by scores.

        Args:
            scores: (m,) arrays of n float32 scores.
            samples: n.

        Returns:
            (n samples, m filters) int16 normal scores of ranks in the pool.
        """
        soft = np.empty((samples, len(self.names)), np.int16)
        for index, values in enumerate(scores):
            soft[:, index] = soften(self._ranks(index, values))
        return soft

    def _ranks(self, index: int, values: np.ndarray) -> np.ndarray:
        """(n,) how good a filter finds samples: ranks in the pool turned so that more is better, a band's votes."""
        ranges, name = self.ranges[index], self.names[index]
        if ranges.direction and name in self.ranks:
            rank = self.ranks[name].of(values)
            return rank if ranges.direction > 0 else 1 - rank
        return np.where(np.isnan(values), np.nan, (ranges.vote(values) + 1) / 2)

    def candidates(self, votes: np.ndarray, probability: np.ndarray, covered: np.ndarray) -> np.ndarray:
        """Which samples may be kept at all, before any is taken down: not vetoed, covered (or asked for), possible.

        Args:
            votes: (n, m) int8.
            probability: (n,) float32, of the ensemble.
            covered: (n,) bool, as `covered` says.

        Returns:
            (n,) bool.
        """
        allowed = ~self.ruled_out(votes)
        if not self.uncovered and self.judges and not self.keeps_everything:
            allowed &= covered
        if self.ensemble.is_rule:
            allowed &= probability > 0
        return allowed

    def covered(self, votes: np.ndarray, soft: np.ndarray | None = None) -> np.ndarray:
        """Of which samples any filter that does not veto has something to say, by its vote or by its score.

        Args:
            votes: (n, m) int8.
            soft: (n, m) int16 soft votes, where the ensemble judges by them.

        Returns:
            (n,) bool.
        """
        covered: np.ndarray = (votes[:, self.judges] != 0).any(axis=1)
        return covered if soft is None else covered | (soft[:, self.judges] != MISSING).any(axis=1)

    @property
    def keeps_everything(self) -> bool:
        """Whether the ensemble is the rule that keeps whatever is not vetoed."""
        return all(model.kind == "none" for _, model in self.ensemble.aspects.values())

    def state(self) -> dict[str, Any]:
        """Plain JSON values; infinities are written as null."""
        return {
            "filters": list(self.names),
            "required": list(self.required),
            "takes_down": list(self.takes_down),
            "learned": dict(self.learned),
            "ranges": {
                name: {"keep": _open(ranges.keep), "drop": _open(ranges.drop)}
                for name, ranges in zip(self.names, self.ranges, strict=True)
            },
            "ranks": {
                name: {"values": ranks.values.tolist(), "shares": ranks.shares.tolist()}
                for name, ranks in self.ranks.items()
            },
            "ensemble": self.ensemble.state(),
            "uncovered": self.uncovered,
            "cut": {"probability": _finite(self.cut.probability), "soft": self.cut.soft, "tie": self.cut.tie},
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any], model_class: Callable[[str], type[LabelModel]]) -> "Fitted":
        """The judgement that `state` described.

        Args:
            state: what `state` returned, also after a trip through JSON.
            model_class: label model kind -> its class.

        Returns:
            An equal judgement.
        """
        cut = state["cut"]
        probability = math.inf if cut["probability"] is None else cut["probability"]
        return cls(
            names=state["filters"],
            required=state["required"],
            ranges=[
                FittedRanges(_closed(state["ranges"][name]["keep"]), _closed(state["ranges"][name]["drop"]))
                for name in state["filters"]
            ],
            ranks={
                name: Ranks(np.array(ranks["values"]), np.array(ranks["shares"]))
                for name, ranks in state["ranks"].items()
            },
            ensemble=Ensemble.restore(state["ensemble"], model_class),
            uncovered=state["uncovered"],
            cut=Cut(probability, cut["soft"], cut["tie"]),
            takes_down=state.get("takes_down", ()),
            learned=state.get("learned", {}),
        )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _open(interval: Interval | None) -> list[float | None] | None:
    """A range as the config writes it; one that holds nothing is an empty list."""
    if interval is None:
        return None
    return [_finite(interval[0]), _finite(interval[1])] if interval[0] <= interval[1] else []


def _closed(bounds: Sequence[float | None] | None) -> Interval | None:
    if bounds is None:
        return None
    if not bounds:
        return (math.inf, -math.inf)
    low, high = bounds
    return (-math.inf if low is None else low, math.inf if high is None else high)
