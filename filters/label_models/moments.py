"""What pairs of sources vote together, added up once."""

from dataclasses import dataclass

import numpy as np

_CHUNK = 1 << 14


@dataclass(frozen=True)
class PairCounts:
    """How often two sources vote what, together.

    Attributes:
        samples: n, how many samples there are.
        cells: (m, k, m, k) entry i, v, j, w: samples on which i votes for class v and j for class w; i = j: votes for v
            on the diagonal, 0 beside it.
        together: (m, m) samples on which both vote; the diagonal: on which the source votes.
    """

    samples: float
    cells: np.ndarray
    together: np.ndarray

    @classmethod
    def of(cls, voted: np.ndarray, counts: np.ndarray, classes: int) -> "PairCounts":
        """Adds up, as a product of matrices of whole numbers, exact below 2^53 samples in whatever order.

        Args:
            voted: (p patterns, m sources) class voted for, k for abstains.
            counts: (p,) how many samples show each pattern.
            classes: k.

        Returns:
            The counts.
        """
        m = voted.shape[1]
        cells = np.zeros((m * classes, m * classes))
        for start in range(0, len(voted), _CHUNK):
            part = voted[start : start + _CHUNK]
            shown = (part[:, :, None] == np.arange(classes)).reshape(len(part), -1).astype(np.float64)
            cells += (shown * counts[start : start + _CHUNK, None]).T @ shown
        cells = cells.reshape(m, classes, m, classes)
        return cls(float(counts.sum()), cells, cells.sum(axis=(1, 3)))

    @property
    def votes(self) -> np.ndarray:
        """(m, k) how often each source votes for each class."""
        found: np.ndarray = np.einsum("jvjv->jv", self.cells)
        return found

    def agreement(self) -> np.ndarray:
        """How far pairs agree beyond chance where both vote.

        With two classes it is E[l_i l_j] of votes -1 and +1. With k it is (k s - 1) / (k - 1) for a share s of equal
        votes: if sources are right with probability a, whatever the class, and err evenly, it is b_i b_j with
        b = (k a - 1) / (k - 1).

        Returns:
            (m, m) in [-1 / (k - 1), 1]; 0 where two never vote together.
        """
        k = self.cells.shape[1]
        same = np.einsum("ivjv->ij", self.cells)
        share = same / np.maximum(self.together, 1)
        return np.where(self.together > 0, (k * share - 1) / (k - 1), 0.0)

    def correlation(self) -> np.ndarray:
        """The correlation of votes where both vote, for two classes.

        Returns:
            (m, m) in [-1, 1]; 0 where two never vote together or one of them is constant there.
        """
        rows = np.maximum(self.together, 1)
        both = self.cells[:, 1, :, 1] / rows
        mine = self.cells[:, 1].sum(axis=2) / rows  # (m, m) share of keep votes of i where j votes too
        spread = np.sqrt(mine * (1 - mine))
        scale = spread * spread.T
        usable = scale > 0
        return np.where(usable, np.clip((both - mine * mine.T) / np.where(usable, scale, 1.0), -1, 1), 0.0)


def majority_shares(voted: np.ndarray, counts: np.ndarray, shares: np.ndarray | None, classes: int) -> np.ndarray:
    """The share of samples on which each class has the majority; a guess at the class prior that needs no model.

    Ties are split. With few or weak sources it lies between the truth and equal shares.

    Args:
        voted: (p patterns, m sources) class voted for, k for abstains.
        counts: (p,) how many samples show each pattern.
        shares: (p, m) how much each source counts; None: 1.
        classes: k.

    Returns:
        (k,) above 0, summing to 1: one pseudo-sample per class is added.
    """
    count = np.ones(voted.shape) if shares is None else shares
    ballots = np.stack([((voted == number) * count).sum(axis=1) for number in range(classes)], axis=1)
    most = ballots.max(axis=1, keepdims=True)
    won = (ballots >= most - 1e-9) & (most > 0)
    mass = (counts[:, None] * won / np.maximum(won.sum(axis=1, keepdims=True), 1)).sum(axis=0) + 1.0
    found: np.ndarray = mass / mass.sum()
    return found


def enough_peers(usable: np.ndarray, linked: np.ndarray) -> np.ndarray:
    """Pairs to learn from: those that are not linked; all usable ones of a source that this leaves fewer than two.

    Args:
        usable: (m, m) bool, pairs that vote together.
        linked: (m, m) bool, pairs that are dependent given the class.

    Returns:
        (m, m) bool, symmetric.
    """
    free = usable & ~linked
    short = free.sum(axis=1) < 2
    pairs: np.ndarray = free | (usable & (short[:, None] | short))
    return pairs
