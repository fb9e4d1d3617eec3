"""Sources with an error rate each, learned from how they agree: expectation maximisation on counted vote patterns."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from chaffinch.filters.label_models.expectation import expect, majority, maximise
from chaffinch.filters.label_models.learned import LearnedLabelModel
from chaffinch.filters.label_models.votes import (
    class_shares,
    count_cast,
    merge_patterns,
    mostly_one_sided,
    vote_classes,
)

ASSUMED_ACCURACY = 0.9
"""What a source is taken to be worth that no other source ever votes beside, so that nothing can be learned of it."""


@dataclass(kw_only=True)
class DawidSkene(LearnedLabelModel):
    """Dawid and Skene's model: given the true class, sources err independently, each in its own way.

    Source j votes v on a sample of class y with probability t[j, y, v]. The fit climbs by expectation maximisation,
    from the majority vote, to a (local) maximum of

        sum over patterns: count * log(sum over y: prior[y] * product over j: t[j, y, vote of j] ^ w[pattern, j])
        + smoothing / s * sum over j, y, v: log t[j, y, v]
        + smoothing / k * sum over y: log prior[y]        (only where the prior is estimated)

    with k classes and s symbols a source can show. It is the most probable model under a Dirichlet(1 + smoothing / s)
    prior for every row t[j, y, :] and a Dirichlet(1 + smoothing / k) for the class prior. Starting from the majority
    is what tells keep from drop: with both swapped throughout, the first sum is the same.

    The exponents w are 1 where no sources are correlated beyond what the class explains, and then the first sum is the
    likelihood. Otherwise they are `opinion_weights`: sources that are one opinion share its say in that pattern, in
    the majority from which the climb starts, in every posterior and in every count of votes; a composite likelihood,
    which the same climb raises. With abstains as symbols all sources speak in every pattern.

    Three kinds of source cannot be learned. One that no other source votes beside has no peers: it is taken to be
    right with probability 0.9 whatever the class, and Bayes' rule does the rest, so that one source alone gives
    P(keep) = 0.9 p / (0.9 p + 0.1 (1 - p)) for its keep votes at a class prior p. One that always abstains has no
    influence. Nor has one that, in the confusion form, shows only a single symbol beside its peers: it says the same
    of every class. With abstains missing that includes sources that vote keep or abstain but never drop; hence abstains
    are symbols where such sources cast most of the votes. Two sources alone are fitted, but two can agree for many
    reasons.

    Attributes:
        correlated: discount: sources that are one opinion share its weight. ignore: all are taken to err independently.
        class_prior: P(keep), fixed; with `classes=k` k shares; None: estimated along with the rest.
        classes: k, at least 2. Two classes are voted -1 (drop) and +1 (keep), more are voted 1..k.
        form: confusion: every source has its own probability of every vote for every class. one_coin: it has one
            accuracy, and its errors spread evenly over the other classes; for short data.
        abstain: missing: abstains say nothing. symbol: they are one more vote, whose probability depends on the class.
            None: symbol if more than half of the votes are cast by sources that ever vote for one class only.
        smoothing: pseudo-votes per source and class, above 0, spread evenly over the symbols. The default, one vote's
            worth of doubt, keeps a source that was never seen to err on N samples from counting for more than about
            log(2 N), and is soon outweighed by data, however many classes there are.
        max_iterations: steps at most.
        tolerance: stops when a step gains less than this many nats per sample.
        class_prior_: P(keep), given or estimated; with `classes=k`, (k,) shares.
        confusion_: (m sources, k classes, s symbols) t; the symbols are drop and keep, or 1..k, and with
            abstains as symbols the abstain last. With abstains missing: given that the source votes.
        abstain_: missing or symbol, as set or found.
        accuracy_: (m,) expected share of a source's votes that are right, in [0, 1]; 0.9 where it is taken to be;
            NaN for a source that always abstains.
        weight_: (m,) log odds (nats) of the accuracy averaged over classes, against guessing; 0 for a source that is
            no better than a guess.
        log_likelihood_: the first sum above (nats, 0 or less; higher: the model explains the votes better), without
            the sources that have no influence.
        objective_: all three sums; it never falls from one iteration to the next.
        excess_correlation_: (m, m) how far two sources are one opinion, in [0, 1]; 1 for copies, and on the diagonal.
        copy_of_: (m,) the first source with the same votes, which are merged; itself where there is none before it.
        iterations_: steps made after the start from the majority.
        converged_: whether `tolerance` was reached.

    Source: A. P. Dawid and A. M. Skene (1979), Maximum Likelihood Estimation of Observer Error-Rates Using the EM
        Algorithm, Applied Statistics 28(1).
    """

    needs_peers: ClassVar[bool] = True
    by_source: ClassVar[tuple[str, ...]] = ("accuracy_", "confusion_")

    classes: int = 2
    form: Literal["confusion", "one_coin"] = "confusion"
    abstain: Literal["missing", "symbol"] | None = None
    smoothing: float = 1.0
    max_iterations: int = 500
    tolerance: float = 1e-8

    class_prior_: float | np.ndarray = field(init=False, repr=False, compare=False)
    confusion_: np.ndarray = field(init=False, repr=False, compare=False)
    abstain_: Literal["missing", "symbol"] = field(init=False, repr=False, compare=False)
    log_likelihood_: float = field(init=False, repr=False, compare=False)
    objective_: float = field(init=False, repr=False, compare=False)
    iterations_: int = field(init=False, repr=False, compare=False)
    converged_: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ValueError: a setting is out of its range.
        """
        super().__post_init__()
        if not 2 <= self.classes <= 127:
            raise ValueError(f"classes is {self.classes}: give a number from 2 to 127")
        if self.form not in ("confusion", "one_coin"):
            raise ValueError(f"form is {self.form!r}: take 'confusion' or 'one_coin'")
        if self.abstain not in ("missing", "symbol", None):
            raise ValueError(f"abstain is {self.abstain!r}: take 'missing' or 'symbol', or leave it out")
        if not 0 < self.smoothing < np.inf:
            raise ValueError(
                f"smoothing is {self.smoothing}, but must be above 0, since with none a source that has not erred yet "
                "would overrule all others together: take 1, or 1e-6 for as good as none"
            )
        if self.max_iterations < 0 or not self.tolerance >= 0:
            raise ValueError("max_iterations and tolerance must be 0 or more")
        class_shares(self.class_prior, self.classes)

    def _fit(self, patterns: np.ndarray, counts: np.ndarray) -> None:
        """Climbs, and says what sources are worth."""
        voted = vote_classes(patterns, self.classes)  # (p, m), k for abstains
        cast = count_cast(voted, counts, self.classes)
        self.abstain_ = self.abstain or ("symbol" if mostly_one_sided(cast) else "missing")
        learned, assumed = self._roles(voted)
        self.confusion_ = self._uninformative(voted, counts)
        self.confusion_[assumed] = self._assumed(voted[:, assumed], counts)

        heard = learned | assumed
        heard_patterns, heard_counts = patterns, counts
        if not heard.all():
            heard_patterns, heard_counts = merge_patterns(np.where(heard, patterns, 0), counts)
        if self.abstain_ == "missing":  # rows without a vote are as probable under any model
            votes_cast = heard_patterns.any(axis=1)
            heard_patterns, heard_counts = heard_patterns[votes_cast], heard_counts[votes_cast]
        prior = self._climb(heard_patterns, heard_counts, heard, learned)

        self.class_prior_ = float(prior[1]) if self.classes == 2 else prior
        self.accuracy_ = self._accuracy(patterns, voted, counts)
        self.accuracy_[assumed] = ASSUMED_ACCURACY
        self.weight_ = self._weight()

    def _predict(self, patterns: np.ndarray) -> np.ndarray:
        """Bayes' rule; patterns that the fit has not seen are no different."""
        posterior = self._posterior(patterns)
        return posterior[1] if self.classes == 2 else posterior.T

    def _posterior(self, patterns: np.ndarray) -> np.ndarray:
        """(k, p) the posterior of every class."""
        voted = vote_classes(patterns, self.classes)
        prior = self._prior()
        confusion = self.confusion_.reshape(voted.shape[1], self.classes, self._symbols)  # JSON forgets empty axes
        informs = (confusion != confusion[:, :1]).any(axis=(1, 2))
        posterior, _ = expect(
            np.log(prior), confusion[informs], np.ascontiguousarray(voted[:, informs].T), self._shares(voted, informs)
        )
        return np.where((voted == self.classes).all(axis=1), prior[:, None], posterior)

    def _shares(self, voted: np.ndarray, chosen: np.ndarray) -> np.ndarray | None:
        """(c chosen sources, p) how much each counts; None where all count in full. A symbol is a vote."""
        shares = self.shares((voted != self.classes) | (self.abstain_ == "symbol"))
        return None if shares is None else np.ascontiguousarray(shares[:, chosen].T)

    def _prior(self) -> np.ndarray:
        """(k,) the class prior in force."""
        if self.classes == 2:
            return np.array([1.0 - self.class_prior_, self.class_prior_])
        return np.asarray(self.class_prior_, dtype=np.float64)

    @property
    def _symbols(self) -> int:
        """What a source can show: the classes, and the abstain where it is a symbol."""
        return self.classes + (self.abstain_ == "symbol")

    def _roles(self, voted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which sources the data can judge, and which are taken for granted: two (m,) bools, never both."""
        votes = voted != self.classes  # (p, m)
        beside = (votes.T.astype(np.float32) @ votes.astype(np.float32)) > 0  # (m, m) ever vote on one sample
        np.fill_diagonal(beside, False)
        heard = votes.any(axis=0)
        if self.form == "confusion" and len(voted):
            shown = voted if self.abstain_ == "symbol" else np.where(votes, voted, -1)
            first = shown.max(axis=0)  # an abstain is never the largest where it is missing
            constant = ((shown == first) | (shown == -1)).all(axis=0)
            heard &= ~(constant & beside[:, heard].any(axis=1))
        assumed = heard & ~beside[:, heard].any(axis=1)
        return heard & ~assumed, assumed

    def _shown(self, voted: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """(m, s) how often each source shows each symbol."""
        shown = [np.bincount(column, weights=counts, minlength=self.classes + 1) for column in voted.T]
        return np.reshape(shown, (voted.shape[1], self.classes + 1))[:, : self._symbols]

    def _uninformative(self, voted: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """(m, k, s) what sources show, the same whatever the class."""
        shown = self._shown(voted, counts) + self.smoothing / self._symbols
        shares = shown / shown.sum(axis=1, keepdims=True)
        return np.repeat(shares[:, None, :], self.classes, axis=1)

    def _assumed(self, voted: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """(m, k, s) sources of the assumed accuracy, which abstain as often as they do, whatever the class."""
        coin = np.full((self.classes, self.classes), (1.0 - ASSUMED_ACCURACY) / (self.classes - 1))
        np.fill_diagonal(coin, ASSUMED_ACCURACY)
        if self.abstain_ == "missing":
            return np.broadcast_to(coin, (voted.shape[1], *coin.shape))
        abstains = self._uninformative(voted, counts)[:, :, -1:]  # (m, k, 1)
        return np.concatenate([(1.0 - abstains) * coin, abstains], axis=2)

    def _climb(self, patterns: np.ndarray, counts: np.ndarray, heard: np.ndarray, learned: np.ndarray) -> np.ndarray:
        """Climbs to the maximum over the heard sources; sets what was learned and returns the (k,) class prior."""
        voted = vote_classes(patterns, self.classes)
        shares = self._shares(voted, heard)
        voted = np.ascontiguousarray(voted[:, heard].T)  # (h heard sources, p)
        weights = counts.astype(np.float64)
        confusion = self.confusion_[heard]
        prior = class_shares(self.class_prior, self.classes)
        self.log_likelihood_ = self.objective_ = 0.0
        self.iterations_, self.converged_ = 0, True
        if not len(weights) or not len(voted):
            return prior

        learned = learned[heard]
        learned_shares = None if shares is None else shares[learned]
        posterior = majority(voted, prior, shares)  # (k, p)
        enough = self.tolerance * weights.sum()
        for step in range(self.max_iterations + 1):
            if self.class_prior is None:
                mass = (posterior * weights).sum(axis=1) + self.smoothing / self.classes
                prior = mass / mass.sum()
            confusion[learned] = maximise(
                voted[learned], posterior * weights, learned_shares, self._symbols, self.smoothing, self.form
            )
            posterior, log_likelihoods = expect(np.log(prior), confusion, voted, shares)
            log_likelihood = float((weights * log_likelihoods).sum())
            objective = log_likelihood + self.smoothing / self._symbols * float(np.log(confusion[learned]).sum())
            if self.class_prior is None:
                objective += self.smoothing / self.classes * float(np.log(prior).sum())
            self.converged_ = step > 0 and objective - self.objective_ <= enough
            self.log_likelihood_, self.objective_, self.iterations_ = log_likelihood, objective, step
            if self.converged_:
                break
        self.confusion_[heard] = confusion
        return prior

    def _accuracy(self, patterns: np.ndarray, voted: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """(m,) the expected share of right votes; NaN without votes."""
        posterior = self._posterior(patterns)
        padded = np.vstack([posterior, np.zeros(len(patterns))])  # an abstain is never right
        right = [(padded[column, np.arange(len(patterns))] * counts).sum() for column in voted.T]
        cast = ((voted != self.classes) * counts[:, None]).sum(axis=0)
        return np.where(cast > 0, np.array(right) / np.maximum(cast, 1), np.nan)

    def _weight(self) -> np.ndarray:
        """(m,) log odds of the accuracy averaged over classes, since the plain one rewards voting for the largest."""
        k = self.classes
        votes = self.confusion_[:, :, :k]
        given = votes / votes.sum(axis=2, keepdims=True)
        balanced = np.clip(np.einsum("jyy->j", given) / k, 1e-12, 1.0 - 1e-12)  # finite, also with hardly any smoothing
        weight: np.ndarray = np.maximum(0.0, np.log((k - 1) * balanced / (1.0 - balanced)))
        return weight
