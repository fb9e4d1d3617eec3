"""Votes as label models need them: checked, counted by pattern, and as class numbers."""

from dataclasses import dataclass

import numpy as np

_MOST_BINS = 1 << 24


def as_votes(votes: np.ndarray) -> np.ndarray:
    """Checks that votes are a matrix of small whole numbers.

    Args:
        votes: (n samples, m sources) integers, or floats that hold whole numbers.

    Returns:
        (n samples, m sources) int8, contiguous.

    Raises:
        ValueError: votes is not two-dimensional, or holds NaN, fractions, true and false, text, or numbers that no vote
            can have.
    """
    votes = np.asarray(votes)
    if votes.ndim != 2:
        raise ValueError(f"votes must be (n samples, m sources), not of shape {votes.shape}")
    if votes.dtype != np.int8:
        whole = votes.dtype.kind in "iuf"
        if whole:
            with np.errstate(invalid="ignore"):
                narrow = votes.astype(np.int8)
            whole = np.array_equal(narrow, votes)
        if not whole:
            raise ValueError(
                "votes must be whole numbers: -1 drop, 0 abstain, +1 keep, or 1..k with classes=k; "
                "give 0 where a source cannot judge (NaN and None are no votes, but in a table they are abstains), and "
                f"+1 and -1 for true and false; these are {votes.dtype}"
            )
        votes = narrow
    return np.ascontiguousarray(votes)


def as_digits(votes: np.ndarray, low: int, base: int, dtype: np.dtype) -> np.ndarray:
    """Reads each row of votes as one number, the first vote its highest digit.

    Args:
        votes: (n samples, m sources) int8.
        low: the vote that is the digit 0.
        base: how many digits there are; base to the m-th has to fit into `dtype`.
        dtype: of the numbers.

    Returns:
        (n,) numbers, equal where rows are equal and ordered as they are.
    """
    codes = np.zeros(len(votes), dtype)
    for column in votes.T:
        codes *= dtype.type(base)
        codes += (column.astype(np.int16) - np.int16(low)).astype(dtype)
    return codes


