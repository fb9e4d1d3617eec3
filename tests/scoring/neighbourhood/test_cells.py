"""Where samples belong, and who is preferred."""

import math

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from chaffinch.scoring.neighbourhood.cells import EmbeddingCells, HashCells, order_of_preference
from chaffinch.scoring.neighbourhood.embeddings import unit
from chaffinch.scoring.neighbourhood.hashes import CELLS_PER_BAND
from chaffinch.scoring.neighbourhood.kmeans import Clusters
from chaffinch.scoring.neighbourhood.search import Search

PREFER = st.one_of(st.sampled_from([0.0, -0.0, 1.0, math.inf, -math.inf, math.nan]), st.floats())
UIDS = st.sampled_from([0, 1, 2**64 - 1, 2**64, 2**127, 2**128 - 1])


@given(st.lists(st.tuples(st.integers(0, 3), PREFER, UIDS), max_size=30))
def test_preference_is_value_then_uid_then_place(entries):
    def key(row):
        cell, prefer, uid = entries[row]
        return (cell, math.isnan(prefer), 0.0 if math.isnan(prefer) else -prefer, uid, row)

    cells = np.array([cell for cell, _, _ in entries], np.int64)
    prefer = np.array([value for _, value, _ in entries], np.float64)
    uids = np.array([divmod(uid, 2**64) for _, _, uid in entries], np.uint64).reshape(-1, 2)
    assert order_of_preference(cells, prefer, uids).tolist() == sorted(range(len(entries)), key=key)


def clusters(k=4, d=8):
    return Clusters(unit(np.random.default_rng(0).standard_normal((k, d)))[0], np.zeros(k, np.float32))


def test_embeddings_take_one_place_each():
    cells = EmbeddingCells(clusters(), np.array([0, 5, 0, 2]), unit(np.eye(8)[:2])[0])
    vectors = np.random.default_rng(1).standard_normal((6, 8)).astype(np.float16)
    vectors[2], vectors[4] = 0, np.nan
    placed = cells.place(pa.array(list(vectors), pa.list_(pa.float16(), 8)), Search())
    assert placed.owners.tolist() == [0, 1, 3, 5]
    cluster = placed.columns["cluster"].to_pylist()
    assert [value is None for value in cluster] == [row in (2, 4) for row in range(6)]
    assert [cluster[row] for row in placed.owners] == placed.cells.tolist()
    for name in ("similarity", "centroid_similarity", "reference_pictures", "evaluation_similarity"):
        assert np.isnan(placed.columns[name]).tolist() == [row in (2, 4) for row in range(6)], name
    assert set(placed.columns["similarity"][placed.owners]) == {-1}
    wanted = unit(vectors[placed.owners])[0][:, :2].max(axis=1)
    np.testing.assert_allclose(placed.columns["evaluation_similarity"][placed.owners], wanted, atol=1e-6)
    assert placed.columns["reference_pictures"][placed.owners].tolist() == [[0, 5, 0, 2][one] for one in placed.cells]
    assert placed.keys.dtype == np.float16
    found = cells.nearer(placed.columns["similarity"], placed.owners, np.array([0.1, -1, 0.3, 0.9], np.float32))
    assert str(found.tolist()) == str(np.array([0.1, -1, np.nan, 0.3, np.nan, 0.9], np.float32).tolist())


def test_hashes_take_a_place_in_every_band():
    cells = HashCells(3, np.array([0], np.uint64))
    placed = cells.place(pa.array([0, 2**64 - 1, 7], pa.uint64()), Search())
    assert placed.owners.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert cells.count == 4 * CELLS_PER_BAND
    assert (placed.cells.reshape(3, 4) // CELLS_PER_BAND == np.arange(4)).all()
    assert placed.columns["distance"].tolist() == [64] * 3
    assert placed.columns["evaluation_distance"].tolist() == [0, 64, 3]
    found = cells.nearer(placed.columns["distance"], placed.owners, np.array([64] * 4 + [64, 2, 64, 1] + [64] * 4))
    assert found.tolist() == [64, 1, 64]


def test_nobody_takes_no_place():
    for cells, kind in ((EmbeddingCells(clusters()), pa.list_(pa.float16(), 8)), (HashCells(7), pa.uint64())):
        for column in (pa.array([], kind), pa.nulls(0)):
            placed = cells.place(column, Search())
            assert len(placed.owners) == len(placed.cells) == len(placed.keys) == 0
            assert all(len(values) == 0 for values in placed.columns.values())
