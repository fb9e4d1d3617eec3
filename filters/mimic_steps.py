"""Mimic scores at several checkpoints, made into one decision: stage 2 of Grad-Mimic."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from chaffinch.filters.binarising.binariser import Binariser, finish_rules, wanted_bins
from chaffinch.filters.binarising.bins import count_high, count_low, read_high, read_low
from chaffinch.filters.binarising.rules import SIGN, Kind, Rule, vote
from chaffinch.filters.binarising.steps import Counted, read_steps
from chaffinch.filters.filter import Bounds, Filter
from chaffinch.filters.label_models.alone import Alone
from chaffinch.filters.label_models.dawid_skene import DawidSkene
from chaffinch.filters.label_models.label_model import LabelModel
from chaffinch.filters.patterns import Patterns

_MODELS: dict[str, type[LabelModel]] = {"alone": Alone, "dawid_skene": DawidSkene}


@dataclass(frozen=True, kw_only=True)
class MimicSteps(Filter):
    """Score: how far the steps agree that learning a sample leads toward the reference; more is better.

    By `aggregate`, the share of steps that keep it, in [0, 1]; P(keep), in [0, 1]; or the mean mimic score, in its own
    unit. Cannot judge samples that no step has a score for. A step is a checkpoint at which mimic scores were taken.

    First every step's scores become votes: above its threshold keep, below drop, NaN abstain. Thresholds are learned
    from counts of the pool, the same however it was cut into shards, and stand in fitted.json with the share that each
    step retains. summary.json tells these, and as `retained` the share that the filter votes to keep of the samples it
    judges: the quality of the dataset, as far as the reference can tell.

    Attributes:
        keep: as of every filter; where neither is given, [0.501, null] for shares and P(keep), so that a draw abstains,
            and [0, null] for the mean score.
        drop: as of every filter; where neither is given, [null, 0.499] for shares and P(keep).
        column: mimic scores, as `<scorer>.<column>`: a list of one float per step, as many for every sample, or a plain
            number, which is one step. A null or NaN in a list: the sample was not seen in that step.
        steps: the first and the last step to look at, from 0; null for open. The first ones tell most: a model that has
            learned the pool by heart no longer knows good samples from bad, so leave steps after its third epoch out.
        binariser: sign: drops s < 0, which leads away from the reference, and keeps 0, which leads nowhere. It needs
            no fit and retains most of the good samples. share: keeps the best `share` of the pool at each step.
            softmax: the paper's weight above 1 / B with the pool for a batch, s > tau logmeanexp(s / tau). two_means:
            the least squares cut. mixture: two Gaussians, cut between their means where both are equally likely.
        share: for `share`, in (0, 1].
        temperature: tau of `softmax`, above 0, in the score's unit.
        test_groups: two_means and mixture would cut a single group near its middle; so where Hartigan's dip does not
            show two groups in a step, its sign decides. False cuts always, as published.
        aggregate: majority: the share of steps that keep. label_model: Dawid and Skene's, with the steps as sources
            (for a single step, `alone`). Steps of one training err together, so its probabilities are too sure of
            themselves. mean: the mean score over the steps; binarising then only tells the quality.
        class_prior: P(keep) for `label_model`, in (0, 1); None: estimated.

    Source: T.-H. Huang, M. Bilkhu, J. Cooper, F. Sala, J. Movellan (2025), Evaluating Sample Utility for Efficient Data
        Selection by Mimicking Model Weights, arXiv 2501.06708.
    """

    column: str
    steps: tuple[int | None, int | None] | None = None
    binariser: Kind = "sign"
    share: float | None = None
    temperature: float = 1.0
    test_groups: bool = True
    aggregate: Literal["majority", "label_model", "mean"] = "majority"
    class_prior: float | None = None

    def __post_init__(self) -> None:
        """Gives the ranges that fit the aggregate where none is given."""
        if self.keep is None and self.drop is None:
            bounds: tuple[Bounds, Bounds | None] = ((0.501, None), (None, 0.499))
            if self.aggregate == "mean":
                bounds = ((0.0, None), None)
            object.__setattr__(self, "keep", bounds[0])
            object.__setattr__(self, "drop", bounds[1])

    @property
    def reads(self) -> tuple[str, ...]:
        """The one column."""
        return (self.column,)

    def check(self) -> None:
        """Checks the settings.

        Raises:
            ValueError: the column's name has not two parts, or a setting is out of its range.
        """
        if not all(self.column.partition(".")):
            raise ValueError(f"column {self.column!r} is not of the form <scorer>.<column>, like alignment.mimic_score")
        first, last = self.steps or (None, None)
        if (first or 0) < 0 or (last is not None and last < (first or 0)):
            raise ValueError(f"steps: {list(self.steps or ())} holds no step: give the first and the last, from 0")
        self._binariser.check()
        if self.class_prior is not None and self.aggregate != "label_model":
            raise ValueError(f"class_prior is for aggregate: label_model, not for {self.aggregate}: leave one out")
        DawidSkene(class_prior=self.class_prior)

    def check_columns(self, types: Mapping[str, pa.DataType]) -> None:
        """Checks that the column holds numbers, or lists of them.

        Args:
            types: the column's type.

        Raises:
            ValueError: it does not.
        """
        read_steps(pa.nulls(0, types[self.column]), self.column, None)

    @property
    def _binariser(self) -> Binariser:
        return Binariser(self.binariser, self.share, self.temperature, self.test_groups)

    @property
    def _settings(self) -> dict[str, Any]:
        """What decides what is learned; numbers learned under others are of no use."""
        chosen = None if self.steps is None else list(self.steps)
        prior = self.class_prior if self.aggregate == "label_model" else None
        return asdict(self._binariser) | {"aggregate": self.aggregate, "class_prior": prior, "steps": chosen}

    @property
    def learns(self) -> bool:
        """Until rules, what they retain and the label model are known."""
        return not isinstance(self.learned, dict) or self.learned["settings"] != self._settings

    def count(self, columns: Mapping[str, pa.Array]) -> Counted:
        """Counts bins of scores, then single scores in some of them, then votes.

        Args:
            columns: the column.

        Returns:
            Statistics that add up.

        Raises:
            ValueError: the column holds no scores, or lists of unequal lengths.
        """
        scores = read_steps(columns[self.column], self.column, self.steps)
        if scores is None:
            return Counted.nothing()
        if self._rules is None:
            return Counted.of(scores, count_high(scores))
        if wanted := wanted_bins(self._rules):
            return Counted.of(scores, count_low(scores, wanted))
        return Counted.of(scores, Patterns.of(vote(scores, self._known_rules(scores))))

    def fit(self, counted: Counted) -> Any:
        """Fits what the last pass has counted.

        Args:
            counted: of the whole pool.

        Returns:
            Rules and searches until all are found, then what fitted.json holds.

        Raises:
            ValueError: samples have unequal numbers of steps.
        """
        steps = counted.steps(self.column)
        if self._rules is None:
            found = read_high(counted.part, steps) if counted.part is not None else []
            return [self._binariser.search(*part) for part in found]
        if wanted := wanted_bins(self._rules):
            return finish_rules(self._rules, read_low(counted.part, wanted))
        patterns, counts = np.zeros((0, 0), np.int8), np.zeros(0, np.int64)
        if counted.part is not None:
            patterns, counts = counted.part.arrays()
        return {
            "settings": self._settings,
            "steps": [
                asdict(rule) | _retained(votes, counts)
                for rule, votes in zip(self._known_rules(patterns), patterns.T, strict=True)
            ],
            "label_model": self._fit_model(patterns, counts),
        }

    def report(self) -> dict[str, Any]:
        """What each step retains, and why the sign stands in where it does."""
        steps = self.learned["steps"]
        notes = {str(number): step["note"] for number, step in enumerate(steps) if step["note"]}
        return {"steps_retained": [step["retained"] for step in steps], "steps_by_sign": notes}

    def score(self, columns: Mapping[str, pa.Array]) -> np.ndarray:
        """Brings the steps together.

        Args:
            columns: the column, n rows.

        Returns:
            (n,) float32; NaN where no step has a score.

        Raises:
            ValueError: nothing was learned yet, or the column has other steps than the pool had.
        """
        if self.learns:
            raise ValueError("mimic_steps has not learned from the pool: call count and fit first, or binarise()")
        values = columns[self.column]
        scores = read_steps(values, self.column, self.steps)
        if scores is None:
            return np.full(len(values), np.nan, np.float32)
        if self.aggregate == "mean":
            return _mean(scores, ~np.isnan(scores))
        votes = vote(scores, self._known_rules(scores))
        if self._model is None:
            return _mean(votes > 0, votes != 0)
        unseen = ~votes.any(axis=1)
        return np.where(unseen, np.float32(np.nan), self._model.predict_proba(votes).astype(np.float32))

    @cached_property
    def _rules(self) -> list[Any] | None:
        """Rules, among them searches between passes; None before the first. The sign's need no pool."""
        if isinstance(self.learned, dict) and not self.learns:
            names = ("kind", "threshold", "dip", "note")
            return [Rule(**{name: step[name] for name in names}) for step in self.learned["steps"]]
        if isinstance(self.learned, list):
            return self.learned
        return [] if self.binariser == "sign" else None

    def _known_rules(self, scores: np.ndarray) -> list[Rule]:
        """(t,) rules for (n, t) scores or votes."""
        steps = scores.shape[1]
        if self.learns and self.binariser == "sign":
            return [SIGN] * steps
        rules = self._rules or []
        if len(rules) != steps:
            raise ValueError(
                f"{self.column} has {steps} steps here, but rules were learned for {len(rules)}: score with the same "
                "checkpoints, or decide without fitted="
            )
        return rules

    def _fit_model(self, patterns: np.ndarray, counts: np.ndarray) -> dict[str, Any] | None:
        if self.aggregate != "label_model":
            return None
        model = (DawidSkene if patterns.shape[1] != 1 else Alone)(class_prior=self.class_prior)
        return model.fit_patterns(patterns, counts).state()

    @cached_property
    def _model(self) -> LabelModel | None:
        state = self.learned["label_model"]
        return None if state is None else _MODELS[state["kind"]].restore(state)


def _retained(votes: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
    """What a step keeps of what it judges: votes of (p,) patterns, and how often each occurs."""
    kept, judged = int(counts[votes > 0].sum()), int(counts[votes != 0].sum())
    return {"judged": judged, "retained": kept / judged if judged else None}


def _mean(values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """(n,) float32 means over the seen of t values; NaN where none is. Step by step: numpy's own order may differ."""
    total, count = np.zeros(len(values)), np.zeros(len(values))
    with np.errstate(invalid="ignore"):  # of both infinities, and of none
        for column, known in zip(values.T, seen.T, strict=True):
            total += np.where(known, column, 0)
            count += known
        return (total / count).astype(np.float32)
