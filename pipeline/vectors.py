"""Vectors in parquet: Arrow writes lists of one length, but cannot read them back where some are null.

So they are written as plain lists, with their length beside the column's name. Known as apache/arrow issue 35692.
"""

import numpy as np
import pyarrow as pa

_LENGTH = b"length"


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
