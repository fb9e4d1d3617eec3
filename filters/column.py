"""Any scalar column, as it stands."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from chaffinch.filters.filter import Filter


@dataclass(frozen=True, kw_only=True)
class Column(Filter):
    """Score: the column's own numbers, in its own unit and range; which way is better is for `keep` and `drop` to say.

    Attributes:
        column: the scalar column to read, as `<scorer>.<column>`.
    """

    column: str

    @property
    def reads(self) -> tuple[str, ...]:
        """The one column."""
        return (self.column,)

    def check(self) -> None:
        """Checks the column's name.

        Raises:
            ValueError: the name has not two parts.
        """
        scorer, dot, column = self.column.partition(".")
        if not (scorer and dot and column):
            raise ValueError(f"column {self.column!r} is not of the form <scorer>.<column>, such as captions.words")

    def check_columns(self, types: Mapping[str, pa.DataType]) -> None:
        """Checks that the column holds a number per sample.

        Args:
            types: the column's type.

        Raises:
            ValueError: it does not.
        """
        kind = types[self.column]
        scalar = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean, pa.types.is_null)
        if any(belongs(kind) for belongs in scalar):
            return
        remedy = "name a scalar column, or take a filter kind that reduces this one"
        lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
        if any(belongs(kind) for belongs in lists) and pa.types.is_floating(kind.value_type):
            remedy += "; where it has mimic scores of several checkpoints, kind: mimic_steps"
        raise ValueError(f"column {self.column!r} holds {kind}, not one number per sample: {remedy}")

    def score(self, columns: Mapping[str, pa.Array]) -> np.ndarray:
        """Casts the column.

        Args:
            columns: the column, n rows of integers, floats or booleans.

        Returns:
            (n,) float32; NaN where the column is null or NaN. Whole numbers beyond 2**24 are rounded.

        Raises:
            ValueError: the column holds no numbers.
        """
        values = columns[self.column]
        self.check_columns({self.column: values.type})
        numbers = values.cast(pa.float32(), safe=False)
        return np.array(numbers.fill_null(np.nan).to_numpy(zero_copy_only=False), dtype=np.float32)
