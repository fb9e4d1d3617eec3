"""What every label model is: an estimator of P(keep) from votes, fitted on counted vote patterns."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np


def count_patterns(votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts how often each row of votes occurs; all that a label model needs to know of n samples.

    Args:
        votes: (n samples, m sources) integers.

    Returns:
        (p patterns, m sources) the distinct rows in lexicographic order, and (p,) int64 how often each occurs.

    Raises:
        ValueError: votes is not two-dimensional.
    """
    votes = np.ascontiguousarray(votes, dtype=np.int8)
    if votes.ndim != 2:
        raise ValueError(f"votes must be (n samples, m sources), not of shape {votes.shape}")
    if votes.shape[1] == 0 or len(votes) == 0:
        return votes[:1], np.array([len(votes)][: len(votes)], dtype=np.int64)
    patterns, counts = np.unique(votes, axis=0, return_counts=True)
    return patterns, counts.astype(np.int64)


@dataclass(kw_only=True)
class LabelModel:
    """Base of all label models. The name of the file that defines one is its kind.

    Votes are -1 drop, 0 abstain, +1 keep; with `classes=k` they are 1..k and 0 abstains. A model is fitted on counted
    patterns, so that counts gathered shard by shard give exactly what all votes in memory would give.

    Attributes:
        class_prior: P(keep) before any vote, in (0, 1); None where the model estimates or does not need it.
        is_rule: a probability of 0 is final: such samples are never kept, however many are asked for.
    """

    class_prior: float | None = None

    is_rule: ClassVar[bool] = False
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    accuracy_: np.ndarray = dataclasses.field(init=False, repr=False)
    """(m,) P(vote is right given that the source votes), in [0, 1]; NaN where the model does not estimate it."""
    weight_: np.ndarray = dataclasses.field(init=False, repr=False)
    """(m,) how much each source's opinion counts where samples have to be ordered; 0 or more, higher: counts more."""

    @property
    def kind(self) -> str:
        """The name of the file that defines this label model."""
        return type(self).__module__.rpartition(".")[2]

    def fit(self, votes: np.ndarray) -> Self:
        """Fits the model to votes in memory.

        Args:
            votes: (n samples, m sources) integers.

        Returns:
            The model itself.
        """
        return self.fit_patterns(*count_patterns(votes))

    def fit_patterns(self, patterns: np.ndarray, counts: np.ndarray) -> Self:
        """Fits the model to counted vote patterns.

        Args:
            patterns: (p patterns, m sources) distinct rows of votes; the result does not depend on their order.
            counts: (p,) how many samples show each pattern.

        Returns:
            The model itself.
        """
        raise NotImplementedError

    def predict_proba(self, votes: np.ndarray) -> np.ndarray:
        """The posterior of every sample.

        Args:
            votes: (n samples, m sources) integers.

        Returns:
            (n,) float64 P(keep); with `classes=k`, (n, k). A row of abstains has the class prior.
        """
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """Settings and learned numbers as plain JSON values; `restore` turns them back into an equal model."""
        values = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return {"kind": self.kind} | {
            name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Self:
        """The model that `state` described, ready to predict.

        Args:
            state: what `state` returned, also after a trip through JSON.

        Returns:
            A fitted model.
        """
        settings = {field.name for field in dataclasses.fields(cls) if field.init}
        model = cls(**{name: value for name, value in state.items() if name in settings})
        for name, value in state.items():
            if name.endswith("_"):
                setattr(model, name, np.asarray(value) if isinstance(value, list) else value)
        return model
