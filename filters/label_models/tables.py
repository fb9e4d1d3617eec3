"""Votes and scores as people have them: arrays, nested lists, and tables of pandas, polars or Arrow."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from chaffinch.filters.label_models.votes import as_votes, count_patterns, merge_patterns

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_LOOSE = 1 << 20  # patterns that may gather before they are merged, so that each is sorted a few times only


class ArrowTable(Protocol):
    """A table that speaks Arrow's C stream interface: of pandas, polars, pyarrow, DuckDB and others."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """A capsule with the stream."""


Table = npt.ArrayLike | ArrowTable
"""(n samples, m sources): an array, nested lists, or a table with a column per source."""


def read_votes(votes: Table, names: Sequence[str] | None = None) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Reads votes from whatever holds them.

    In a table null and NaN are abstains, since that is what it has for "no value"; an index of pandas is no source. An
    array and lists have 0 for that, and NaN in them is refused: it is as often a mistake.

    Args:
        votes: (n samples, m sources).
        names: the columns to take from a table, in this order, others being passed over; None: all.

    Returns:
        (n, m) int8, and the names of the columns; None where there are none.

    Raises:
        ValueError: it is no table of votes, or lacks a column; says which, and what to do.
    """
    if not _is_table(votes):
        return as_votes(np.asarray(votes)), None
    table = _chosen(votes, names)
    read = np.empty((table.num_rows, table.num_columns), np.int8)
    for place, name in enumerate(table.column_names):
        values = _numbers(name, table.column(place), "votes")
        values = np.where(np.isnan(values), 0, values)
        with np.errstate(invalid="ignore"):
            read[:, place] = values
        wrong = values != read[:, place]
        if wrong.any():
            raise ValueError(
                f"column {name!r} holds {values[wrong][0]:g}, and votes must be whole numbers: -1 drop, 0 or nothing "
                "abstain, +1 keep, or 1..k with classes=k; leave out what is no vote"
            )
    return read, tuple(table.column_names)


def read_scores(scores: Table, names: Sequence[str] | None = None) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Reads scores from whatever holds them.

    Args:
        scores: (n samples, m sources); NaN, and null in a table, where a source cannot judge.
        names: the columns to take from a table, in this order, others being passed over; None: all.

    Returns:
        (n, m) float64, NaN where a source cannot judge; and the names of the columns, None where there are none.

    Raises:
        ValueError: it is no table of numbers, or lacks a column; says which, and what to do.
    """
    if not _is_table(scores):
        read = np.asarray(scores)
        if read.ndim != 2:
            raise ValueError(f"scores must be (n samples, m sources), not of shape {read.shape}")
        if read.dtype.kind not in "iuf":
            raise ValueError(f"scores must be numbers, and NaN where a source cannot judge; these are {read.dtype}")
        return read.astype(np.float64), None
    table = _chosen(scores, names)
    columns = [_numbers(name, table.column(place), "scores") for place, name in enumerate(table.column_names)]
    read = np.empty((table.num_rows, len(columns)))
    for place, column in enumerate(columns):
        read[:, place] = column
    return read, tuple(table.column_names)


def holds_votes(scores: Table) -> bool:
    """Whether what was given as scores are votes: an array, no table, of the whole numbers -1, 0 and 1 alone."""
    if _is_table(scores):
        return False
    read = np.asarray(scores)
    return read.dtype.kind in "iu" and bool(np.isin(read, (-1, 0, 1)).all())


def count_batches(batches: Iterable[Table]) -> tuple[np.ndarray, np.ndarray, tuple[str, ...] | None]:
    """Counts vote patterns part by part; memory grows with the number of distinct patterns, not with that of rows.

    Args:
        batches: votes, each (n samples, m sources); of tables all have the columns of the first.

    Returns:
        (p patterns, m sources) int8 in lexicographic order, (p,) int64 counts, and the names of the columns, None where
        there are none. The same as all batches in one would give.

    Raises:
        ValueError: there is no batch, votes are no votes, or batches do not fit together.
    """
    names: tuple[str, ...] | None = None
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    loose = 0
    for batch in batches:
        votes, found = read_votes(batch, names)
        names = names or found
        if parts and votes.shape[1] != parts[0][0].shape[1]:
            raise ValueError(f"a batch has votes of {votes.shape[1]} sources, the first of {parts[0][0].shape[1]}")
        parts.append(count_patterns(votes))
        loose += len(parts[-1][1])
        if loose > max(_MOST_LOOSE, len(parts[0][1])):
            parts, loose = [_merged(parts)], 0
    if not parts:
        raise ValueError("there is no batch to count votes of: give one at least, which may be empty")
    return *_merged(parts), names


def _merged(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    patterns, counts = (np.concatenate(part) for part in zip(*parts, strict=True))
    return merge_patterns(patterns, counts)


def _is_table(values: Any) -> bool:
    """Whether it has columns; pandas speaks Arrow since 2.2 and has `reset_index` in any version."""
    named = hasattr(values, "__arrow_c_stream__") or hasattr(values, "reset_index")
    return named and getattr(values, "ndim", 2) == 2


def _chosen(values: Any, names: Sequence[str] | None) -> "pa.Table":
    """The columns that are wanted."""
    import pyarrow as pa

    try:
        if hasattr(values, "reset_index"):
            table = pa.Table.from_pandas(values, preserve_index=False)
        else:
            table = pa.table(values)
    except (pa.ArrowException, TypeError) as error:
        raise ValueError(f"this is no table with a column of numbers per source: {error}") from error
    if names is None:
        twice = {name for name in table.column_names if table.column_names.count(name) > 1}
        if twice:
            raise ValueError(f"the table has more than one column {min(twice)!r}: give each source a name of its own")
        return table
    missing = [name for name in names if table.column_names.count(name) != 1]
    if missing:
        raise ValueError(
            f"the table has no column, or several, named {', '.join(map(repr, missing))}, but the fit had; it has "
            f"{', '.join(map(repr, table.column_names))}: name columns as in the fit, or give an array in that order"
        )
    return table.select(list(names))


def _numbers(name: str, column: "pa.ChunkedArray", what: str) -> np.ndarray:
    """(n,) integers, or float64 with NaN for null."""
    import pyarrow as pa

    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_null(column.type)):
        remedy = "write +1 for true and -1 for false" if pa.types.is_boolean(column.type) else "leave it out"
        raise ValueError(f"column {name!r} holds {column.type}, not {what}: {remedy}")
    if not pa.types.is_integer(column.type) or column.null_count:
        column = column.cast(pa.float64())
    numbers: np.ndarray = column.to_numpy()
    return numbers
