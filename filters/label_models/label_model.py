"""What every label model is: an estimator of P(keep) from votes, fitted on counted vote patterns."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np


def as_votes(votes: np.ndarray) -> np.ndarray:
    """Checks that votes are a matrix of small whole numbers.

    Args:
        votes: (n samples, m sources) integers, or floats that hold whole numbers.

    Returns:
        (n samples, m sources) int8, contiguous.

    Raises:
        ValueError: votes is not two-dimensional, or holds NaN, fractions or numbers that no vote can have.
    """
    votes = np.asarray(votes)
    if votes.ndim != 2:
        raise ValueError(f"votes must be (n samples, m sources), not of shape {votes.shape}")
    if votes.dtype != np.int8:
        with np.errstate(invalid="ignore"):
            narrow = votes.astype(np.int8)
        if not np.array_equal(narrow, votes):
            raise ValueError(
                "votes must be whole numbers: -1 drop, 0 abstain, +1 keep, or 1..k with classes=k; "
                "give 0 where a source cannot judge (NaN is no vote)"
            )
        votes = narrow
    return np.ascontiguousarray(votes)


def row_codes(votes: np.ndarray) -> np.ndarray | None:
    """Names each row by one integer, ordered as the rows are; sorting these is much faster than sorting rows.

    Args:
        votes: (n samples, m sources) int8.

    Returns:
        (n,) int64, equal where rows are equal; None where so many sources do not fit into 63 bits.
    """
    low, high = int(votes.min(initial=0)), int(votes.max(initial=0))
    base = high - low + 1
    if base ** votes.shape[1] >= 2**63:
        return None
    codes = np.zeros(len(votes), dtype=np.int64)
    for column in votes.T:
        codes *= base
        codes += column
        codes -= low
    return codes


def count_patterns(votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts how often each row of votes occurs; all that a label model needs to know of n samples.

    Args:
        votes: (n samples, m sources) integers.

    Returns:
        (p patterns, m sources) the distinct rows in lexicographic order, and (p,) int64 how often each occurs.

    Raises:
        ValueError: votes is not two-dimensional or holds something that is no vote.
    """
    patterns, _, counts = distinct_patterns(votes)
    return patterns, counts


