"""Accuracies in closed form, from three sources at a time: FlyingSquid's triplets."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from chaffinch.filters.label_models.moments import PairCounts
from chaffinch.filters.label_models.pairwise import PairwiseLabelModel, Rates
from chaffinch.filters.label_models.triplets import weighted_median

STANDARD_ERRORS = 2.0
"""How far a denominator has to be from 0; a quotient by noise is noise."""


@dataclass(kw_only=True)
class FlyingSquid(PairwiseLabelModel):
    """FlyingSquid: how far a source tells the classes apart, from |a_i| = sqrt(|E_ij E_ik / E_jk|) over pairs j, k.

    If sources err independently given the class, what i and j have in common is E_ij = a_i a_j. So every pair of others
    gives an estimate of |a_i|, at most 1; `combine` makes one of them, each weighted by the samples it rests on,
    1 / (1 / n_ij + 1 / n_ik + 1 / n_jk), with n_ij those on which i and j vote. Denominators within two standard errors
    of 0 (1 / sqrt(n_jk)) are dropped, unless a source has no others. All is closed form: no start, no steps.

    What E is depends on `form` and `voting`. one_coin, as published: E[l_i l_j] of votes -1 and +1 where both vote, and
    a is 2 accuracy - 1, whatever the class. With k classes it is (k s - 1) / (k - 1), s the share of equal votes, and a
    is (k accuracy - 1) / (k - 1) of sources that err evenly. confusion: the correlation of votes where both vote; a is
    the correlation with the class, from which the class prior and the share of keep votes give a probability for each
    class, so that a source may be right on one class and guess on the other. With voting="informative" the sources are
    the single votes, over all samples, so that it also counts on which class a source speaks up; two classes only.

    Signs: sources that agree with each other have one sign, and the larger part of all |a| is positive, for better than
    chance on the whole. A source that comes out worse than chance keeps its sign: its votes count against what they
    say, and its weight is 0. One at chance comes out as far from it as noise is, on either side.

    Triplets that hold two sources of one opinion (`excess_correlation_`) are left out, unless a source has no others,
    and in the posterior such sources share their say. A source without any triplet, as one that nobody votes beside, is
    taken to be right with probability 0.9; one that always abstains has no influence, nor has one that always votes the
    same, unless voting is informative.

    Attributes:
        correlated: discount: sources that are one opinion share its weight. ignore: all are taken to err independently.
        class_prior: P(keep), fixed; with `classes=k` k shares. None: two steps of expectation maximisation from the
            share of samples on which each class has the majority, which lies between the truth and equal shares; with
            informative voting that share itself. Give it if you can.
        classes: k, at least 2. Two classes are voted -1 (drop) and +1 (keep), more are voted 1..k.
        combine: median: half of the triplets may hold a dependent pair that nobody found, and a quotient by a small
            denominator has no mean to speak of. mean: as in the paper's first experiments.
        form: one_coin or confusion, see above. None: confusion for two classes, one_coin for more.
        voting: missing: where a source votes has nothing to do with the class. informative: see above. None:
            informative if more than half of the votes are cast by sources that ever vote for one class only, unless
            that is not to be had (more classes, or form one_coin).
        smoothing: pseudo-votes per source and class, which keep the posterior off 0 and 1.
        class_prior_: P(keep), given or estimated; with `classes=k`, (k,) shares.
        confusion_: (m sources, k classes, k votes) P(vote given class); sums to 1 over votes with voting="missing", to
            P(votes given class) with voting="informative".
        accuracy_: (m,) expected share of a source's votes that are right, in [0, 1]; NaN where it always abstains.
        weight_: (m,) log odds (nats) of the accuracy averaged over classes, against guessing; at least 0.

    Source: D. Fu et al. (2020), Fast and Three-rious: Speeding Up Weak Supervision with Triplet Methods,
        arXiv 2002.11955.
    """

    classes: int = 2
    combine: Literal["mean", "median"] = "median"

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ValueError: a setting is out of its range.
        """
        super().__post_init__()
        if self.combine not in ("mean", "median"):
            raise ValueError(f"combine is {self.combine!r}: take 'mean' or 'median'")
        if self.classes > 2 and (self.form == "confusion" or self.voting == "informative"):
            raise ValueError(
                f"triplets of {self.classes} classes determine one accuracy per source and no more: leave out form and "
                "voting, or take metal or dawid_skene"
            )
        if self.form == "one_coin" and self.voting == "informative":
            raise ValueError("with voting informative a source is no coin: leave out form, or take voting missing")

    def _is_informative(self, votes: np.ndarray) -> bool:
        """Whether it counts on which class sources speak up."""
        return not self._has_one_coin and super()._is_informative(votes)

    def _fit(self, patterns: np.ndarray, counts: np.ndarray) -> None:
        """Solves all triplets.

        Raises:
            ValueError: no three sources vote together.
        """
        voting = (patterns != 0).astype(np.float64)
        beside = (voting.T @ voting) > 0
        np.fill_diagonal(beside, False)
        if not (beside & (beside.astype(np.float64) @ beside > 0)).any():
            raise ValueError(
                f"triplets need three sources that vote on the same samples, pair by pair, but of {len(self.copy_of_)} "
                f"({patterns.shape[1]} without copies) no three do: add sources, or take the label model dawid_skene, "
                "weighted_majority or majority"
            )
        super()._fit(patterns, counts)

    def _rates(self, pairs: PairCounts, learned: np.ndarray, *, informative: bool) -> Rates:
        """Triplets of sources, or of single votes; what they say does not depend on the class prior."""
        k, chosen = self.classes, np.flatnonzero(learned)
        between = np.ix_(chosen, chosen)
        votes, together = pairs.votes[chosen], pairs.together[between]
        linked = self.excess_correlation_[between] > 0
        if informative:
            return self._rates_of_votes(pairs.cells[chosen][:, :, chosen], linked, pairs.samples)
        common = pairs.agreement() if self._has_one_coin else pairs.correlation()
        skill, known = triplet_skills(common[between], together, linked, self.combine)
        if self._has_one_coin:
            # Never right is as bad as it gets, though with several classes triplets may say worse.
            right = np.maximum(1 / k + skill * (1 - 1 / k), 0)[:, None, None]
            rates = np.where(np.eye(k, dtype=bool), right, (1 - right) / (k - 1))
            return lambda _: (rates, known)
        keep = votes[:, 1] / votes.sum(axis=1)

        def solve(prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            given = _given_class(keep, skill, prior)
            return np.stack([1 - given, given], axis=1), known

        return solve

    def _rates_of_votes(self, cells: np.ndarray, linked: np.ndarray, samples: float) -> Rates:
        """Each vote that occurs is a source that is heard or not, over all samples; drop votes have a negative sign."""
        source, vote = np.nonzero(np.einsum("jvjv->jv", cells))
        both = cells[source, vote][:, source, vote] / samples
        share = np.diag(both)
        spread = np.sqrt(share * (1 - share))
        common = (both - np.outer(share, share)) / np.outer(spread, spread)
        sign = np.where(vote == 1, 1.0, -1.0)
        same = source[:, None] == source
        skill, told = triplet_skills(
            common * np.outer(sign, sign), np.where(same, 0.0, samples), linked[np.ix_(source, source)], self.combine
        )
        known = np.zeros(len(cells), dtype=bool)
        known[source[told]] = True

        def solve(prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            rates = np.zeros((len(cells), 2, 2))
            rates[source, vote] = _given_class(share, skill * sign, prior)
            return rates, known

        return solve


def _given_class(share: np.ndarray, skill: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """(m, 2) P(vote given class) of votes with a share of all samples, and a correlation with the class keep."""
    apart = skill * np.sqrt(share * (1 - share) / (prior[0] * prior[1]))
    given: np.ndarray = np.clip(np.stack([share - prior[1] * apart, share + prior[0] * apart], axis=1), 0, 1)
    return given


def triplet_skills(
    common: np.ndarray, together: np.ndarray, linked: np.ndarray, combine: Literal["mean", "median"]
) -> tuple[np.ndarray, np.ndarray]:
    """Solves common[i, j] = a[i] a[j] for all i by triplets, as `FlyingSquid` says.

    Args:
        common: (m, m) what pairs have in common, symmetric, in [-1, 1].
        together: (m, m) samples it rests on; 0 for pairs that do not count.
        linked: (m, m) bool, pairs that are dependent given the class.
        combine: how estimates become one.

    Returns:
        (m,) a in [-1, 1], and (m,) bool, which sources are in a triplet.
    """
    m = len(common)
    usable = (together > 0) & ~np.eye(m, dtype=bool)
    noise = 1 / np.sqrt(np.maximum(together, 1))
    sound = np.abs(common) > STANDARD_ERRORS * noise
    free = usable & ~linked
    variance = np.where(usable, 1 / np.maximum(together, 1), np.inf)
    size, told = np.zeros(m), np.zeros(m, dtype=bool)
    upper = np.triu(np.ones((m, m), dtype=bool), 1)
    for i in range(m):
        for pairs, denominators in ((free, free & sound), (free, free), (usable, usable & sound), (usable, usable)):
            chosen = np.outer(pairs[i], pairs[i]) & denominators & upper & (common != 0)
            if chosen.any():
                break
        else:
            told[i] = bool((np.outer(usable[i], usable[i]) & usable).any())
            continue
        j, k = np.nonzero(chosen)
        quotient = common[i, j] * common[i, k] / common[j, k]
        root = np.minimum(np.sqrt(np.abs(quotient)), 1.0)
        weight = 1 / (variance[i, j] + variance[i, k] + variance[j, k])
        told[i] = True
        size[i] = weighted_median(root, weight) if combine == "median" else float(root @ weight / weight.sum())
    return size * _signs(np.where(usable, together * common, 0.0), size), told


def _signs(common: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(m,) -1 or +1: sources of one sign agree; the larger part of all sizes is positive."""
    sign = np.ones(len(size))
    for _ in range(len(size)):
        pull = common @ (sign * size)
        turned = np.where(pull == 0, sign, np.sign(pull))
        if (turned == sign).all():
            break
        sign = turned
    return sign if sign @ size >= 0 else -sign
