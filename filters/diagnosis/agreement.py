"""How far two filters agree beyond what their shares of keep and drop votes would give by chance."""

from dataclasses import dataclass

import numpy as np

FEWEST_EXPECTED = 5.0
"""Samples that every cell of a pair's 2 x 2 table has to expect by chance before anything is concluded from it."""

BEYOND_CHANCE = 4.0
"""Standard errors: of 50 filters, 1,225 pairs, that agree by chance alone, a pair is found once in thirteen times."""

_CHUNK = 1 << 15


@dataclass(frozen=True)
class Agreement:
    """What pairs of filters show on the samples on which both vote.

    Attributes:
        common: (m, m) int64 how many samples both vote on.
        kappa: (m, m) Cohen's kappa, in [-1, 1]: 0 is what chance gives, 1 is never apart; NaN where a filter of the
            pair votes the same throughout. Unit diagonal.
        correlation: (m, m) of votes, in [-1, 1]; NaN likewise. It has the sign of kappa.
        testable: (m, m) bool, whether chance would leave at least 5 samples in each cell.
    """

    common: np.ndarray
    kappa: np.ndarray
    correlation: np.ndarray
    testable: np.ndarray

    @classmethod
    def of(cls, patterns: np.ndarray, counts: np.ndarray) -> "Agreement":
        """Counts pairs of votes.

        Args:
            patterns: (p patterns, m filters) int8 votes; a row may come more than once.
            counts: (p,) how many samples show each.

        Returns:
            The agreement of all pairs; sums of whole numbers, so that it does not depend on the order of patterns.

        Source: J. Cohen (1960), A coefficient of agreement for nominal scales.
        """
        m = patterns.shape[1]
        both_keep, both_drop, keep_drop = (np.zeros((m, m)) for _ in range(3))
        for start in range(0, len(patterns), _CHUNK):
            votes, count = patterns[start : start + _CHUNK], counts[start : start + _CHUNK, None]
            keeps, drops = (votes == 1).astype(np.float64), (votes == -1).astype(np.float64)
            both_keep += (keeps * count).T @ keeps
            both_drop += (drops * count).T @ drops
            keep_drop += (keeps * count).T @ drops
        return cls._of_tables(both_keep, both_drop, keep_drop, keep_drop.T)

    @classmethod
    def _of_tables(
        cls, both_keep: np.ndarray, both_drop: np.ndarray, keep_drop: np.ndarray, drop_keep: np.ndarray
    ) -> "Agreement":
        """The agreement of 2 x 2 tables, all of one shape, each cell in samples."""
        common = both_keep + both_drop + keep_drop + drop_keep
        mine, other = both_keep + keep_drop, both_keep + drop_keep  # keep votes of each
        rows = np.maximum(common, 1)
        cells = [a * b / rows for a in (mine, common - mine) for b in (other, common - other)]
        by_chance = (cells[0] + cells[3]) / rows
        spread = np.sqrt(mine / rows * (1 - mine / rows)) * np.sqrt(other / rows * (1 - other / rows))
        varies = spread > 0
        product = (both_keep * both_drop - keep_drop * drop_keep) / rows**2
        correlation = np.where(varies, product / np.where(varies, spread, 1), np.nan)
        kappa = np.where(varies, 2 * product / np.where(varies, 1 - by_chance, 1), np.nan)
        testable = np.min(cells, axis=0) >= FEWEST_EXPECTED
        return cls(common.astype(np.int64), np.clip(kappa, -1, 1), np.clip(correlation, -1, 1), testable)

    def related(self, least: float) -> np.ndarray:
        """Which pairs are correlated beyond chance, and by how much.

        Args:
            least: below this size in [0, 1] a correlation does not matter, however sure it is.

        Returns:
            (m, m) correlations, 0 where they are no more than chance; zero diagonal.
        """
        size = np.nan_to_num(np.abs(self.correlation))
        sure = self.testable & (size >= least) & (size * np.sqrt(self.common) >= BEYOND_CHANCE)
        found = np.where(sure, np.nan_to_num(self.correlation), 0.0)
        np.fill_diagonal(found, 0.0)
        return found


def agree_with_peers(patterns: np.ndarray, counts: np.ndarray) -> Agreement:
    """How each filter agrees with the majority of the others, where it votes and they are not at a draw.

    Args:
        patterns: (p patterns, m filters) int8 votes.
        counts: (p,) how many samples show each.

    Returns:
        An agreement of shape (m,): one pair for each filter, itself and its peers.
    """
    total = patterns.sum(axis=1, dtype=np.int64)
    tables = np.zeros((4, patterns.shape[1]))
    for index, own in enumerate(patterns.T):
        others = np.sign(total - own)
        for cell, (mine, theirs) in enumerate(((1, 1), (-1, -1), (1, -1), (-1, 1))):
            tables[cell, index] = counts[(own == mine) & (others == theirs)].sum()
    return Agreement._of_tables(*tables)
