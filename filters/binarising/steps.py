"""Scores at t steps, out of a column; and counts of them that know how many steps there were."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def read_steps(values: pa.Array, name: str, steps: tuple[int | None, int | None] | None) -> np.ndarray | None:
    """Turns a column into a matrix.

    Args:
        values: n numbers, or n lists of t numbers.
        name: what to call the column in an error.
        steps: the first and the last of the t steps to take, from 0, both included; None takes all, in a pair: open.

    Returns:
        (n, steps taken) float32, NaN where there is no number; None where no row tells how many steps there are.

    Raises:
        ValueError: the column holds no numbers, lists of unequal lengths, or none of the steps.
    """
    kind = values.type
    if pa.types.is_null(kind):
        return None
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    inner = kind.value_type if lists else kind
    if not any(belongs(inner) for belongs in (pa.types.is_integer, pa.types.is_floating, pa.types.is_null)):
        raise ValueError(f"column {name!r} holds {kind}: name one with a mimic score per sample, or a list of them")
    if not lists:
        scores = _floats(values)[:, None]
        return _take(scores, name, steps) if values.null_count < len(values) else None
    seen = values.is_valid().to_numpy(zero_copy_only=False)
    rows = values.drop_null()
    lengths = np.unique(pc.list_value_length(rows).to_numpy(zero_copy_only=False))
    if len(lengths) > 1:
        raise ValueError(
            f"column {name!r} has lists of {lengths[0]} and of {lengths[-1]} scores: give every sample as many as "
            "there are steps, NaN where it was not seen"
        )
    if not len(lengths) or not lengths[0]:
        return None
    scores = np.full((len(values), int(lengths[0])), np.nan, np.float32)
    scores[seen] = _floats(rows.flatten()).reshape(-1, int(lengths[0]))
    return _take(scores, name, steps)


def _floats(values: pa.Array) -> np.ndarray:
    numbers = values.cast(pa.float32(), safe=False).fill_null(np.nan)
    return np.asarray(numbers.to_numpy(zero_copy_only=False), np.float32)


def _take(scores: np.ndarray, name: str, steps: tuple[int | None, int | None] | None) -> np.ndarray:
    first, last = steps or (None, None)
    taken = scores[:, first or 0 : None if last is None else last + 1]
    if not taken.shape[1]:
        raise ValueError(f"steps: {list(steps or ())}: column {name!r} has but {scores.shape[1]}, counted from 0")
    return taken


@dataclass
class Counted:
    """What was counted of a shard's steps.

    Attributes:
        widths: how many steps samples have; one number, if all is well.
        part: statistics with `merge`; None where no sample has any step.
    """

    widths: frozenset[int]
    part: Any

    @classmethod
    def of(cls, scores: np.ndarray, part: Any) -> Self:
        """What was counted of (n, t) scores."""
        return cls(frozenset([scores.shape[1]]), part)

    @classmethod
    def nothing(cls) -> Self:
        """Of a shard without a score."""
        return cls(frozenset(), None)

    def merge(self, other: Self) -> Self:
        """Adds another shard's counts to these."""
        self.widths |= other.widths
        if len(self.widths) > 1:
            self.part = None  # of unequal widths nothing can be added, and which they are is told
        elif self.part is None:
            self.part = other.part
        elif other.part is not None:
            self.part = self.part.merge(other.part)
        return self

    def steps(self, name: str) -> int:
        """How many steps the samples have, 0 where none has any.

        Args:
            name: the column, for the error.

        Raises:
            ValueError: samples differ in that.
        """
        if len(self.widths) > 1:
            told = " and ".join(map(str, sorted(self.widths)))
            raise ValueError(
                f"column {name!r} has {told} steps in different shards: score all of them with the same checkpoints"
            )
        return next(iter(self.widths), 0)
