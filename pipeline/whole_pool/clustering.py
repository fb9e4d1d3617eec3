"""Clustering a pool: every shard draws its part of a sample, and one worker finds the clusters."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np

from chaffinch.filters.cut import hash_uids
from chaffinch.pipeline.deciding.judgement import Pool
from chaffinch.pipeline.measuring.spent import Effort, Spent
from chaffinch.pipeline.rows import Part, Source, count_rows
from chaffinch.pipeline.storage import files, parquet
from chaffinch.pipeline.whole_pool.cell_work import Work, load, save
from chaffinch.scoring.neighbourhood.embeddings import unit, vectors_of
from chaffinch.scoring.neighbourhood.kmeans import Clusters, fit

SAMPLES_PER_CLUSTER = 10_000
"""Where the number of clusters is left open; Abbas et al. had 8,800."""


@dataclass
class Found:
    """How many samples were found."""

    samples: int

    def merge(self, other: Self) -> Self:
        """Adds another shard's."""
        self.samples += other.samples
        return self


@dataclass(frozen=True)
class CountSamples:
    """Counts the samples of a shard, rejected or not, from the footer of their table.

    Attributes:
        source: where the table is.
    """

    source: Source

    def __call__(self, part: Part) -> Found:
        """Counts one shard."""
        return Found(count_rows(part, self.source))


@dataclass(frozen=True)
class DrawSample:
    """Draws a shard's part of the sample: the vectors whose uids have the smallest seeded hashes.

    So the sample depends on the uids and the seed, and on no order in which shards are worked on.

    Attributes:
        work: what all passes share.
        share: of the pool that is drawn, in [0, 1]; of every shard at least one vector.
    """

    work: Work
    share: float

    def __call__(self, part: Part) -> Spent:
        """Writes one shard's part: the hashes and the unit vectors."""
        began, path = time.perf_counter(), self.work.sample_path(part.shard.name)
        if not files.exists(path):
            save(path, self._draw(part))
        return Spent(scorers={self.work.name: Effort(seconds=time.perf_counter() - began)})

    def _draw(self, part: Part) -> np.ndarray:
        found = self.work.participants(part)
        vectors, usable = unit(vectors_of(found.column)) if len(found.rows) else (np.zeros((0, 1)), np.zeros(0, bool))
        hashes, vectors = hash_uids(found.uids[usable], self.work.scorer.seed), vectors[usable]
        most = np.uint64(min(int(self.share * 2.0**64), 2**64 - 1))
        chosen = hashes <= max(most, hashes.min(initial=np.uint64(2**64 - 1)))
        drawn = np.zeros(int(chosen.sum()), [("hash", "<u8"), ("vector", "<f2", (vectors.shape[1],))])
        drawn["hash"], drawn["vector"] = hashes[chosen], vectors[chosen]
        return drawn


@dataclass(frozen=True)
class TrainClusters:
    """Finds the clusters, and counts the reference's pictures in them.

    Attributes:
        work: what all passes share.
        reference: the experiment's own reference, where it is asked for.
    """

    work: Work
    reference: Pool | None

    def __call__(self, k: int) -> Spent:
        """Finds at most so many clusters."""
        began = time.perf_counter()
        if not files.exists(self.work.clusters_path):
            clusters = fit(self._sample(), k, self.work.scorer.balance, self.work.search)
            table = np.column_stack([clusters.centroids, clusters.prices, self._count(clusters)])
            save(self.work.clusters_path, table.astype(np.float32))
        return Spent(scorers={self.work.name: Effort(seconds=time.perf_counter() - began)})

    def _sample(self) -> np.ndarray:
        """(n, d) float16, in the order of the hashes, so that it begins with a random draw."""
        parts = [load(self.work.sample_path(shard)) for shard in self.work.exchange.shards]
        if not any(len(part) for part in parts):
            # Nobody takes part: any cluster of the right width will do.
            return np.zeros((1, max(part["vector"].shape[1] for part in parts)), np.float16)
        drawn = np.concatenate([part for part in parts if len(part)])
        return np.ascontiguousarray(drawn["vector"][np.argsort(drawn["hash"], kind="stable")])

    def _count(self, clusters: Clusters) -> np.ndarray:
        """(k,) how many of the reference's pictures belong to each cluster."""
        counts = np.zeros(len(clusters), np.int64)
        for vectors in self._reference():
            members, _ = clusters.assign(vectors, self.work.search)
            counts += np.bincount(members, minlength=len(clusters))
        return counts

    def _reference(self) -> Iterator[np.ndarray]:
        """(n, d) float32 unit vectors, part by part."""
        named = self.work.reference_set()
        if named is not None:
            yield named
        pool, compared = self.reference, self.work.scorer.compared
        for shard, source in () if pool is None else [(one, pool.source) for one in pool.shards]:
            samples = parquet.read_table(source.store.samples(shard.name), ["uid", "key", "reject"])
            column = source.columns(shard, samples, [compared])[compared].drop_null()
            if len(column):
                vectors, usable = unit(vectors_of(column))
                yield vectors[usable]
