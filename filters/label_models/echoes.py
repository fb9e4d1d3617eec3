"""Which sources are one opinion counted several times: copies, and echoes that agree beyond what the class explains."""

import numpy as np

from chaffinch.filters.label_models.common_cause import PairMoments, loadings, residual_variance
from chaffinch.filters.label_models.opinions import opinion_weights
from chaffinch.filters.label_models.votes import as_votes, vote_classes

FALSE_FINDS = 0.01
"""Expected share of the pairs found that are false, however tests depend on each other (Benjamini and Yekutieli)."""
MISFIT = 0.2
"""Chance of looking for pairs at all where one common cause explains every one of them (Simes)."""
FEWEST_EXPECTED = 5.0
"""Samples that each cell of a pair's 2 x 2 table has to expect, were the pair independent, before it is tested."""
FEWEST_COMMON = 4 * FEWEST_EXPECTED
"""Samples on which both sources of a pair have to vote, below which no table can expect that."""
MOST_SOURCES = 256
"""Sources with such pairs beyond which only exact copies are found: time grows with their square and the patterns."""
LARGEST = 0.99
"""Excess correlation of sources that never differ where both vote, but are no copies, since one votes on more."""

_DECIMALS = 8  # rounding errors of sums, which depend on the order of sources, end here
_ROUNDS = 50
_SUSPICION = 4  # power of (1 - h) / (1 + h) by which a pair counts in the fit: little, long before it is sure


def copied_from(patterns: np.ndarray) -> np.ndarray:
    """Finds exact copies: sources that vote the same on every sample.

    Args:
        patterns: (p patterns, m sources) votes.

    Returns:
        (m,) intp: for each source the first one with the same votes; its own position where there is none before it.
    """
    first: dict[bytes, int] = {}
    columns = np.asarray(patterns, dtype=np.int8).T
    return np.array([first.setdefault(column.tobytes(), source) for source, column in enumerate(columns)], np.intp)


def excess_correlation(patterns: np.ndarray, counts: np.ndarray, classes: int = 2) -> np.ndarray:
    """How far pairs of sources agree beyond what the class explains, where that is beyond doubt.

    Sources that err independently given the class have correlations r[i, j] = l[i] l[j], with l[i] the correlation of
    source i with the class, also where they err more towards one class than the other. The loadings l are fitted to
    all pairs by weighted least squares, and the excess of a pair is what is left, given the class: its partial
    correlation (r[i, j] - l[i] l[j]) / sqrt((1 - l[i]^2) (1 - l[j]^2)).

    Where one common cause explains all pairs, that is the end: nothing is shown. Otherwise the fit is done again, and
    begins as if all correlation were dependence: a pair counts for the less the more it correlates, and sources that
    correlate share one vote (`opinion_weights`). So ten near copies start as one opinion, and do not make their own
    consensus the common cause, beside which honest sources would seem to conspire. Honest pairs satisfy the equation
    whatever the weights: as the fit proceeds, their excess falls to nothing, and they count in full. When that has come
    to rest, pairs are tested: the residual against its sampling error, which includes that of l. Of the pairs found, at
    most one in a hundred is expected to be false (Benjamini and Yekutieli). Those found leave the fit, and test and fit
    are repeated until the same pairs are found again.

    Two crowd workers who happen to meet on easy samples are both right there, and agree more than their worth elsewhere
    explains. A pair that votes together on less than half of the samples is therefore tested once more on those alone,
    by what the others' votes say of both of them there, and is let go where that explains it.

    It assumes that where a source votes says nothing about the class, that sources which are no copies have the class
    as their only common cause, and at least three independent opinions. With two opinions or fewer any of them could
    be the truth that the others echo: the loadings are not determined, and nothing is found but exact copies. Ten
    sources that agree because they share a fault, and ten that agree because they are right, differ only in how they
    agree with others; beside many sources the one explanation fits, and the other does not.

    Beyond 256 sources that have 20 samples in common with another, as in large crowds, only copies are looked for.

    With k > 2 classes each class is set against the rest, and a pair is found where it is in more than half of those
    that can be tested; its excess is the mean over them. One cause has k - 1 dimensions then, so that this is a rough,
    wary guide.

    Args:
        patterns: (p patterns, m sources) rows of votes, in any order.
        counts: (p,) how many samples show each pattern.
        classes: k, at least 2.

    Returns:
        (m, m) float64, symmetric, in [0, 1]: 1 on the diagonal and for exact copies, 0 where nothing is shown, as for
        all pairs that vote on fewer than 20 samples together; at most the correlation itself. A source that echoes
        another's opposite is as redundant as one that echoes it, and has the same excess.

    Raises:
        ValueError: votes are no votes, or counts no counts.

    Source: one-factor moments as in A. Ratner et al. (2019), arXiv 1810.02840; Y. Benjamini and D. Yekutieli (2001),
        The control of the false discovery rate in multiple testing under dependency, Annals of Statistics 29(4).
    """
    counts = np.asarray(counts)
    if counts.shape != (len(patterns),) or (counts < 0).any():
        raise ValueError(f"{len(patterns)} patterns need as many counts, each 0 or more")
    patterns, counts = as_votes(patterns)[counts > 0], counts[counts > 0]
    voted = vote_classes(patterns, classes)
    found = np.zeros((patterns.shape[1], patterns.shape[1]))
    copies = copied_from(patterns)
    kept = np.flatnonzero(copies == np.arange(len(copies)))
    between = np.ix_(kept, kept)
    if classes == 2:
        found[between] = _excess(patterns[:, kept], counts)[0]
    else:
        total, tests = np.zeros((2, len(kept), len(kept)))
        finds = np.zeros((len(kept), len(kept)), dtype=np.int64)
        for number in range(classes):
            signs = np.where(voted == classes, 0, np.where(voted == number, 1, -1)).astype(np.int8)
            of_class, tested = _excess(signs[:, kept], counts)
            total += of_class
            finds += of_class > 0
            tests += tested
        found[between] = np.where(2 * finds > tests, total / np.maximum(finds, 1), 0)
    excess: np.ndarray = np.round(found[np.ix_(copies, copies)], _DECIMALS)
    excess[copies[:, None] == copies] = 1
    return excess


