"""What a label model may learn from, counted before: votes of the pool and, where there are any, trusted samples."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chaffinch.filters.soft_votes import Moments


@dataclass(frozen=True)
class Votes:
    """Counted vote patterns.

    Attributes:
        patterns: (p patterns, m sources) int8 rows of votes.
        counts: (p,) int64 how many samples show each.
    """

    patterns: np.ndarray
    counts: np.ndarray

    def of(self, columns: Sequence[int]) -> "Votes":
        """The votes of some sources alone; a pattern may then occur more than once."""
        return Votes(self.patterns[:, list(columns)], self.counts)


@dataclass(frozen=True)
class SoftVotes:
    """What is known of soft votes.

    Attributes:
        moments: of all samples of the pool.
        pool: (k samples, m sources) int16, some samples of the pool.
        reference: (k samples, m sources) int16, some known-good samples, ranked as if they were of the pool; (0, m)
            without a reference.
    """

    moments: Moments
    pool: np.ndarray
    reference: np.ndarray

    def of(self, columns: Sequence[int]) -> "SoftVotes":
        """The soft votes of some sources alone."""
        chosen = list(columns)
        return SoftVotes(self.moments.of_columns(chosen), self.pool[:, chosen], self.reference[:, chosen])


@dataclass(frozen=True)
class Labelled:
    """Samples that somebody looked at, in the order of their uids; few enough to be held one by one.

    Attributes:
        votes: (k samples, m sources) int8.
        keep: (k,) bool what was said of them.
        at_random: (k,) bool whether a sample was drawn by chance. What was picked because it is hard says nothing of
            the pool's shares, but still tells good from bad.
        soft: (k, m) int16 their soft votes; None unless a label model asks for them.
    """

    votes: np.ndarray
    keep: np.ndarray
    at_random: np.ndarray
    soft: np.ndarray | None = None

    def of(self, columns: Sequence[int]) -> "Labelled":
        """The same samples, and the votes of some sources alone."""
        chosen = list(columns)
        soft = None if self.soft is None else self.soft[:, chosen]
        return Labelled(self.votes[:, chosen], self.keep, self.at_random, soft)


@dataclass(frozen=True)
class Evidence:
    """All that a fit may look at.

    Attributes:
        votes: of the pool, without the samples that a required filter drops.
        reference: of known-good samples, under the same ranges; None without a reference.
        soft: soft votes; None unless a label model asks for them.
        labelled: samples with a label; None without labels.
    """

    votes: Votes
    reference: Votes | None = None
    soft: SoftVotes | None = None
    labelled: Labelled | None = None

    def of(self, columns: Sequence[int]) -> "Evidence":
        """The evidence on some sources alone."""
        return Evidence(
            self.votes.of(columns),
            None if self.reference is None else self.reference.of(columns),
            None if self.soft is None else self.soft.of(columns),
            None if self.labelled is None else self.labelled.of(columns),
        )
