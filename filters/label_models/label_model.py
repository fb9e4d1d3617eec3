"""What every label model is: an estimator of P(keep) from votes, fitted on counted vote patterns."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from chaffinch.filters.label_models.evidence import Evidence
from chaffinch.filters.label_models.tables import Table, count_batches, read_votes
from chaffinch.filters.label_models.votes import count_patterns, distinct_patterns, merge_patterns, vote_classes


@dataclass(kw_only=True)
class LabelModel:
    """Base of all label models. The name of the file that defines one is its kind.

    Votes are -1 drop, 0 abstain, +1 keep; with `classes=k` they are 1..k and 0 abstains. A model is fitted on counted
    patterns, so that counts gathered shard by shard give exactly what all votes in memory would give.

    Attributes:
        class_prior: P(keep) before any vote, in (0, 1); None where the model estimates or does not need it. With
            `classes=k` one share per class, summing to 1.
        is_rule: a probability of 0 is final: such samples are never kept, however many are asked for.
        is_soft: it judges soft votes, sample by sample, and not vote patterns.
        needs_reference: it learns from known-good samples, and not without.
        uses_reference: it learns from known-good samples where there are any.
        needs_peers: it learns from how sources agree, so that one by itself is better calibrated than fitted.
    """

    class_prior: float | tuple[float, ...] | None = None

    is_rule: ClassVar[bool] = False
    is_soft: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = False
    uses_reference: ClassVar[bool] = False
    needs_peers: ClassVar[bool] = False
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    accuracy_: np.ndarray = dataclasses.field(init=False, repr=False, compare=False)
    """(m,) P(vote is right given that the source votes), in [0, 1]; NaN where the model does not estimate it."""
    weight_: np.ndarray = dataclasses.field(init=False, repr=False, compare=False)
    """(m,) how much each source's opinion counts where samples have to be ordered; 0 or more, higher: counts more."""
    feature_names_in_: np.ndarray = dataclasses.field(init=False, repr=False, compare=False)
    """(m,) names of the sources; only there after a fit to a table, whose columns had them."""

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ValueError: a class prior is not strictly between 0 and 1, or shares do not sum to 1.
        """
        if self.class_prior is None:
            return
        shares = self.class_prior if isinstance(self.class_prior, tuple) else (self.class_prior,)
        if not all(0 < share < 1 for share in shares):
            raise ValueError(
                f"class_prior is {self.class_prior}, but must lie strictly between 0 and 1, since no vote could ever "
                "change a certainty: give your best estimate (such as 0.99), or leave it out"
            )
        if len(shares) > 1 and not math.isclose(sum(shares), 1.0, abs_tol=1e-6):
            raise ValueError(f"the shares of class_prior sum to {sum(shares):g}: make them sum to 1")

    @property
    def kind(self) -> str:
        """The name of the file that defines this label model."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def prior_unknown(self) -> str | None:
        """Why no votes can tell the class prior, and what is taken for it where none is given; None where they can."""
        return None

    def fit(self, votes: Table) -> Self:
        """Fits the model to votes in memory.

        Args:
            votes: (n samples, m sources) whole numbers: an array or nested lists, or a table of pandas, polars or Arrow
                with a column per source, in which null and NaN are abstains.

        Returns:
            The model itself.

        Raises:
            ValueError: votes are no votes.
        """
        read, names = read_votes(votes)
        self.fit_patterns(*count_patterns(read))
        return self._named(names)

    def fit_batches(self, batches: Iterable[Table]) -> Self:
        """Fits the model to more votes than there is memory for; equal to the bit to `fit` on all of them.

        Args:
            batches: each of them what `fit` takes. Their counted patterns are kept, and not they themselves.

        Returns:
            The model itself.

        Raises:
            ValueError: votes are no votes, batches do not fit together, there is none, or the model judges scores.
        """
        patterns, counts, names = count_batches(batches)
        self.fit_patterns(patterns, counts)
        return self._named(names)

    def learn(self, evidence: Evidence) -> Self:
        """Fits the model to all that was counted; most look at the votes of the pool alone.

        Args:
            evidence: what there is to learn from.

        Returns:
            The model itself.

        Raises:
            ValueError: nothing can be learned from that; what to do about it.
        """
        return self.fit_patterns(evidence.votes.patterns, evidence.votes.counts)

    def fit_patterns(self, patterns: np.ndarray, counts: np.ndarray) -> Self:
        """Fits the model to counted vote patterns.

        Args:
            patterns: (p patterns, m sources) distinct rows of votes; the result does not depend on their order.
            counts: (p,) how many samples show each pattern.

        Returns:
            The model itself.
        """
        raise NotImplementedError

    def learn_nothing(self, patterns: np.ndarray, counts: np.ndarray, classes: int = 2) -> Self:
        """The fit of a model that only counts votes: all sources weigh the same, no accuracy is estimated.

        Args:
            patterns: (p patterns, m sources) rows of votes.
            counts: (p,) how many samples show each pattern.
            classes: k, at least 2.

        Returns:
            The model itself.

        Raises:
            ValueError: votes are no votes, or counts no counts.
        """
        patterns, _ = merge_patterns(patterns, counts)
        vote_classes(patterns, classes)
        self.accuracy_ = np.full(patterns.shape[1], np.nan)
        self.weight_ = np.ones(patterns.shape[1])
        return self

    def predict_proba(self, votes: Table) -> np.ndarray:
        """The posterior of every sample, computed once per distinct pattern.

        Args:
            votes: (n samples, m sources), as `fit` takes them. If the model was fitted to a table, columns of a table
                are found by their names, in whatever order and among whichever others they stand.

        Returns:
            (n,) float64 P(keep); with `classes=k`, (n, k). A row of abstains has the class prior.

        Raises:
            ValueError: votes are no votes, have another number of sources than the fit had or lack one of its columns,
                or there was no fit.
        """
        if not hasattr(self, "weight_"):
            raise ValueError(f"this {type(self).__name__} has not been fitted: call fit or restore first")
        patterns, inverse, _ = distinct_patterns(read_votes(votes, self._names)[0])
        if patterns.shape[1] != len(self.weight_):
            raise ValueError(
                f"votes have {patterns.shape[1]} sources, but the model was fitted on {len(self.weight_)}: "
                "give the same sources in the same order, or fit again"
            )
        posterior: np.ndarray = self.predict_patterns(patterns)[inverse]
        return posterior

    def predict_patterns(self, patterns: np.ndarray) -> np.ndarray:
        """The posterior of vote patterns, also of such as the fit has not seen.

        A row's numbers may not depend on the other rows, not even in the last bit: a shard with one sample and a pool
        in memory must agree.

        Args:
            patterns: (p patterns, m sources) int8.

        Returns:
            (p,) float64 P(keep); with `classes=k`, (p, k).
        """
        raise NotImplementedError

    @property
    def _names(self) -> tuple[str, ...] | None:
        """The columns that the fit had; None where it had an array."""
        return tuple(map(str, self.feature_names_in_)) if hasattr(self, "feature_names_in_") else None

    def _named(self, names: Sequence[str] | None) -> Self:
        """Remembers the columns of the fit, or forgets those of an earlier one."""
        vars(self).pop("feature_names_in_", None)
        if names is not None:
            self.feature_names_in_ = np.array(names, dtype=np.str_)
        return self

    def state(self) -> dict[str, Any]:
        """Settings and learned numbers as plain JSON values; `restore` turns them back into an equal model."""
        values = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return {"kind": self.kind} | {name: _plain(value) for name, value in values.items()}

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Self:
        """The model that `state` described, ready to predict.

        Args:
            state: what `state` returned, also after a trip through JSON.

        Returns:
            A fitted model.
        """
        settings = {field.name for field in dataclasses.fields(cls) if field.init}
        model = cls(
            **{
                name: tuple(value) if isinstance(value, list) else value
                for name, value in state.items()
                if name in settings
            }
        )
        for name, value in state.items():
            if name.endswith("_"):
                setattr(model, name, _learned(value))
        return model


def _plain(value: Any) -> Any:
    """A value as strict JSON knows it: arrays and tuples as lists, NaN as null."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _learned(value: Any) -> Any:
    """A learned value as it was before `_plain`; of these only NaN becomes null."""
    if isinstance(value, list):
        array = np.asarray(value)
        return array.astype(np.float64) if array.dtype == object else array
    return math.nan if value is None else value
