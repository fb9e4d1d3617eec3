"""How many objects a detector found."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from chaffinch.filters.detections import check_threshold, read_lists
from chaffinch.filters.filter import Bounds, Filter


@dataclass(frozen=True, kw_only=True)
class ObjectCount(Filter):
    """Score: number of objects that are sure enough, 0 or more; none is bad, and many are not better than some.

    Source: Huang, Shin, Tay, Adila, Sala (2024), arXiv 2401.12225: a picture in which the detector finds none of what
    the caption speaks of is dropped.

    Attributes:
        scorer: name of a detector among the scorers.
        box_threshold: least confidence of an object that counts, in [0, 1]; .35 as in Grounding DINO's demo. YOLOX's
            demo takes .3 for its own, the product of two probabilities; 0 counts all that the scorer kept.
        keep: as of every filter; from one object on where nothing is said.
    """

    scorer: str
    box_threshold: float = 0.35
    keep: Bounds | None = (1, None)

    @property
    def reads(self) -> tuple[str, ...]:
        """How sure the detector is of each object."""
        return (f"{self.scorer}.confidences",)

    def check(self) -> None:
        """Checks the threshold.

        Raises:
            ValueError: it is no confidence.
        """
        check_threshold(self.box_threshold)

    def score(self, columns: Mapping[str, pa.Array]) -> np.ndarray:
        """Counts.

        Args:
            columns: the confidences, n lists, null for samples that were not measured.

        Returns:
            (n,) float32; NaN where the list is null.

        Raises:
            ValueError: the column holds something else.
        """
        confidences = read_lists(columns, *self.reads)
        sure = confidences.values >= self.box_threshold
        return confidences.where_measured(np.bincount(confidences.owners[sure], minlength=len(confidences.measured)))
