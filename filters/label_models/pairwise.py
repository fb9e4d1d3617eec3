"""What label models share that learn error rates from pairs of sources: roles, pseudo-votes, and Bayes' rule."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from chaffinch.filters.label_models.dawid_skene import ASSUMED_ACCURACY
from chaffinch.filters.label_models.expectation import expect
from chaffinch.filters.label_models.learned import LearnedLabelModel
from chaffinch.filters.label_models.moments import PairCounts, majority_shares
from chaffinch.filters.label_models.votes import class_shares, mostly_one_sided, vote_classes

LEAST_SMOOTHING = 1e-3
"""Of a pseudo-vote, which keeps the posterior off 0 and 1 where no smoothing is asked for."""

PRIOR_STEPS = 2
"""Steps from the majority's share towards the class prior that explains whole patterns best."""

Rates = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Of a (k,) class prior: (l, k votes, k classes) P(vote given class) of what is to be learned, and (l,) bool, if it
could be."""


@dataclass(kw_only=True)
class PairwiseLabelModel(LearnedLabelModel):
    """Base of label models that learn P(vote given class) from what pairs of sources vote, given the class prior.

    A source that no other votes beside is taken to be right with probability 0.9. One that always abstains has no
    influence; nor has one that always votes the same, unless it abstains at times and voting is informative.

    Attributes:
        classes: k, at least 2. Two classes are voted -1 (drop) and +1 (keep), more are voted 1..k.
        form: confusion: every source has its own probability of every vote for every class. one_coin: it has one
            number. None: confusion for two classes, one_coin for more.
        voting: missing: where a source votes has nothing to do with the class. informative: it has. None: informative
            if more than half of the votes are cast by sources that ever vote for one class only.
        smoothing: pseudo-votes per source and class, 0 or more; a thousandth at least.
        class_prior_: P(keep), given or estimated; with `classes=k`, (k,) shares.
        confusion_: (m sources, k classes, k votes) P(vote given class): given that the source votes, so that it sums to
            1 over votes, or with informative voting as it is, so that it sums to P(source votes given class).
    """

    needs_peers: ClassVar[bool] = True
    by_source: ClassVar[tuple[str, ...]] = ("accuracy_", "confusion_")

    classes: int = 2
    form: Literal["confusion", "one_coin"] | None = None
    voting: Literal["missing", "informative"] | None = None
    smoothing: float = 1.0

    class_prior_: float | np.ndarray = field(init=False, repr=False, compare=False)
    confusion_: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ValueError: a setting is out of its range.
        """
        super().__post_init__()
        if not 2 <= self.classes <= 127:
            raise ValueError(f"classes is {self.classes}: give a number from 2 to 127")
        if self.form not in ("confusion", "one_coin", None):
            raise ValueError(f"form is {self.form!r}: take 'confusion' or 'one_coin', or leave it out")
        if self.voting not in ("missing", "informative", None):
            raise ValueError(f"voting is {self.voting!r}: take 'missing' or 'informative', or leave it out")
        if not 0 <= self.smoothing < np.inf:
            raise ValueError(f"smoothing is {self.smoothing}: give a number of pseudo-votes, 0 or more, such as 1")
        class_shares(self.class_prior, self.classes)

    @abstractmethod
    def _rates(self, pairs: PairCounts, learned: np.ndarray, *, informative: bool) -> Rates:
        """The error rates that pairs speak for, as a function of the class prior; called with one after the other.

        Args:
            pairs: of all opinions.
            learned: (m,) bool, the l opinions that can be learned.
            informative: whether rates count how often a source votes.

        Raises:
            ValueError: nothing can be learned.
        """

    @property
    def prior_unknown(self) -> str:
        """Any class prior goes with what pairs show."""
        return "pairs of votes do not tell it: taken from where keep votes have the majority"

    @property
    def _has_one_coin(self) -> bool:
        """Whether each source has one number."""
        return self.form == "one_coin" or (self.form is None and self.classes > 2)

    def _fit(self, patterns: np.ndarray, counts: np.ndarray) -> None:
        """Adds up pairs, has them solved, and says what sources are worth."""
        k = self.classes
        voted = vote_classes(patterns, k)
        pairs = PairCounts.of(voted, counts, k)
        informative = self._is_informative(pairs.votes)
        prior = class_shares(self.class_prior, k)
        if self.class_prior is None:
            prior = majority_shares(voted, counts, self.shares(voted != k), k)
        learned, assumed = _roles(pairs, informative=informative)
        rates = np.ones((len(learned), k, k))
        known = np.zeros(len(learned), dtype=bool)
        solve = self._rates(pairs, learned, informative=informative) if learned.any() else None
        # Informative voting weighs the votes that are cast, not the silence beside them: its posteriors have no mean to
        # go by.
        steps = PRIOR_STEPS if self.class_prior is None and not informative else 0
        for step in range(steps + 1):
            if step:
                prior = self._expected_shares(patterns, counts)
            if solve is not None:
                rates[learned], known[learned] = solve(prior)
            self.class_prior_ = float(prior[1]) if k == 2 else prior
            self.confusion_ = self._smoothed(
                rates, known, assumed | (learned & ~known), pairs, prior, informative=informative
            )
        assumed |= learned & ~known
        cast = pairs.votes.sum(axis=1)
        joint = self.confusion_ * prior[:, None] * (pairs.votes > 0)[:, None, :]  # (m, k classes, k votes) that occur
        total = joint.sum(axis=(1, 2))
        self.accuracy_ = np.where(cast > 0, np.einsum("jyy->j", joint) / np.where(cast > 0, total, 1.0), np.nan)
        self.accuracy_[assumed] = ASSUMED_ACCURACY
        self.weight_ = self._weight(pairs.votes, informative=informative)

    def _expected_shares(self, patterns: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """(k,) how much of what is voted on is of each class as things stand; a pseudo-sample of each is added."""
        voting = patterns.any(axis=1)
        posterior = self._predict(patterns[voting])
        if self.classes == 2:
            posterior = np.column_stack([1 - posterior, posterior])
        mass = counts[voting] @ posterior + 1.0
        shares: np.ndarray = mass / mass.sum()
        return shares

    def _predict(self, patterns: np.ndarray) -> np.ndarray:
        """Bayes' rule over the votes that are cast."""
        k = self.classes
        voted = vote_classes(patterns, k)
        prior = np.array([1 - self.class_prior_, self.class_prior_]) if k == 2 else np.asarray(self.class_prior_, float)
        confusion = self.confusion_.reshape(voted.shape[1], k, k)  # JSON forgets empty axes
        informs = (confusion != confusion[:, :1]).any(axis=(1, 2))
        shares = self.shares(voted != k)
        shares = None if shares is None else np.ascontiguousarray(shares[:, informs].T)
        posterior, _ = expect(np.log(prior), confusion[informs], np.ascontiguousarray(voted[:, informs].T), shares)
        posterior = np.where((voted[:, informs] == k).all(axis=1), prior[:, None], posterior)
        return posterior[1] if k == 2 else posterior.T

    def _is_informative(self, votes: np.ndarray) -> bool:
        """Whether it counts on which class sources speak up; (m, k) votes."""
        return mostly_one_sided(votes) if self.voting is None else self.voting == "informative"

    def _smoothed(
        self,
        rates: np.ndarray,
        known: np.ndarray,
        assumed: np.ndarray,
        pairs: PairCounts,
        prior: np.ndarray,
        *,
        informative: bool,
    ) -> np.ndarray:
        """(m, k classes, k votes) rates with pseudo-votes: evenly over votes, or as the source votes on all classes."""
        k, extra = self.classes, max(self.smoothing, LEAST_SMOOTHING)
        cast = pairs.votes.sum(axis=1)
        if informative:
            shares = (pairs.votes / max(pairs.samples, 1))[:, :, None]
            mass = pairs.samples * prior
            smoothed = (mass * rates + extra * shares) / (mass + extra)
            smoothed = np.where(shares > 0, smoothed, 1.0)  # votes never seen say nothing
        else:
            mass = (cast[:, None] * prior)[:, None, :]
            given = rates / np.maximum(rates.sum(axis=1, keepdims=True), 1e-300)
            smoothed = (mass * given + extra / k) / (mass * given.sum(axis=1, keepdims=True) + extra)
        smoothed[~known] = 1.0 if informative else 1 / k
        coin = np.full((k, k), (1 - ASSUMED_ACCURACY) / (k - 1))
        np.fill_diagonal(coin, ASSUMED_ACCURACY)
        smoothed[assumed] = coin
        confusion: np.ndarray = smoothed.transpose(0, 2, 1)
        return confusion

    def _weight(self, votes: np.ndarray, *, informative: bool) -> np.ndarray:
        """(m,) log odds of what a vote is worth, were classes equally frequent."""
        k = self.classes
        right = np.einsum("jyy->jy", self.confusion_)
        if informative:  # how sure a vote makes of its class, over the votes that are cast
            sure = right / self.confusion_.sum(axis=1)
            balanced = (votes * sure).sum(axis=1) / np.maximum(votes.sum(axis=1), 1)
        else:
            balanced = (right / self.confusion_.sum(axis=2)).mean(axis=1)
        balanced = np.clip(balanced, 1e-12, 1 - 1e-12)
        weight = np.maximum(0.0, np.log((k - 1) * balanced / (1 - balanced)))
        return np.where((votes.sum(axis=1) > 0) & (weight > 1e-12), weight, 0.0)


def _roles(pairs: PairCounts, *, informative: bool) -> tuple[np.ndarray, np.ndarray]:
    """Which sources the data can judge, and which are taken for granted: two (m,) bools, never both."""
    votes = pairs.votes
    heard = votes.sum(axis=1) > 0
    if informative:
        beside = np.outer(heard, heard)
        constant = votes.max(axis=1, initial=0) == pairs.samples
    else:
        beside = pairs.together > 0
        constant = (votes > 0).sum(axis=1) == 1
    np.fill_diagonal(beside, False)
    assumed = heard & ~beside.any(axis=1)
    return heard & ~assumed & ~constant, assumed
