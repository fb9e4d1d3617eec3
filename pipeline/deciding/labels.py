"""Labels: what somebody said of single samples, found among those of a pool."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from chaffinch.filters.filter import Filter
from chaffinch.filters.fitted import Fitted
from chaffinch.filters.label_models.evidence import Labelled
from chaffinch.pipeline.rows import Part, Rows, Source, read_uids


@dataclass(frozen=True)
class Labels:
    """Samples that somebody looked at, each once.

    Attributes:
        uids: (k, 2) uint64, high and low halves, ascending.
        keep: (k,) bool what was said of them.
        at_random: (k,) bool whether a sample was drawn by chance, and not picked because it is hard.
    """

    uids: np.ndarray
    keep: np.ndarray
    at_random: np.ndarray

    def __len__(self) -> int:
        return len(self.uids)

    def find(self, uids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Looks samples up.

        Args:
            uids: (n, 2) uint64.

        Returns:
            (f,) rows of the samples that have a label, ascending, and (f,) which label each has.
        """
        rows = np.flatnonzero(np.isin(uids[:, 0], self.uids[:, 0]))
        pairs = [(row, self._places.get(uid)) for row, uid in zip(rows, map(tuple, uids[rows].tolist()), strict=True)]
        found = np.array([pair for pair in pairs if pair[1] is not None], np.int64).reshape(-1, 2)
        return found[:, 0], found[:, 1]

    @cached_property
    def _places(self) -> dict[tuple[int, ...], int]:
        return {uid: place for place, uid in enumerate(map(tuple, self.uids.tolist()))}


@dataclass
class ScoredRows:
    """Labelled samples as some filters score them.

    Attributes:
        places: (f,) which label each has.
        scores: (f samples, m filters) float32.
    """

    places: np.ndarray
    scores: np.ndarray

    def merge(self, other: Self) -> Self:
        """Adds another shard's samples."""
        self.places = np.concatenate([self.places, other.places])
        self.scores = np.concatenate([self.scores, other.scores])
        return self

    def ordered(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels and scores in the order of the uids."""
        order = np.argsort(self.places)
        return self.places[order], self.scores[order]

    def judged(self, labels: Labels, fitted: Fitted) -> Labelled:
        """What label models see of those that no required filter drops, in the order of their uids.

        Args:
            labels: what was said.
            fitted: ranges and ranks of the m filters.
        """
        places, scores = self.ordered()
        columns = list(scores.T)
        votes, soft = fitted.votes(columns, len(places)), fitted.soft_votes(columns, len(places))
        chosen = ~fitted.ruled_out(votes)
        places = places[chosen]
        return Labelled(votes[chosen], labels.keep[places], labels.at_random[places], soft[chosen])


@dataclass(frozen=True)
class CountLabelledScores:
    """Finds the scores of labelled samples that can be used, those that a required filter drops included.

    Attributes:
        source: where columns come from.
        filters: the filters whose scores are wanted.
        labels: what was said.
    """

    source: Source
    filters: Mapping[str, Filter]
    labels: Labels

    def __call__(self, part: Part) -> ScoredRows:
        """Looks through one shard; reads no score where it has no labelled sample."""
        rows, places = self.labels.find(read_uids(part, self.source))
        if not len(rows):
            return ScoredRows(places, np.zeros((0, len(self.filters)), np.float32))
        shard = Rows.read(part, self.source, list(self.filters.values()))
        usable = shard.usable[rows]
        scores = np.empty((int(usable.sum()), len(self.filters)), np.float32)
        for column, values in enumerate(shard.scores):
            scores[:, column] = values[rows[usable]]
        return ScoredRows(places[usable], scores)
