"""Sets of pictures made elsewhere: embeddings or hashes in a file, or in the tables of another store."""

import functools
import io

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chaffinch.pipeline.storage import files, listings, parquet
from chaffinch.scoring.neighbourhood.embeddings import unit, vectors_of


class SetError(Exception):
    """A set of pictures that a setting names cannot be used."""


@functools.lru_cache(maxsize=4)
def read_embeddings(path: str, column: str) -> np.ndarray:
    """Reads embeddings.

    Args:
        path: a .npy file, a .parquet file, or a folder of them, on any filesystem.
        column: the column of the tables, as `<scorer>.<column>`.

    Returns:
        (n, d) float32 of length one; vectors without a direction are left out.

    Raises:
        SetError: there are none, or they cannot be read.
    """
    parts = [part if isinstance(part, np.ndarray) else _vectors(part) for part in _read(path, column)]
    if any(part.ndim != 2 or part.dtype.kind != "f" for part in parts) or len({part.shape[1] for part in parts}) > 1:
        raise SetError(f"{path}: holds no vectors of one length; give floats of shape (n, d)")
    vectors, usable = unit(np.concatenate(parts))
    if not usable.any():
        raise SetError(f"{path}: holds no vector that has a direction")
    return vectors[usable]


@functools.lru_cache(maxsize=4)
def read_hashes(path: str, column: str) -> np.ndarray:
    """Reads hashes.

    Args:
        path: a .npy file, a .parquet file, or a folder of them, on any filesystem.
        column: the column of the tables, as `<scorer>.<column>`.

    Returns:
        (n,) uint64.

    Raises:
        SetError: there are none, or they cannot be read.
    """
    parts = [part if isinstance(part, np.ndarray) else part.to_numpy() for part in _read(path, column)]
    if any(part.ndim != 1 or part.dtype.itemsize != 8 or part.dtype.kind not in "iu" for part in parts):
        raise SetError(f"{path}: holds no hashes of 64 bits; give whole numbers of shape (n,)")
    hashes = np.concatenate(parts).astype(np.uint64)
    if not len(hashes):
        raise SetError(f"{path}: holds no hash")
    return hashes


def _read(path: str, column: str) -> list[np.ndarray | pa.Array]:
    name = column.partition(".")[2]
    try:
        if path.endswith(".npy"):
            return [np.load(io.BytesIO(files.read_bytes(path)), allow_pickle=False)]
        paths = (
            [path] if path.endswith(".parquet") else [info.path for info in listings.listing_below(path, ".parquet")]
        )
        tables = [parquet.read_table(one, [name]) for one in paths]
    except (OSError, ValueError) as error:
        raise SetError(f"{path}: cannot be read: {error}") from error
    if not tables or any(name not in table.column_names for table in tables):
        raise SetError(f"{path}: no table there has a column {name!r}; give one that holds what {column} does")
    return [table[name].combine_chunks().drop_null() for table in tables]


def _vectors(column: pa.Array) -> np.ndarray:
    """Vectors, also where others have stored them as lists that happen to have one length; else something flat."""
    lengths = np.zeros(0)
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        lengths = np.unique(pc.list_value_length(column).to_numpy())
    if len(lengths) == 1:
        column = pa.FixedSizeListArray.from_arrays(column.flatten(), int(lengths[0]))
    return vectors_of(column) if pa.types.is_fixed_size_list(column.type) else np.zeros(0)
