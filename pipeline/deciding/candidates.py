"""Which samples somebody could be asked about, found in one pass over the decisions that holds few of them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import pyarrow.compute as pc

from chaffinch.filters.cut import hash_uids
from chaffinch.filters.fitted import Fitted
from chaffinch.filters.label_models.votes import distinct_patterns
from chaffinch.pipeline.deciding.labels import Labels
from chaffinch.pipeline.deciding.verdicts import BELOW_CUT, decisions_path
from chaffinch.pipeline.repeats import parse_uids
from chaffinch.pipeline.rows import Part
from chaffinch.pipeline.storage import parquet

BANDS = 20
"""Of samples that vote alike, P(keep) differs where label models judge by scores: then they are told apart by it."""

MOST_HELD = 1 << 18
"""So many samples of strata are held; where that is not enough, every stratum makes do with fewer."""

ROWS = np.dtype(
    [
        ("tie", np.uint64),
        ("high", np.uint64),
        ("low", np.uint64),
        ("shard", np.int64),
        ("row", np.int64),
        ("probability", np.float32),
        ("labelled", np.bool_),
    ]
)
"""A sample: a seeded hash of its uid, the uid, the number of its shard and its row there, P(keep), has it a label."""

Stratum = tuple[bytes, int]
"""Samples that are much the same to the ensemble: the int8 votes of all filters that do not veto; a band of P(keep)."""


@dataclass(frozen=True)
class Members:
    """The samples of a stratum.

    Attributes:
        count: how many there are.
        labelled: how many of them have a label.
        rows: (k,) of those without a label the ones of the lowest hashes, ascending: a draw from them by chance.
    """

    count: int
    labelled: int
    rows: np.ndarray

    def merge(self, other: "Members", depth: int) -> "Members":
        """The samples of both, of which so many are held at most."""
        rows = np.concatenate([self.rows, other.rows])
        return Members(self.count + other.count, self.labelled + other.labelled, _lowest(rows, depth))


@dataclass
class Candidates:
    """Samples that are neither rejected nor vetoed. Merging adds up in any order.

    Attributes:
        most: how many samples of each kind are held.
        cut: P(keep) from which samples are kept.
        depth: how many samples of a stratum are held.
        drawn: (k,) samples of the lowest hashes, with a label or without, ascending.
        kept: (k,) kept samples without a label, those nearest to the cut first.
        dropped: (k,) samples without a label that were dropped because they lie below the cut, in the same order.
        strata: all samples by stratum.
    """

    most: int
    cut: float
    depth: int
    drawn: np.ndarray
    kept: np.ndarray
    dropped: np.ndarray
    strata: dict[Stratum, Members] = field(default_factory=dict)

    def merge(self, other: Self) -> Self:
        """Adds another shard's samples."""
        self.drawn = _lowest(np.concatenate([self.drawn, other.drawn]), self.most)
        self.kept = _nearest(np.concatenate([self.kept, other.kept]), self.cut, self.most)
        self.dropped = _nearest(np.concatenate([self.dropped, other.dropped]), self.cut, self.most)
        self.depth = min(self.depth, other.depth)
        for stratum, members in other.strata.items():
            known = self.strata.get(stratum)
            self.strata[stratum] = members if known is None else known.merge(members, self.depth)
        return self.shrink()

    def shrink(self) -> Self:
        """Lets go of samples where too many are held. In whatever order shards come, the same are left."""
        while self.depth > 1 and sum(min(len(one.rows), self.depth) for one in self.strata.values()) > MOST_HELD:
            self.depth //= 2
        self.strata = {
            stratum: one if len(one.rows) <= self.depth else replace(one, rows=one.rows[: self.depth])
            for stratum, one in self.strata.items()
        }
        return self


