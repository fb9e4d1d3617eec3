"""Vectors are read as they were written, nulls among them or not."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaffinch.pipeline.storage import parquet
from chaffinch.pipeline.storage.parquet import from_lists, to_lists

VECTOR = pa.list_(pa.float16(), 3)
ROWS = st.lists(st.one_of(st.none(), st.lists(st.floats(width=16, allow_nan=False), min_size=3, max_size=3)))


@given(ROWS, ROWS)
def test_lists_are_vectors_again(one, other):
    column = pa.chunked_array([pa.array(one, VECTOR), pa.array(other, VECTOR)])
    table = pa.table({"row": range(len(column)), "vector": column}, metadata={"a": "b"})
    plain = to_lists(table)
    assert pa.types.is_list(plain.schema.field("vector").type)
    assert from_lists(plain).equals(table, check_metadata=True)


@pytest.mark.parametrize(
    "rows", [[], [None], [None, None], [[1, 2, 3], None, [4, 5, 6], None], [[1, 2, 3]], [None, [1, 2, 3]]]
)
def test_files_of_vectors(tmp_path, rows):
    """Arrow alone cannot read such a file where any vector is null."""
    path = str(tmp_path / "table.parquet")
    table = pa.table({"vector": pa.array(rows, VECTOR), "list": pa.array([[1]] * len(rows), pa.list_(pa.int8()))})
    parquet.write_table(path, table)
    assert parquet.read_table(path).equals(table)
    assert parquet.read_table(path, ["vector"]).equals(table.select(["vector"]))


def test_a_part_of_an_array(tmp_path):
    path = str(tmp_path / "table.parquet")
    rows = [[1.0, 2.0, 3.0], None, [4.0, 5.0, 6.0], None, [7.0, 8.0, 9.0]]
    parquet.write_table(path, pa.table({"vector": pa.array(rows, VECTOR)[1:4]}))
    assert parquet.read_table(path)["vector"].to_pylist() == rows[1:4]
