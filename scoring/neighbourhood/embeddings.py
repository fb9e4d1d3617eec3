"""Embeddings: unit vectors, and each one's similarity to the nearest of those that come before it."""

import numpy as np
import pyarrow as pa

from chaffinch.scoring.neighbourhood.search import Search, doublings, pieces

LEAST_SIMILARITY = -1.0
"""The least a cosine can be: of a sample to which no other is preferred."""
_LEAF = 16
_LEAVES = 256


def vectors_of(column: pa.Array) -> np.ndarray:
    """Takes a column of embeddings as it is stored.

    Args:
        column: n lists of d floats, none null.

    Returns:
        (n, d) floats.
    """
    width = column.type.list_size
    return np.asarray(column.flatten().to_numpy(zero_copy_only=False)).reshape(len(column), width)


def unit(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scales vectors to length one; stored as float16, even unit vectors are a little longer or shorter.

    Args:
        vectors: (n, d) floats of any precision.

    Returns:
        (n, d) float32; and (n,) bool, whether a vector has a direction: neither zero nor infinite nor NaN.
    """
    wide = np.ascontiguousarray(vectors, np.float32)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        length = np.sqrt(np.einsum("nd,nd->n", wide, wide))
        usable = np.isfinite(length) & (length > 0)
        scaled: np.ndarray = wide / length[:, None]
    return scaled, usable


def similarity_to_preceding(vectors: np.ndarray, search: Search) -> np.ndarray:
    """Finds each vector's largest cosine to any that comes before it, by trying all of them.

    Args:
        vectors: (n, d) float32, of length one.
        search: where to search.

    Returns:
        (n,) float32 in [-1, 1]; -1 for the first.
    """
    n = len(vectors)
    nearest = np.full(n, LEAST_SIMILARITY, np.float32)
    for start in range(0, n, _LEAF * _LEAVES):
        nearest[start : start + _LEAF * _LEAVES] = _within_leaves(vectors[start : start + _LEAF * _LEAVES])

    def compare(task: tuple[slice, slice]) -> np.ndarray:
        before, rows = task
        return search.most_similar(vectors[rows], vectors[before])[0][:, 0]

    for level in doublings(n, _LEAF):
        tasks = [(before, part) for before, after in level for part in pieces(after.start, after.stop)]
        for (_, rows), found in zip(tasks, search.in_order(compare, tasks), strict=True):
            nearest[rows] = np.maximum(nearest[rows], found)
    return np.clip(nearest, -1, 1)


def _within_leaves(vectors: np.ndarray) -> np.ndarray:
    """The same, but among each 16 consecutive vectors alone."""
    n, d = vectors.shape
    leaves = np.zeros((-(-n // _LEAF) * _LEAF, d), np.float32)
    leaves[:n] = vectors
    leaves = leaves.reshape(-1, _LEAF, d)
    products = np.einsum("aid,ajd->aij", leaves, leaves)  # not matmul, whose last bits depend on threads
    products[:, ~np.tri(_LEAF, k=-1, dtype=bool)] = LEAST_SIMILARITY
    nearest: np.ndarray = products.max(axis=2).ravel()[:n]
    return nearest


def similarity_to_any(vectors: np.ndarray, others: np.ndarray, search: Search) -> np.ndarray:
    """Finds each vector's largest cosine to any of others, by trying all of them.

    Args:
        vectors: (n, d) float32, of length one.
        others: (k, d) float32, of length one, at least one.
        search: where to search.

    Returns:
        (n,) float32 in [-1, 1].
    """

    def compare(rows: slice) -> np.ndarray:
        return search.most_similar(vectors[rows], others)[0][:, 0]

    found = np.concatenate([np.zeros(0, np.float32), *search.in_order(compare, pieces(0, len(vectors)))])
    return found.clip(-1, 1)
