"""Reference and evaluation sets, from every kind of file, and what is said of those that cannot be used."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chaffinch.pipeline.storage import parquet
from chaffinch.pipeline.whole_pool.picture_sets import SetError, read_embeddings, read_hashes

VECTORS = pa.list_(pa.float16(), 2)


@pytest.fixture(autouse=True)
def forget():
    read_embeddings.cache_clear()
    read_hashes.cache_clear()


def test_embeddings_from_an_array_and_from_tables(tmp_path):
    np.save(tmp_path / "set.npy", np.array([[3, 4], [0, 0], [0, -2]], np.float16))
    wanted = [[0.6, 0.8], [0, -1]]
    np.testing.assert_allclose(read_embeddings(str(tmp_path / "set.npy"), "b32.vector"), wanted, atol=1e-7)
    folder = tmp_path / "b32-12345678"
    (folder / "inner").mkdir(parents=True)
    parquet.write_table(str(folder / "a.parquet"), pa.table({"vector": pa.array([[3, 4], None], VECTORS)}))
    pq.write_table(pa.table({"vector": pa.array([[0, -2]], VECTORS)}), folder / "inner" / "b.parquet")
    np.testing.assert_allclose(read_embeddings(str(folder), "b32.vector"), wanted, atol=1e-7)
    np.testing.assert_allclose(read_embeddings(str(folder / "a.parquet"), "b32.vector"), wanted[:1], atol=1e-7)


def test_hashes_from_an_array_and_from_tables(tmp_path):
    np.save(tmp_path / "set.npy", np.array([1, -1], np.int64))
    assert read_hashes(str(tmp_path / "set.npy"), "pictures.hash").tolist() == [1, 2**64 - 1]
    pq.write_table(pa.table({"hash": pa.array([5, None, 2**63], pa.uint64())}), tmp_path / "a.parquet")
    assert read_hashes(str(tmp_path / "a.parquet"), "pictures.hash").tolist() == [5, 2**63]


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.zeros(3, np.float32), "no vectors of one length"),
        (np.zeros((3, 2), np.int64), "no vectors of one length"),
        (np.zeros((3, 2), np.float32), "no vector that has a direction"),
    ],
)
def test_arrays_that_are_no_embeddings(tmp_path, array, complaint):
    np.save(tmp_path / "set.npy", array)
    with pytest.raises(SetError, match=complaint):
        read_embeddings(str(tmp_path / "set.npy"), "b32.vector")


@pytest.mark.parametrize(
    ("array", "complaint"), [(np.zeros((3, 2), np.uint64), "no hashes"), (np.zeros(0, np.uint64), "holds no hash")]
)
def test_arrays_that_are_no_hashes(tmp_path, array, complaint):
    np.save(tmp_path / "set.npy", array)
    with pytest.raises(SetError, match=complaint):
        read_hashes(str(tmp_path / "set.npy"), "pictures.hash")


def test_files_that_cannot_be_used(tmp_path):
    with pytest.raises(SetError, match="cannot be read"):
        read_embeddings(str(tmp_path / "nothing.npy"), "b32.vector")
    (tmp_path / "text.npy").write_text("no array")
    with pytest.raises(SetError, match="cannot be read"):
        read_embeddings(str(tmp_path / "text.npy"), "b32.vector")
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(SetError, match="cannot be read"):
        read_hashes(str(tmp_path / "text.parquet"), "pictures.hash")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SetError, match="no table there has a column 'vector'"):
        read_embeddings(str(tmp_path / "empty"), "b32.vector")
    pq.write_table(pa.table({"other": [1]}), tmp_path / "other.parquet")
    with pytest.raises(SetError, match=r"other\.parquet"):
        read_embeddings(str(tmp_path / "other.parquet"), "b32.vector")


def test_tables_of_different_models_are_refused(tmp_path):
    pq.write_table(pa.table({"vector": pa.array([[1, 2]], VECTORS)}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"vector": pa.array([[1, 2, 3]], pa.list_(pa.float16(), 3))}), tmp_path / "b.parquet")
    with pytest.raises(SetError, match="no vectors of one length"):
        read_embeddings(str(tmp_path), "b32.vector")


def test_lists_of_one_length_are_vectors(tmp_path):
    path = str(tmp_path / "a.parquet")
    pq.write_table(pa.table({"vector": pa.array([[3.0, 4.0], [0.0, -2.0]])}), path)
    np.testing.assert_allclose(read_embeddings(path, "b32.vector"), [[0.6, 0.8], [0, -1]], atol=1e-7)
    for values in ([[1.0, 2.0], [1.0]], [1.0, 2.0], ["a", "b"]):
        read_embeddings.cache_clear()
        pq.write_table(pa.table({"vector": pa.array(values)}), path)
        with pytest.raises(SetError, match="no vectors of one length"):
            read_embeddings(path, "b32.vector")
