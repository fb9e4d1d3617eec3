"""What label models are that judge each sample by scores, and not only by which votes these make."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from chaffinch.filters.label_models.evidence import Evidence, SoftVotes, Votes
from chaffinch.filters.label_models.label_model import LabelModel
from chaffinch.filters.label_models.tables import Table, holds_votes, read_scores
from chaffinch.filters.soft_votes import Moments, soften


@dataclass(kw_only=True)
class SoftLabelModel(LabelModel, ABC):
    """Base of label models over soft votes: normal scores of each source's ranks in the pool, higher is better.

    From Python, `fit` takes the scores themselves, (n samples, m sources) with NaN where a source cannot judge, and
    `predict_proba` ranks new scores among those.
    """

    is_soft: ClassVar[bool] = True

    @abstractmethod
    def learn(self, evidence: Evidence) -> Self:
        """Fits the model.

        Args:
            evidence: soft votes among it.

        Returns:
            The model itself.

        Raises:
            ValueError: nothing can be learned from that; what to do about it.
        """
        raise NotImplementedError

    @abstractmethod
    def predict_soft(self, soft: np.ndarray) -> np.ndarray:
        """The posterior of samples; a row's numbers do not depend on the others, not even in the last bit.

        Args:
            soft: (n samples, m sources) int16 soft votes.

        Returns:
            (n,) float64 P(keep); the class prior where every source is missing.
        """
        raise NotImplementedError

    def fit(self, votes: Table, reference: Table | None = None) -> Self:
        """Fits the model to scores in memory.

        Args:
            votes: (n samples, m sources) scores, in which more is better: an array or a table; NaN, and null in a
                table, where a source cannot judge. Votes will do, as an array of the whole numbers -1, 0 (abstain), 1.
            reference: (k samples, m sources) scores of known-good samples, for models that need some; of a table the
                columns that the pool's has.

        Returns:
            The model itself.

        Raises:
            ValueError: scores are not two-dimensional, or nothing can be learned from them.
        """
        scores, names = read_scores(votes)
        self._of_votes = holds_votes(votes)  # whose zeros are abstains, and no middling scores
        if self._of_votes:
            scores[scores == 0] = np.nan
        self._sorted = [np.sort(column[~np.isnan(column)]) for column in scores.T]
        soft = self._soften(scores)
        trusted = np.zeros((0, scores.shape[1]), np.int16)
        if reference is not None:
            good, _ = read_scores(reference, names)
            if self._of_votes:
                good[good == 0] = np.nan
            if good.shape[1] != scores.shape[1]:
                raise ValueError(f"the reference has scores of {good.shape[1]} sources, the pool of {scores.shape[1]}")
            trusted = self._soften(good)
        nothing = Votes(np.zeros((0, scores.shape[1]), np.int8), np.zeros(0, np.int64))
        self.learn(Evidence(nothing, soft=SoftVotes(Moments.of(soft), soft, trusted)))
        return self._named(names)

    def fit_batches(self, batches: Iterable[Table]) -> Self:
        """Refuses: scores are ranked within the whole pool.

        Args:
            batches: scores.

        Raises:
            ValueError: always; says what to do.
        """
        raise ValueError(f"{self.kind} ranks scores within the whole pool, so that parts will not do: give all to fit")

    def fit_patterns(self, patterns: np.ndarray, counts: np.ndarray) -> Self:
        """Refuses: votes say less than this model needs.

        Args:
            patterns: (p patterns, m sources) votes.
            counts: (p,) how many samples show each.

        Raises:
            ValueError: always; says what to do.
        """
        raise ValueError(f"{self.kind} judges scores, not votes: give it scores by fit, or take dawid_skene")

    def predict_patterns(self, patterns: np.ndarray) -> np.ndarray:
        """Refuses, as `fit_patterns` does.

        Args:
            patterns: (p patterns, m sources) votes.

        Raises:
            ValueError: always; says what to do.
        """
        raise ValueError(f"{self.kind} judges scores, not votes: give it scores by predict_proba")

    def predict_proba(self, votes: Table) -> np.ndarray:
        """The posterior of every sample.

        Args:
            votes: (n samples, m sources) scores, as `fit` had them; columns of a table are found by their names.

        Returns:
            (n,) float64 P(keep).

        Raises:
            ValueError: another number of sources than the fit had, a column is missing, or no fit on scores.
        """
        if not hasattr(self, "_sorted"):
            raise ValueError(f"this {type(self).__name__} has not been fitted to scores: call fit first")
        scores, _ = read_scores(votes, self._names)
        if self._of_votes:
            scores[scores == 0] = np.nan
        if scores.shape[1] != len(self._sorted):
            raise ValueError(f"scores have {scores.shape[1]} sources, but the fit had {len(self._sorted)}")
        return self.predict_soft(self._soften(scores))

    def _soften(self, scores: np.ndarray) -> np.ndarray:
        """(n, m) int16 soft votes of scores, ranked among those of the fit, ties in the middle."""
        columns = [soften(_ranks(column, known)) for column, known in zip(scores.T, self._sorted, strict=True)]
        return np.stack(columns, axis=1) if columns else np.zeros((len(scores), 0), np.int16)


def _ranks(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Shares of known values below each value, half of the equal ones among them; NaN where it is NaN."""
    if not len(known):
        return np.where(np.isnan(values), np.nan, 0.5)
    below, upto = np.searchsorted(known, values, "left"), np.searchsorted(known, values, "right")
    return np.where(np.isnan(values), np.nan, (below + upto) / 2 / len(known))
