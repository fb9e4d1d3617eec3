"""What every filter is: settings that turn stored columns into a score per sample, and ranges that make it a vote."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa

Bounds = tuple[float | None, float | None] | str
"""`keep:` or `drop:` of a filter: [low, high], closed, None for open; or "top 30%", "bottom 40%", "above reference 5%",
"below reference 1%"; or "above labels", "below labels"."""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Base of all filters: frozen settings over score tables; changing them measures nothing again.

    The name of the file that defines a filter is its kind. The class docstring begins with "Score:" and gives the
    score's unit, range and which way is better.

    Attributes:
        keep: scores that vote keep (+1); the complement of `drop` where only `drop` is given.
        drop: scores that vote drop (-1); the complement of `keep` where only `keep` is given.
        require: a veto: samples this filter votes to drop are dropped, and it stays out of the label model.
        aspect: filters that judge the same thing share an aspect; P(keep) is the product over aspects.
    """

    keep: Bounds | None = None
    drop: Bounds | None = None
    require: bool = False
    aspect: str = "quality"

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    @property
    def kind(self) -> str:
        """The name of the file that defines this filter."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that `score` needs, as `<scorer>.<column>`."""
        raise NotImplementedError

    @property
    def takes_down(self) -> bool:
        """Whether samples that this filter drops leave their places in the output empty, so that nothing else moves.

        Nothing is then learned from its votes, and no other sample is kept in their stead. Only for one that vetoes.
        """
        return False

    @property
    def learns(self) -> bool:
        """Whether the pool has to be counted once more before `score` can be called; never, for most filters.

        As long as it says so, a pass over the pool adds up what `count` returns, and `fit` turns the sum into what
        `learned` is from then on.
        """
        return False

    @property
    def learned(self) -> Any:
        """What was learned from the pool, or between passes what is known so far; None before the first.

        Once nothing is left to learn, plain JSON values: fitted.json holds them. No part of the settings.
        """
        return vars(self).get("_learned")

    def with_learned(self, learned: Any) -> Self:
        """A copy of this filter that knows what was learned, here or elsewhere."""
        taught = dataclasses.replace(self)
        object.__setattr__(taught, "_learned", learned)
        return taught

    def identity(self) -> dict[str, Any]:
        """Everything that changes scores or votes; a filter with a file adds the digest of what it holds."""
        return {"kind": self.kind} | dataclasses.asdict(self)

    def check(self) -> None:
        """Checks, before anything starts, what the types of the settings cannot say.

        Raises:
            ValueError: what is wrong, and what to do about it.
        """

    def check_columns(self, types: Mapping[str, pa.DataType]) -> None:
        """Looks, before anything starts, whether the columns it reads are what it can read.

        Args:
            types: the arrow types of the columns named by `reads`.

        Raises:
            ValueError: what is wrong, and what to do about it.
        """

    def count(self, columns: Mapping[str, pa.Array]) -> Any:
        """Counts in one shard what is to be learned next; only for a filter that learns.

        Args:
            columns: as for `score`.

        Returns:
            Small statistics that pickle, with a method `merge` that adds another shard's to them and returns the sum.
            Sum up whole numbers: then neither order nor how the pool was cut into shards changes the result.
        """
        raise NotImplementedError

    def fit(self, counted: Any) -> Any:
        """Learns from what was counted in the whole pool; only for a filter that learns.

        Args:
            counted: the sum of what `count` returned.

        Returns:
            What `learned` is from now on.

        Raises:
            ValueError: nothing can be learned from that; what to do about it.
        """
        raise NotImplementedError

    def report(self) -> dict[str, Any]:
        """What summary.json tells of what was learned, as plain JSON values; nothing for most filters."""
        return {}

    def score(self, columns: Mapping[str, pa.Array]) -> np.ndarray:
        """Reduces n rows of columns to one number each.

        Args:
            columns: the columns named by `reads`, n rows each; null where a sample was rejected or skipped.

        Returns:
            (n,) float32; NaN means "cannot judge" and makes the filter abstain.
        """
        raise NotImplementedError
