"""Votes weighed by the log odds of being right, which are given or follow from how often sources agree."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from chaffinch.filters.label_models.common_cause import loadings
from chaffinch.filters.label_models.learned import LearnedLabelModel
from chaffinch.filters.label_models.votes import class_shares, vote_classes

ASSUMED_ACCURACY = 0.9
"""What a source is taken to be worth that no other source ever votes beside, so that nothing can be learned of it."""


@dataclass(kw_only=True)
class WeightedMajority(LearnedLabelModel):
    """Every source is right with one probability, whatever the class, and its vote weighs the log odds of that.

    With k classes and accuracy a, errors spread evenly over the other classes, Bayes' rule gives

        log P(class y | votes) = log prior[y] + sum over the sources that vote y: w log((k - 1) a / (1 - a)) + constant

    with w = 1, or less for sources that are one opinion and share its weight (`opinion_weights`).

    Accuracies that are not given follow from agreement. Write b = (k a - 1) / (k - 1), 0 for a guess and 1 for no
    error. Two sources that err independently agree on a share c of samples, and (k c - 1) / (k - 1) = b_i b_j,
    whatever the class prior is. The fit is the minimum, over b in [-0.99, 0.99], of

        sum over pairs: samples both vote on * shares of both * ((k c - 1) / (k - 1) - b_i b_j)^2

    without the pairs that are correlated beyond what the class explains. Nothing is weighed by its own votes, as it
    would be by agreement with a majority that it is part of, so that no source can talk itself up. Of the two minima
    with the signs of all b swapped, that is taken in which sources are right more often than not. The accuracy is
    then drawn towards a guess by `smoothing` votes, and one that is below a guess is taken for a guess: such a source
    has no influence, and is never turned around. Two sources are taken to be equally good. A source that no other
    votes beside is taken to be right with probability 0.9. Errors that lean towards one class (a source that almost
    always votes keep) are not this model's; take dawid_skene for those.

    The class prior, where it is not given: source j votes y with probability prior[y] b_j + (1 - b_j) / k, and the
    prior is fitted to these shares by least squares, a source weighing as many votes as it casts; `smoothing` votes of
    a source without error draw it towards equal shares.

    Attributes:
        correlated: discount: sources that are one opinion share its weight. ignore: all are taken to err independently.
        class_prior: P(keep), fixed; with `classes=k` k shares; None: estimated.
        classes: k, at least 2. Two classes are voted -1 (drop) and +1 (keep), more are voted 1..k.
        accuracies: (m,) P(right) of each source, strictly between 0 and 1; None: learned. One that is given below a
            guess counts against what it votes for.
        smoothing: votes' worth of doubt, 0 or more.
        class_prior_: P(keep), given or estimated; with `classes=k`, (k,) shares.
        accuracy_: (m,) P(right given that the source votes), in (0, 1); NaN for a source that always abstains, which
            has no influence.
        weight_: (m,) log odds above (nats), 0 or more; copies share theirs.
        excess_correlation_: (m, m) how far two sources are one opinion, in [0, 1]; 1 for copies, and on the diagonal.
        copy_of_: (m,) the first source with the same votes, which are merged; itself where there is none before it.

    Source: the weights are those of S. Nitzan and J. Paroush (1982), Optimal Decision Rules in Uncertain Dichotomous
        Choice Situations, Int. Econ. Rev. 23(2); accuracies from a rank-one fit of agreement as in N. Dalvi et al.
        (2013), Aggregating Crowdsourced Binary Ratings, WWW.
    """

    needs_peers: ClassVar[bool] = True

    classes: int = 2
    accuracies: tuple[float, ...] | None = None
    smoothing: float = 1.0

    class_prior_: float | np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ValueError: a setting is out of its range.
        """
        super().__post_init__()
        if not 2 <= self.classes <= 127:
            raise ValueError(f"classes is {self.classes}: give a number from 2 to 127")
        if not 0 <= self.smoothing < np.inf:
            raise ValueError(f"smoothing is {self.smoothing}, but must be 0 or more: take 1")
        if self.accuracies is not None:
            self.accuracies = tuple(self.accuracies)
            wrong = [value for value in self.accuracies if not 0 < value < 1]
            if wrong:
                raise ValueError(
                    f"an accuracy is {wrong[0]}, but must lie strictly between 0 and 1, since a source that is never "
                    "wrong would overrule all others together: give your best estimate, such as 0.99"
                )
        class_shares(self.class_prior, self.classes)

    def _fit(self, patterns: np.ndarray, counts: np.ndarray) -> None:
        """Learns accuracies, if they are not given, and the class prior."""
        voted = vote_classes(patterns, self.classes)
        cast = ((voted != self.classes) * counts[:, None]).sum(axis=0)  # (o,) votes
        accuracy = self._learned(voted, counts, cast) if self.accuracies is None else self._given()
        self.accuracy_ = np.where(cast > 0, accuracy, np.nan)
        self.weight_ = np.maximum(self._log_odds(), 0)
        prior = class_shares(self.class_prior, self.classes)
        if self.class_prior is None:
            prior = self._estimated_prior(voted, counts, cast)
        self.class_prior_ = float(prior[1]) if self.classes == 2 else prior

    def _predict(self, patterns: np.ndarray) -> np.ndarray:
        """Adds up the weights of the votes, class by class; in the order of sources, whatever the number of rows."""
        voted = vote_classes(patterns, self.classes)
        shares = self.shares(voted != self.classes)
        prior = np.asarray(self.class_prior_, dtype=np.float64)
        if self.classes == 2:
            prior = np.array([1.0 - self.class_prior_, self.class_prior_])
        joint = np.repeat(np.log(prior)[:, None], len(voted), axis=1)  # (k, p)
        for source, log_odds in enumerate(self._log_odds()):
            weight = log_odds if shares is None else log_odds * shares[:, source]
            for number in range(self.classes):
                joint[number] += np.where(voted[:, source] == number, weight, 0.0)
        joint = np.exp(joint - joint.max(axis=0))
        posterior = np.where((voted == self.classes).all(axis=1), prior[:, None], joint / joint.sum(axis=0))
        return posterior[1] if self.classes == 2 else posterior.T

    def _log_odds(self) -> np.ndarray:
        """(o,) what each vote weighs, in nats; 0 for sources that always abstain."""
        accuracy = np.where(np.isnan(self.accuracy_), 1 / self.classes, self.accuracy_)
        log_odds: np.ndarray = np.log((self.classes - 1) * accuracy / (1 - accuracy))
        return log_odds

    def _given(self) -> np.ndarray:
        """(o,) the accuracies given, their mean over copies."""
        given = np.asarray(self.accuracies, dtype=np.float64)
        if len(given) != len(self.copy_of_):
            raise ValueError(
                f"accuracies has {len(given)} entries for {len(self.copy_of_)} sources: give one for each, in order"
            )
        return np.array([given[self.copy_of_ == source].mean() for source in self.order_])

    def _learned(self, voted: np.ndarray, counts: np.ndarray, cast: np.ndarray) -> np.ndarray:
        """(o,) accuracies from agreement, a guess or better."""
        k, sources = self.classes, voted.shape[1]
        common, agreed = np.zeros((2, sources, sources))
        for number in range(k):
            votes = (voted == number).astype(np.float64)
            agreed += (votes * counts[:, None]).T @ votes
        votes = (voted != k).astype(np.float64)
        common += (votes * counts[:, None]).T @ votes
        beyond_chance = (k * agreed / np.maximum(common, 1) - 1) / (k - 1)

        weight = common * (self.excess_correlation_ == 0)
        alone = ~weight.any(axis=1)
        shares = self.shares(np.ones((1, sources), dtype=bool))
        if shares is not None:
            weight = weight * np.outer(shares[0], shares[0])
        better = np.zeros(sources)
        heard = np.flatnonzero(cast > 0)  # who never votes may not even change how sums are rounded
        better[heard] = np.maximum(loadings(beyond_chance[np.ix_(heard, heard)], weight[np.ix_(heard, heard)]), 0)
        accuracy = (better * (k - 1) + 1) / k
        doubted = (accuracy * cast + self.smoothing / k) / np.maximum(cast + self.smoothing, 1e-300)
        return np.where(alone, ASSUMED_ACCURACY, doubted)

    def _estimated_prior(self, voted: np.ndarray, counts: np.ndarray, cast: np.ndarray) -> np.ndarray:
        """(k,) shares that go with how often sources vote what."""
        k, heard = self.classes, cast > 0
        voted, cast = voted[:, heard], cast[heard]
        better = (k * self.accuracy_[heard] - 1) / (k - 1)
        shown = np.array([((voted == number) * counts[:, None]).sum(axis=0) for number in range(k)])  # (k, heard) votes
        pull = ((shown - (1 - better) / k * cast) * better).sum(axis=1) + self.smoothing / k
        prior: np.ndarray = np.clip(pull / ((cast * better**2).sum() + self.smoothing), 0.01 / k, None)
        prior /= prior.sum()
        return prior
