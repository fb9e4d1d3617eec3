"""Interpolated modified Kneser-Ney n-gram models over whole numbers, in numpy; several models side by side in one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

BEGIN, END, FIRST = 0, 1, 2
"""The symbols before and after every sequence, and the least of a sequence's own."""
UNSEEN = 2**32 - 1
"""A symbol that no model knows; all others are less."""

_SHIFT = np.int64(32)
_FALLBACK = (0.0, 0.5, 1.0, 1.5)  # by how much counts of 0, 1, 2, and 3 or more are discounted


@dataclass(frozen=True)
class Sequences:
    """Sequences of symbols, one after the other, each between BEGIN and END.

    Attributes:
        symbols: (t,) int64.
        positions: (t,) int64, 0 at every BEGIN, 1 at the first symbol of a sequence, ...
        roots: (t,) int64, which model each is for, from 0.
        owners: (t,) int64, the number of the sequence.
    """

    symbols: np.ndarray
    positions: np.ndarray
    roots: np.ndarray
    owners: np.ndarray

    @classmethod
    def of(cls, symbols: np.ndarray, lengths: Sequence[int] | np.ndarray, roots: np.ndarray) -> "Sequences":
        """Puts boundaries around sequences.

        Args:
            symbols: (sum of lengths,) whole numbers of FIRST and above.
            lengths: (n,) symbols of each of n sequences.
            roots: (n,) the model of each.
        """
        sizes = np.asarray(lengths, np.int64) + 2
        starts = np.cumsum(sizes) - sizes
        owners = np.repeat(np.arange(len(sizes)), sizes)
        positions = np.arange(len(owners)) - starts[owners]
        inner = (positions > 0) & (positions < sizes[owners] - 1)
        bounded = np.where(positions == 0, BEGIN, END)
        bounded[inner] = symbols
        return cls(bounded, positions, np.asarray(roots, np.int64)[owners], owners)


@dataclass(frozen=True)
class _Table:
    """All n-grams of one length; an n-gram is known by its place here.

    Attributes:
        keys: (k,) int64, sorted: the place of the n-gram without its last symbol among those one shorter, or the root
            for single symbols, and the last symbol in the lower 32 bits.
        shares: (k,) float64, discounted share of the last symbol after the others; for single symbols P itself.
        weights: (k,) float64, how much an n-gram leaves to shorter ones when it is what went before; 1 where nothing
            ever followed it.
    """

    keys: np.ndarray
    shares: np.ndarray
    weights: np.ndarray

    def find(self, contexts: np.ndarray, symbols: np.ndarray) -> np.ndarray:
        """(t,) places of n-grams; -1 where there are none, or no context."""
        if not len(self.keys):
            return np.full(len(symbols), -1)
        keys = (contexts << _SHIFT) | symbols
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where((self.keys[places] == keys) & (contexts >= 0), places, -1)


@dataclass(frozen=True)
class NGrams:
    r"""Models of sequences, one per root, that share tables.

    P_n(w | u_1 .. u_{n-1}) = max(c - D(c), 0) / sum_x c(u x) + g(u) P_{n-1}(w | u_2 .. u_{n-1})

    c is how often the n-gram u w was seen where n is the order, and of shorter ones how many different symbols were
    seen before it (or how often, where it begins with BEGIN, which nothing precedes). D(c) takes D_1, D_2 or D_3 from
    counts of 1, 2, and 3 or more: with n_j the n-grams of count j and Y = n_1 / (n_1 + 2 n_2), per root and length,

    D_1 = 1 - 2 Y n_2 / n_1,  D_2 = 2 - 3 Y n_3 / n_2,  D_3 = 3 - 4 Y n_4 / n_3,

    or 0.5, 1 and 1.5 where too little was seen for that (an n_j of 0, or a D_j outside (0, j)). What was taken away
    goes to g(u) = (D_1 N_1(u) + D_2 N_2(u) + D_3 N_3(u)) / sum_x c(u x), N_j(u) being the symbols that followed u with
    a count of j (3: or more). After a u that was never seen, P_n is P_{n-1}. P_0 is not uniform, as in the paper, but
    given: so the vocabulary is open, and P sums to 1 over all symbols, those never seen among them, where P_0 does.

    Source: Chen and Goodman 1999, "An empirical study of smoothing techniques for language modeling", Computer Speech &
        Language 13; counts at boundaries as in Heafield et al. 2013, "Scalable Modified Kneser-Ney Language Model
        Estimation", ACL.

    Attributes:
        tables: per length from 1 up to the order.
        roots: (r,) float64, what each root leaves to P_0.
    """

    tables: tuple[_Table, ...]
    roots: np.ndarray

    def unigrams(self) -> tuple[np.ndarray, np.ndarray]:
        """The root and the symbol of each of the k single symbols that were seen, BEGIN left out: (k,) int64 each."""
        keys = self.tables[0].keys
        roots, symbols = keys >> _SHIFT, keys & UNSEEN
        return roots[symbols != BEGIN], symbols[symbols != BEGIN]

    def over(self, floors: np.ndarray) -> "NGrams":
        """Puts P_0 under what was counted.

        Args:
            floors: (k,) log2 P_0 of each of `unigrams`.

        Returns:
            The models, ready to be asked.
        """
        seen, shares = (self.tables[0].keys & UNSEEN) != BEGIN, self.tables[0].shares.copy()
        shares[seen] += self.roots[self.unigrams()[0]] * np.exp2(floors)
        return replace(self, tables=(replace(self.tables[0], shares=shares), *self.tables[1:]))

    def log2(self, sequences: Sequences) -> tuple[np.ndarray, np.ndarray]:
        """Scores sequences; takes time and memory in proportion to their length.

        Args:
            sequences: t symbols in all.

        Returns:
            (t,) float64, log2 P of each symbol after those before it, 0 at BEGIN, to which log2 P_0 is still to be
            added where the symbol is unknown; (t,) bool, whether it is known.
        """
        contexts = sequences.roots
        probabilities, known = self.roots[contexts], np.zeros(len(contexts), bool)
        weights = self.roots
        for length, table in enumerate(self.tables, start=1):
            places = table.find(contexts, sequences.symbols)
            found, preceded = places >= 0, contexts >= 0
            shares = np.zeros(len(places))
            shares[found] = table.shares[places[found]]
            if length == 1:
                known = found
                probabilities = np.where(found, shares, probabilities)
            else:
                left = np.ones(len(places))
                left[preceded] = weights[contexts[preceded]]
                probabilities = shares + left * probabilities
            contexts, weights = _shifted(places, sequences.positions, length + 1), table.weights
        probabilities[sequences.positions == 0] = 1
        return np.log2(probabilities), known


