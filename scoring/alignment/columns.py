"""The columns that scorers of alignment write, and what their settings have in common, whatever the model."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from chaffinch.scoring.scorer import Column

if TYPE_CHECKING:
    from chaffinch.scoring.alignment.aligner import Alignment


def alignment_columns(steps: int | None, cosine: bool) -> dict[str, pa.DataType]:
    """Names and types of the columns.

    Args:
        steps: how many current models a list names; None for one alone, which gives numbers.
        cosine: whether there is mimic_cosine.

    Returns:
        The columns in their order.
    """
    kind = pa.float32() if steps is None else pa.list_(pa.float32(), steps)
    columns: dict[str, pa.DataType] = {name: kind for name in ("mimic_score", "loss", "similarity")}
    columns |= {"reference_loss": pa.float32(), "reference_similarity": pa.float32(), "excess_loss": kind}
    return columns | ({"mimic_cosine": kind} if cosine else {})


def fill_columns(columns: Mapping[str, pa.DataType], found: "Alignment | None", rows: np.ndarray) -> dict[str, Column]:
    """What was measured, as columns.

    Args:
        columns: what `alignment_columns` gave.
        found: of the rows that could be measured, k of them; None where there are none.
        rows: (n,) bool, which those are; the others get NaN.

    Returns:
        The columns, n values each.
    """
    measured: dict[str, np.ndarray | None] = {}
    if found is not None:
        measured = {
            "mimic_score": found.mimic_score,
            "loss": found.loss,
            "similarity": found.similarity.clip(-1, 1),
            "reference_loss": found.reference_loss,
            "reference_similarity": found.reference_similarity.clip(-1, 1),
            "excess_loss": found.loss - found.reference_loss[:, None],
            "mimic_cosine": found.mimic_cosine,
        }
    filled: dict[str, Column] = {}
    for name, kind in columns.items():
        steps = kind.list_size if pa.types.is_fixed_size_list(kind) else 1
        values = np.full((len(rows), steps), np.nan, np.float32)
        part = measured.get(name)
        if part is not None:
            values[rows] = part.reshape(-1, steps)
        vectors = pa.types.is_fixed_size_list(kind)
        filled[name] = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), steps) if vectors else values[:, 0]
    return filled


def check_alignment(
    setting: str, current: Sequence[str], reference: str, digest: str, layers: Sequence[str], bank: int
) -> None:
    """Looks for settings that contradict themselves.

    Args:
        setting: which one names the current models.
        current: digests of their weights.
        reference: the reference's weights, as the setting names them.
        digest: of these.
        layers: patterns of parameters.
        bank: how many negatives.

    Raises:
        ValueError: what is wrong, and the remedy.
    """
    if bank < 2:
        raise ValueError(f"bank is {bank}: give 2 or more negatives")
    if not layers:
        raise ValueError("layers is empty: name some, or leave it out to take all")
    if not current:
        raise ValueError(f"{setting} is empty: name the current model's weights")
    if digest in current:
        raise ValueError(
            f"reference {reference!r} is the current model itself: name weights that were trained for longer, "
            "or on cleaner pairs"
        )
