"""What the filters over detections share: lists of a detector's columns as flat arrays."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Lists:
    """A column of lists of numbers, laid out flat.

    Attributes:
        owners: (k,) int64, the row that each number belongs to, in order.
        values: (k,) float32; NaN where the number is null.
        measured: (n,) bool, False where there is no list, because the sample was rejected or skipped.
    """

    owners: np.ndarray
    values: np.ndarray
    measured: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """(n,) int64, the length of each list; 0 where there is none."""
        return np.bincount(self.owners, minlength=len(self.measured))

    def where_measured(self, scores: np.ndarray) -> np.ndarray:
        """(n,) scores as float32, NaN where there is no list."""
        return np.where(self.measured, scores, np.nan).astype(np.float32)


def check_threshold(box_threshold: float) -> None:
    """Checks the confidence from which on an object counts.

    Raises:
        ValueError: no confidence can be so high or so low.
    """
    if not 0 <= box_threshold <= 1:
        raise ValueError(f"box_threshold is {box_threshold}: give a confidence from 0 to 1, such as 0.35")


def read_lists(columns: Mapping[str, pa.Array], name: str) -> Lists:
    """Lays a column out.

    Args:
        columns: the columns, n rows each.
        name: of one that holds lists of numbers.

    Returns:
        Its lists.

    Raises:
        ValueError: it holds something else.
    """
    lists = columns[name]
    if pa.types.is_null(lists.type):
        return Lists(np.empty(0, np.int64), np.empty(0, np.float32), np.zeros(len(lists), bool))
    _check_lists(lists, name)
    numbers = pc.list_flatten(lists)
    if not pa.types.is_floating(numbers.type) and not pa.types.is_integer(numbers.type):
        raise ValueError(f"column {name!r} holds {lists.type}, not lists of numbers: name a detector's")
    values = numbers.cast(pa.float32(), safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False)
    return Lists(_owners(lists), values, lists.is_valid().to_numpy(zero_copy_only=False))


def read_boxes(columns: Mapping[str, pa.Array], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Lays a column of boxes out.

    Args:
        columns: the columns, n rows each.
        name: of one that holds lists of k boxes, four numbers each: left, top, right and bottom edge.

    Returns:
        (k,) int64, the row that each box belongs to, in order; and (k, 4) float64, clipped to [0, 1]. What is not
        four finite numbers, or ends before it begins, is a box without area.

    Raises:
        ValueError: it holds something else.
    """
    lists = columns[name]
    if pa.types.is_null(lists.type):
        return np.empty(0, np.int64), np.empty((0, 4))
    _check_lists(lists, name)
    boxes = pc.list_flatten(lists)
    _check_lists(boxes, name)
    corners = np.zeros((len(boxes), 4))
    whole = pc.equal(pc.list_value_length(boxes), 4).fill_null(False)
    numbers = pc.list_flatten(boxes.filter(whole)).cast(pa.float64()).fill_null(np.nan)
    corners[whole.to_numpy(zero_copy_only=False)] = numbers.to_numpy(zero_copy_only=False).reshape(-1, 4)
    corners[~np.isfinite(corners).all(axis=1)] = 0
    corners = np.clip(corners, 0, 1)
    corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2])
    return _owners(lists), corners


def _check_lists(lists: pa.Array, name: str) -> None:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(belongs(lists.type) for belongs in kinds):
        raise ValueError(f"column {name!r} holds {lists.type} where lists should be: name a detector's")


def _owners(lists: pa.Array) -> np.ndarray:
    """(k,) int64, the row of each element."""
    return np.asarray(pc.list_parent_indices(lists).to_numpy(zero_copy_only=False), np.int64)
