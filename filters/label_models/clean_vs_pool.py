"""What sets known-good samples apart from the pool: a classifier between the two, over all scores."""

from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np

from chaffinch.filters.label_models.evidence import Evidence
from chaffinch.filters.label_models.logistic import fit_logistic
from chaffinch.filters.label_models.mixture import check_reference, one_share
from chaffinch.filters.label_models.shares import DRAWS, share_and_interval
from chaffinch.filters.label_models.soft_label_model import SoftLabelModel
from chaffinch.filters.label_models.triplets import FEWEST_TOGETHER
from chaffinch.filters.soft_votes import MISSING, STEPS

FOLDS = 5
"""The pool is cut into so many parts; each is judged by what was learned without it."""

PARTS = 6
"""Coefficients per source: its slope, what each of four stretches adds to it, and one for where it is missing."""

ENOUGH_POOL, FEWEST_POOL = 30, 20_000
"""So many samples of the pool to one of the reference, or in all, are learned from: more would make coefficients surer
by a sixtieth at most, for it is the reference that is small."""

_SEED = 0
_SURE = 3.0  # standard errors
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(kw_only=True)
class CleanVsPool(SoftLabelModel):
    """A logistic regression of known-good samples against the pool, over all soft votes; positive-unlabelled.

    The pool is a mixture: a share p of it, the class prior, is as good as the reference, the rest is not. A sample x
    that is in one of the two sets is then in the reference with odds k / (n p) * P(keep | x), for k known-good samples
    and n of the pool: never more than k / (n p). With P(keep | x) logistic in the scores, that is the likelihood of
    which sample is in which set; no source is asked to agree with others, noise that only one of them sees counts, and
    sources with much in common share their weight. (Plain logistic regression of reference against pool, with its odds
    times n p / k as P(keep), wants odds to grow for ever that level off, and orders the best samples by chance.)

    The log odds are a sum over sources: of a function of its soft vote that is straight between -1, 0 and 1 (edges and
    bands are not straight lines) and of a number for "missing". Functions never fall: a sample is likelier to be
    known-good when it is better by some filter's own lights, and not when it looks like the reference in other ways,
    such as by a brightness that its camera had. A source whose good scores are rarer in the reference than in the pool
    so has no influence; where that is no accident it is named in `turned_`. A source that is missing throughout the
    reference, or the pool, has none either.

    The fit maximises the log likelihood less penalty / 2 times a sum of squares: of each source's slope as a whole, of
    its four stretches' additions to that, and of the number for missing votes. It is as if, before any data, each were
    normal around 0 with a variance of 1 / penalty; with the default of 1, a source that is better by a standard
    deviation is expected to change the odds by a factor of about e, and 30 known-good samples do not make much of
    chance. Squares of source i are counted sum over j: r_ij^2 times, with r the correlations of soft votes over the
    pool: k copies of a source then cost together what it costs alone, and are worth no more (exact copies are left out
    before, and the first speaks for all).

    Of a large pool 30 samples to each known-good one are learned from, or 20,000 if that is more: every so many-th when
    all are sorted by their soft votes.

    Cross-fitted: a sample's fold is a hash of its soft votes alone, so that equal rows share a fold, however the pool
    is cut; a row is judged by the fit that has not seen its fold (the whole reference is used by all). A sample without
    any soft vote has the class prior.

    The class prior. For every set of samples, the pool's share is at least p times the reference's, and is just that
    where nothing bad is in the set. The set taken is that of samples which look better than the median of the reference
    to a plain logistic regression that has not seen their fold of either: p is twice the share of the pool that is
    better than a middling known-good sample. Of resampled estimates it is the lower quartile, since a prior that is too
    high costs more than one that is too low; it is too high still where bad samples are among the best.

    Attributes:
        class_prior: P(keep), fixed; None: estimated.
        penalty: above 0, higher: all sources count less.
        class_prior_: P(keep), given or estimated.
        class_prior_interval_: (2,) 95% interval of the estimate, from a bootstrap of held-out samples; of a prior that
            was given, that prior twice.
        order_: positions of the sources that take part, in the order that the fit takes.
        slopes_: (5 folds, m sources, 4) log odds per normal score below -1, to 0, to 1 and beyond.
        missing_: (5, m) log odds of a source that is missing, against its median vote.
        intercept_: (5,) log odds where all soft votes are the median.
        held_out_likelihood_: mean log likelihood (nats) of that regression on samples it has not seen, both sets
            counting the same; a guess has log(1/2), and higher: sources tell the reference from the pool better.
        n_reference_: how many known-good samples there were.
        turned_: (m,) bool, whether better scores of a source are rarer in the reference, by three standard errors.
        copy_of_: (m,) for each source the first one with the same soft votes; itself where there is none before it.
        accuracy_: NaN: sources are not judged one by one.
        weight_: (m,) mean slope between -1 and 1, log odds per standard deviation; copies have equal parts of it.

    Source: G. Ward, T. Hastie, S. Barry, J. Elith, J. Leathwick (2009), Presence-Only Data and the EM Algorithm,
        Biometrics 65(2), for the likelihood; C. Elkan, K. Noto (2008), Learning Classifiers from Only Positive and
        Unlabeled Data, KDD, for its plain form; G. Blanchard, G. Lee, C. Scott (2010), Semi-Supervised Novelty
        Detection, JMLR 11, for the bound on the prior.
    """

    needs_reference: ClassVar[bool] = True

    penalty: float = 1.0

    class_prior_: float = field(init=False, repr=False, compare=False)
    class_prior_interval_: np.ndarray = field(init=False, repr=False, compare=False)
    order_: np.ndarray = field(init=False, repr=False, compare=False)
    slopes_: np.ndarray = field(init=False, repr=False, compare=False)
    missing_: np.ndarray = field(init=False, repr=False, compare=False)
    intercept_: np.ndarray = field(init=False, repr=False, compare=False)
    held_out_likelihood_: float = field(init=False, repr=False, compare=False)
    n_reference_: int = field(init=False, repr=False, compare=False)
    turned_: np.ndarray = field(init=False, repr=False, compare=False)
    copy_of_: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ValueError: a setting is out of its range.
        """
        super().__post_init__()
        one_share(self.class_prior)
        if not 0 < self.penalty < np.inf:
            raise ValueError(
                f"penalty is {self.penalty}, but must be above 0, since with none a score that all known-good samples "
                "share would be proof: take 1"
            )

    def learn(self, evidence: Evidence) -> Self:
        """Fits the model to soft votes of pool and reference.

        Args:
            evidence: soft votes among it.

        Returns:
            The model itself.

        Raises:
            ValueError: there are no soft votes, the pool is empty, or the reference is missing or too small.
        """
        if evidence.soft is None:
            raise ValueError("clean_vs_pool judges scores, but was given votes alone: fit it to scores")
        pool, reference, moments = evidence.soft.pool, evidence.soft.reference, evidence.soft.moments
        check_reference(len(reference), self.kind)
        if not len(pool):
            raise ValueError(
                "clean_vs_pool compares known-good samples with the pool, but no sample of it is left: loosen the "
                "required filters, or give it samples"
            )
        self.n_reference_ = len(reference)
        m = pool.shape[1]
        same = moments.same() & (reference[:, :, None] == reference[:, None, :]).all(axis=0)
        self.copy_of_ = np.asarray(same.argmax(axis=1), np.intp) if m else np.zeros(0, np.intp)
        first = self.copy_of_ == np.arange(m)
        heard = first & (pool != MISSING).any(axis=0) & (reference != MISSING).any(axis=0)
        # Sources and samples in an order of their own: no sum depends on how the pool was cut, nor on copies.
        self.order_ = moments.own_order(np.flatnonzero(heard))
        reference = _sorted(reference, self.order_)
        pool = _thinned(_sorted(pool, self.order_), max(FEWEST_POOL, ENOUGH_POOL * len(reference)))
        self.turned_ = _turned(pool, reference)

        alike = moments.of_columns(self.order_.tolist()).correlation(FEWEST_TOGETHER)
        penalties = self.penalty * np.repeat((alike**2).sum(axis=1), PARTS)
        mine, theirs = folds(pool[:, self.order_]), folds(reference[:, self.order_])
        known, trusted = self._features(pool), self._features(reference)
        self._estimate_prior(known, mine, trusted, theirs, penalties)
        self._take([_fit(known[mine != fold], trusted, penalties, self.class_prior_) for fold in range(FOLDS)], m)
        self.accuracy_ = np.full(m, np.nan)
        copies = np.bincount(self.copy_of_, minlength=m)
        self.weight_ = (self.slopes_[:, :, 1:3].mean(axis=(0, 2)) / np.maximum(copies, 1))[self.copy_of_]
        return self

    def predict_soft(self, soft: np.ndarray) -> np.ndarray:
        """P(keep) by the fit that has not seen a sample's fold.

        Args:
            soft: (n samples, m sources) int16 soft votes.

        Returns:
            (n,) float64 P(keep), inside (0, 1).
        """
        from scipy.special import expit

        heard = self.order_.astype(np.intp)  # JSON forgets what an empty list would hold
        fold = folds(soft[:, heard])
        odds = self.intercept_[fold]
        for column in heard:
            there = soft[:, column] != MISSING
            slopes, parts = self.slopes_[fold, column], ramps(soft[:, column] / STEPS)
            value = parts[0] * slopes[:, 0]
            for number in range(1, len(parts)):
                value += parts[number] * slopes[:, number]
            odds += np.where(there, value, self.missing_[fold, column])
        missing = (soft[:, heard] == MISSING).all(axis=1)
        return np.where(missing, self.class_prior_, expit(odds))

    def _features(self, soft: np.ndarray) -> np.ndarray:
        """(n, 6 h) float64: of each of the h sources with influence its score, ramps, and whether it is missing."""
        columns: list[np.ndarray] = []
        for column in self.order_:
            missing = soft[:, column] == MISSING
            scores = np.where(missing, 0.0, soft[:, column] / STEPS)
            columns += [scores, *ramps(scores), missing.astype(np.float64)]
        return np.stack(columns, axis=1) if columns else np.zeros((len(soft), 0))

    def _take(self, fits: list[np.ndarray], sources: int) -> None:
        """Sets what was learned from each fold's fit."""
        found = np.stack(fits)
        self.intercept_ = found[:, 0]
        self.slopes_, self.missing_ = np.zeros((FOLDS, sources, 4)), np.zeros((FOLDS, sources))
        parts = found[:, 1:].reshape(FOLDS, -1, PARTS)
        self.slopes_[:, self.order_] = parts[:, :, :1] + parts[:, :, 1:-1]
        self.missing_[:, self.order_] = parts[:, :, -1]

    def _estimate_prior(
        self, pool: np.ndarray, mine: np.ndarray, reference: np.ndarray, theirs: np.ndarray, penalties: np.ndarray
    ) -> None:
        """Sets the class prior and the likelihood, by fits that have seen neither kind of sample of their fold."""
        ours, good = np.zeros(len(pool)), np.zeros(len(reference))
        for fold in range(FOLDS):
            found = _fit(pool[mine != fold], reference[theirs != fold], penalties)
            ours[mine == fold] = pool[mine == fold] @ found[1:] + found[0]
            good[theirs == fold] = reference[theirs == fold] @ found[1:] + found[0]
        self.held_out_likelihood_ = -float(np.logaddexp(0, ours).mean() + np.logaddexp(0, -good).mean()) / 2
        given = one_share(self.class_prior)
        if given is not None:
            self.class_prior_, self.class_prior_interval_ = given, np.array([given, given])
            return
        rng = np.random.default_rng(_SEED)
        ours, good = np.sort(ours), np.sort(good)
        # Of a resampled reference only its median counts, and of a resampled pool how many are above that.
        middles = np.array([np.median(rng.choice(good, len(good))) for _ in range(DRAWS)])
        below = (np.searchsorted(ours, middles, "left") + np.searchsorted(ours, middles, "right")) / 2 / len(ours)
        draws = 2 * rng.binomial(len(ours), 1 - below) / len(ours)
        self.class_prior_, self.class_prior_interval_ = share_and_interval(np.minimum(draws, 1.0), 0.25)