def distinct_patterns(votes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds the distinct rows of votes, and where each row went.

    Args:
        votes: (n samples, m sources) integers.

    Returns:
        (p patterns, m sources) int8 the distinct rows in lexicographic order, (n,) the pattern of each sample, and
        (p,) int64 how often each pattern occurs.

    Raises:
        ValueError: votes is not two-dimensional or holds something that is no vote.
    """
    votes = as_votes(votes)
    codes = row_codes(votes)
    if codes is None:
        patterns, inverse, counts = np.unique(votes, axis=0, return_inverse=True, return_counts=True)
    else:
        _, first, inverse, counts = np.unique(codes, return_index=True, return_inverse=True, return_counts=True)
        patterns = votes[first]
    return patterns, inverse.reshape(-1), counts.astype(np.int64)


def merge_patterns(patterns: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Brings counted patterns into the one order that makes a fit the same to the last bit.

    Args:
        patterns: (p patterns, m sources) rows of votes in any order, a row possibly more than once.
        counts: (p,) how many samples show each pattern, 0 or more.

    Returns:
        (q patterns, m sources) int8 distinct rows in lexicographic order, and (q,) int64 counts, all above 0.

    Raises:
        ValueError: the two do not fit together, or a count is negative or no whole number.
    """
    given = np.asarray(counts)
    if given.shape != (len(patterns),):
        raise ValueError(f"{len(patterns)} patterns need as many counts, not counts of shape {given.shape}")
    counts = given.astype(np.int64)
    if (counts < 0).any() or not np.array_equal(counts, given):
        raise ValueError("counts must be whole numbers, 0 or more: how many samples show each pattern")
    patterns, inverse, _ = distinct_patterns(patterns)
    total = np.zeros(len(patterns), dtype=np.int64)
    np.add.at(total, inverse, counts)
    return patterns[total > 0], total[total > 0]


def vote_classes(votes: np.ndarray, classes: int) -> np.ndarray:
    """Turns votes into class numbers.

    Args:
        votes: (n samples, m sources) integers: -1, 0, +1 with two classes, 0..k with k.
        classes: k, at least 2.

    Returns:
        (n, m) intp: 0..k-1 for the class voted for (two classes: 0 drop, 1 keep), and k for abstains.

    Raises:
        ValueError: a vote is for no class.
    """
    votes = as_votes(votes)
    low, high = (-1, 1) if classes == 2 else (0, classes)
    if votes.size and (votes.min() < low or votes.max() > high):
        wrong = votes[(votes < low) | (votes > high)][0]
        allowed = "-1 (drop), 0 (abstain) and +1 (keep)" if classes == 2 else f"0 (abstain) and 1..{classes}"
        raise ValueError(
            f"a vote is {wrong}, but with classes={classes} votes are {allowed}: "
            "recode the votes, or set `classes` to the number of classes"
        )
    if classes == 2:
        return np.array([2, 1, 0])[votes.astype(np.intp)]  # indexed by 0, +1, -1
    return (votes.astype(np.intp) - 1) % (classes + 1)


def class_shares(class_prior: float | tuple[float, ...] | None, classes: int) -> np.ndarray:
    """The class prior as one share per class; equal shares where none is given.

    Args:
        class_prior: P(keep) with two classes, k shares with k.
        classes: k, at least 2.

    Returns:
        (k,) float64, summing to 1; two classes: drop, keep.

    Raises:
        ValueError: the prior does not fit the number of classes.
    """
    if class_prior is None:
        return np.full(classes, 1.0 / classes)
    if isinstance(class_prior, tuple):
        if len(class_prior) != classes:
            raise ValueError(
                f"class_prior has {len(class_prior)} shares for {classes} classes: give one share per class"
            )
        return np.array(class_prior, dtype=np.float64)
    if classes != 2:
        raise ValueError(f"class_prior is one number, but there are {classes} classes: give {classes} shares")
    return np.array([1.0 - class_prior, class_prior])


@dataclass(kw_only=True)
class LabelModel:
    """Base of all label models. The name of the file that defines one is its kind.

    Votes are -1 drop, 0 abstain, +1 keep; with `classes=k` they are 1..k and 0 abstains. A model is fitted on counted
    patterns, so that counts gathered shard by shard give exactly what all votes in memory would give.

    Attributes:
        class_prior: P(keep) before any vote, in (0, 1); None where the model estimates or does not need it. With
            `classes=k` one share per class, summing to 1.
        is_rule: a probability of 0 is final: such samples are never kept, however many are asked for.
    """

    class_prior: float | tuple[float, ...] | None = None

    is_rule: ClassVar[bool] = False
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    accuracy_: np.ndarray = dataclasses.field(init=False, repr=False, compare=False)
    """(m,) P(vote is right given that the source votes), in [0, 1]; NaN where the model does not estimate it."""
    weight_: np.ndarray = dataclasses.field(init=False, repr=False, compare=False)
    """(m,) how much each source's opinion counts where samples have to be ordered; 0 or more, higher: counts more."""

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

    def fit(self, votes: np.ndarray) -> Self:
        """Fits the model to votes in memory.

        Args:
            votes: (n samples, m sources) integers.

        Returns:
            The model itself.

        Raises:
            ValueError: votes are no votes.
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
        """The posterior of every sample, computed once per distinct pattern.

        Args:
            votes: (n samples, m sources) integers.

        Returns:
            (n,) float64 P(keep); with `classes=k`, (n, k). A row of abstains has the class prior.

        Raises:
            ValueError: votes are no votes, have another number of sources than the fit had, or there was no fit.
        """
        patterns, inverse, _ = distinct_patterns(votes)
        if not hasattr(self, "weight_"):
            raise ValueError(f"this {type(self).__name__} has not been fitted: call fit or restore first")
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
