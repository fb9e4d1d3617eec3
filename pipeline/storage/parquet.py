"""Parquet files: the same table gives the same bytes, and vectors that are null in some rows come back.

Arrow writes lists of one length, but cannot read them back where some are null. So they are written as plain lists,
with their length beside the column's name. Known as apache/arrow issue 35692.
"""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from chaffinch.pipeline.storage import files

_REPEATING = ("reject", "reason", "source_shard")
_LENGTH = b"length"


def read_table(path: str, columns: list[str] | None = None) -> pa.Table:
    """Reads a parquet file.

    Args:
        path: the file.
        columns: only these; all by default.

    Returns:
        The table, with the file's own metadata in its schema.

    Raises:
        OSError: it is damaged or not there; names the file.
    """
    try:
        return from_lists(open_table(path).read(columns=columns, use_threads=False))
    except (pa.ArrowInvalid, OSError) as error:
        raise OSError(f"{path}: cannot be read as parquet: {error}") from error


def open_table(path: str) -> pq.ParquetFile:
    """Opens a parquet file to read its schema or some of its columns."""
    # Given a name, pyarrow would first work out which filesystem it is on, which takes as long as reading a column.
    return pq.ParquetFile(pa.OSFile(path) if files.is_local(path) else pa.BufferReader(files.read_bytes(path)))


def write_table(path: str, table: pa.Table) -> None:
    """Writes a parquet file whole or not at all; the same table gives the same bytes."""
    # Measurements hardly repeat: a dictionary would only be built and thrown away.
    repeating = [name for name in table.column_names if name in _REPEATING or name.startswith("vote_")]
    with files.writing(path) as file:
        pq.write_table(to_lists(table), file, compression="zstd", use_dictionary=repeating or False)


def to_lists(table: pa.Table) -> pa.Table:
    """A table to write: columns of vectors as plain lists that remember their length."""
    for index, field in enumerate(table.schema):
        if pa.types.is_fixed_size_list(field.type):
            plain = pa.list_(field.type.value_type)
            field = pa.field(field.name, plain, metadata={_LENGTH: str(field.type.list_size)})
            table = table.set_column(index, field, table[field.name].cast(plain))
    return table


def from_lists(table: pa.Table) -> pa.Table:
    """What was read of a table: lists that remember a length as vectors again."""
    for index, field in enumerate(table.schema):
        if pa.types.is_list(field.type) and _LENGTH in (field.metadata or {}):
            length = int(field.metadata[_LENGTH])
            kind = pa.list_(field.type.value_type, length)
            chunks = [_vectors(chunk, length) for chunk in table[field.name].chunks]
            table = table.set_column(index, pa.field(field.name, kind), pa.chunked_array(chunks, kind))
    return table


def _vectors(lists: pa.ListArray, length: int) -> pa.FixedSizeListArray:
    vectors = pa.FixedSizeListArray.from_arrays(lists.flatten(), length)
    if not lists.null_count:
        return vectors
    valid = lists.is_valid().to_numpy(zero_copy_only=False)
    return vectors.take(pa.array(np.cumsum(valid) - 1, mask=~valid))
