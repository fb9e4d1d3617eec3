"""Sources that are one opinion counted several times: which they are, and how much each of them counts."""

import numpy as np

from chaffinch.filters.label_models.common_cause import PairMoments, loadings, residual_variance
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

FEWEST_OPINIONS = 2.0
"""Opinions that a sample has to have on average, echoes discounted, if they are to be discounted. With fewer there is
mostly one opinion that many voice, and next to nobody to confirm or contradict it: what its voices are worth would be
learned from the few samples on which others speak."""

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
    excess[between], tested[between] = np.where(shown, redundant, 0), testable
    return excess, tested


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


def opinion_weights(correlation: np.ndarray, voting: np.ndarray) -> np.ndarray:
    """How much each source counts beside the others that vote, so that an opinion counts once, however many voice it.

    Sources are joined into a tree by average linkage of their excess correlation. Going up, two branches that count a
    and b by themselves, and are joined at correlation h, count

        (a + b - 2 h a b) / (1 - h^2 a b)

    together: one over the variance of the best mean of two estimates with variances 1 / a and 1 / b and covariance h.
    What is below shares as in that mean: by factors (1 - h b) / (1 - h^2 a b) for the branch that counted a, and
    (1 - h a) / (1 - h^2 a b) for the other. So c sources with excess h between any two of them count
    c / (1 + (c - 1) h) in whatever order they are joined; two count 2 / (1 + h), c copies count 1, and one that is
    loosely tied to ten copies is hardly touched. A branch in which nobody votes counts 0, and changes nothing.

    Args:
        correlation: (m, m) excess correlation, symmetric, in [0, 1]; see `excess_correlation`.
        voting: (p patterns, m sources) bool, where each source votes.

    Returns:
        (p, m) float64 in (0, 1], and 0 where a source abstains; 1 for sources without excess correlation. Their sum,
        where all vote, is the effective number of sources. A row depends on no other row.
    """
    weight = voting.astype(np.float64)
    linked = np.flatnonzero(((correlation > 0) & ~np.eye(len(correlation), dtype=bool)).any(axis=1))
    if not len(linked):
        return weight
    from scipy.cluster.hierarchy import linkage

    upper = np.triu_indices(len(linked), 1)
    merges = linkage(1.0 - correlation[np.ix_(linked, linked)][upper], method="average")
    branches: list[list[int]] = [[int(source)] for source in linked]
    sizes = [weight[:, source].copy() for source in linked]
    for one, two, distance, _ in merges:
        h = min(1.0 - distance, 1 - 1e-5)  # of copies: at 1 the formula reads 0 / 0, and near 1 it rounds to noise
        if h <= 1e-9:  # from here on branches are independent
            break
        left, right = int(one), int(two)
        a, b = sizes[left], sizes[right]
        rest = 1.0 - h * h * a * b
        left_share, right_share = (1.0 - h * b) / rest, (1.0 - h * a) / rest
        weight[:, branches[left]] *= left_share[:, None]
        weight[:, branches[right]] *= right_share[:, None]
        branches.append(branches[left] + branches[right])
        sizes.append(a * left_share + b * right_share)
    return weight


def opinions_a_sample(correlation: np.ndarray, patterns: np.ndarray, counts: np.ndarray) -> float:
    """How many opinions there are on a sample, in the mean over those on which any source votes.

    Args:
        correlation: (m, m) excess correlation.
        patterns: (p patterns, m sources) votes, 0 for abstains.
        counts: (p,) how many samples show each.

    Returns:
        1 or more; infinite where nothing is correlated or nobody votes.
    """
    voting = patterns != 0
    if np.count_nonzero(correlation) == len(correlation) or not voting.any():
        return np.inf
    weights = opinion_weights(correlation, voting).sum(axis=1)
    return float((weights * counts).sum() / counts[voting.any(axis=1)].sum())


def worth_discounting(correlation: np.ndarray, patterns: np.ndarray, counts: np.ndarray) -> bool:
    """Whether echoes are to be discounted: a sample has `FEWEST_OPINIONS` on average, once they are.

    Args:
        correlation: (m, m) excess correlation.
        patterns: (p patterns, m sources) votes, 0 for abstains.
        counts: (p,) how many samples show each.
    """
    return opinions_a_sample(correlation, patterns, counts) >= FEWEST_OPINIONS