def count_patterns(votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts how often each row of votes occurs; all that a label model needs to know of n samples.

    Args:
        votes: (n samples, m sources) integers.

    Returns:
        (p patterns, m sources) the distinct rows in lexicographic order, and (p,) int64 how often each occurs.

    Raises:
        ValueError: votes is not two-dimensional or holds something that is no vote.
    """
    votes = as_votes(votes)
    shown = _distinct_codes(votes)
    if shown is not None:
        return shown.patterns(), shown.counts
    patterns, counts = np.unique(votes, axis=0, return_counts=True)
    return patterns, counts.astype(np.int64)


def distinct_patterns(votes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds the distinct rows of votes, and where each row went.

    Args:
        votes: (n samples, m sources) integers.

    Returns:
        (p patterns, m sources) int8 the distinct rows in lexicographic order, (n,) the pattern of each sample, and
        (p,) int64 how often each pattern occurs.

    Raises:
        ValueError: votes is not two-dimensional or holds something that is no vote.
    """
    votes = as_votes(votes)
    shown = _distinct_codes(votes)
    if shown is not None:
        return shown.patterns(), shown.places(), shown.counts
    patterns, inverse, counts = np.unique(votes, axis=0, return_inverse=True, return_counts=True)
    return patterns, inverse.reshape(-1), counts.astype(np.int64)


@dataclass(frozen=True)
class _Codes:
    """Rows of votes as numbers, and the distinct ones among them, ascending, with their counts.

    Where there are not many more numbers than rows each has a bin, which is far quicker than sorting.
    """

    rows: np.ndarray
    distinct: np.ndarray
    counts: np.ndarray
    low: int
    base: int
    sources: int
    binned: bool

    def patterns(self) -> np.ndarray:
        """(p patterns, m sources) int8."""
        found = np.empty((len(self.distinct), self.sources), np.int8)
        rest = self.distinct
        for source in reversed(range(self.sources)):
            rest, digit = np.divmod(rest, self.base)
            found[:, source] = digit + self.low
        return found

    def places(self) -> np.ndarray:
        """(n,) intp the pattern of each row."""
        if not self.binned:
            return np.searchsorted(self.distinct, self.rows)
        place = np.zeros(int(self.distinct[-1]) + 1 if len(self.distinct) else 0, np.intp)
        place[self.distinct] = np.arange(len(self.distinct))
        places: np.ndarray = place[self.rows]
        return places


def _distinct_codes(votes: np.ndarray) -> _Codes | None:
    """None where so many sources do not fit into 63 bits."""
    low, high = int(votes.min(initial=0)), int(votes.max(initial=0))
    base, sources = high - low + 1, votes.shape[1]
    if base**sources >= 2**63:
        return None
    rows = as_digits(votes, low, base, np.dtype(np.int64))
    binned = base**sources <= min(max(4 * len(rows), 1024), _MOST_BINS)
    if binned:
        bins = np.bincount(rows)
        distinct = np.flatnonzero(bins)
        counts = bins[distinct]
    else:
        distinct, counts = np.unique(rows, return_counts=True)
    return _Codes(rows, distinct, counts.astype(np.int64), low, base, sources, binned)


def merge_patterns(patterns: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Brings counted patterns into the one order that makes a fit the same to the last bit.

    Args:
        patterns: (p patterns, m sources) rows of votes in any order, a row possibly more than once.
        counts: (p,) how many samples show each pattern, 0 or more.

    Returns:
        (q patterns, m sources) int8 distinct rows in lexicographic order, and (q,) int64 counts, all above 0.

    Raises:
        ValueError: the two do not fit together, or a count is negative or no whole number.
    """
    given = np.asarray(counts)
    if given.shape != (len(patterns),):
        raise ValueError(f"{len(patterns)} patterns need as many counts, not counts of shape {given.shape}")
    counts = given.astype(np.int64)
    if (counts < 0).any() or not np.array_equal(counts, given):
        raise ValueError("counts must be whole numbers, 0 or more: how many samples show each pattern")
    patterns, inverse, _ = distinct_patterns(patterns)
    total = np.zeros(len(patterns), dtype=np.int64)
    np.add.at(total, inverse, counts)
    return patterns[total > 0], total[total > 0]


def vote_classes(votes: np.ndarray, classes: int) -> np.ndarray:
    """Turns votes into class numbers.

    Args:
        votes: (n samples, m sources) integers: -1, 0, +1 with two classes, 0..k with k.
        classes: k, at least 2.

    Returns:
        (n, m) intp: 0..k-1 for the class voted for (two classes: 0 drop, 1 keep), and k for abstains.

    Raises:
        ValueError: a vote is for no class.
    """
    votes = as_votes(votes)
    low, high = (-1, 1) if classes == 2 else (0, classes)
    if votes.size and (votes.min() < low or votes.max() > high):
        wrong = votes[(votes < low) | (votes > high)][0]
        allowed = "-1 (drop), 0 (abstain) and +1 (keep)" if classes == 2 else f"0 (abstain) and 1..{classes}"
        raise ValueError(
            f"a vote is {wrong}, but with classes={classes} votes are {allowed}: "
            "recode the votes, or set `classes` to the number of classes"
        )
    if classes == 2:
        return np.array([2, 1, 0])[votes.astype(np.intp)]  # indexed by 0, +1, -1
    return (votes.astype(np.intp) - 1) % (classes + 1)


def class_shares(class_prior: float | tuple[float, ...] | None, classes: int) -> np.ndarray:
    """The class prior as one share per class; equal shares where none is given.

    Args:
        class_prior: P(keep) with two classes, k shares with k.
        classes: k, at least 2.

    Returns:
        (k,) float64, summing to 1; two classes: drop, keep.

    Raises:
        ValueError: the prior does not fit the number of classes.
    """
    if class_prior is None:
        return np.full(classes, 1.0 / classes)
    if isinstance(class_prior, tuple):
        if len(class_prior) != classes:
            raise ValueError(
                f"class_prior has {len(class_prior)} shares for {classes} classes: give one share per class"
            )
        return np.array(class_prior, dtype=np.float64)
    if classes != 2:
        raise ValueError(f"class_prior is one number, but there are {classes} classes: give {classes} shares")
    return np.array([1.0 - class_prior, class_prior])


def count_cast(voted: np.ndarray, counts: np.ndarray, classes: int) -> np.ndarray:
    """How often each source votes for each class.

    Args:
        voted: (p patterns, m sources) class voted for, k for abstains.
        counts: (p,) how many samples show each pattern.
        classes: k.

    Returns:
        (m, k) counts.
    """
    return np.stack([((voted == number) * counts[:, None]).sum(axis=0) for number in range(classes)], axis=1)


def mostly_one_sided(cast: np.ndarray) -> bool:
    """Whether more than half of the votes come from sources that ever vote for one class only.

    What such a source votes is known beforehand; all that it can tell is where it speaks up.

    Args:
        cast: (m sources, k classes) how often each votes for each.
    """
    one_sided = (cast > 0).sum(axis=1) == 1
    return bool(2 * cast[one_sided].sum() > cast.sum())
