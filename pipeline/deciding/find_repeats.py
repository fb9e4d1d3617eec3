"""Repeated uids of pools whose bits would not fit into one memory: found in turns, each over some of all uids.

A uid's hash says whose turn it is, so that samples that share one meet. A turn takes two passes over the uids, of which
the second is the first of the turn after it. What is kept in memory is bounded, however many samples there are; what
grows with them is the number of turns.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from chaffinch.filters.cut import hash_uids
from chaffinch.pipeline.deciding.judgement import Pool
from chaffinch.pipeline.deciding.lessons import Count
from chaffinch.pipeline.repeats import BITS_PER_SAMPLE, MOST_BITS, Claims, Seen, Suspects
from chaffinch.pipeline.rows import Part, Rows, Source, read_uids

_SEED = 1  # another hash than the one that chooses bits


@dataclass
class TurnCounts:
    """One pass: the beginning of a turn, and the end of the one before it.

    Attributes:
        seen: which uids of this turn occurred, and which more than once.
        claims: samples whose uid may be repeated, of the turn before.
    """

    seen: Seen
    claims: Claims

    def merge(self, other: Self) -> Self:
        """Adds another shard's part."""
        self.seen.merge(other.seen)
        self.claims.merge(other.claims)
        return self


@dataclass(frozen=True)
class CountTurn:
    """Looks at the uids of one shard.

    Attributes:
        source: where columns come from.
        turn: which turn begins, from 0; after the last one, none does.
        turns: how many there are.
        size: bits for the search, a power of two.
        suspects: what the turn before suspects.
    """

    source: Source
    turn: int
    turns: int
    size: int
    suspects: Suspects

    def __call__(self, part: Part) -> TurnCounts:
        """Counts one shard; samples that cannot be used are among the suspects, but claim nothing."""
        uids = read_uids(part, self.source)
        turns = hash_uids(uids, _SEED) % np.uint64(self.turns)
        before = np.flatnonzero(turns == self.turn - 1)
        found = before[self.suspects.rows(uids[before])]
        return TurnCounts(Seen.of(uids[turns == self.turn], self.size), claim(part, self.source, uids, found))


def claim(part: Part, source: Source, uids: np.ndarray, rows: np.ndarray) -> Claims:
    """Claims for those of some rows that can be used.

    Args:
        part: the shard.
        source: where its tables are.
        uids: (s, 2) uint64, of all its samples.
        rows: rows whose uid may be repeated; where there are none, no score table is opened.
    """
    if len(rows):
        rows = rows[Rows.read(part, source, []).usable[rows]]
    return Claims(uids[rows], np.stack([np.full(len(rows), part.number), rows], axis=1))


def find_repeats(count: Count, pool: Pool, samples: int, most_bits: int = MOST_BITS) -> Mapping[str, tuple[int, ...]]:
    """Finds repeated uids in turns.

    Args:
        count: adds up over the pool.
        pool: the pool.
        samples: how many it has.
        most_bits: bits of one table, of which there are two; a power of two.

    Returns:
        Shard -> rows that repeat an earlier sample's uid.
    """
    bits = max(samples * BITS_PER_SAMPLE, 1)
    turns, size = -(-bits // most_bits), min(1 << (bits - 1).bit_length(), most_bits)
    names = [shard.name for shard in pool.shards]
    suspects = Suspects(size, None)
    found: dict[str, tuple[int, ...]] = {}
    for turn in range(turns + 1):
        if turn == turns and suspects.bits is None:
            break
        counts: TurnCounts = count("Count uids", pool.parts(), CountTurn(pool.source, turn, turns, size, suspects))
        suspects = counts.seen.suspects()
        for name, rows in counts.claims.repeated(names).items():
            found[name] = tuple(sorted((*found.get(name, ()), *rows)))
    return found