@dataclass(frozen=True)
class FindCandidates:
    """Finds those of one shard.

    Attributes:
        output: the experiment's folder, with decisions.
        fitted: the judgement.
        samples: how many are to be asked about.
        seed: of the hash that draws.
        labels: what has been said already, or None.
    """

    output: str
    fitted: Fitted
    samples: int
    seed: int
    labels: Labels | None = None

    def __call__(self, part: Part) -> Candidates:
        """Reads one shard's decisions."""
        names = [f"vote_{name}" for name in self.fitted.names]
        table = parquet.read_table(
            decisions_path(self.output, part.shard.name), ["uid", "probability", "keep", "reason", *names]
        )
        votes = np.empty((table.num_rows, len(names)), np.int8)
        for index, name in enumerate(names):
            votes[:, index] = table[name].to_numpy()
        probability = table["probability"].to_numpy().astype(np.float32)
        chosen = np.flatnonzero(~np.isnan(probability) & ~self.fitted.vetoed(votes))
        uids = parse_uids(table["uid"])[chosen]
        rows = np.zeros(len(chosen), ROWS)
        rows["tie"], rows["high"], rows["low"] = hash_uids(uids, self.seed), uids[:, 0], uids[:, 1]
        rows["shard"], rows["row"], rows["probability"] = part.number, chosen, probability[chosen]
        rows["labelled"] = self._labelled(uids)
        kept = table["keep"].to_numpy()[chosen]
        below = pc.equal(table["reason"], BELOW_CUT).fill_null(False).to_numpy()[chosen]
        cut, most = self.fitted.cut.probability, self.samples + (0 if self.labels is None else len(self.labels))
        free = ~rows["labelled"]
        return Candidates(
            most=most,
            cut=cut,
            depth=self.samples,
            drawn=_lowest(rows, most),
            kept=_nearest(rows[free & kept], cut, most),
            dropped=_nearest(rows[free & below], cut, most),
            strata=dict(_stratify(rows, votes[chosen][:, self.fitted.judges], self.samples)),
        ).shrink()

    def _labelled(self, uids: np.ndarray) -> np.ndarray:
        """(n,) bool, which of (n, 2) uids have a label."""
        found = np.zeros(len(uids), bool)
        if self.labels is not None:
            known = set(map(tuple, self.labels.uids.tolist()))
            for index in np.flatnonzero(np.isin(uids[:, 1], self.labels.uids[:, 1])).tolist():
                found[index] = tuple(uids[index].tolist()) in known
        return found


def _stratify(rows: np.ndarray, votes: np.ndarray, depth: int) -> Iterator[tuple[Stratum, Members]]:
    """The strata of one shard, from (n,) rows and the (n, j) votes of filters that do not veto."""
    if not len(rows):
        return
    patterns, pattern, _ = distinct_patterns(votes)
    band = np.minimum((rows["probability"] * np.float32(BANDS)).astype(np.int64), BANDS - 1)
    code = pattern * BANDS + band
    order = np.lexsort((rows["low"], rows["high"], rows["tie"], code))
    for mine in np.split(order, np.flatnonzero(np.diff(code[order])) + 1):
        members = rows[mine]
        free = members[~members["labelled"]]
        stratum = patterns[pattern[mine[0]]].tobytes(), int(band[mine[0]])
        yield stratum, Members(len(members), len(members) - len(free), free[:depth])


def _lowest(rows: np.ndarray, most: int) -> np.ndarray:
    """The rows of the lowest hashes, ascending."""
    lowest: np.ndarray = rows[np.lexsort((rows["low"], rows["high"], rows["tie"]))[:most]]
    return lowest


def _nearest(rows: np.ndarray, cut: float, most: int) -> np.ndarray:
    """The rows whose P(keep) is nearest to the cut, by their hashes where that is equal; none where there is no cut."""
    if not math.isfinite(cut):
        return rows[:0]
    distance = np.abs(rows["probability"].astype(np.float64) - cut)
    nearest: np.ndarray = rows[np.lexsort((rows["low"], rows["high"], rows["tie"], distance))[:most]]
    return nearest
