"""What each filter contributes, counted: how often it votes, with and against others, and what only it drops."""

import numpy as np


def count_contributions(patterns: np.ndarray, counts: np.ndarray) -> list[dict[str, float]]:
    """What each filter contributes, from counted votes.

    Args:
        patterns: (p patterns, m filters) int8 votes of all filters, vetoes included.
        counts: (p,) how many samples show each.

    Returns:
        For each filter, as shares of the samples in [0, 1]: keep, drop and coverage (it votes), overlap (it and
        another vote), conflict (another votes the opposite); and only_drop, how many samples it alone votes to drop.
    """
    total = max(int(counts.sum()), 1)
    keeps, drops = (patterns == 1).sum(axis=1), (patterns == -1).sum(axis=1)
    found = []
    for column in patterns.T:
        keep, drop = column == 1, column == -1
        covered = keep | drop
        opposed = (keep & (drops > 0)) | (drop & (keeps > 0))
        found.append(
            {
                "keep": int(counts[keep].sum()) / total,
                "drop": int(counts[drop].sum()) / total,
                "coverage": int(counts[covered].sum()) / total,
                "overlap": int(counts[covered & (keeps + drops > 1)].sum()) / total,
                "conflict": int(counts[opposed].sum()) / total,
                "only_drop": int(counts[drop & (drops == 1)].sum()),
            }
        )
    return found
