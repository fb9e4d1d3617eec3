"""Spherical k-means on a sample, then prices that keep the clusters even; each vector's cluster depends on it alone."""

from dataclasses import dataclass

import numpy as np

from chaffinch.scoring.neighbourhood.embeddings import similarity_to_preceding, unit
from chaffinch.scoring.neighbourhood.search import Search, pieces

ITERATIONS = 20
ROUNDS = 20
_ROWS = 16384
# From this cosine on, two vectors of the sample count as one picture: a large group of near duplicates must neither
# draw several centroids nor have a border pushed through it, for then its members would not meet.
_SAME = 0.95
_CANDIDATES = 4
_SMALLEST_STEP = 1e-6


@dataclass(frozen=True)
class Clusters:
    """A vector belongs to the cluster of the largest cosine minus price.

    Without prices these are k-means' own clusters; a price makes a cluster smaller, at its border.

    Attributes:
        centroids: (k, d) float32, of length one.
        prices: (k,) float32, 0 or more.
    """

    centroids: np.ndarray
    prices: np.ndarray

    def __len__(self) -> int:
        return len(self.centroids)

    def nearest(self, vectors: np.ndarray, search: Search, count: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Finds the clusters of the largest cosine minus price.

        Args:
            vectors: (n, d) float32, of length one; few enough for one search.
            search: where to search.
            count: how many clusters.

        Returns:
            (n, count) float32 cosine minus price in descending order, and (n, count) int64 clusters.
        """
        # One more dimension takes the price off.
        base = np.column_stack([self.centroids, -self.prices]).astype(np.float32)
        return search.most_similar(np.column_stack([vectors, np.ones(len(vectors), np.float32)]), base, count)

    def assign(self, vectors: np.ndarray, search: Search) -> tuple[np.ndarray, np.ndarray]:
        """Finds each vector's cluster.

        Args:
            vectors: (n, d) float32, of length one.
            search: where to search.

        Returns:
            (n,) int32 clusters, and (n,) float32 cosines to their centroids, in [-1, 1].
        """

        def one(rows: slice) -> np.ndarray:
            return self.nearest(vectors[rows], search)[1][:, 0]

        found = [np.zeros(0, np.int64), *search.in_order(one, pieces(0, len(vectors)))]
        clusters = np.concatenate(found).astype(np.int32)
        cosines = np.einsum("nd,nd->n", vectors, self.centroids[clusters])
        return clusters, np.clip(cosines, -1, 1).astype(np.float32)


def fit(vectors: np.ndarray, k: int, balance: float, search: Search) -> Clusters:
    """Clusters a sample.

    Args:
        vectors: (n, d) floats of length about one, in an order that is itself drawn at random: the first k that are
            no near duplicates start.
        k: how many clusters; n where that is fewer.
        balance: how many times the mean the largest cluster of the sample may hold, at least 1; near duplicates count
            as one. It is met as far as twenty rounds can.
        search: where to search.

    Returns:
        The clusters.

    Source: Dhillon and Modha, Concept decompositions for large sparse text data using clustering, 2001, for spherical
        k-means; Bertsekas, The auction algorithm, 1988, for prices.
    """
    clusters, labels = _lloyd(vectors, min(k, len(vectors)), search)
    if len(clusters) < 2:
        return clusters
    return _even_out(vectors, clusters, _distinct(vectors, labels, search), balance, search)


def _lloyd(vectors: np.ndarray, k: int, search: Search) -> tuple[Clusters, np.ndarray]:
    """Spherical k-means: assign, average, until nothing moves or often enough."""
    centroids = _starts(vectors, k, search)
    labels = np.full(len(vectors), -1, np.int32)
    for _ in range(ITERATIONS):
        clusters = Clusters(centroids, np.zeros(k, np.float32))
        sums, before = np.zeros(centroids.shape), labels
        labels, cosines = np.zeros(len(vectors), np.int32), np.zeros(len(vectors), np.float32)

        def add(rows: slice, clusters: Clusters = clusters) -> tuple[np.ndarray, ...]:
            wide, _ = unit(vectors[rows])
            found, nearness = clusters.assign(wide, Search(search.device))
            order = np.argsort(found, kind="stable")
            present, starts = np.unique(found[order], return_index=True)
            return found, nearness, present, np.add.reduceat(wide[order], starts, axis=0, dtype=np.float64)

        parts = pieces(0, len(vectors), _ROWS)
        for rows, (found, nearness, present, partial) in zip(parts, search.in_order(add, parts), strict=True):
            labels[rows], cosines[rows] = found, nearness
            sums[present] += partial
        if np.array_equal(labels, before):
            break
        moved, usable = unit(sums)
        centroids = np.where(usable[:, None], moved, centroids)
        # A cluster that nobody belongs to starts anew where a vector is farthest from its own centroid.
        empty = np.flatnonzero(np.bincount(labels, minlength=k) == 0)
        if len(empty):
            farthest = np.argsort(cosines, kind="stable")[: len(empty)]
            centroids[empty] = unit(vectors[farthest])[0]
    return clusters, labels


def _starts(vectors: np.ndarray, k: int, search: Search) -> np.ndarray:
    """(k, d) float32: the first vectors that are no near duplicates; where they are too few, the first of the rest."""
    candidates, _ = unit(vectors[: _CANDIDATES * k])
    alike = similarity_to_preceding(candidates, search) >= _SAME
    starts: np.ndarray = candidates[np.argsort(alike, kind="stable")[:k]]
    return starts


def _distinct(vectors: np.ndarray, labels: np.ndarray, search: Search) -> np.ndarray:
    """(n,) bool: vectors that are no near duplicate of an earlier one in their cluster."""
    distinct = np.ones(len(vectors), bool)
    order = np.argsort(labels, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        distinct[members] = similarity_to_preceding(unit(vectors[members])[0], search) < _SAME
    return distinct


def _even_out(vectors: np.ndarray, clusters: Clusters, counts: np.ndarray, balance: float, search: Search) -> Clusters:
    """Raises the prices of clusters that are too large until they are not.

    Args:
        vectors: (n, d) floats of length about one.
        clusters: clusters without prices.
        counts: (n,) bool, which vectors count.
        balance: how many times the mean a cluster may hold.
        search: where to search.

    Returns:
        The same centroids, with the prices under which the largest cluster was smallest.
    """
    k, rows = len(clusters), np.flatnonzero(counts)
    limit = int(np.ceil(balance * len(rows) / k))
    best, smallest = clusters, len(rows) + 1
    parts = pieces(0, len(rows), _ROWS)
    for _ in range(ROUNDS):

        def compare(part: slice, clusters: Clusters = clusters) -> tuple[np.ndarray, np.ndarray]:
            wide, _ = unit(vectors[rows[part]])
            values, found = clusters.nearest(wide, Search(search.device), count=2)
            return found[:, 0], values[:, 0] - values[:, 1]

        found = list(search.in_order(compare, parts))
        labels, margins = (np.concatenate(column) for column in zip(*found, strict=True))
        loads = np.bincount(labels, minlength=k)
        if loads.max() < smallest:
            best, smallest = clusters, int(loads.max())
        if smallest <= limit:
            break
        prices = clusters.prices.copy()
        for cluster in np.flatnonzero(loads > limit):
            # Raised by so much, the cluster loses just those that hesitate most to belong to it.
            leaving = loads[cluster] - limit - 1
            prices[cluster] += np.partition(margins[labels == cluster], leaving)[leaving] + _SMALLEST_STEP
        clusters = Clusters(clusters.centroids, prices)
    return best
