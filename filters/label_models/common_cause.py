"""How far one common cause, the class, explains the correlations of sources: a one-factor model of votes."""

from dataclasses import dataclass

import numpy as np

_LARGEST_LOADING = 0.99
_STEPS = 500
_CHUNK = 1 << 15


@dataclass(frozen=True)
class PairMoments:
    """What a pair of sources shows on the samples on which both vote.

    Attributes:
        common: (m, m) how many samples both vote on.
        correlation: (m, m) of their votes there, in [-1, 1]; 0 where one of them is constant. Unit diagonal.
        variance: (m, m) of that correlation, as an estimate from so many samples.
        skew: (m, m) entry i, j: the mean of i's votes where j votes too, in [-1, 1].
    """

    common: np.ndarray
    correlation: np.ndarray
    variance: np.ndarray
    skew: np.ndarray

    @classmethod
    def of(cls, votes: np.ndarray, counts: np.ndarray) -> "PairMoments":
        """Adds up; sums of whole numbers, so that no order of samples or sources changes a bit.

        Args:
            votes: (p patterns, m sources) -1, 0 or +1.
            counts: (p,) how many samples show each pattern.

        Returns:
            The moments.
        """
        m = votes.shape[1]
        common, sums, products = (np.zeros((m, m)) for _ in range(3))
        for start in range(0, len(votes), _CHUNK):
            signs = votes[start : start + _CHUNK].astype(np.float64)
            weighted, voting = signs * counts[start : start + _CHUNK, None], np.abs(signs)
            common += (voting * counts[start : start + _CHUNK, None]).T @ voting
            sums += weighted.T @ voting
            products += weighted.T @ signs
        rows = np.maximum(common, 1)
        skew = sums / rows
        spread = np.sqrt(np.maximum(1 - skew**2, 0))
        scale = spread * spread.T
        usable = scale > 0
        correlation = np.where(usable, (products / rows - skew * skew.T) / np.where(usable, scale, 1), 0)
        correlation = np.clip(correlation, -1, 1)
        variance = np.zeros((m, m))
        for mine in (-1, 1):
            for other in (-1, 1):  # the influence of a sample on a correlation, cell by cell of the pair's table
                share = (1 + mine * skew + other * skew.T + mine * other * products / rows) / 4
                one = (mine - skew) / np.where(usable, spread, 1)
                two = (other - skew.T) / np.where(usable, spread.T, 1)
                influence = one * two - correlation * (one**2 + two**2) / 2
                variance += share * influence**2
        variance = np.where(usable, variance / rows, np.inf)
        np.fill_diagonal(correlation, 1)
        return cls(common, correlation, variance, skew)

    def among(self, sources: np.ndarray) -> "PairMoments":
        """The moments of some sources only.

        Args:
            sources: (l,) positions.

        Returns:
            The (l, l) moments.
        """
        between = np.ix_(sources, sources)
        return PairMoments(self.common[between], self.correlation[between], self.variance[between], self.skew[between])

    def fewest_expected(self, explained: np.ndarray) -> np.ndarray:
        """The smallest cell of each pair's table of votes, if the pair had the correlation that is explained.

        Args:
            explained: (m, m) correlations.

        Returns:
            (m, m) samples, 0 or more.
        """
        spread = np.sqrt(np.maximum(1 - self.skew**2, 0))
        product = self.skew * self.skew.T + explained * spread * spread.T
        cells = [
            1 + mine * self.skew + other * self.skew.T + mine * other * product for mine in (-1, 1) for other in (-1, 1)
        ]
        fewest: np.ndarray = np.maximum(np.min(cells, axis=0), 0) * self.common / 4
        return fewest


