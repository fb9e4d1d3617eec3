"""Sources whose votes on known-good samples were counted; their votes on bad ones follow from the pool's."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import numpy as np
from scipy.special import expit

from chaffinch.filters.label_models.evidence import Evidence, Votes
from chaffinch.filters.label_models.label_model import LabelModel
from chaffinch.filters.label_models.mixture import (
    Tally,
    careful_share,
    check_reference,
    given_drop,
    given_keep,
    largest_share,
    share_by_pairs,
)
from chaffinch.filters.label_models.opinions import copied_from, excess_correlation, opinion_weights
from chaffinch.filters.label_models.votes import count_patterns, merge_patterns, vote_classes

DRAWS = 200
"""Of the bootstrap: the ends of a 95% interval are each the fifth from the end."""

_SEED = 0
_SURE = 3.0  # standard errors
_RESAMPLED = 100_000  # a larger pool's own noise is nothing beside the reference's


@dataclass(kw_only=True)
class Anchored(LabelModel):
    """P(vote | keep) is counted on known-good samples, and P(vote | drop) is what then is left of the pool's votes.

    For every source, with f the share of a vote in the pool, q its share in the reference (smoothed) and p the class
    prior, f = p q + (1 - p) d gives d = P(vote | drop) = (f - p q) / (1 - p). No source is judged by whether it agrees
    with others, so that one which finds what no other sees (a duplicate filter) keeps its due. Votes are then combined
    by Bayes' rule, as if independent given the class; sources that are one opinion share their weight. A small
    reference leaves d unsure: it is clipped so that no vote is less probable than 0.01 and than one standard error of
    d, but for a standard error above 0.25, which counts as 0.25.

    The class prior. d < 0 is impossible, so p is at most the smallest f / q over all sources and votes
    (`class_prior_bound_`; of votes that a tenth of the reference cast, for others say more about chance). Below that,
    votes x of two sources that err independently have Cov(x_i, x_j) = p / (1 - p) a_i a_j, with a the mean over the
    reference less that over the pool; the odds p / (1 - p) are the weighted median over pairs, with weights a_i a_j:
    the least absolute deviations, which some correlated pairs do not move. Both are drawn again from resampled
    patterns, and the lower quartile of the smaller one is the estimate, since a prior that is too high costs about
    three times as much as one that is too low by as much (AUC .956 at .30, .954 at the true .46, .938 at .60). Noise
    of different kinds, each seen by one source, makes sources disagree on bad samples and the estimate lower still.
    Without two sources that tell the pool from the reference, half the bound is taken, and the interval starts at 0.

    A source whose drop votes are more frequent in the reference than in the pool, so that they would raise P(keep), has
    no influence: neither followed nor turned around. Where that is no accident it is named in `turned_`. Nor has a
    source without a vote in the reference. Exact copies count once; the first speaks for all.

    Attributes:
        class_prior: P(keep), fixed; None: estimated.
        abstain: missing: abstains say nothing, and a source is as often silent on good samples as on bad ones. symbol:
            they are one more vote; the reference then has to have been measured like the pool.
        smoothing: pseudo-votes per source in the reference, above 0, spread evenly over the symbols.
        class_prior_: P(keep), given or estimated.
        class_prior_interval_: (2,) 95% interval of the estimate, by a bootstrap over patterns of pool and reference; of
            a prior that was given, that prior twice.
        class_prior_bound_: the largest P(keep) that goes with the votes; 1 where nothing bounds it. A prior given that
            is far above does not fit this reference.
        likelihood_: (m sources, 2 classes drop and keep, s symbols) P(vote | class); the symbols are drop and keep, and
            with abstain="symbol" the abstain last. With abstains missing: given that the source votes.
        excess_correlation_: (m, m) how far sources with influence are one opinion, in [0, 1].
        n_reference_: how many known-good samples there were.
        heard_: (m,) bool, whether a source has influence.
        turned_: (m,) bool, whether drop votes of a source raise P(keep), by three standard errors.
        copy_of_: (m,) for each source the first one with the same votes; itself where there is none before it.
        accuracy_: (m,) expected share of a source's votes on the pool that are right; NaN for a source without votes.
        accuracy_interval_: (m, 2) its 95% interval, by the same bootstrap.
        weight_: (m,) log odds of the accuracy averaged over classes, of opinions that several sources share a part; 0
            for sources without influence.

    Source: moments of a two-component mixture with one component known; the bound is that of G. Blanchard, G. Lee,
        C. Scott (2010), Semi-Supervised Novelty Detection, JMLR 11.
    """

    needs_reference: ClassVar[bool] = True

    abstain: Literal["missing", "symbol"] = "missing"
    smoothing: float = 1.0

    class_prior_: float = field(init=False, repr=False, compare=False)
    class_prior_interval_: np.ndarray = field(init=False, repr=False, compare=False)
    class_prior_bound_: float = field(init=False, repr=False, compare=False)
    likelihood_: np.ndarray = field(init=False, repr=False, compare=False)
    excess_correlation_: np.ndarray = field(init=False, repr=False, compare=False)
    n_reference_: int = field(init=False, repr=False, compare=False)
    heard_: np.ndarray = field(init=False, repr=False, compare=False)
    turned_: np.ndarray = field(init=False, repr=False, compare=False)
    copy_of_: np.ndarray = field(init=False, repr=False, compare=False)
    accuracy_interval_: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ValueError: a setting is out of its range.
        """
        super().__post_init__()
        if isinstance(self.class_prior, tuple):
            raise ValueError("class_prior has several shares, but there are two classes: give P(keep)")
        if self.abstain not in ("missing", "symbol"):
            raise ValueError(f"abstain is {self.abstain!r}: take 'missing' or 'symbol'")
        if not 0 < self.smoothing < np.inf:
            raise ValueError(
                f"smoothing is {self.smoothing}, but must be above 0, since with none a vote that the reference "
                "does not show would prove that a sample is bad: take 1"
            )

    def fit(self, votes: np.ndarray, reference: np.ndarray | None = None) -> Self:
        """Fits the model to votes in memory.

        Args:
            votes: (n samples, m sources) integers, of the pool.
            reference: (k samples, m sources) integers, of known-good samples.

        Returns:
            The model itself.

        Raises:
            ValueError: votes are no votes, or the reference is missing or too small.
        """
        check_reference(0 if reference is None else len(reference), self.kind)
        assert reference is not None
        return self.learn(Evidence(Votes(*count_patterns(votes)), Votes(*count_patterns(reference))))

    def learn(self, evidence: Evidence) -> Self:
        """Fits the model to counted votes.

        Args:
            evidence: votes of the pool and of the reference.

        Returns:
            The model itself.

        Raises:
            ValueError: votes are no votes, sources do not fit together, or the reference is missing or too small.
        """
        trusted = evidence.reference
        check_reference(0 if trusted is None else int(trusted.counts.sum()), self.kind)
        assert trusted is not None
        if trusted.patterns.shape[1] != evidence.votes.patterns.shape[1]:
            raise ValueError(
                f"the reference has votes of {trusted.patterns.shape[1]} sources, the pool of "
                f"{evidence.votes.patterns.shape[1]}: give the same sources in the same order"
            )
        pool = merge_patterns(evidence.votes.patterns, evidence.votes.counts)
        good = merge_patterns(trusted.patterns, trusted.counts)
        m = pool[0].shape[1]
        self.copy_of_ = copied_from(np.concatenate([pool[0], good[0]])) if m else np.zeros(0, np.intp)
        first = self.copy_of_ == np.arange(m)
        self.n_reference_ = int(good[1].sum())

        with_abstains = self.abstain == "symbol"
        shown, expected = Tally.of(*pool, with_abstains), Tally.of(*good, with_abstains)
        usable = self._choose(shown, expected, first)
        self._estimate(pool, good, shown, expected, usable)
        self.excess_correlation_ = np.eye(m)
        chosen = np.flatnonzero(self.heard_)
        if len(chosen) > 1:
            self.excess_correlation_[np.ix_(chosen, chosen)] = excess_correlation(pool[0][:, chosen], pool[1])
        self.weight_ = self._weight()
        return self

    def fit_patterns(self, patterns: np.ndarray, counts: np.ndarray) -> Self:
        """Refuses: counted votes of the pool alone are not enough.

        Args:
            patterns: (p patterns, m sources) votes of the pool.
            counts: (p,) how many samples show each.

        Raises:
            ValueError: always; says what to do.
        """
        return self.learn(Evidence(Votes(patterns, counts)))

    def predict_patterns(self, patterns: np.ndarray) -> np.ndarray:
        """Bayes' rule, each source's vote to the power of its share of an opinion.

        Args:
            patterns: (p patterns, m sources) votes.

        Returns:
            (p,) float64 P(keep); the class prior where no source with influence votes.

        Raises:
            ValueError: votes are no votes.
        """
        voted = vote_classes(patterns, 2)
        heard = np.flatnonzero(self.heard_)
        speaks = np.ones((len(voted), len(heard)), bool) if self.abstain == "symbol" else voted[:, heard] != 2
        weights = opinion_weights(self.excess_correlation_[np.ix_(heard, heard)], speaks)
        ratios = np.zeros((len(heard), 3))
        likelihood = self.likelihood_.reshape(voted.shape[1], 2, -1)[heard]  # JSON forgets empty axes
        ratios[:, : likelihood.shape[2]] = np.log(likelihood[:, 1]) - np.log(likelihood[:, 0])
        prior = self.class_prior_
        odds = np.full(len(voted), np.log(prior) - np.log1p(-prior))
        for place, column in enumerate(heard):
            odds += weights[:, place] * ratios[place].take(voted[:, column])
        return np.where(speaks.any(axis=1), expit(odds), prior)

    def _choose(self, shown: Tally, expected: Tally, first: np.ndarray) -> np.ndarray:
        """Sets which sources are turned, and returns which can be learned from: (m,) bool."""
        keep, known = given_keep(expected, self.smoothing), expected.shown[:, :2].sum(axis=1)
        cast = shown.shown[:, :2].sum(axis=1)
        good = keep[:, 1] / keep[:, :2].sum(axis=1)
        share = shown.shown[:, 1] / np.maximum(cast, 1)
        error = np.sqrt(good * (1 - good) / (known + 1) + share * (1 - share) / np.maximum(cast, 1))
        seen = (known > 0) & (cast > 0)
        self.turned_ = seen & (share - good > _SURE * error)
        return seen & first & ~self.turned_

    def _estimate(
        self,
        pool: tuple[np.ndarray, np.ndarray],
        good: tuple[np.ndarray, np.ndarray],
        shown: Tally,
        expected: Tally,
        usable: np.ndarray,
    ) -> None:
        """Sets the class prior, likelihoods and accuracies, with intervals from resampled patterns."""
        rng = np.random.default_rng(_SEED)
        with_abstains = self.abstain == "symbol"
        n = int(pool[1].sum())
        tallies = []
        for _ in range(DRAWS):
            again = rng.multinomial(self.n_reference_, good[1] / good[1].sum())
            trusted = Tally.of(good[0], again, with_abstains)
            mine = shown
            if 0 < n <= _RESAMPLED:
                mine = Tally.of(pool[0], rng.multinomial(n, pool[1] / n), with_abstains)
            tallies.append((mine, trusted))
        shares = [self._share(mine, trusted, usable) for mine, trusted in tallies]
        _, self.class_prior_bound_, found = self._share(shown, expected, usable)
        if self.class_prior is not None:
            self.class_prior_, self.class_prior_interval_ = self.class_prior, np.array([self.class_prior] * 2)
        else:
            self.class_prior_, self.class_prior_interval_ = careful_share(np.array([share for share, *_ in shares]))
            if not found:
                self.class_prior_interval_ = np.array([0.0, max(bound for _, bound, _ in shares)])
        keep = given_keep(expected, self.smoothing)
        drop = given_drop(shown, expected, keep, self.class_prior_)
        self.likelihood_ = np.stack([drop, keep], axis=1)
        ratio = np.log(keep[:, :2]) - np.log(drop[:, :2])
        self.heard_ = usable & (ratio[:, 1] > ratio[:, 0])
        self.accuracy_ = _accuracy(shown, keep, drop, self.class_prior_)
        drawn = []
        for (mine, trusted), (share, *_) in zip(tallies, shares, strict=True):
            again = given_keep(trusted, self.smoothing)
            prior = share if self.class_prior is None else self.class_prior
            drawn.append(_accuracy(mine, again, given_drop(mine, trusted, again, prior), prior))
        ends = np.quantile(np.stack(drawn), [0.025, 0.975], axis=0).T
        self.accuracy_interval_ = np.where(np.isnan(self.accuracy_)[:, None], np.nan, ends)

    def _share(self, pool: Tally, reference: Tally, usable: np.ndarray) -> tuple[float, float, bool]:
        """P(keep), its upper bound, and whether pairs of sources told it."""
        chosen = np.flatnonzero(usable)
        keep = given_keep(reference, self.smoothing)[chosen]
        some = Tally(
            pool.shown[chosen],
            *(part[np.ix_(chosen, chosen)] for part in (pool.common, pool.sums, pool.products)),
        )
        bound = largest_share(some, keep)
        found = share_by_pairs(some, keep)
        return (bound / 2 if found is None else min(bound, found)), bound, found is not None

    def _weight(self) -> np.ndarray:
        """(m,) log odds of the accuracy averaged over classes, shared among sources of one opinion."""
        votes = self.likelihood_[:, :, :2]
        given = votes / votes.sum(axis=2, keepdims=True)
        balanced = (given[:, 0, 0] + given[:, 1, 1]) / 2
        shared = opinion_weights(self.excess_correlation_, np.ones((1, len(balanced)), bool))[0]
        weight = np.where(self.heard_, np.log(balanced / (1 - balanced)) * shared, 0.0)
        copies = np.bincount(self.copy_of_, minlength=len(weight))
        return np.asarray((weight / np.maximum(copies, 1))[self.copy_of_])


def _accuracy(pool: Tally, keep: np.ndarray, drop: np.ndarray, prior: float) -> np.ndarray:
    """(m,) P(a vote is right | it is cast); NaN for sources without a vote in the pool."""
    right = prior * keep[:, 1] + (1 - prior) * drop[:, 0]
    cast = prior * keep[:, :2].sum(axis=1) + (1 - prior) * drop[:, :2].sum(axis=1)
    voted = pool.shown[:, :2].sum(axis=1) > 0
    return np.where(voted, right / cast, np.nan)
