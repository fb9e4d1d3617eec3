"""Cells: parts of a pool in which neighbours meet, so that no two samples of different cells need be compared."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from chaffinch.scoring.neighbourhood.embeddings import (
    LEAST_SIMILARITY,
    similarity_to_any,
    similarity_to_preceding,
    unit,
    vectors_of,
)
from chaffinch.scoring.neighbourhood.hashes import (
    CELLS_PER_BAND,
    NONE_NEAR,
    cells,
    distance_in_cell,
    distance_to_any,
)
from chaffinch.scoring.neighbourhood.kmeans import Clusters
from chaffinch.scoring.neighbourhood.search import Search


@dataclass(frozen=True)
class Placed:
    """Where some samples of a pool belong.

    Attributes:
        columns: what is known of n samples at once, n values each; `result` as it is for those who meet nobody.
        owners: (m,) int64, a row of the n for every place a sample takes in a cell.
        cells: (m,) int64, which cell.
        keys: (m,) or (m, d), what is compared there.
    """

    columns: Mapping[str, np.ndarray | pa.Array]
    owners: np.ndarray
    cells: np.ndarray
    keys: np.ndarray


class Cells(Protocol):
    """A way to divide a pool into cells."""

    @property
    def count(self) -> int:
        """How many cells there are."""

    @property
    def key(self) -> np.dtype[Any]:
        """What is compared of one sample."""

    @property
    def result(self) -> str:
        """The column that says how near the nearest preferred neighbour is."""

    def place(self, column: pa.Array, search: Search) -> Placed:
        """Finds the cells of n samples; each one's depend on it alone."""

    def compare(self, keys: np.ndarray, cell: int, search: Search) -> np.ndarray:
        """(m,) how near each place of a cell is to the nearest before it; preferred samples come first."""

    def nearer(self, values: np.ndarray, owners: np.ndarray, found: np.ndarray) -> np.ndarray:
        """(n,) values of samples, with the (m,) that were found in their cells."""


@dataclass(frozen=True)
class EmbeddingCells:
    """Clusters of embeddings; a sample belongs to one.

    Attributes:
        clusters: the clusters.
        reference: (k,) how many pictures of a reference set belong to each; None where there is no such set.
        evaluation: (e, d) float32 unit vectors of an evaluation set; None where there is no such set.
    """

    clusters: Clusters
    reference: np.ndarray | None = None
    evaluation: np.ndarray | None = None

    @property
    def count(self) -> int:
        """One cell for every cluster."""
        return len(self.clusters)

    @property
    def key(self) -> np.dtype[Any]:
        """A unit vector, in the half precision that embeddings are stored in."""
        return np.dtype(("<f2", (self.clusters.centroids.shape[1],)))

    @property
    def result(self) -> str:
        """Higher is nearer."""
        return "similarity"

    def place(self, column: pa.Array, search: Search) -> Placed:
        """Finds the cluster of n samples.

        Args:
            column: n lists of d floats, none null.
            search: where to search.

        Returns:
            One place for every sample whose vector has a direction; the others have NaN and no cluster.
        """
        d = self.clusters.centroids.shape[1]
        vectors, usable = unit(vectors_of(column) if len(column) else np.zeros((0, d)))
        rows, vectors = np.flatnonzero(usable), vectors[usable]
        clusters, cosines = self.clusters.assign(vectors, search)

        def spread(values: np.ndarray | float) -> np.ndarray:
            full = np.full(len(usable), np.nan, np.float32)
            full[rows] = values
            return full

        cluster = np.full(len(usable), -1, np.int32)
        cluster[rows] = clusters
        columns: dict[str, np.ndarray | pa.Array] = {
            self.result: spread(LEAST_SIMILARITY),
            "cluster": pa.array(cluster, mask=~usable),
            "centroid_similarity": spread(cosines),
        }
        if self.reference is not None:
            columns["reference_pictures"] = spread(self.reference[clusters])
        if self.evaluation is not None:
            columns["evaluation_similarity"] = spread(similarity_to_any(vectors, self.evaluation, search))
        return Placed(columns, rows, clusters.astype(np.int64), vectors.astype(np.float16))

    def compare(self, keys: np.ndarray, cell: int, search: Search) -> np.ndarray:
        """Finds the cosine to the nearest preferred neighbour, by trying all pairs of a cluster.

        Args:
            keys: (m, d) float16 unit vectors, preferred samples first.
            cell: the cluster.
            search: where to search.

        Returns:
            (m,) float32 in [-1, 1].
        """
        return similarity_to_preceding(unit(keys)[0], search)

    def nearer(self, values: np.ndarray, owners: np.ndarray, found: np.ndarray) -> np.ndarray:
        """The larger similarity; NaN where a sample has no direction."""
        values = values.copy()
        np.maximum.at(values, owners, found)
        return values


@dataclass(frozen=True)
class HashCells:
    """Hashes that agree in a band of bits; a sample belongs to one cell for every band.

    Attributes:
        radius: bits up to which neighbours are found.
        evaluation: (e,) uint64 hashes of an evaluation set; None where there is no such set.
    """

    radius: int
    evaluation: np.ndarray | None = None

    @property
    def count(self) -> int:
        """256 cells for every band."""
        return CELLS_PER_BAND * (self.radius + 1)

    @property
    def key(self) -> np.dtype[Any]:
        """The hash itself."""
        return np.dtype("<u8")

    @property
    def result(self) -> str:
        """Lower is nearer."""
        return "distance"

    def place(self, column: pa.Array, search: Search) -> Placed:
        """Finds the cells of n samples.

        Args:
            column: n uint64 hashes, none null.
            search: where to search.

        Returns:
            One place for every sample and band.
        """
        hashes = np.asarray(column.to_numpy(zero_copy_only=False)).astype(np.uint64)
        columns: dict[str, np.ndarray | pa.Array] = {self.result: np.full(len(hashes), NONE_NEAR, np.uint8)}
        if self.evaluation is not None:
            columns["evaluation_distance"] = distance_to_any(hashes, self.evaluation, search)
        owners = np.repeat(np.arange(len(hashes)), self.radius + 1)
        return Placed(columns, owners, cells(hashes, self.radius).ravel(), hashes[owners])

    def compare(self, keys: np.ndarray, cell: int, search: Search) -> np.ndarray:
        """Finds the distance to the nearest preferred neighbour that agrees in the cell's band.

        Args:
            keys: (m,) uint64 hashes, preferred samples first.
            cell: which cell.
            search: where to search.

        Returns:
            (m,) uint8 bits up to the radius; 64 where there is none.
        """
        return distance_in_cell(keys, cell, self.radius, search)

    def nearer(self, values: np.ndarray, owners: np.ndarray, found: np.ndarray) -> np.ndarray:
        """The smaller distance."""
        values = values.copy()
        np.minimum.at(values, owners, found.astype(np.uint8))
        return values


def order_of_preference(cell: np.ndarray, prefer: np.ndarray, uids: np.ndarray) -> np.ndarray:
    """Orders places by cell, and in each by who is preferred: the higher value, then the smaller uid, then the first.

    Args:
        cell: (m,) which cell.
        prefer: (m,) float64, higher is preferred; NaN comes last.
        uids: (m, 2) uint64, high and low halves.

    Returns:
        (m,) positions.
    """
    unknown = np.isnan(prefer)
    return np.lexsort((uids[:, 1], uids[:, 0], np.where(unknown, 0, -prefer), unknown, cell))
