"""Votes weighed by the log odds of being right, which are given or follow from how often sources agree."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from chaffinch.filters.label_models.common_cause import loadings
from chaffinch.filters.label_models.learned import LearnedLabelModel
from chaffinch.filters.label_models.votes import class_shares, count_cast, vote_classes

ASSUMED_ACCURACY = 0.9
"""What a source is taken to be worth that no other source ever votes beside, so that nothing can be learned of it."""

_LEAN = 0.02
"""Share of a source's votes that may be amiss without the class prior being called into question."""
_REFUTED = 0.01
"""Chance of that much disagreement about the class prior, or more, below which it is called so."""


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

    without the pairs that are correlated beyond what the class explains, and without those of two sources that each
    only ever cast one vote, which agree always or never. Nothing is weighed by its own votes, as it would be by
    agreement with a majority that it is part of, so that no source can talk itself up. Of the two minima with the signs
    of all b swapped, that is taken in which sources are right more often than not. Two sources are taken to be equally
    good. A source that no other votes beside is taken to be right with probability 0.9. One that has company, but no
    pair that tells of it, is judged by what the others' weighted votes say of its own, those like it counted as right
    with probability 0.9, and by 0.9 where it votes alone. That is done once: judged in turns, the side that happens to
    be voiced more often would win all others over.

    Accuracies found from few votes scatter, and the best of many are the luckiest. Each is drawn towards their mean by
    as many votes as go with how far they lie apart beyond that scatter (of a beta-binomial distribution, by its
    moments); by `smoothing` votes at least. One that is below a guess after that is taken for a guess: such a source
    has no influence, and is never turned around. Errors that lean towards one class (a source that almost always votes
    keep) are not this model's; take dawid_skene for those.

    The class prior, where it is not given: source j votes y with probability prior[y] b_j + (1 - b_j) / k, and the
    prior is fitted to these shares by least squares, a source weighing as many votes as it casts; `smoothing` votes of
    a source without error draw it towards equal shares. Sources that only ever cast one vote do not count there: they
    say where they vote, and not how much there is of it. Where the others contradict each other, by a test at 1% that
    lets 2 in a hundred votes of each pass, errors do lean; then, as where no source tells, the prior is not known, and
    equal shares are taken.

    Attributes:
        correlated: discount: sources that are one opinion share its weight. ignore: all are taken to err independently.
        class_prior: P(keep), fixed; with `classes=k` k shares; None: estimated.
        classes: k, at least 2. Two classes are voted -1 (drop) and +1 (keep), more are voted 1..k.
        accuracies: (m,) P(right) of each source, strictly between 0 and 1; None: learned. One that is given below a
            guess counts against what it votes for.
        smoothing: votes' worth of doubt in every source at least, 0 or more; 0 for no doubt in any.
        class_prior_: P(keep), given, estimated, or one half where it is not known; with `classes=k`, (k,) shares.
        prior_known_: whether the class prior was given, or sources agree about it.
        accuracy_: (m,) P(right given that the source votes), in (0, 1); NaN for a source that always abstains, which
            has no influence.
        weight_: (m,) log odds above (nats), 0 or more; copies share theirs.
        excess_correlation_: (m, m) how far two sources are one opinion, in [0, 1]; 1 for copies, and on the diagonal.
        copy_of_: (m,) the first source with the same votes, which are merged; itself where there is none before it.

    Source: the weights are those of S. Nitzan and J. Paroush (1982), Optimal Decision Rules in Uncertain Dichotomous
        Choice Situations, Int. Econ. Rev. 23(2); accuracies from a rank-one fit of agreement as in N. Dalvi et al.
        (2013), Aggregating Crowdsourced Binary Ratings, WWW; the drawing together as in B. Efron and C. Morris (1975),
        Data Analysis Using Stein's Estimator, JASA 70(350).
    """

    needs_peers: ClassVar[bool] = True

    classes: int = 2
    accuracies: tuple[float, ...] | None = None
    smoothing: float = 1.0

    class_prior_: float | np.ndarray = field(init=False, repr=False, compare=False)
    prior_known_: bool = field(init=False, repr=False, compare=False)

    @property
    def prior_unknown(self) -> str | None:
        """Why the class prior is not known; None where it is."""
        if self.prior_known_:
            return None
        return "sources contradict each other about it, or only ever cast one vote: equal shares"

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
        shown = count_cast(voted, counts, self.classes).T  # (k, o)
        accuracy = self._learned(voted, counts, shown) if self.accuracies is None else self._given()
        self.accuracy_ = np.where(shown.any(axis=0), accuracy, np.nan)
        self.weight_ = np.maximum(self._log_odds(), 0)
        prior, self.prior_known_ = class_shares(self.class_prior, self.classes), True
        if self.class_prior is None:
            prior, self.prior_known_ = self._estimated_prior(shown)
        self.class_prior_ = float(prior[1]) if self.classes == 2 else prior

    def _predict(self, patterns: np.ndarray) -> np.ndarray:
        """Adds up the weights of the votes, class by class; in the order of sources, whatever the number of rows."""
        voted = vote_classes(patterns, self.classes)
        prior = np.asarray(self.class_prior_, dtype=np.float64)
        if self.classes == 2:
            prior = np.array([1.0 - self.class_prior_, self.class_prior_])
        joint = self._evidence(voted, self._log_odds(), self.shares(voted != self.classes)) + np.log(prior)[:, None]
        posterior = np.where((voted == self.classes).all(axis=1), prior[:, None], _shares_of(joint))
        return posterior[1] if self.classes == 2 else posterior.T

    def _evidence(self, voted: np.ndarray, log_odds: np.ndarray, shares: np.ndarray | None) -> np.ndarray:
        """(k, p) the weights of the votes for each class, in nats."""
        joint = np.zeros((self.classes, len(voted)))
        for source, weight in enumerate(log_odds):
            counted = weight if shares is None else weight * shares[:, source]
            for number in range(self.classes):
                joint[number] += np.where(voted[:, source] == number, counted, 0.0)
        return joint

    def _log_odds(self) -> np.ndarray:
        """(o,) what each vote weighs, in nats; 0 for sources that always abstain."""
        return self._log_odds_of(np.where(np.isnan(self.accuracy_), 1 / self.classes, self.accuracy_))

    def _log_odds_of(self, accuracy: np.ndarray) -> np.ndarray:
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

    def _learned(self, voted: np.ndarray, counts: np.ndarray, shown: np.ndarray) -> np.ndarray:
        """(o,) accuracies from agreement, a guess or better."""
        k, sources = self.classes, voted.shape[1]
        common, agreed = np.zeros((2, sources, sources))
        for number in range(k):
            votes = (voted == number).astype(np.float64)
            agreed += (votes * counts[:, None]).T @ votes
        votes = (voted != k).astype(np.float64)
        common += (votes * counts[:, None]).T @ votes
        beyond_chance = (k * agreed / np.maximum(common, 1) - 1) / (k - 1)

        accompanied = ((common > 0) & (self.excess_correlation_ == 0)).any(axis=1)
        one_sided = (shown > 0).sum(axis=0) < 2
        weight = common * (self.excess_correlation_ == 0) * ~np.outer(one_sided, one_sided)
        paired = weight.any(axis=1)
        shares = self.shares(np.ones((1, sources), dtype=bool))
        if shares is not None:
            weight = weight * np.outer(shares[0], shares[0])
        accuracy, cast = np.full(sources, ASSUMED_ACCURACY), shown.sum(axis=0)
        among = np.ix_(paired, paired)
        # Each begins as right more often than not: groups of sources that hardly meet could be turned one by one.
        better = loadings(
            beyond_chance[among], weight[among], np.full(np.count_nonzero(paired), 2 * ASSUMED_ACCURACY - 1)
        )
        # What b_i is worth in votes: a vote of its own beside one of source j tells as much of it as b_j^2 votes of who
        # is always right.
        heard = weight[among] @ better**2
        worth = cast[paired] * heard / (cast[paired] + heard)
        accuracy[paired] = self._drawn_together((better * (k - 1) + 1) / k, worth)
        judged = accompanied & ~paired
        if judged.any():
            found = self._judged_by_others(voted, counts, accuracy, judged)
            accuracy[judged] = self._drawn_together(found, cast[judged])
        return accuracy

    def _drawn_together(self, accuracy: np.ndarray, cast: np.ndarray) -> np.ndarray:
        """(s,) accuracies of sources with so many votes, each as far towards their mean as they may scatter."""
        guess = 1 / self.classes
        if not self.smoothing or not len(accuracy):
            return accuracy.clip(guess, 1 - 1e-9)
        total = cast.sum()
        mean = np.clip((accuracy * cast).sum() / total, guess, 1 - 1 / (total + 1))
        scatter = mean * (1 - mean)
        apart = ((accuracy - mean) ** 2 * cast).sum() / total - scatter * len(cast) / total
        votes = max(scatter / apart - 1, self.smoothing) if apart > 0 else np.inf
        kept = cast / (cast + votes) if np.isfinite(votes) else np.zeros(len(cast))
        drawn: np.ndarray = np.clip(accuracy * kept + mean * (1 - kept), guess, 1 - 1e-9)
        return drawn

    def _judged_by_others(
        self, voted: np.ndarray, counts: np.ndarray, accuracy: np.ndarray, judged: np.ndarray
    ) -> np.ndarray:
        """(j judged,) how often each is right by the others' weighted votes, were classes equally frequent."""
        voting = voted != self.classes
        shares, log_odds = self.shares(voting), self._log_odds_of(accuracy)
        accompanied = voting.sum(axis=1) > 1
        joint, found = self._evidence(voted, log_odds, shares), []
        for source in np.flatnonzero(judged):
            rows = np.flatnonzero(voting[:, source] & accompanied)
            vote, others = voted[rows, source], joint[:, rows]
            others[vote, np.arange(len(rows))] -= log_odds[source] * (1 if shares is None else shares[rows, source])
            right = (_shares_of(others)[vote, np.arange(len(rows))] * counts[rows]).sum()
            cast = counts[voting[:, source]].sum()
            alone = cast - counts[rows].sum()
            found.append((right + ASSUMED_ACCURACY * alone) / cast)
        return np.array(found)

    def _estimated_prior(self, shown: np.ndarray) -> tuple[np.ndarray, bool]:
        """(k,) shares that go with how often sources vote what, and whether sources agree about them."""
        k, telling = self.classes, (shown > 0).sum(axis=0) > 1
        shown, cast = shown[:, telling], shown[:, telling].sum(axis=0)
        better = (k * self.accuracy_[telling] - 1) / (k - 1)
        pull = ((shown - (1 - better) / k * cast) * better).sum(axis=1) + self.smoothing / k
        weight = (cast * better**2).sum() + self.smoothing
        equal = np.full(k, 1 / k)
        if not telling.any() or weight <= 0:
            return equal, False
        prior: np.ndarray = np.clip(pull / weight, 0.01 / k, None)
        prior /= prior.sum()

        from scipy.special import chdtrc

        expected = prior[:, None] * better + (1 - better) / k
        spared = expected / cast + _LEAN**2  # of independent shares; the last follows from the others, hence k - 1
        distance = ((shown / cast - expected) ** 2 / spared).sum()
        freedom = (len(better) - 1) * (k - 1)
        known = freedom < 1 or chdtrc(freedom, distance) >= _REFUTED
        return (prior, True) if known else (equal, False)


def _shares_of(joint: np.ndarray) -> np.ndarray:
    """(k, p) probabilities of log joint ones."""
    joint = np.exp(joint - joint.max(axis=0))
    shares: np.ndarray = joint / joint.sum(axis=0)
    return shares
