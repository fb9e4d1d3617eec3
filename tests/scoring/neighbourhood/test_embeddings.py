"""Similarities against all pairs tried one by one."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaffinch.scoring.neighbourhood.embeddings import similarity_to_any, similarity_to_preceding, unit, vectors_of
from chaffinch.scoring.neighbourhood.search import QUERIES, Search, doublings, pieces


def twin(vectors: np.ndarray) -> list[float]:
    return [
        max((float(np.float64(vectors[i]) @ np.float64(vectors[j])) for j in range(i)), default=-1.0)
        for i in range(len(vectors))
    ]


def signs(n: int, d: int, seed: int) -> np.ndarray:
    """Vectors of length one whose products are whole multiples of 1 / d: exact in any order of adding up."""
    return np.random.default_rng(seed).choice([-1.0, 1.0], (n, d)).astype(np.float32) / np.sqrt(d, dtype=np.float32)


def gaussian(n: int, d: int, seed: int) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((n, d)))[0]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 150), st.integers(0, 1000))
def test_equals_all_pairs_exactly(n, seed):
    vectors = signs(n, 64, seed)
    assert similarity_to_preceding(vectors, Search()).tolist() == twin(vectors)


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 33, 300])
def test_equals_all_pairs_to_the_last_bits(n):
    vectors = gaussian(n, 96, n)
    np.testing.assert_allclose(similarity_to_preceding(vectors, Search()), twin(vectors), rtol=0, atol=3e-7)


def test_more_vectors_than_one_search_takes():
    vectors = signs(2 * QUERIES + 100, 16, 1)
    products = vectors @ vectors.T
    products[np.triu_indices(len(vectors))] = -1
    assert similarity_to_preceding(vectors, Search(threads=2)).tolist() == products.max(axis=1).tolist()


def test_threads_change_no_bit():
    vectors = gaussian(3000, 512, 0)
    assert np.array_equal(
        similarity_to_preceding(vectors, Search()), similarity_to_preceding(vectors, Search("cpu", 5))
    )
    many = gaussian(2 * QUERIES + 7, 512, 1)
    assert np.array_equal(
        similarity_to_any(many, vectors, Search()), similarity_to_any(many, vectors, Search("cpu", 3))
    )


def test_copies_are_as_similar_as_can_be():
    vectors = np.repeat(gaussian(40, 512, 2), 3, axis=0)
    found = similarity_to_preceding(vectors, Search()).reshape(-1, 3)
    np.testing.assert_allclose(found[:, 1:], 1, rtol=0, atol=1e-6)
    assert (found <= 1).all()
    assert (found[:, 0] < 0.5).all()


def test_nearest_of_others():
    vectors, others = signs(70, 64, 3), signs(50, 64, 4)
    wanted = [max(float(one @ other) for other in others) for one in vectors]
    assert similarity_to_any(vectors, others, Search()).tolist() == wanted
    assert similarity_to_any(vectors[:0], others, Search()).shape == (0,)


def test_unit_vectors_and_those_without_a_direction():
    vectors = np.array([[3, 4], [0, 0], [np.nan, 1], [np.inf, 1], [-2, 0]], np.float16)
    found, usable = unit(vectors)
    assert usable.tolist() == [True, False, False, False, True]
    np.testing.assert_allclose(found[usable], [[0.6, 0.8], [-1, 0]], atol=1e-7)


def test_vectors_of_a_part_of_a_column():
    column = pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.float16(), 2))
    assert vectors_of(column[1:]).tolist() == [[3, 4], [5, 6]]


@given(st.integers(0, 200), st.integers(1, 20))
def test_every_pair_meets_once(n, leaf):
    met = [(i, j) for i in range(n) for j in range(i // leaf * leaf, i)]
    for level in doublings(n, leaf):
        seen: set[int] = set()
        for before, after in level:
            rows = set(range(before.start, after.stop))
            assert not rows & seen
            seen |= rows
            met += [(i, j) for i in range(after.start, after.stop) for j in range(before.start, before.stop)]
    assert sorted(met) == [(i, j) for i in range(n) for j in range(i)]


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 9))
def test_pieces_cover_a_range(start, length, size):
    covered = [row for part in pieces(start, start + length, size) for row in range(part.start, part.stop)]
    assert covered == list(range(start, start + length))