def fit(sequences: Sequences, order: int, roots: int) -> NGrams:
    """Counts n-grams and smooths them.

    Args:
        sequences: t symbols in all.
        order: length of the longest n-grams, 1 or more.
        roots: how many models there are; one without sequences is P_0.

    Returns:
        The models, which need `over`.
    """
    levels: list[_Level] = []
    places = sequences.roots
    for length in range(1, order + 1):
        contexts = sequences.roots if length == 1 else _shifted(places, sequences.positions, length)
        level, here = _count(sequences, contexts, length, levels[-1].roots if levels else np.arange(roots))
        if levels:
            # Of shorter n-grams count what was seen before them: each different one is an n-gram of this length.
            shorter = levels[-1]
            before = np.bincount(places[level.firsts], minlength=len(shorter.keys))
            levels[-1] = replace(shorter, counts=np.where(shorter.begins, shorter.counts, before))
        levels.append(level)
        places = here
    # BEGIN alone is given, not predicted.
    levels[0] = replace(levels[0], counts=np.where(levels[0].begins, 0, levels[0].counts))
    weights = [np.ones(roots), *(np.ones(len(level.keys)) for level in levels)]
    shares = []
    for index, level in enumerate(levels):
        share, weights[index] = _smooth(level, roots, len(weights[index]))
        shares.append(share)
    keys = [level.keys for level in levels]
    return NGrams(tuple(map(_Table, keys, shares, weights[1:])), weights[0])


@dataclass(frozen=True)
class _Level:
    """The k different n-grams of one length, before smoothing.

    Attributes:
        keys: (k,) as in a table.
        counts: (k,) int64, c.
        firsts: (k,) where in the sequences the last symbol of each stands first.
        begins: (k,) bool, whether it begins with BEGIN.
        roots: (k,) whose it is.
    """

    keys: np.ndarray
    counts: np.ndarray
    firsts: np.ndarray
    begins: np.ndarray
    roots: np.ndarray

    @property
    def contexts(self) -> np.ndarray:
        """(k,) place of each n-gram without its last symbol, one level below."""
        return self.keys >> _SHIFT


def _shifted(places: np.ndarray, positions: np.ndarray, length: int) -> np.ndarray:
    """(t,) the place of what stands before each symbol, of which there must be enough; -1 where it has none."""
    before = np.full(len(places), -1, np.int64)
    before[1:] = places[:-1]
    before[positions < length - 1] = -1
    return before


def _count(sequences: Sequences, contexts: np.ndarray, length: int, roots: np.ndarray) -> tuple[_Level, np.ndarray]:
    """The different n-grams of one length, and (t,) the place of the one that ends at each symbol, or -1."""
    whole = np.flatnonzero(contexts >= 0)
    keys, firsts, inverse, counts = np.unique(
        (contexts[whole] << _SHIFT) | sequences.symbols[whole],
        return_index=True,
        return_inverse=True,
        return_counts=True,
    )
    places = np.full(len(contexts), -1, np.int64)
    places[whole] = inverse
    firsts = whole[firsts]
    begins = sequences.positions[firsts] == length - 1
    return _Level(keys, counts, firsts, begins, roots[keys >> _SHIFT]), places


def _smooth(level: _Level, roots: int, parents: int) -> tuple[np.ndarray, np.ndarray]:
    """(k,) discounted shares, and (parents,) what each context leaves to shorter ones."""
    groups = np.minimum(level.counts, 3)
    discounts = _discounts(level, roots)[level.roots, groups]  # (k,)
    totals = np.bincount(level.contexts, weights=level.counts, minlength=parents)
    taken = np.bincount(level.contexts, weights=discounts, minlength=parents)
    left = np.divide(taken, totals, out=np.ones(parents), where=totals > 0)
    return (level.counts - discounts) / np.maximum(totals, 1)[level.contexts], left


def _discounts(level: _Level, roots: int) -> np.ndarray:
    """(r, 4) what is taken from counts of 0, 1, 2, and 3 or more."""
    counts = np.bincount(level.roots * 6 + np.minimum(level.counts, 5), minlength=roots * 6).reshape(roots, 6)
    discounts = np.tile(np.array(_FALLBACK), (roots, 1))
    for root, (_, one, two, three, four, _) in enumerate(counts.tolist()):
        if one and two and three:
            ratio = one / (one + 2 * two)
            found = [1 - 2 * ratio * two / one, 2 - 3 * ratio * three / two, 3 - 4 * ratio * four / three]
            if four and all(0 < amount < most for most, amount in enumerate(found, start=1)):
                discounts[root, 1:] = found
    return discounts