def _excess(signs: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(m, m) excess correlation of votes -1, 0, +1 where it is shown, else 0; and (m, m) whether it could be tested."""
    pairs = PairMoments.of(signs, counts)
    usable = (pairs.common >= FEWEST_COMMON) & np.isfinite(pairs.variance)
    np.fill_diagonal(usable, False)
    excess, tested = np.zeros(usable.shape), np.zeros(usable.shape, dtype=bool)
    known = np.flatnonzero(usable.any(axis=1))
    if not 3 <= len(known) <= MOST_SOURCES:
        return excess, tested
    between = np.ix_(known, known)
    pairs, usable, signs = pairs.among(known), usable[between], signs[:, known]

    weight = np.where(usable, pairs.common, 0)
    found = loadings(pairs.correlation, weight)
    variance = np.where(usable, residual_variance(signs, counts, pairs, weight, found), np.inf)
    testable, chance = _chances(pairs, found, variance)
    tested[between] = testable
    if not _passing(chance, MISFIT).any():
        return excess, tested

    found, shown = _robust_loadings(pairs, usable)
    for _ in range(_ROUNDS):
        redundant = np.where(usable, _redundant(pairs, found), 0)
        share = _shares(np.where(shown, redundant, 0))
        weight = np.where(usable & ~shown, pairs.common * share, 0)
        found = loadings(pairs.correlation, weight, found)
        variance = np.where(usable, residual_variance(signs, counts, pairs, weight, found), np.inf)
        testable, chance = _chances(pairs, found, variance)
        # Benjamini and Yekutieli: Simes' levels, divided by 1 + 1/2 + ... + 1/tests.
        level = FALSE_FINDS / (1 / np.arange(1, max(len(chance), 1) + 1)).sum()
        redundant = _redundant(pairs, found)
        before, shown = shown, np.zeros(usable.shape, dtype=bool)
        shown[np.triu(testable, 1)] = _passing(chance, level)
        shown = (shown | shown.T) & (redundant > 0)
        if (before == shown).all():
            break
    else:
        shown &= before  # pairs that come and go are not beyond doubt
    beyond = pairs.correlation - np.outer(found, found)
    explained_there = [
        (one, other)
        for one, other in np.argwhere(np.triu(shown))
        if not _shown_there(signs, counts, shown, one, other, beyond[one, other])
    ]
    for one, other in explained_there:
        shown[one, other] = shown[other, one] = False
    excess[between], tested[between] = np.where(shown, redundant, 0), testable
    return excess, tested


def _shown_there(signs: np.ndarray, counts: np.ndarray, shown: np.ndarray, one: int, other: int, beyond: float) -> bool:
    """Whether a pair agrees too much also by what its sources are worth where both vote, as far as that can be told.

    Two that happen to meet on samples that are easy, or that they know well, agree more there than their worth
    elsewhere explains, and are both right.
    """
    from scipy.special import ndtri

    both = (signs[:, one] != 0) & (signs[:, other] != 0)
    if 2 * counts[both].sum() >= counts.sum():
        return True  # no samples in particular
    signs, counts = signs[both], counts[both]
    pairs = PairMoments.of(signs, counts)
    usable = (pairs.common >= FEWEST_COMMON) & np.isfinite(pairs.variance) & ~shown
    np.fill_diagonal(usable, False)
    weight = np.where(usable, pairs.common, 0)
    found = loadings(pairs.correlation, weight)
    variance = residual_variance(signs, counts, pairs, weight, found)[one, other]
    explained = found[one] * found[other]
    variance = max(variance, (1 - explained**2) / pairs.common[one, other])
    enough = ndtri(1 - FALSE_FINDS / 2) * np.sqrt(variance)
    # Where so few others are left that not even the excess found would show, nothing speaks against it.
    return bool(abs(beyond) < enough or abs(pairs.correlation[one, other] - explained) >= enough)


def _robust_loadings(pairs: PairMoments, usable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Loadings that no block of near copies has made its own: (m,), and (m, m) which pairs they leave unexplained."""
    noise = 2 / np.sqrt(np.maximum(pairs.common, 1))
    doubt = np.where(usable, np.minimum(np.abs(pairs.correlation), LARGEST), 0)  # as if all of it were dependence
    found: np.ndarray | None = None
    left = doubt
    for _ in range(_ROUNDS):
        trust = ((1 - doubt) / (1 + doubt)) ** _SUSPICION
        found = loadings(pairs.correlation, np.where(usable, pairs.common * _shares(doubt) * trust, 0), found)
        scale = np.sqrt(np.outer(1 - found**2, 1 - found**2))
        left = np.maximum(np.abs(pairs.correlation - np.outer(found, found)) - noise, 0) / scale
        left = np.where(usable, np.minimum(left, LARGEST), 0)
        moved = (doubt + left) / 2
        if np.abs(moved - doubt).max() < 1e-4:
            break
        doubt = moved
    assert found is not None
    return found, left > 0.05


def _shares(excess: np.ndarray) -> np.ndarray:
    """(m, m) how much a pair counts as two opinions, the product of its weights among all sources."""
    share = opinion_weights(excess, np.ones((1, len(excess)), dtype=bool))[0]
    return np.outer(share, share)


def _redundant(pairs: PairMoments, found: np.ndarray) -> np.ndarray:
    """(m, m) the partial correlation where it adds to what is explained, else 0: to err apart is no redundancy.

    It adds where it is positive once both sources are turned to agree with the class; and where both are positively
    correlated to begin with, since the loadings of sources that know little have no sign to speak of. It counts at most
    as the correlation itself, which it could only exceed for sources that know very different amounts.
    """
    explained = np.outer(found, found)
    left = pairs.correlation - explained
    partial = np.abs(left) / np.sqrt(np.outer(1 - found**2, 1 - found**2))
    adds = (left * np.sign(explained) > 0) | ((left > 0) & (pairs.correlation > 0))
    redundant = np.where(adds, np.minimum(np.minimum(partial, np.abs(pairs.correlation)), LARGEST), 0)
    np.fill_diagonal(redundant, 0)
    return redundant


def _chances(pairs: PairMoments, found: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which pairs can be tested, (m, m) bool; and for those above the diagonal, (t,), how likely chance gets as far."""
    from scipy.special import ndtr

    explained = np.outer(found, found)
    # The variance that is observed vanishes where two sources never differ; that of independent ones does not.
    variance = np.maximum(variance, (1 - explained**2) / np.maximum(pairs.common, 1))
    testable = (pairs.fewest_expected(explained) >= FEWEST_EXPECTED) & np.isfinite(variance)
    tests = np.triu(testable, 1)
    return testable, 2 * ndtr(-np.abs(pairs.correlation - explained)[tests] / np.sqrt(variance[tests]))


def _passing(chance: np.ndarray, level: float) -> np.ndarray:
    """(t,) which of t tests pass by R. J. Simes' rule: the k-th smallest of chances may be k / t times the level."""
    rank = np.arange(1, len(chance) + 1)
    within = np.flatnonzero(np.sort(chance) <= rank * level / len(chance))
    return chance <= np.sort(chance)[within[-1]] if len(within) else np.zeros(len(chance), dtype=bool)
