"""The features of pictures that heads are trained on, measured by the scorer that will measure the pool's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from chaffinch.scoring.scorer import Batch, Scorer
from chaffinch.scoring.training.samples import Samples, Wanted, read_ahead


@dataclass(frozen=True)
class Measured:
    """What could be measured.

    Attributes:
        features: (n, d) float32.
        captions: (n,) the captions of each.
        unusable: sample -> why its picture or captions could not be read.
    """

    features: np.ndarray
    captions: Sequence[Sequence[str]]
    unusable: dict[int, str]


def measure_features(
    scorer: Scorer, column: str, samples: Samples, device: str, batch_size: int, threads: int
) -> Measured:
    """Measures one column of vectors of all samples.

    Args:
        scorer: a scorer of pictures.
        column: its column of vectors, d numbers each.
        samples: pictures with one caption or more each.
        device: "cpu" or "cuda".
        batch_size: pictures to measure at a time.
        threads: how many samples to read at a time.

    Returns:
        Features and captions, in the order of the samples.
    """
    model = scorer.load(device)

    def prepare(picture: Any, captions: Sequence[str], visit: int) -> tuple[Any, Sequence[str]]:
        return scorer.prepare(picture, model), captions

    batches = (
        [Wanted(index) for index in range(start, min(start + batch_size, len(samples)))]
        for start in range(0, len(samples), batch_size)
    )
    vectors: list[np.ndarray] = []
    captions: list[Sequence[str]] = []
    unusable: dict[int, str] = {}
    for loaded in read_ahead(samples, batches, prepare, threads):
        unusable |= loaded.unusable
        if not loaded.pictures:
            continue
        texts = [listed[0] for listed in loaded.captions]
        found = scorer.score(Batch([""] * len(texts), texts, loaded.pictures), model)[column]
        assert isinstance(found, pa.Array)
        rows = found.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        vectors.append(rows.reshape(len(texts), -1))
        captions += loaded.captions
    features = np.concatenate(vectors) if vectors else np.zeros((0, 0), np.float32)
    return Measured(features, captions, unusable)
