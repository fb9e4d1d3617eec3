"""How much of a picture its objects cover."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from chaffinch.filters.detections import check_threshold, read_boxes, read_lists
from chaffinch.filters.filter import Bounds, Filter

_MOST_NUMBERS = 1 << 20
"""Of the largest array while areas of unions are taken, so that a row of a hundred boxes costs no gigabytes."""


@dataclass(frozen=True, kw_only=True)
class ObjectArea(Filter):
    """Score: share of the picture that objects cover, in [0, 1]; 0 where there are none; the middle is best.

    Source: Huang, Shin, Tay, Adila, Sala (2024), arXiv 2401.12225: below 5% nothing can be made out, and above 95%
    nothing is beside it. Of which boxes the paper takes the area is not clear, hence the choice.

    Attributes:
        scorer: name of a detector among the scorers.
        box_threshold: least confidence of an object that counts, in [0, 1]; .35 as in Grounding DINO's demo. YOLOX's
            demo takes .3 for its own, the product of two probabilities; 0 counts all that the scorer kept.
        statistic: union, what all boxes cover together, exactly; max, the largest box; or mean, over all boxes.
        keep: as of every filter; from .05 to .95 where nothing is said, as in the paper.
    """

    scorer: str
    box_threshold: float = 0.35
    statistic: Literal["mean", "max", "union"] = "union"
    keep: Bounds | None = (0.05, 0.95)

    @property
    def reads(self) -> tuple[str, ...]:
        """The objects' boxes, and how sure the detector is of each."""
        return (f"{self.scorer}.boxes", f"{self.scorer}.confidences")

    def check(self) -> None:
        """Checks the threshold.

        Raises:
            ValueError: it is no confidence.
        """
        check_threshold(self.box_threshold)

    def score(self, columns: Mapping[str, pa.Array]) -> np.ndarray:
        """Takes the statistic over the boxes that count.

        Args:
            columns: boxes and confidences, n lists each, null for samples that were not measured.

        Returns:
            (n,) float32; NaN where a list is null.

        Raises:
            ValueError: a column holds something else, or a row has more of one than of the other.
        """
        boxes, confidences = self.reads
        owners, corners = read_boxes(columns, boxes)
        sure = read_lists(columns, confidences)
        if not np.array_equal(owners, sure.owners):
            raise ValueError(
                f"columns {boxes!r} and {confidences!r} have lists of different lengths: score `{self.scorer}` again"
            )
        counts = sure.values >= self.box_threshold
        owners, corners, n = owners[counts], corners[counts], len(sure.measured)
        if self.statistic == "union":
            return sure.where_measured(union_areas(owners, corners, n))
        areas = np.prod(corners[:, 2:] - corners[:, :2], axis=1)
        if self.statistic == "max":
            scores = np.zeros(n)
            np.maximum.at(scores, owners, areas)
        else:
            scores = np.bincount(owners, areas, minlength=n) / np.maximum(np.bincount(owners, minlength=n), 1)
        return sure.where_measured(scores)


def union_areas(owners: np.ndarray, corners: np.ndarray, n: int) -> np.ndarray:
    """The area that boxes cover together, exactly.

    The vertical edges of a row's boxes cut it into strips; in each strip the covered length is swept from the top.

    Args:
        owners: (k,) the row of each box, in order.
        corners: (k, 4) left, top, right and bottom edges in [0, 1], neither pair reversed.
        n: how many rows there are.

    Returns:
        (n,) float64 in [0, 1].
    """
    areas = np.zeros(n)
    counts = np.bincount(owners, minlength=n)
    starts = np.cumsum(counts) - counts
    for count in np.unique(counts[counts > 0]).tolist():
        rows = np.flatnonzero(counts == count)
        step = max(1, _MOST_NUMBERS // (2 * count * count))
        for first in range(0, len(rows), step):
            part = rows[first : first + step]
            areas[part] = _unions(corners[starts[part, None] + np.arange(count)])
    return np.minimum(areas, 1.0)  # sums of rounded numbers


def _unions(corners: np.ndarray) -> np.ndarray:
    """(r,) areas of (r, k, 4) boxes, k in each row."""
    ordered = np.take_along_axis(corners, np.argsort(corners[:, :, 1], axis=1, kind="stable")[:, :, None], axis=1)
    left, top, right, bottom = np.moveaxis(ordered, 2, 0)  # (r, k) each, the topmost box first
    edges = np.sort(np.concatenate([left, right], axis=1), axis=1)  # (r, 2k)
    # Boxes span whole strips, since every edge is a strip's. Those that miss a strip end before they begin there.
    spans = (left[:, None] <= edges[:, :-1, None]) & (right[:, None] >= edges[:, 1:, None])  # (r, 2k - 1, k)
    ends = np.where(spans, bottom[:, None], 0.0)
    reached = np.maximum.accumulate(ends, axis=2)
    before = np.concatenate([np.zeros_like(reached[:, :, :1]), reached[:, :, :-1]], axis=2)
    lengths = np.maximum(ends - np.maximum(before, top[:, None]), 0).sum(axis=2)  # (r, 2k - 1)
    return np.asarray((np.diff(edges, axis=1) * lengths).sum(axis=1))
