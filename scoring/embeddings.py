"""Embeddings that were stored as a column, as heads read them."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from chaffinch.scoring.neighbourhood.embeddings import unit, vectors_of


def check_embedding(column: str, types: Mapping[str, pa.DataType], dimensions: int | None, whose: str) -> None:
    """Refuses a column that holds no vectors, or vectors of another length.

    Args:
        column: its name, <scorer>.<column>.
        types: column -> type.
        dimensions: d, the length that is needed; None where it is not known yet.
        whose: what needs it, for the message.

    Raises:
        ValueError: what is wrong, and the remedy.
    """
    kind = types[column]
    if not (pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type)):
        raise ValueError(f"embedding: {column} holds {kind}, not vectors; clip has them with `embeddings`")
    check_length(column, kind.list_size, dimensions, whose)


def check_length(column: str, length: int, dimensions: int | None, whose: str) -> None:
    """Refuses vectors of another length than what needs them takes, with a ValueError."""
    if dimensions not in (None, length):
        raise ValueError(
            f"embedding: {column} has {length} dimensions, and {whose} takes {dimensions}: name an embedding of the "
            "model that it was made for"
        )


def unit_vectors(column: pa.Array) -> np.ndarray:
    """Takes a column of embeddings as it is stored and scales each to length 1.

    Args:
        column: n lists of d floats, none null.

    Returns:
        (n, d) float64; NaN where a vector has no direction.
    """
    scaled, usable = unit(vectors_of(column))
    rows: np.ndarray = scaled.astype(np.float64)
    rows[~usable] = np.nan
    return rows
