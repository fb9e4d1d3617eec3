"""Everything that orders a pool: single filters, label models over them, plain rules, chance, and an oracle."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from quality_metrics import NEVER, Truth
from scipy.optimize import minimize
from scipy.stats import rankdata

from chaffinch.filters.fitted import Fitted
from chaffinch.jobs import kinds
from chaffinch.jobs.config import load_config
from chaffinch.jobs.console import Console
from chaffinch.jobs.documents import ConfigError
from chaffinch.jobs.experiment import Experiment
from chaffinch.pipeline.deciding.learn import LabelModelError, learn
from chaffinch.pipeline.deciding.probabilities import Probabilities
from chaffinch.pipeline.rows import Part, Rows

FOLDS = 5
PENALTY = 1.0
"""Of the oracle: on the squares of its coefficients, beside the sum of the samples' losses."""


@dataclass
class Judged:
    """A scored pool, and any judgement of it; one process, no Beam, nothing written.

    Attributes:
        config: path of the config.
        settings: `key=value` settings.
        shards: (n,) the shard of each sample.
        keys: (n,) its key.
        usable: (n,) bool, not rejected.
        scores: filter -> (n,) float32.
        votes: (n, m) int8, as the config's own ranges have it.
        directions: (m,) +1 where higher scores are better, -1 where lower ones are, 0 for a band.
    """

    config: str
    settings: list[str]
    shards: np.ndarray = field(init=False)
    keys: np.ndarray = field(init=False)
    usable: np.ndarray = field(init=False)
    scores: dict[str, np.ndarray] = field(init=False)
    votes: np.ndarray = field(init=False)
    directions: list[int] = field(init=False)

    def __post_init__(self) -> None:
        """Judges the pool once as the config says, and keeps its rows."""
        fitted = self.learn([])
        filters = fitted.teach(self.experiment.config.filters)
        rows = [Rows.read(part, self._pool.source, list(filters.values()), ["key"]) for part in self._parts]
        names = [[part.shard.name] * len(one.usable) for part, one in zip(self._parts, rows, strict=True)]
        self.shards = np.concatenate(names)
        self.keys = np.concatenate([np.array(one.samples["key"].to_pylist(), object) for one in rows])
        self.usable = np.concatenate([one.usable for one in rows])
        columns = zip(*(one.scores for one in rows), strict=True)
        self.scores = {name: np.concatenate(parts) for name, parts in zip(filters, columns, strict=True)}
        self.votes = fitted.votes(list(self.scores.values()), len(self.usable))
        self.directions = [ranges.direction for ranges in fitted.ranges]

    @cached_property
    def experiment(self) -> Experiment:
        """The config's own experiment."""
        return Experiment(load_config(self.config, self.settings), Console(quiet=True))

    @property
    def _pool(self) -> Any:
        side = self.experiment.sides[0]
        return self.experiment.pool(side, side.found_folders())

    def learn(self, settings: Sequence[str]) -> Fitted:
        """Fits ranges and label models with other settings, as `decide` would.

        Args:
            settings: `key=value` settings on top of the config's.

        Returns:
            The judgement; its cut is not the config's.

        Raises:
            ConfigError: the settings make no config.
            LabelModelError: a label model cannot be fitted to these filters.
        """
        experiment = Experiment(load_config(self.config, [*self.settings, *settings]), Console(quiet=True))
        pools = [experiment.pool(side, side.found_folders()) for side in experiment.sides]
        # A share makes the product learn the ranks that order samples of equal probability.
        judgement = replace(experiment.judgement, fraction=0.5, count=None, probability=None)
        learned = learn(_count, pools[0], pools[1] if len(pools) > 1 else None, judgement)
        if not hasattr(self, "_parts"):
            self._parts: list[Part] = pools[0].parts(learned.repeated)
        return learned.fitted

    def filter_order(self, position: int) -> np.ndarray:
        """(n,) one filter alone: its score turned so that more is better, a band's vote; the median where it is NaN."""
        name, direction = list(self.scores)[position], self.directions[position]
        scores = self.scores[name].astype(np.float64)
        order = scores * direction if direction else np.where(np.isnan(scores), np.nan, self.votes[:, position])
        known = order[self.usable & ~np.isnan(order)]
        # A filter that cannot judge says neither "good" nor "bad".
        order = np.where(np.isnan(order), np.median(known) if len(known) else 0.0, order)
        return np.where(self.usable, order, NEVER)

    def ensemble_order(self, settings: Sequence[str]) -> np.ndarray:
        """(n,) the places that the product's own order gives, by probability and then soft score."""
        fitted = self.learn(settings)
        scores = list(self.scores.values())
        votes = fitted.votes(scores, len(self.usable))
        chances = Probabilities(fitted).of(votes, scores)
        probability = chances.probability
        soft = fitted.soft_scores(scores, len(self.usable))
        _, places = np.unique(
            np.stack([probability.astype(np.float64), soft.astype(np.float64)], 1), axis=0, return_inverse=True
        )
        return np.where(self.usable & chances.candidates, places.ravel().astype(np.float64), NEVER)

    def label_model_settings(self, kind: str, one_aspect: bool) -> list[str]:
        """Settings that exchange the label model of every aspect that has none of its own, or of one aspect for all."""
        section = self.experiment.config.sections.ensemble
        prior = (section.model_extra or {}).get("class_prior")
        parts = [f"label_model: {kind}"] + ([f"class_prior: {prior}"] if prior is not None else [])
        if not one_aspect:
            return [f"ensemble={{{', '.join(parts)}, aspects: {section.aspects!r}}}"]
        judging = [name for name, judge in self.experiment.config.filters.items() if not judge.require]
        return [f"ensemble={{{', '.join(parts)}}}", *(f"filters.{name}.aspect=quality" for name in judging)]

    def label_models(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Every label model kind over the config's filters, in one aspect and in the config's own.

        Returns:
            Name -> (n,) order; and name -> why there is none.
        """
        found, refused = {}, {}
        aspects = {judge.aspect for judge in self.experiment.config.filters.values() if not judge.require}
        for kind in sorted(kinds.label_models()):
            for one_aspect in (True, False)[: 1 if len(aspects) < 2 else 2]:
                name = f"{kind}, {'one aspect' if one_aspect else 'the aspects'}"
                try:
                    found[name] = self.ensemble_order(self.label_model_settings(kind, one_aspect))
                except (ConfigError, LabelModelError, ValueError) as error:
                    refused[name] = str(error)
        return found, refused

    def oracle_order(self, truth: Truth, seed: int) -> np.ndarray:
        """The ceiling: logistic regression on all filters' scores that has seen the truth of the other samples.

        Features of a sample, per filter: the rank of its score in the pool, whether it is NaN, and whether the filter
        votes drop (a rule at the edge of a range is no straight line in ranks). Ridge penalty, five folds, copies of
        one another in one fold; every sample is judged by the fit that has not seen it. It cannot see more than the
        filters do: where two copies look alike to all of them, it does not tell which came first either.

        Args:
            truth: what is true of the n samples.
            seed: of the folds.

        Returns:
            (n,) log odds.
        """
        usable = self.usable
        features = []
        for position, scores in enumerate(self.scores.values()):
            values, unknown = scores[usable].astype(np.float64), np.isnan(scores[usable])
            ranks = np.zeros(len(values))
            if not unknown.all():
                ranks[~unknown] = rankdata(values[~unknown]) / (~unknown).sum() - 0.5
            features += [ranks * np.sqrt(12), unknown, self.votes[usable, position] == -1]
        matrix = np.stack(features, 1).astype(np.float64)
        owner = np.arange(len(usable))
        for rows in truth.copies:
            owner[rows] = rows[0]
        fold = np.random.default_rng(seed).integers(FOLDS, size=len(usable))[owner][usable]
        odds = np.zeros(len(matrix))
        for number in range(FOLDS):
            coefficients = fit_logistic(matrix[fold != number], truth.good[usable][fold != number])
            odds[fold == number] = matrix[fold == number] @ coefficients[1:] + coefficients[0]
        order = np.full(len(usable), NEVER)
        order[usable] = odds
        return order


def fit_logistic(features: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Logistic regression with a ridge penalty on all but the intercept.

    Args:
        features: (n, d).
        good: (n,) bool.

    Returns:
        (d + 1,) the intercept, then the coefficients.
    """
    design = np.concatenate([np.ones((len(features), 1)), features], axis=1)
    sign = np.where(good, 1.0, -1.0)
    shrunk = np.concatenate([[0.0], np.ones(features.shape[1])]) * PENALTY

    def loss(coefficients: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (design @ coefficients)
        wrong = np.exp(-np.logaddexp(0, margin))  # P(the other class)
        value = np.logaddexp(0, -margin).sum() + 0.5 * (shrunk * coefficients**2).sum()
        return float(value), -design.T @ (sign * wrong) + shrunk * coefficients

    found = minimize(loss, np.zeros(design.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    return np.asarray(found.x)


def _count(label: str, parts: Sequence[Part], function: Callable[[Part], Any]) -> Any:
    """Adds up over a pool in this process."""
    total = None
    for part in parts:
        one = function(part)
        total = one if total is None else total.merge(one)
    return total
