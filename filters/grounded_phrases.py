"""Whether what the caption speaks of can be seen."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from chaffinch.filters.detections import check_threshold, read_lists
from chaffinch.filters.filter import Bounds, Filter


@dataclass(frozen=True, kw_only=True)
class GroundedPhrases(Filter):
    """Score: share of the caption's phrases that the detector sees in the picture, in [0, 1]; higher is better.

    A zero-shot detector looks for the caption's noun phrases. One with a fixed vocabulary looks for those of its
    classes that the caption mentions, by name or synonym. Captions without any are not judged.

    Attributes:
        scorer: name of a detector among the scorers.
        box_threshold: least confidence of an object that grounds a phrase, in [0, 1]; .25, Grounding DINO's own
            threshold for phrases. It is lower than for counting objects, because the caption vouches for the object.
        keep: as of every filter; from half of the phrases on where nothing is said.
        drop: as of every filter; where none of them is seen, if nothing is said. Between both detectors that overlook
            small things have no say.
    """

    scorer: str
    box_threshold: float = 0.25
    keep: Bounds | None = (0.5, None)
    drop: Bounds | None = (None, 0)

    @property
    def reads(self) -> tuple[str, ...]:
        """How sure the detector is of the best object for each phrase."""
        return (f"{self.scorer}.phrase_confidences",)

    def check(self) -> None:
        """Checks the threshold.

        Raises:
            ValueError: it is no confidence.
        """
        check_threshold(self.box_threshold)

    def score(self, columns: Mapping[str, pa.Array]) -> np.ndarray:
        """Divides the phrases that are seen by all.

        Args:
            columns: the phrases' confidences, n lists, null for samples that were not measured.

        Returns:
            (n,) float32; NaN where the list is null or empty.

        Raises:
            ValueError: the column holds something else.
        """
        phrases = read_lists(columns, *self.reads)
        seen = phrases.values >= self.box_threshold
        with np.errstate(invalid="ignore"):
            shares = np.bincount(phrases.owners[seen], minlength=len(phrases.measured)) / phrases.counts
        return phrases.where_measured(shares)