def _fit(pool: np.ndarray, reference: np.ndarray, penalties: np.ndarray, share: float | None = None) -> np.ndarray:
    """(1 + 6 h,) log odds of being good where all is 0, or without a share of the reference's density; coefficients."""
    rising = np.tile([True] * (PARTS - 1) + [False], pool.shape[1] // PARTS)
    if not len(pool) or not len(reference):
        return np.concatenate([[0.0 if share is None else np.log(share / (1 - share))], np.zeros(pool.shape[1])])
    labelled = np.arange(len(pool) + len(reference)) >= len(pool)
    found = fit_logistic(np.concatenate([pool, reference]), labelled, penalties, rising, share)
    if share is None:
        found[0] -= np.log(len(reference) / len(pool))
    return found


def ramps(scores: np.ndarray) -> list[np.ndarray]:
    """Four functions that rise by 1 per normal score in one stretch each, are straight elsewhere, and 0 at 0.

    Args:
        scores: (n,) normal scores.

    Returns:
        Below -1, from there to 0, to 1 and above: four arrays (n,), whose sum is the scores.
    """
    return [
        np.minimum(scores + 1, 0.0),
        np.clip(scores, -1.0, 0.0),
        np.clip(scores, 0.0, 1.0),
        np.maximum(scores - 1, 0.0),
    ]


def folds(soft: np.ndarray) -> np.ndarray:
    """The fold of each sample, by its soft votes alone; the order of sources does not matter.

    Args:
        soft: (n samples, m sources) int16.

    Returns:
        (n,) intp in 0..4.
    """
    total = np.zeros(len(soft), np.uint64)
    for column in soft.T:
        total += _mix(column.astype(np.int64).astype(np.uint64))
    return (_mix(total) % np.uint64(FOLDS)).astype(np.intp)


def _mix(values: np.ndarray) -> np.ndarray:
    """Splitmix64: whole numbers that look like chance, the same on every machine."""
    mixed = (values + np.uint64(1)) * _GOLDEN
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)), np.uint64)


def _sorted(soft: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Samples in the order of their soft votes, that of the first source first."""
    return soft[np.lexsort(soft[:, order[::-1]].T)] if len(order) else soft


def _thinned(soft: np.ndarray, most: int) -> np.ndarray:
    """So many samples at equal distances, or all."""
    if len(soft) <= most:
        return soft
    return soft[np.arange(most) * len(soft) // most]


def _turned(pool: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(m,) bool, whether the reference's mean soft vote is below the pool's by three standard errors."""
    found = np.zeros(pool.shape[1], bool)
    for column, (ours, good) in enumerate(zip(pool.T, reference.T, strict=True)):
        ours, good = ours[ours != MISSING] / STEPS, good[good != MISSING] / STEPS
        if len(ours) > 1 and len(good) > 1:
            error = np.sqrt(ours.var(ddof=1) / len(ours) + good.var(ddof=1) / len(good))
            found[column] = ours.mean() - good.mean() > _SURE * error
    return found
