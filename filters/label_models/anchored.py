"""Sources whose votes on known-good samples were counted; their votes on bad ones follow from the pool's."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import numpy as np

from chaffinch.filters.label_models.echoes import copied_from, excess_correlation
from chaffinch.filters.label_models.evidence import Evidence, Votes
from chaffinch.filters.label_models.label_model import LabelModel
from chaffinch.filters.label_models.mixture import Tally, check_reference, given_drop, given_keep, one_share
from chaffinch.filters.label_models.opinions import opinion_weights
from chaffinch.filters.label_models.shares import Counted, Draw, best_samples, resample, share_and_interval
from chaffinch.filters.label_models.tables import Table, count_batches, read_votes
from chaffinch.filters.label_models.votes import count_patterns, merge_patterns, vote_classes

_SURE = 3.0  # standard errors


@dataclass(kw_only=True)
class Anchored(LabelModel):
    """P(vote | keep) is counted on known-good samples, and P(vote | drop) is what then is left of the pool's votes.

    For every source, with f the share of a vote in the pool, q its share in the reference (smoothed) and p the class
    prior, f = p q + (1 - p) d gives d = P(vote | drop) = (f - p q) / (1 - p). No source is judged by whether it agrees
    with others, so that one which finds what no other sees (a duplicate filter) keeps its due. Votes are then combined
    by Bayes' rule, as if independent given the class; sources that are one opinion share their weight. A small
    reference leaves d unsure: no vote gets less than 0.01, nor less than one standard error of d (at most 0.25), before
    d is made to sum to 1.

    The class prior. Whatever samples are looked at, the pool's share of them is at least p times the reference's, so
    that p is at most the ratio of the two. `class_prior_bound_` is the smallest ratio over every single vote (at a
    larger p its d would be negative; only votes that a tenth of the reference cast, for others say more about chance)
    and over the samples with the highest odds that are half of the reference: among these there are few bad ones, and
    the ratio is near p, even if several sources see the same noise. Besides, votes x of two sources that err
    independently have Cov(x_i, x_j) = p / (1 - p) a_i a_j, with a the mean over the reference less that over the pool;
    the odds p / (1 - p) are the weighted median over pairs, with weights a_i a_j: the least absolute deviations, which
    some correlated pairs do not move. The smaller of the two is taken, and of 200 such values from resampled patterns
    the median. The smallest of several numbers, none of which is too low but by chance, is itself rather too low than
    too high where chance is large, and a prior that is too high costs more. Where no two sources tell the pool from the
    reference, half the bound is taken, and the interval starts at 0.

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
        order_: (o opinions,) positions of the sources that speak for the opinions, in the order that the fit takes.
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
    order_: np.ndarray = field(init=False, repr=False, compare=False)
    accuracy_interval_: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ValueError: a setting is out of its range.
        """
        super().__post_init__()
        one_share(self.class_prior)
        if self.abstain not in ("missing", "symbol"):
            raise ValueError(f"abstain is {self.abstain!r}: take 'missing' or 'symbol'")
        if not 0 < self.smoothing < np.inf:
            raise ValueError(
                f"smoothing is {self.smoothing}, but must be above 0, since with none a vote that the reference "
                "does not show would prove that a sample is bad: take 1"
            )

    def fit(self, votes: Table, reference: Table | None = None) -> Self:
        """Fits the model to votes in memory.

        Args:
            votes: (n samples, m sources) of the pool, an array or a table.
            reference: (k samples, m sources) of known-good samples; of a table the columns that the pool's has.

        Returns:
            The model itself.

        Raises:
            ValueError: votes are no votes, or the reference is missing or too small.
        """
        read, names = read_votes(votes)
        self.learn(Evidence(Votes(*count_patterns(read)), self._trusted(reference, names)))
        return self._named(names)

    def fit_batches(self, batches: Iterable[Table], reference: Table | None = None) -> Self:
        """Fits the model to more votes than there is memory for; equal to the bit to `fit` on all of them.

        Args:
            batches: votes of the pool, each of them what `fit` takes.
            reference: (k samples, m sources) of known-good samples.

        Returns:
            The model itself.

        Raises:
            ValueError: votes are no votes, batches do not fit together, or the reference is missing or too small.
        """
        patterns, counts, names = count_batches(batches)
        self.learn(Evidence(Votes(patterns, counts), self._trusted(reference, names)))
        return self._named(names)

    def _trusted(self, reference: Table | None, names: Sequence[str] | None) -> Votes | None:
        return None if reference is None else Votes(*count_patterns(read_votes(reference, names)[0]))

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
        self.n_reference_ = int(trusted.counts.sum())
        pool = merge_patterns(evidence.votes.patterns, evidence.votes.counts)
        good = merge_patterns(trusted.patterns, trusted.counts)
        both = np.concatenate([pool[0], good[0]])
        vote_classes(both, 2)
        m = both.shape[1]
        self.copy_of_ = copied_from(both) if m else np.zeros(0, np.intp)
        opinions, opinion_of = np.unique(self.copy_of_, return_inverse=True)
        # What is learned does not depend on where sources stand, nor on copies: each opinion once, in their own order.
        order = _own_order(Tally.of(pool[0][:, opinions], pool[1], True), Tally.of(good[0][:, opinions], good[1], True))
        self.order_ = opinions[order]
        place = np.argsort(order)[opinion_of.reshape(-1)]
        self._fit(merge_patterns(pool[0][:, self.order_], pool[1]), merge_patterns(good[0][:, self.order_], good[1]))
        self.weight_ = self.weight_ / np.maximum(np.bincount(place, minlength=len(order)), 1)
        for name in ("likelihood_", "heard_", "turned_", "accuracy_", "accuracy_interval_", "weight_"):
            setattr(self, name, getattr(self, name)[place])
        self.excess_correlation_ = self.excess_correlation_[np.ix_(place, place)]
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
        from scipy.special import expit

        voted = vote_classes(patterns, 2)
        heard = np.array([source for source in self.order_.astype(np.intp) if self.heard_[source]], np.intp)
        symbols, m = (3 if self.abstain == "symbol" else 2), voted.shape[1]
        speaks = np.ones((len(voted), len(heard)), bool) if symbols == 3 else voted[:, heard] != 2
        correlation = self.excess_correlation_.reshape(m, m)  # JSON forgets empty axes
        weights = opinion_weights(correlation[np.ix_(heard, heard)], speaks)
        likelihood = self.likelihood_.reshape(m, 2, symbols)[heard]
        ratios = _ratios(likelihood[:, 1], likelihood[:, 0], np.ones(len(heard), bool))
        prior = self.class_prior_
        odds = np.full(len(voted), np.log(prior) - np.log1p(-prior))
        for place, column in enumerate(heard):
            odds += weights[:, place] * ratios[place].take(voted[:, column])
        posterior: np.ndarray = np.where(speaks.any(axis=1), expit(odds), prior)
        return posterior

    def _fit(self, pool: Counted, good: Counted) -> None:
        """Learns from counted patterns of o opinions; sets everything, a row per opinion."""
        with_abstains = self.abstain == "symbol"
        shown, expected = Tally.of(*pool, with_abstains), Tally.of(*good, with_abstains)
        keep = given_keep(expected, self.smoothing)
        seen, self.turned_ = _turned(shown, expected, keep)
        usable = seen & ~self.turned_
        everything = np.ones(len(pool[1]), bool), np.ones(len(good[1]), bool)
        first = Draw.of(pool, good, everything, with_abstains).share(usable, self.smoothing)[0]
        best = best_samples(pool, good, _ratios(keep, given_drop(shown, expected, keep, first), usable))
        draws = resample(pool, good, best, with_abstains)
        shares = [draw.share(usable, self.smoothing) for draw in draws]
        _, self.class_prior_bound_, found = Draw.of(pool, good, best, with_abstains).share(usable, self.smoothing)
        given = one_share(self.class_prior)
        if given is not None:
            self.class_prior_, self.class_prior_interval_ = given, np.array([given, given])
        else:
            self.class_prior_, self.class_prior_interval_ = share_and_interval(
                np.array([share for share, *_ in shares])
            )
            if not found:
                self.class_prior_interval_ = np.array([0.0, max(bound for _, bound, _ in shares)])
        drop = given_drop(shown, expected, keep, self.class_prior_)
        self.likelihood_ = np.stack([drop, keep], axis=1)
        ratio = np.log(keep[:, :2]) - np.log(drop[:, :2])
        self.heard_ = usable & (ratio[:, 1] > ratio[:, 0])

        self.accuracy_ = _accuracy(shown, keep, drop, self.class_prior_)
        drawn = []
        for draw, (share, *_) in zip(draws, shares, strict=True):
            again, prior = given_keep(draw.reference, self.smoothing), share if given is None else given
            drawn.append(_accuracy(draw.pool, again, given_drop(draw.pool, draw.reference, again, prior), prior))
        ends = np.quantile(np.stack(drawn), [0.025, 0.975], axis=0).T
        self.accuracy_interval_ = np.where(np.isnan(self.accuracy_)[:, None], np.nan, ends)

        self.excess_correlation_ = np.eye(len(keep))
        chosen = np.flatnonzero(self.heard_)
        if len(chosen) > 1:
            self.excess_correlation_[np.ix_(chosen, chosen)] = excess_correlation(pool[0][:, chosen], pool[1])
        self.weight_ = self._weight()

    def _weight(self) -> np.ndarray:
        """(o,) log odds of the accuracy averaged over classes, shared among sources of one opinion."""
        votes = self.likelihood_[:, :, :2]
        given = votes / votes.sum(axis=2, keepdims=True)
        balanced = (given[:, 0, 0] + given[:, 1, 1]) / 2
        shared = opinion_weights(self.excess_correlation_, np.ones((1, len(balanced)), bool))[0]
        weight: np.ndarray = np.where(self.heard_, np.log(balanced / (1 - balanced)) * shared, 0.0)
        return weight


def _ratios(keep: np.ndarray, drop: np.ndarray, heard: np.ndarray) -> np.ndarray:
    """(o, 3) log odds of drop, keep and abstain; 0 of an abstain that is missing, and of whom is not heard."""
    ratios = np.zeros((len(keep), 3))
    ratios[:, : keep.shape[1]] = np.where(heard[:, None], np.log(keep) - np.log(drop), 0.0)
    return ratios


def _accuracy(pool: Tally, keep: np.ndarray, drop: np.ndarray, prior: float) -> np.ndarray:
    """(o,) P(a vote is right | it is cast); NaN for sources without a vote in the pool."""
    right = prior * keep[:, 1] + (1 - prior) * drop[:, 0]
    cast = prior * keep[:, :2].sum(axis=1) + (1 - prior) * drop[:, :2].sum(axis=1)
    voted = pool.shown[:, :2].sum(axis=1) > 0
    return np.where(voted, right / cast, np.nan)


def _turned(pool: Tally, reference: Tally, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which opinions vote on both, and which vote keep on the reference less often than on the pool: (o,) bools."""
    known, cast = (tally.shown[:, :2].sum(axis=1) for tally in (reference, pool))
    good = keep[:, 1] / keep[:, :2].sum(axis=1)
    share = pool.shown[:, 1] / np.maximum(cast, 1)
    error = np.sqrt(good * (1 - good) / (known + 1) + share * (1 - share) / np.maximum(cast, 1))
    seen = (known > 0) & (cast > 0)
    return seen, seen & (share - good > _SURE * error)


def _own_order(pool: Tally, reference: Tally) -> np.ndarray:
    """(o,) an order of opinions that depends on what they vote, and not on where they stand."""
    keys = [
        (*map(tuple, (pool.shown[i], reference.shown[i], np.sort(pool.products[i]), np.sort(reference.products[i]))),)
        for i in range(len(pool.shown))
    ]
    return np.array(sorted(range(len(keys)), key=lambda i: keys[i]), np.intp)
