"""Features of pictures as they are stored: a column of vectors of one length."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def check_features(column: str, types: Mapping[str, pa.DataType]) -> None:
    """Looks whether features are vectors.

    Args:
        column: their name, as `<scorer>.<column>`.
        types: the types of columns by their names.

    Raises:
        ValueError: they are not.
    """
    kind = types[column]
    vector = pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)
    if not vector or not pa.types.is_floating(kind.value_type):
        raise ValueError(
            f"features: {column} is {kind}, not a vector; an onnx_detector with `features: true` writes one"
        )


def stored_features(lists: pa.Array, length: int, column: str, weights: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads n vectors.

    Args:
        lists: (n,) lists of numbers, none of them null.
        length: d, as the heads read.
        column: whose they are, for the message.
        weights: the file of the heads, for the message.

    Returns:
        (n, d) float32, with 0 in rows that hold what is no finite number; and (n,) bool, which rows hold none such.

    Raises:
        ValueError: the features are not those that the heads were trained on.
    """
    lengths = np.unique(pc.list_value_length(lists).to_numpy(zero_copy_only=False))
    if len(lists) and lengths.tolist() != [length]:
        raise ValueError(
            f"{column} has vectors of {', '.join(map(str, lengths))} numbers, but the heads of "
            f"{weights} were trained on {length}: train them with this detector"
        )
    features = lists.flatten().to_numpy(zero_copy_only=False).reshape(len(lists), length).astype(np.float32)
    finite = np.isfinite(features).all(axis=1)
    return np.where(finite[:, None], features, np.float32(0)), finite
