"""The settings of the neighbours scorer; what it measures is tried on pools, in tests/pipeline and tests/jobs."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chaffinch.scoring.neighbours import Neighbours
from chaffinch.scoring.scorer import fingerprint

VECTORS = pa.list_(pa.float16(), 4)


def test_columns_follow_what_is_asked_for():
    assert list(Neighbours(embedding="b32.image_embedding").columns) == ["similarity", "cluster", "centroid_similarity"]
    everything = Neighbours(embedding="b32.image_embedding", reference=True, evaluation="set.npy").columns
    assert list(everything)[3:] == ["reference_pictures", "evaluation_similarity"]
    assert list(Neighbours(hash="pictures.hash").columns) == ["distance"]
    assert list(Neighbours(hash="pictures.hash", evaluation="set.npy").columns) == ["distance", "evaluation_distance"]


def test_reads_what_is_compared_and_preferred():
    assert Neighbours(hash="pictures.hash").reads == ("pictures.hash",)
    scorer = Neighbours(embedding="b32.image_embedding", prefer="b32.similarity")
    assert scorer.reads == ("b32.image_embedding", "b32.similarity")
    assert scorer.whole_pool
    assert scorer.where == "required"


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({}, "either embedding"),
        ({"embedding": "b32.image_embedding", "hash": "pictures.hash"}, "either embedding"),
        ({"hash": "pictures.hash", "reference": True}, "reference"),
        ({"embedding": "b32.image_embedding", "clusters": 0}, "clusters is 0"),
        ({"embedding": "b32.image_embedding", "sample_per_cluster": 0}, "sample_per_cluster is 0"),
        ({"embedding": "b32.image_embedding", "balance": 0.9}, "balance is 0.9"),
        ({"embedding": "b32.image_embedding", "balance": float("nan")}, "balance is nan"),
        ({"hash": "pictures.hash", "radius": 32}, "radius is 32"),
        ({"hash": "pictures.hash", "radius": -1}, "radius is -1"),
        ({"hash": "pictures.hash", "evaluation": "nowhere.npy"}, "evaluation: nothing can be read at 'nowhere.npy'"),
    ],
)
def test_what_is_wrong_is_said(settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        Neighbours(**settings).check()


@pytest.mark.parametrize(
    ("settings", "types", "complaint"),
    [
        ({"embedding": "a.x"}, {"a.x": pa.float32()}, "embedding: a.x holds float"),
        ({"embedding": "a.x"}, {"a.x": pa.list_(pa.float32())}, "embedding: a.x holds list"),
        ({"hash": "a.x"}, {"a.x": pa.uint32()}, "hash: a.x holds uint32"),
        ({"hash": "a.x", "prefer": "a.y"}, {"a.x": pa.uint64(), "a.y": pa.string()}, "prefer: a.y holds string"),
    ],
)
def test_columns_of_another_kind_are_refused(settings, types, complaint):
    with pytest.raises(ValueError, match=complaint):
        Neighbours(**settings).check_columns(types)


def test_columns_of_the_right_kinds_are_taken():
    Neighbours(embedding="a.x", prefer="a.y").check_columns({"a.x": VECTORS, "a.y": pa.bool_()})
    Neighbours(hash="a.x", prefer="a.y").check_columns({"a.x": pa.int64(), "a.y": pa.float64()})


def test_sets_count_by_what_they_hold(tmp_path):
    path = tmp_path / "set.npy"
    np.save(path, np.zeros((2, 4), np.float32))
    scorer = Neighbours(embedding="a.x", evaluation=str(path))
    before = fingerprint(scorer, "cpu")
    shutil.move(path, tmp_path / "moved.npy")
    moved = Neighbours(embedding="a.x", evaluation=str(tmp_path / "moved.npy"))
    assert fingerprint(moved, "cpu") == before
    np.save(tmp_path / "moved.npy", np.ones((3, 4), np.float32))
    assert fingerprint(moved, "cpu") != before


def test_a_folder_of_tables_is_a_set(tmp_path):
    scorer = Neighbours(embedding="a.x", reference=str(tmp_path))
    with pytest.raises(ValueError, match="reference: nothing can be read"):
        scorer.check()
    pq.write_table(pa.table({"x": pa.array([[1, 2, 3, 4]], VECTORS)}), tmp_path / "one.parquet")
    scorer.check()
    before = fingerprint(scorer, "cpu")
    pq.write_table(pa.table({"x": pa.array([[1, 2, 3, 5]], VECTORS)}), tmp_path / "two.parquet")
    assert fingerprint(scorer, "cpu") != before
