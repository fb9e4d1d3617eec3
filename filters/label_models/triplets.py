"""How well each source tells the classes apart, from correlations of three sources at a time."""

import numpy as np

FEWEST_TOGETHER = 10
"""Samples that two sources have to share before their correlation is looked at."""

LARGEST_LOADING = float(np.sqrt(2 / np.pi))
"""0.80: the correlation of a normal variable with its sign. No soft vote has more with a class, for it is normal over
the pool; estimates beyond come from sources that are one opinion, or from chance."""

_MOST_ROUNDS = 20
_EXCESS = 0.1


def triplet_loadings(correlation: np.ndarray, common: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlations of sources with the class, from r_ij r_ik / r_jk: the weighted median over triplets.

    If one class explains all correlations, every triplet of i with j and k gives the same square of i's loading.
    Triplets disagree where some sources are one opinion, and a block of ten near copies is in most of them. So the more
    a pair correlates, the less its triplets count, by ((1 - |r|) / (1 + |r|))^2 per pair, and a source that many others
    resemble counts as a share of one. From there, pairs that correlate by more than their loadings explain (partial
    correlation above 0.1 and four standard errors) are left out of the triplets, again and again until the pairs stay
    the same. Denominators within two standard errors of 0, or below 0.02, are dropped.

    Args:
        correlation: (m, m) symmetric, inside (-1, 1) off the diagonal.
        common: (m, m) how many samples each is of; below `FEWEST_TOGETHER` a correlation is not looked at.

    Returns:
        (m,) loadings in [-0.8, 0.8], 0 where no triplet tells; most are positive. And (m,) bool, where one tells.

    Source: D. Fu et al. (2020), Fast and Three-rious: Speeding Up Weak Supervision with Triplet Methods,
        arXiv 2002.11955, for hard votes; C. Shin et al. (2022), arXiv 2112.03865, for any.
    """
    m = len(correlation)
    apart = ~np.eye(m, dtype=bool)
    seen = (common >= FEWEST_TOGETHER) & apart
    noise = 1 / np.sqrt(np.maximum(common, 1))
    sound = seen & (np.abs(correlation) > np.maximum(0.02, 2 * noise))
    size = np.where(seen, np.abs(correlation), 0.0)
    share = 1 / (1 + (size**2).sum(axis=1))
    sign = _signs(np.where(seen, correlation, 0.0))
    trust = np.where(seen, ((1 - size) / (1 + size)) ** 2, 0.0)
    squares, known = _medians(correlation, trust, share, sound)
    linked = np.zeros((m, m), bool)
    for _ in range(_MOST_ROUNDS):
        loading = sign * np.sqrt(np.clip(squares, 0, LARGEST_LOADING**2))
        spread = np.sqrt(1 - loading**2)
        partial = np.abs(correlation - np.outer(loading, loading)) / np.outer(spread, spread)
        now = seen & (partial > np.maximum(_EXCESS, 4 * noise))
        if (now == linked).all():
            break
        linked = now
        free, told = _medians(correlation, np.where(linked, 0.0, trust), 1 / (1 + linked.sum(axis=1)), sound)
        squares = np.where(told, free, squares)
    return np.where(known, loading, 0.0), known


def _medians(
    correlation: np.ndarray, trust: np.ndarray, share: np.ndarray, sound: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(m,) the weighted median of r_ij r_ik / r_jk over pairs j < k, and (m,) whether there is any."""
    m = len(correlation)
    above = np.triu(sound, 1)
    denominator = np.where(above, correlation, 1.0)
    found, told = np.zeros(m), np.zeros(m, bool)
    for i in range(m):
        weight = np.where(above, trust, 0.0) * np.outer(trust[i] * share, trust[i] * share)
        chosen = weight > 0
        if chosen.any():
            values = (np.outer(correlation[i], correlation[i]) / denominator)[chosen]
            found[i], told[i] = weighted_median(values, weight[chosen]), True
    return found, told


def weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    """The value below which half of the weight lies; between two values where that is so of both.

    Args:
        values: (v,) numbers, at least one.
        weights: (v,) above 0.
    """
    order = np.lexsort((weights, values))
    values, below = values[order], np.cumsum(weights[order])
    half = below[-1] / 2
    place = int(np.searchsorted(below, half * (1 - 1e-12)))
    if below[place] <= half * (1 + 1e-12) and place + 1 < len(values):
        return float((values[place] + values[place + 1]) / 2)
    return float(values[place])


def _signs(correlation: np.ndarray) -> np.ndarray:
    """(m,) -1 or +1: sources of one sign correlate, and most are positive."""
    np.fill_diagonal(correlation, 0.0)
    first = np.linalg.eigh(correlation)[1][:, -1]
    sign = np.where(first < 0, -1.0, 1.0)
    lean = sign.sum() or (first.sum() if abs(first.sum()) > 1e-9 else sign[0])
    return sign if lean > 0 else -sign
