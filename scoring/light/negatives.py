"""Trusted pairs with their features: kept by the training of heads, and drawn as negatives of mimic scores."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from chaffinch.scoring.alignment.negatives import Negative, caption_key, shuffled
from chaffinch.scoring.text.references import Reference

KEPT_PAIRS = "pairs.parquet"
"""The file beside trained heads that holds some of the pairs they were trained on."""
CAPTIONS = "captions"
_MOST = 4096


def save_pairs(
    file: BinaryIO, column: str, features: np.ndarray, captions: Sequence[Sequence[str]], uids: Sequence[str | None]
) -> None:
    """Writes pairs so that `draw_pairs` can read them; of more than 4,096 some, which follows from their uids.

    Args:
        file: open for writing.
        column: what to call the features.
        features: (n, d) float32, rounded to float16, as detectors store them.
        captions: (n,) those of each picture.
        uids: (n,) None where there is none.
    """
    names = {uid or f"row {row}": row for row, uid in enumerate(uids)}
    rows = sorted(names[name] for name in shuffled(names, 0)[:_MOST])
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(features[rows].astype(np.float16).ravel()), features.shape[1])
    texts = pa.array([list(captions[row]) for row in rows], pa.list_(pa.string()))
    table = pa.table({"uid": pa.array([uids[row] for row in rows], pa.string()), CAPTIONS: texts, column: vectors})
    pq.write_table(table, file)


def draw_pairs(reference: Reference, count: int, seed: int, length: int) -> list[Negative]:
    """Draws pairs; which ones follows from their uids, not from where or in which order they lie.

    Args:
        reference: where they lie.
        count: how many, at least 2; all where there are fewer.
        seed: another one draws others.
        length: d of the features.

    Returns:
        At least 2 pairs, of at least 2 captions, each with its first one and (d,) float32 features.

    Raises:
        ValueError: there are fewer; their features are of another length; a table cannot be read.
    """
    known: dict[str, tuple[int, int, str, str | None]] = {}
    for number, part in enumerate(reference.parts):
        for row, (name, captions) in enumerate(reference.rows(number)):
            caption = captions[0].strip() if captions else ""
            if caption:
                uid = None if part.uids is None else name
                known.setdefault(name or f"{number} {row}", (number, row, caption, uid))
    read = functools.cache(reference.vectors_of)
    drawn: list[Negative] = []
    for name in shuffled(known, seed):
        number, row, caption, uid = known[name]
        features = _finite(read(number)[row], length, reference.parts[number].vectors)
        if features is not None:
            drawn.append(Negative(uid, caption, features))
        if len(drawn) == count:
            break
    if len({caption_key(negative.caption) for negative in drawn}) < 2:
        raise ValueError(
            f"negatives: {str(reference.parts[0].captions)!r} and what lies beside it hold {len(drawn)} pairs of "
            "features and caption, and 2 with different captions are the least: name trusted pairs"
        )
    return drawn


def _finite(vector: pa.Scalar, length: int, path: Path) -> np.ndarray | None:
    """(d,) float32; None where the features are missing, or are no finite numbers."""
    if not vector.is_valid:
        return None
    values = vector.values.to_numpy(zero_copy_only=False).astype(np.float32)
    if len(values) != length:
        raise ValueError(
            f"negatives: {str(path)!r} has vectors of {len(values)} numbers, but the heads were trained on {length}: "
            "name pairs that were measured with the same detector"
        )
    return values if np.isfinite(values).all() else None
