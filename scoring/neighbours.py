"""Finds near duplicates and clusters among all samples of a pool, from embeddings or hashes measured before."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa

from chaffinch.scoring.neighbourhood.hashes import MOST
from chaffinch.scoring.scorer import Scorer

SET_FILES = (".npy", ".parquet")
_FORM = "give a .npy file, a .parquet file or a folder of them, such as <store>/scores/<scorer>-<fingerprint>"


@dataclass(frozen=True)
class Neighbours(Scorer):
    """Columns: with `embedding` all but the distances, with `hash` the distances alone.

    similarity: cosine to the nearest preferred neighbour in the same cluster, float32, in [-1, 1]; lower is better,
        and -1 where no other is preferred, so that the best of a group of duplicates is never among the similar. Kept
        below t, what is left is what SemDeDup leaves for 1 - t.
    cluster: number of the k-means cluster, int32; a name, not a measure.
    centroid_similarity: cosine to the cluster's centroid, float32, in [-1, 1]; high is typical, low is unusual.
    reference_pictures: how many pictures of the reference set have the same nearest centroid, float32; more is better.
        At least 1 is DataComp's image-based filter. Only with `reference`.
    evaluation_similarity: cosine to the nearest picture of the evaluation set, float32, in [-1, 1]; lower is better:
        what is near 1 is in the test. Only with `evaluation`.
    distance: bits that differ from the nearest preferred neighbour's, uint8, in 0 to the radius, or 64 where there is
        none within the radius; higher is better. No neighbour within the radius is missed.
    evaluation_distance: bits that differ from the nearest picture of the evaluation set, uint8, in 0 to 64; higher is
        better. Only with `evaluation`.

    Of two samples the one with the higher `prefer` is preferred, then the one with the smaller uid. The nearest
    preferred neighbour may itself have one that is nearer: of a chain in which only consecutive ones are near, only the
    first stays below a threshold. Neighbours of different clusters do not meet; more clusters take less time and miss
    more. Samples that are rejected, repeat a uid or are dropped by a required filter are nobody's neighbours, and
    their rows are null; a vector without a direction has NaN, and no cluster.

    Everything is measured again when the pool changes. K-means learns from a sample of the pool that the seed chooses,
    and holds it in memory: clusters * sample_per_cluster * 2 * d bytes. A search holds a cluster: 6 * d bytes a sample.

    Source: Abbas et al., SemDeDup, 2023, arXiv 2303.09540; Gadre et al., DataComp, 2023, arXiv 2304.14108, for the
        image-based filter; Manku, Jain and Das Sarma, Detecting near-duplicates for web crawling, 2007, for hashes.

    Attributes:
        embedding: a column of vectors, such as b32.image_embedding.
        hash: a column of 64-bit hashes, such as pictures.hash. One of the two is needed.
        prefer: a column of numbers, the higher the better, such as b32.similarity; null and NaN come last. By default
            the uid alone decides.
        clusters: how many, fewer only in a sample that has fewer vectors; by default one for every 10,000 samples
            found, so that small pools have one, in which everyone meets.
        seed: of the sample that k-means learns from.
        sample_per_cluster: size of that sample.
        balance: how many times the mean the largest cluster may hold, at least 1, as far as near duplicates, which are
            not torn apart for it, and twenty rounds allow. 2 bounds the time of all searches by twice that of even
            clusters.
        radius: bits up to which hashes are neighbours, 0 to 31. Two unrelated hashes with independent bits are within
            7 once in 26 billion pairs, within 10 once in 95 million; wider takes longer.
        reference: pictures like those that are wanted: true for the experiment's own `reference:`, or a .npy file
            (n, d), a .parquet file with a column named as the embedding's, or a folder of them.
        evaluation: pictures that must not be trained on: a file or a folder of the same kinds; hashes with `hash`.
        where: as of every scorer; `required` where nothing is said, so that a group never loses its last member to a
            filter that drops the preferred one.
    """

    reads_captions: ClassVar[bool] = False
    uses_device: ClassVar[bool] = True
    whole_pool: ClassVar[bool] = True

    embedding: str | None = None
    hash: str | None = None
    prefer: str | None = None
    clusters: int | None = None
    seed: int = 0
    sample_per_cluster: int = 256
    balance: float = 2.0
    radius: int = 7
    reference: bool | str = False
    evaluation: str | None = None
    where: Literal["all", "required"] = field(default="required", kw_only=True)

    @property
    def needs_reference(self) -> bool:
        """Whether the experiment's own reference is asked for."""
        return self.reference is True

    @property
    def compared(self) -> str:
        """The column that neighbours are found by."""
        return self.embedding or self.hash or ""

    @property
    def reads(self) -> tuple[str, ...]:
        """What is compared, and what is preferred."""
        return tuple(name for name in (self.embedding, self.hash, self.prefer) if name is not None)

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """By what is compared, and with what."""
        if self.embedding is None:
            asked = {"distance": True, "evaluation_distance": self.evaluation is not None}
            return {name: pa.uint8() for name, wanted in asked.items() if wanted}
        columns = {"similarity": pa.float32(), "cluster": pa.int32(), "centroid_similarity": pa.float32()}
        asked = {"reference_pictures": bool(self.reference), "evaluation_similarity": self.evaluation is not None}
        return columns | {name: pa.float32() for name, wanted in asked.items() if wanted}

    def identity(self) -> dict[str, Any]:
        """The settings, with the digests of local files in place of their paths, so that moving them changes nothing.

        Raises:
            ValueError: a file is missing.
        """
        named = {name: path for name in ("reference", "evaluation") if isinstance(path := getattr(self, name), str)}
        return dataclasses.asdict(self) | {name: _digest(name, path) for name, path in named.items()}

    def check(self) -> None:
        """Checks what the types of the settings cannot say, and looks for the files.

        Raises:
            ValueError: what is wrong, and the remedy.
        """
        if (self.embedding is None) == (self.hash is None):
            raise ValueError("give either embedding, such as b32.image_embedding, or hash, such as pictures.hash")
        if self.embedding is None and self.reference:
            raise ValueError("reference asks for the nearest centroid, which only embeddings have: give embedding")
        least = {
            "clusters": 1 if self.clusters is None else self.clusters,
            "sample_per_cluster": self.sample_per_cluster,
        }
        for name, value in least.items():
            if value < 1:
                raise ValueError(f"{name} is {value}: give 1 or more")
        if not self.balance >= 1:
            raise ValueError(f"balance is {self.balance}: no cluster can be smaller than the mean; give 1 or more")
        if not 0 <= self.radius <= MOST:
            raise ValueError(f"radius is {self.radius}: give 0 to {MOST} bits; two random hashes differ in 32")
        self.identity()

    def check_columns(self, types: Mapping[str, pa.DataType]) -> None:
        """Looks whether the columns hold vectors or hashes, and numbers to prefer by.

        Args:
            types: the arrow types of the columns named by `reads`.

        Raises:
            ValueError: a column holds something else; names it.
        """
        found = types[self.compared]
        if self.embedding is not None:
            if not (pa.types.is_fixed_size_list(found) and pa.types.is_floating(found.value_type)):
                raise ValueError(
                    f"embedding: {self.embedding} holds {found}, not vectors; clip has them with `embeddings`"
                )
        elif found not in (pa.uint64(), pa.int64()):
            raise ValueError(f"hash: {self.hash} holds {found}; name hashes of 64 bits, such as pictures.hash")
        if self.prefer is not None:
            kind = types[self.prefer]
            if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
                raise ValueError(f"prefer: {self.prefer} holds {kind}, not one number per sample")


def _digest(name: str, path: str) -> str:
    """16 hex digits of what a set holds; the path itself where it lies on no local disk."""
    if "://" in path:
        return path
    place = Path(path)
    if place.is_dir():
        found = sorted(place.rglob("*.parquet"))
    else:
        found = [place] if place.is_file() and place.suffix in SET_FILES else []
    if not found:
        raise ValueError(f"{name}: nothing can be read at {path!r}; {_FORM}")
    content = [_digest_of_file(one, one.stat().st_size, one.stat().st_mtime_ns) for one in found]
    return hashlib.sha256("".join(content).encode()).hexdigest()[:16]


@functools.lru_cache(maxsize=4096)
def _digest_of_file(path: Path, size: int, modified: int) -> str:
    """The digest of a file as it was when last modified; the last two arguments only tell its versions apart."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