def loadings(correlation: np.ndarray, weight: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """Fits correlation[i, j] = l[i] l[j] to all pairs by weighted least squares.

    Args:
        correlation: (m, m) of votes, in [-1, 1].
        weight: (m, m) 0 or more, symmetric; how much a pair counts. The diagonal does not.
        start: (m,) where to begin; None: at the first principal component.

    Returns:
        (m,) l, each source's correlation with the common cause, in [-0.99, 0.99]; 0 for a source without a pair. The
        sum is 0 or more, since the sign of all together is open.
    """
    if not len(weight):
        return np.zeros(0)
    weight = weight / max(weight.max(initial=0), 1e-300)
    np.fill_diagonal(weight, 0)
    target = weight * correlation
    if start is None:
        values, vectors = np.linalg.eigh(target)
        start = vectors[:, -1] * np.sqrt(max(values[-1], 0) / max(weight.sum() / len(weight), 1e-300))
    found: np.ndarray = np.clip(start, -_LARGEST_LOADING, _LARGEST_LOADING)
    for _ in range(_STEPS):
        pull = weight @ found**2
        best = np.where(pull > 1e-12, (target @ found) / np.maximum(pull, 1e-12), 0)
        best = np.clip(best, -_LARGEST_LOADING, _LARGEST_LOADING)
        moved = (found + best) / 2  # half the way: the other factor's scale overshoots as much
        if np.abs(moved - found).max(initial=0) < 1e-10:
            break
        found = moved
    return found if found.sum() >= 0 else -found


def residual_variance(
    votes: np.ndarray, counts: np.ndarray, pairs: PairMoments, weight: np.ndarray, found: np.ndarray
) -> np.ndarray:
    """The sampling variance of correlation[i, j] - l[i] l[j], with what the loadings owe to the same samples.

    By the delta method: the influence of a sample on the residual is that on the correlation less that on l[i] l[j],
    and the variance is the sum of its squares.

    Args:
        votes: (p patterns, m sources) -1, 0 or +1.
        counts: (p,) how many samples show each pattern.
        pairs: their moments.
        weight: (m, m) what `loadings` was given.
        found: (m,) what it returned.

    Returns:
        (m, m) variances, 0 or more; huge where the loadings are not determined.
    """
    m = votes.shape[1]
    weight = weight / max(weight.max(initial=0), 1e-300)
    np.fill_diagonal(weight, 0)
    slope = np.diag(weight @ found**2) + weight * np.outer(found, found)
    values, vectors = np.linalg.eigh(slope)
    values = np.maximum(values, max(values[-1] * 1e-10, 1e-100))
    inverse = (vectors / values) @ vectors.T
    share = weight * found / np.maximum(pairs.common, 1)  # (m, m): what pair i, j moves l[i] by, per sample
    tilt = share * pairs.correlation

    mean = np.diag(pairs.skew)
    spread = np.sqrt(np.maximum(1 - mean**2, 1e-12))
    own, cross = np.zeros((m, m)), np.zeros((m, m))
    for start in range(0, len(votes), _CHUNK):
        signs = votes[start : start + _CHUNK]
        count = counts[start : start + _CHUNK, None].astype(np.float64)
        voting = (signs != 0).astype(np.float64)
        z = (signs - mean) / spread * voting
        square = z**2
        pull = z * (z @ share.T) - (square * (voting @ tilt.T) + voting * (square @ tilt.T)) / 2
        moved = pull @ inverse  # (rows, m) the influence on the loadings
        weighted = moved * count
        own += weighted.T @ moved
        # cross[i, j]: the covariance of correlation[i, j] with l[j]
        middle = square.T @ (voting * weighted) + voting.T @ (square * weighted)
        cross += (z.T @ (z * weighted) - pairs.correlation * middle / 2) / np.maximum(pairs.common, 1)
    variance = np.diag(own)
    explained = np.outer(found**2, variance) + np.outer(variance, found**2) + 2 * np.outer(found, found) * own
    # r[i, j] with l[i] l[j]: l[i] cov(r, l[j]) + l[j] cov(r, l[i])
    mixed = found[:, None] * cross + (found[:, None] * cross).T
    residual: np.ndarray = np.maximum(pairs.variance + explained - 2 * mixed, 0)
    return residual
