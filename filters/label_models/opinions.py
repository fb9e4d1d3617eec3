"""How much sources count that are one opinion voiced several times."""

import numpy as np

FEWEST_OPINIONS = 2.0
"""Opinions that a sample has to have on average, echoes discounted, if they are to be discounted. With fewer there is
mostly one opinion that many voice, and next to nobody to confirm or contradict it: what its voices are worth would be
learned from the few samples on which others speak."""


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
