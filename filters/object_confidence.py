"""How sure a detector is of the objects it found."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from chaffinch.filters.detections import check_threshold, read_lists
from chaffinch.filters.filter import Bounds, Filter


@dataclass(frozen=True, kw_only=True)
class ObjectConfidence(Filter):
    """Score: confidence of a picture's objects, in [0, 1]; higher is better; 0 where none is sure enough.

    Source: Huang, Shin, Tay, Adila, Sala (2024), arXiv 2401.12225: the logit of a detector prompted with the caption.
    Confidences are those logits, squashed: they order samples the same way.

    Attributes:
        scorer: name of a detector among the scorers.
        box_threshold: least confidence of an object that counts, in [0, 1]; .35 as in Grounding DINO's demo. YOLOX's
            demo takes .3 for its own, the product of two probabilities; 0 counts all that the scorer kept.
        statistic: max, of the surest object, or mean, over all that count.
        keep: as of every filter; the top 30% where nothing is said, as in the paper.
    """

    scorer: str
    box_threshold: float = 0.35
    statistic: Literal["max", "mean"] = "max"
    keep: Bounds | None = "top 30%"

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
        """Takes the statistic over the objects that count.

        Args:
            columns: the confidences, n lists, null for samples that were not measured.

        Returns:
            (n,) float32; NaN where the list is null.

        Raises:
            ValueError: the column holds something else.
        """
        confidences = read_lists(columns, *self.reads)
        sure = confidences.values >= self.box_threshold
        owners, values, n = confidences.owners[sure], confidences.values[sure], len(confidences.measured)
        scores = np.zeros(n)
        if self.statistic == "max":
            np.maximum.at(scores, owners, values)
        else:
            sums, counts = np.bincount(owners, values, minlength=n), np.bincount(owners, minlength=n)
            scores = sums / np.maximum(counts, 1)
        return confidences.where_measured(scores)
