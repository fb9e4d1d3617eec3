"""Scores that are Gaussian given the class, learned from how they vary together."""

from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np

from chaffinch.filters.label_models.evidence import Evidence
from chaffinch.filters.label_models.mixture import one_share
from chaffinch.filters.label_models.soft_label_model import SoftLabelModel
from chaffinch.filters.label_models.triplets import FEWEST_TOGETHER, triplet_loadings
from chaffinch.filters.label_models.votes import distinct_patterns
from chaffinch.filters.soft_votes import MISSING, STEPS

ASSUMED_PRIOR = 0.5
"""What P(keep) is taken to be where nobody says: second moments are the same whatever it is."""

SMALLEST_EIGENVALUE = 0.05
"""Of the correlation matrix within a class: below that, differences between near copies would decide."""


@dataclass(kw_only=True)
class Gaussian(SoftLabelModel):
    """Soft votes are normal around a mean per class, with one covariance in both classes; a linear discriminant.

    For sources that judge the same thing: what they have in common is taken to be the class.

    Let y be the class and l the soft votes. If sources are independent given the class, Cov(l_i, l_j) = g_i g_j with
    g_i = Cov(l_i, y) / sd(y), so that three sources tell g_i^2 = Cov(i, j) Cov(i, k) / Cov(j, k). `triplet_loadings`
    takes the weighted median over all such triplets and leaves out those whose members are one opinion. The sign is
    that with which most sources are better than chance. What g g^T does not explain is covariance W within the classes,
    and P(keep) follows from Bayes' rule for two normal densities,

        log odds = log(prior / (1 - prior)) + a^T (l - midpoint),   a = W^-1 d,   d = g / sqrt(prior (1 - prior)),

    with d the distance between the class means: the same direction as c^T O^-1 l of the source below. So two sources
    with much in common share their weight, and no dependence has to be found first. Three safeguards: residual
    correlations are shrunk towards 0 as far as their sampling noise asks for, and at least until no eigenvalue of their
    matrix is below 0.05; a is the best among coefficients of 0 or more, so that a better score never lowers P(keep);
    and sources with g_i <= 0 are left out, and named in `turned_` where that is no accident.

    Where a source is missing, the others' blocks of W and d are used, as if scores were missing at random; where all
    are, P(keep) is the class prior. Exact copies of a source count once, and the first speaks for all. Only sums of
    soft votes and of their products are used, whole numbers: a fit on shards is equal to the bit to one in memory.

    Second moments do not depend on the class prior, nor does the order of samples in which nothing is missing: it only
    says how sure to be. Without one it is taken to be 0.5, and `class_prior_interval_` is (0, 1). Soft votes are normal
    over the pool and not in each class, so that of sources which tell classes apart almost without error probabilities
    come out more cautious than need be.

    Attributes:
        class_prior: P(keep); None: 0.5.
        class_prior_: P(keep) in force.
        class_prior_interval_: (2,) how sure that is: the prior given, twice; or 0 and 1, nothing known.
        mean_: (m sources,) mean soft vote in normal scores (1 is a standard deviation of the pool).
        gap_: (m,) d above in normal scores, higher: tells classes apart better; 0 for sources without influence.
        within_: (m, m) W, shrunk.
        turned_: (m,) bool, whether better scores of a source go with what the others find worse.
        copy_of_: (m,) for each source the first one with the same soft votes; itself where there is none before it.
        order_: positions of the sources that take part, in the order that the fit takes.
        accuracy_: (m,) P(right) of the source alone, cut where both errors are as frequent; NaN where not known.
        weight_: (m,) log odds per standard deviation of the source, where none is missing; equal parts for copies.

    Source: C. Shin, W. Li, H. Vishwakarma, N. Roberts, F. Sala (2022), Universalizing Weak Supervision,
        arXiv 2112.03865; the shrinkage is that of J. Schaefer and K. Strimmer (2005), A Shrinkage Approach to
        Large-Scale Covariance Matrix Estimation, Stat. Appl. Genet. Mol. Biol. 4(1).
    """

    needs_peers: ClassVar[bool] = True

    class_prior_: float = field(init=False, repr=False, compare=False)
    class_prior_interval_: np.ndarray = field(init=False, repr=False, compare=False)
    mean_: np.ndarray = field(init=False, repr=False, compare=False)
    gap_: np.ndarray = field(init=False, repr=False, compare=False)
    within_: np.ndarray = field(init=False, repr=False, compare=False)
    turned_: np.ndarray = field(init=False, repr=False, compare=False)
    copy_of_: np.ndarray = field(init=False, repr=False, compare=False)
    order_: np.ndarray = field(init=False, repr=False, compare=False)

    @property
    def prior_unknown(self) -> str:
        """Second moments are the same whatever it is."""
        return "how scores vary together does not tell it, and one half is taken"

    def learn(self, evidence: Evidence) -> Self:
        """Fits the model to the moments of soft votes.

        Args:
            evidence: soft votes among it.

        Returns:
            The model itself.

        Raises:
            ValueError: there are no soft votes, or fewer than three different sources that vary.
        """
        from scipy.special import ndtr

        if evidence.soft is None:
            raise ValueError("gaussian judges scores, but was given votes alone: fit it to scores")
        moments = evidence.soft.moments
        own = np.maximum(moments.common.diagonal(), 1)
        mean = moments.sums.diagonal() / own
        variance = moments.products.diagonal() / own - mean**2
        self.copy_of_ = np.asarray(moments.same().argmax(axis=1), np.intp) if len(own) else np.zeros(0, np.intp)
        heard = (moments.common.diagonal() >= FEWEST_TOGETHER) & (variance > 0.25)  # constants, but for rounding
        heard &= self.copy_of_ == np.arange(len(own))
        if heard.sum() < 3:
            raise ValueError(
                f"gaussian learns from how three or more sources vary together, but of {len(own)} only {heard.sum()} "
                f"vary on {FEWEST_TOGETHER} samples or more and are no copies of others: add sources, or take "
                "dawid_skene (votes), or clean_vs_pool with a reference: (scores)"
            )
        given = one_share(self.class_prior)
        prior = ASSUMED_PRIOR if given is None else given
        self.class_prior_ = prior
        self.class_prior_interval_ = np.array([0.0, 1.0] if given is None else [prior, prior])
        self.mean_ = mean / STEPS

        chosen = self.order_ = moments.own_order(np.flatnonzero(heard))
        among = moments.of_columns(chosen.tolist())
        correlation, common = among.correlation(FEWEST_TOGETHER), among.common
        loading, known = triplet_loadings(correlation, common)
        deviation = np.sqrt(variance[chosen]) / STEPS
        within = shrink(correlation, common, loading)
        self.gap_, self.within_ = np.zeros(len(own)), np.eye(len(own))
        self.gap_[chosen] = np.maximum(loading, 0) * deviation / np.sqrt(prior * (1 - prior))
        self.within_[np.ix_(chosen, chosen)] = within * np.outer(deviation, deviation)
        self.turned_ = np.zeros(len(own), bool)
        self.turned_[chosen] = known & (loading < -3 / np.sqrt(common.diagonal()))

        self.accuracy_, self.weight_ = np.full(len(own), np.nan), np.zeros(len(own))
        alone = ndtr(loading / np.sqrt(prior * (1 - prior)) / np.sqrt(1 - loading**2) / 2)
        self.accuracy_[chosen] = np.where(known, alone, np.nan)
        self.weight_[chosen] = self._coefficients(heard)[chosen] * deviation
        self.weight_ /= np.maximum(np.bincount(self.copy_of_, minlength=len(own)), 1)
        for learned in (self.accuracy_, self.weight_, self.turned_):
            learned[:] = learned[self.copy_of_]
        return self

    def predict_soft(self, soft: np.ndarray) -> np.ndarray:
        """Bayes' rule for two normal densities, over the sources that are there.

        Args:
            soft: (n samples, m sources) int16 soft votes.

        Returns:
            (n,) float64 P(keep).
        """
        from scipy.special import expit

        groups, inverse, _ = distinct_patterns((soft != MISSING).astype(np.int8))
        there: np.ndarray = (groups > 0) & (self.gap_ > 0)
        coefficients = np.array([self._coefficients(row) for row in there]).reshape(there.shape)
        midpoint = self.mean_ + (0.5 - self.class_prior_) * self.gap_
        odds = np.zeros(len(soft))
        for column in self.order_:
            slope = coefficients[:, column][inverse]
            odds += np.where(slope > 0, slope * (soft[:, column] / STEPS - midpoint[column]), 0.0)
        prior = self.class_prior_
        told = np.asarray(there.any(axis=1))[inverse]
        return np.where(told, expit(odds + np.log(prior / (1 - prior))), prior)

    def _coefficients(self, there: np.ndarray) -> np.ndarray:
        """(m,) log odds per normal score where only the sources that are `there` have a soft vote."""
        from scipy.optimize import nnls

        found = np.zeros(len(self.gap_))
        chosen = self.order_[there[self.order_] & (self.gap_[self.order_] > 0)]
        if len(chosen):
            # The least of a^T W a / 2 - d^T a over a >= 0 is that of |L^T a - L^-1 d|^2 with W = L L^T.
            lower = np.linalg.cholesky(self.within_[np.ix_(chosen, chosen)])
            found[chosen] = nnls(lower.T, np.linalg.solve(lower, self.gap_[chosen]))[0]
        return found


def shrink(correlation: np.ndarray, common: np.ndarray, loading: np.ndarray) -> np.ndarray:
    """What the class does not explain, as a matrix that can be inverted.

    Args:
        correlation: (m, m) of soft votes.
        common: (m, m) how many samples each is of.
        loading: (m,) correlations with the class, inside (-1, 1).

    Returns:
        (m, m) covariance within the classes, where the variance over the pool is 1; positive definite.
    """
    deviation = np.sqrt(1 - loading**2)
    residual = (correlation - np.outer(loading, loading)) / np.outer(deviation, deviation)
    seen = (common >= FEWEST_TOGETHER) & ~np.eye(len(loading), dtype=bool)
    residual = np.where(seen, residual, 0.0)
    noise, size = (seen / np.maximum(common, 1)).sum(), (residual**2).sum()
    share = min(1.0, noise / size) if size > 0 else 0.0
    smallest = 1 + np.linalg.eigvalsh(residual)[0] if len(loading) else 1.0
    if smallest < SMALLEST_EIGENVALUE:
        share = max(share, (SMALLEST_EIGENVALUE - smallest) / (1 - smallest))
    result: np.ndarray = ((1 - share) * residual + np.eye(len(loading))) * np.outer(deviation, deviation)
    return result
