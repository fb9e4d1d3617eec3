"""Measures whether a caption says what the captions of similar pictures say."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from chaffinch.scoring.scorer import Batch, Column, Scorer
from chaffinch.scoring.text.captioned_pictures import CaptionedPictures, directions, words_of
from chaffinch.scoring.text.references import find_reference


@dataclass(frozen=True)
class NeighbourCaptions(Scorer):
    """Columns: float32 each; what the k most similar pictures of a reference have to say about a caption.

    overlap: how far their captions use its words, in [0, 1]; higher is better. With s(w) the share of the k pictures
        that have the word w in a caption, sum s(w) idf(w) / sum idf(w) over the different words w of the caption, where
        idf(w) = ln((N + 1) / (1 + pictures with w)) among the N of the reference. So rare words count more, and words
        that the reference does not have count most, and against the caption.
    excess: the overlap less what k random pictures of the reference would come to, in which s(w) is the share of all
        that have w; in (-1, 1]; higher is better, and about 0 where picture and caption have nothing to do with each
        other.
    neighbour_similarity: mean cosine to the k pictures, in [-1, 1]; where it is low, the reference has no such picture,
        and the others say little.

    NaN: all three for embeddings without a direction, overlap and excess for captions without a word. A sample that is
    in the reference is not its own neighbour (by uid), so ranges may lean on the reference.

    The reference has been scored before: name its store, such as <store>/reference, or that of a config whose `input:`
    it is. The search compares with every picture, exactly: 2 N d operations a sample, 8 N d bytes.

    Source: Devlin et al. 2015, Exploring Nearest Neighbor Approaches for Image Captioning, arXiv 1505.04467, for
        captions of neighbours; Sparck Jones 1972, Journal of Documentation 28, for idf.

    Attributes:
        embedding: a column of vectors of pictures, such as b32.image_embedding.
        reference: a store on the local disk that holds the same column of the reference and its captions; where it
            holds several versions, the folder of one, <store>/scores/<scorer>-<fingerprint>. Or a .parquet file with a
            column of that name (image_embedding), one of captions and perhaps uid, or a folder of such files.
        captions_key: in .parquet files, the column with the caption of each picture, or a list of its captions.
        neighbours: k.
        max_pictures: of a larger reference so many are taken, those with the least hashes of their uids.
    """

    reads_captions: ClassVar[bool] = False

    embedding: str
    reference: str
    captions_key: str | None = None
    neighbours: int = 10
    max_pictures: int = 50_000

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """Three numbers."""
        return dict.fromkeys(("overlap", "excess", "neighbour_similarity"), pa.float32())

    @property
    def reads(self) -> tuple[str, ...]:
        """The embedding of the picture, and the caption."""
        return (self.embedding, "captions.text")

    def identity(self) -> dict[str, Any]:
        """The settings, with what the reference holds in the place of where it lies.

        Raises:
            ValueError: the reference is not there.
        """
        found = find_reference(self.reference, self.embedding, self.captions_key)
        return dataclasses.asdict(self) | {"reference": found.identity}

    def check(self) -> None:
        """Looks for the reference.

        Raises:
            ValueError: what is wrong, and the remedy.
        """
        for name in ("neighbours", "max_pictures"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give 1 or more")
        find_reference(self.reference, self.embedding, self.captions_key)

    def check_columns(self, types: Mapping[str, pa.DataType]) -> None:
        """Looks whether the embeddings are vectors, and as long as those of the reference.

        Args:
            types: the arrow types of the columns named by `reads`.

        Raises:
            ValueError: they are not.
        """
        kind = types[self.embedding]
        if not (pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type)):
            raise ValueError(f"embedding: {self.embedding} holds {kind}, not vectors; clip has them with `embeddings`")
        length = find_reference(self.reference, self.embedding, self.captions_key).dimensions()
        if length != kind.list_size:
            raise ValueError(
                f"reference {self.reference!r} has vectors of {length} numbers, and {self.embedding} of "
                f"{kind.list_size}: score the reference with the same model"
            )

    def load(self, device: str) -> CaptionedPictures:
        """Reads the reference.

        Args:
            device: of no consequence.

        Returns:
            The reference.

        Raises:
            ValueError: it cannot be read, or is empty.
        """
        return find_reference(self.reference, self.embedding, self.captions_key).read(self.max_pictures)

    def score(self, batch: Batch, model: CaptionedPictures) -> Mapping[str, Column]:
        """Compares n captions with those of their pictures' neighbours.

        Args:
            batch: n samples, with both columns.
            model: what `load` returned.

        Returns:
            The columns, n values each.
        """
        measured = np.full((len(self.columns), len(batch)), np.nan, np.float32)
        vectors = directions(batch.columns[self.embedding])
        usable = np.flatnonzero(~np.isnan(vectors).any(axis=1)).tolist()
        if usable:
            captions = batch.columns["captions.text"].to_pylist()
            places, cosines = model.nearest(vectors[usable], [batch.uids[row] for row in usable], self.neighbours)
            for row, near, similar in zip(usable, places, cosines, strict=True):
                near, similar = near[similar > -np.inf], similar[similar > -np.inf]
                if len(near):
                    overlap, expected = _agreement(words_of([captions[row]]), near.tolist(), model)
                    measured[:, row] = overlap, overlap - expected, similar.mean()
        return dict(zip(self.columns, measured, strict=True))


def _agreement(words: frozenset[str], neighbours: list[int], pictures: CaptionedPictures) -> tuple[float, float]:
    """The overlap of a caption with neighbours, and that to be expected of any; NaN without words."""
    said = Counter(word for place in neighbours for word in pictures.words[place] & words)
    total = overlap = expected = 0.0
    for word in sorted(words):  # sums do not depend on the order in which sets are kept
        weight = pictures.weight(word)
        total += weight
        overlap += weight * said[word] / len(neighbours)
        expected += weight * pictures.frequencies.get(word, 0) / len(pictures.words)
    return (overlap / total, expected / total) if total else (np.nan, np.nan)
