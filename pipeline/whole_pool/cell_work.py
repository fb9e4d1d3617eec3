"""What the passes of a whole-pool scorer share: who takes part, how the pool is divided, and where files lie."""

import functools
import io
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chaffinch.pipeline.measuring.gate import Gate
from chaffinch.pipeline.repeats import parse_uids
from chaffinch.pipeline.rows import Part, Source
from chaffinch.pipeline.storage import files, parquet
from chaffinch.pipeline.whole_pool.exchange import Exchange
from chaffinch.pipeline.whole_pool.picture_sets import SetError, read_embeddings, read_hashes
from chaffinch.scoring.neighbourhood.cells import Cells, EmbeddingCells, HashCells
from chaffinch.scoring.neighbourhood.kmeans import Clusters
from chaffinch.scoring.neighbourhood.search import Search
from chaffinch.scoring.neighbours import Neighbours


@dataclass(frozen=True)
class Participants:
    """The samples of a shard that take part.

    Attributes:
        rows: (n,) int64, which rows of the samples table they are.
        column: n values of the column that neighbours are found by.
        prefer: (n,) float64, higher is preferred; NaN where there is no value.
        uids: (n, 2) uint64.
    """

    rows: np.ndarray
    column: pa.Array
    prefer: np.ndarray
    uids: np.ndarray


@dataclass(frozen=True)
class Work:
    """What all passes share.

    Attributes:
        name: the scorer's name in the config.
        folder: its tables' folder in the store.
        scorer: its settings.
        gate: leaves out samples that a required filter drops; None where all take part.
        source: where columns come from.
        exchange: the files between the passes.
        search: where searches run.
    """

    name: str
    folder: str
    scorer: Neighbours
    gate: Gate | None
    source: Source
    exchange: Exchange
    search: Search

    @property
    def rejecting(self) -> Source:
        """The tables whose rejects count: those that were read, for whether others are there yet depends on chance."""
        filters = () if self.gate is None else self.gate.filters
        read = [*self.scorer.reads, *(column for judge in filters for column in judge.reads)]
        owners = {column.partition(".")[0] for column in read}
        return replace(self.source, tables={name: at for name, at in self.source.tables.items() if name in owners})

    def participants(self, part: Part) -> Participants:
        """Reads who takes part in a shard: samples that nobody rejects, that repeat no uid and that no veto drops."""
        samples = parquet.read_table(self.source.store.samples(part.shard.name), ["uid", "key", "reject"])
        columns, reject = self.rejecting.columns_and_rejects(part.shard, samples, self.scorer.reads)
        compared = columns[self.scorer.compared]
        taking = pc.is_null(reject).to_numpy(zero_copy_only=False) & compared.is_valid().to_numpy(zero_copy_only=False)
        taking[list(part.repeated)] = False
        if self.gate is not None:
            taking &= self.gate.passes(part.shard)
        prefer = np.zeros(len(taking))
        if self.scorer.prefer is not None:
            values = columns[self.scorer.prefer].cast(pa.float64(), safe=False)
            prefer = values.fill_null(np.nan).to_numpy(zero_copy_only=False)
        mask = pa.array(taking)
        uids = parse_uids(samples["uid"].filter(mask))
        return Participants(np.flatnonzero(taking), compared.filter(mask), prefer[taking], uids)

    @property
    def clusters_path(self) -> str:
        """Where the clusters are: (k, d + 2) float32, a centroid, its price, and the reference's pictures in it."""
        return self.exchange.path("clusters.npy")

    def sample_path(self, shard: str) -> str:
        """Where a shard's part of the sample is that k-means learns from."""
        return self.exchange.path("sample", shard + ".npy")

    def draft_path(self, shard: str) -> str:
        """Where a shard's table lies until the nearest neighbours are known."""
        return self.exchange.path("draft", shard + ".parquet")

    def reference_set(self) -> np.ndarray | None:
        """The reference's pictures, where the settings name a file or folder of them.

        Raises:
            SetError: they cannot be read.
        """
        path = self.scorer.reference
        return read_embeddings(path, self.scorer.compared) if isinstance(path, str) else None

    def evaluation_set(self) -> np.ndarray | None:
        """The evaluation's pictures: (e, d) float32 unit vectors, or (e,) uint64 hashes.

        Raises:
            SetError: they cannot be read.
        """
        if self.scorer.evaluation is None:
            return None
        read = read_hashes if self.scorer.embedding is None else read_embeddings
        return read(self.scorer.evaluation, self.scorer.compared)

    def check_sets(self) -> None:
        """Makes sure that sets of pictures have vectors as long as those that were drawn from the pool.

        Raises:
            SetError: a set has others, or cannot be read at all.
        """
        sets = {"reference": self.reference_set(), "evaluation": self.evaluation_set()}
        drawn = (load(self.sample_path(shard)) for shard in self.exchange.shards)
        width = next((part["vector"].shape[1] for part in drawn if len(part)), None)
        for name, vectors in sets.items():
            if vectors is not None and width is not None and vectors.shape[1] != width:
                raise SetError(
                    f"{name}: its vectors have {vectors.shape[1]} numbers, those of {self.scorer.compared} have "
                    f"{width}; embed it with the same model"
                )

    @functools.cached_property
    def cells(self) -> Cells:
        """How the pool is divided; known once clusters are trained."""
        evaluation = self.evaluation_set()
        if self.scorer.embedding is None:
            return HashCells(self.scorer.radius, evaluation)
        table = load(self.clusters_path)
        clusters = Clusters(np.ascontiguousarray(table[:, :-2]), np.ascontiguousarray(table[:, -2]))
        return EmbeddingCells(clusters, table[:, -1] if self.scorer.reference else None, evaluation)

    @property
    def record(self) -> np.dtype[Any]:
        """What a shard sends to a cell."""
        return np.dtype([("key", self.cells.key), ("prefer", "<f8"), ("uid", "<u8", (2,))])


def load(path: str) -> np.ndarray:
    """Reads an array that a pass has written."""
    return np.asarray(np.load(io.BytesIO(files.read_bytes(path)), allow_pickle=False))


def save(path: str, array: np.ndarray) -> None:
    """Writes an array for a later pass, whole or not at all."""
    with files.writing(path) as file:
        np.save(file, array)
