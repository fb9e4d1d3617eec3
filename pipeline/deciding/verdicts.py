"""Verdicts: the frozen judgement applied to one shard, written as its decisions table, and counted."""

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chaffinch.filters.cut import hash_uids
from chaffinch.filters.filter import Filter
from chaffinch.filters.fitted import Fitted
from chaffinch.pipeline.deciding.probabilities import Probabilities
from chaffinch.pipeline.repeats import parse_uids
from chaffinch.pipeline.rows import Part, Rows, Source
from chaffinch.pipeline.storage import files, parquet

BELOW_CUT = "dropped: below the cut"
"""The reason where nothing but its place in the order kept a sample out."""

TAKEN_DOWN = "dropped: taken down by "
"""How the reason begins where a sample was to be kept and left its place in the output empty."""


@dataclass
class Verdicts:
    """How many samples were read, kept, dropped and rejected, per shard, and why.

    Attributes:
        shards: shard -> {"read", "kept", "dropped", "rejected"}, and how many of the dropped were "taken_down" if any.
        reasons: reason -> how many samples were dropped or rejected for it.
        votes: filter -> "keep", "drop" and "abstain" -> how many usable samples; of shards judged in this run.
        seconds: filter -> seconds it took for them, over all workers.
    """

    shards: dict[str, dict[str, int]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    votes: dict[str, Counter[str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def merge(self, other: Self) -> Self:
        """Adds another shard's part."""
        self.shards |= other.shards
        self.reasons.update(other.reasons)
        for name, votes in other.votes.items():
            self.votes.setdefault(name, Counter()).update(votes)
        for name, seconds in other.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        return self

    def beam_counts(self) -> Mapping[str, Mapping[str, int]]:
        """For Beam's counters: namespace -> counter -> by how much it grew."""
        found: dict[str, dict[str, int]] = {f"filters.{name}": dict(votes) for name, votes in self.votes.items()}
        for name, seconds in self.seconds.items():
            found[f"filters.{name}"]["milliseconds"] = round(1000 * seconds)
        totals: Counter[str] = Counter()
        for counts in self.shards.values():
            totals.update(counts)
        return found | {"decisions": dict(totals)}

    @classmethod
    def of(cls, shard: str, decisions: pa.Table) -> Self:
        """Counts a decisions table; its three kinds of rows are told apart by keep and the reason alone."""
        kept = int(pc.sum(decisions["keep"]).as_py() or 0)
        found = pc.value_counts(decisions["reason"].drop_null().combine_chunks())
        reasons = Counter(dict(zip(found.field(0).to_pylist(), found.field(1).to_pylist(), strict=True)))
        rejected = sum(count for reason, count in reasons.items() if reason.startswith("rejected: "))
        dropped = sum(count for reason, count in reasons.items() if reason.startswith("dropped: "))
        counts = {"read": decisions.num_rows, "kept": kept, "dropped": dropped, "rejected": rejected}
        if taken_down := sum(count for reason, count in reasons.items() if reason.startswith(TAKEN_DOWN)):
            counts["taken_down"] = taken_down
        return cls({shard: counts}, reasons)


def decisions_path(output: str, shard: str) -> str:
    """The decisions table of a shard."""
    return files.join(output, "decisions", shard + ".parquet")


@dataclass(frozen=True)
class Decide:
    """Judges one shard and writes its decisions, unless they are there.

    Attributes:
        source: where columns come from.
        filters: all filters.
        fitted: the judgement.
        seed: of the hash that breaks ties.
        output: the experiment's folder.
    """

    source: Source
    filters: Mapping[str, Filter]
    fitted: Fitted
    seed: int
    output: str

    def __call__(self, part: Part) -> Verdicts:
        """Judges one shard."""
        path = decisions_path(self.output, part.shard.name)
        if files.exists(path):
            return Verdicts.of(part.shard.name, parquet.read_table(path, ["keep", "reason"]))
        rows = self._read(part)
        decisions = self._judge(rows)
        parquet.write_table(path, decisions)
        verdicts = Verdicts.of(part.shard.name, decisions)
        verdicts.votes = {name: _count_votes(decisions[f"vote_{name}"], rows.usable) for name in self.fitted.names}
        verdicts.seconds = dict(zip(self.filters, rows.seconds, strict=True))
        return verdicts

    def judge(self, part: Part) -> pa.Table:
        """The decisions table of a shard: s rows, in the order of its samples."""
        return self._judge(self._read(part))

    def _read(self, part: Part) -> Rows:
        return Rows.read(part, self.source, list(self.filters.values()), ["uid", "key"])

    def _judge(self, rows: Rows) -> pa.Table:
        fitted = self.fitted
        votes = fitted.votes(rows.scores, len(rows.usable))
        chances = self._probabilities.of(votes, rows.scores)
        probability, allowed = chances.probability, rows.usable & chances.candidates
        soft, tie = np.zeros(len(allowed), np.uint32), np.zeros(len(allowed), np.uint64)
        # Soft scores and hashes matter only where probability alone does not decide.
        edge = allowed & (probability == np.float32(fitted.cut.probability))
        if edge.any():
            soft[edge] = fitted.soft_scores([scores[edge] for scores in rows.scores], int(edge.sum()))
            tie[edge] = hash_uids(parse_uids(rows.samples["uid"].filter(pa.array(edge))), self.seed)
        placed = allowed & fitted.cut.keeps(probability, soft, tie)
        kept = placed & ~fitted.taken_down(votes)
        probability = np.where(fitted.vetoed(votes), np.float32(0), probability)
        votes[~rows.usable] = 0
        return pa.table(
            {
                "uid": rows.samples["uid"],
                "key": rows.samples["key"],
                **{f"vote_{name}": votes[:, index] for index, name in enumerate(fitted.names)},
                "probability": pa.array(probability, mask=~rows.usable, from_pandas=False),
                "keep": kept,
                "reason": self._reasons(rows, votes, chances.covered, placed, kept),
            }
        )

    @functools.cached_property
    def _probabilities(self) -> Probabilities:
        return Probabilities(self.fitted)

    def _reasons(
        self, rows: Rows, votes: np.ndarray, covered: np.ndarray, placed: np.ndarray, kept: np.ndarray
    ) -> pa.Array:
        fitted = self.fitted
        words = [BELOW_CUT, "dropped: every filter abstains"]
        words += [f"dropped: required filter {name}" for name in fitted.names]
        words += [f"{TAKEN_DOWN}{name}" for name in fitted.names]
        chosen = np.zeros(len(kept), np.int32)  # which of the words
        if fitted.judges and not fitted.uncovered and not fitted.keeps_everything:
            chosen[~covered] = 1
        for index in reversed(range(len(fitted.names))):
            if fitted.required[index]:
                chosen[votes[:, index] == -1] = 2 + index
        for index in reversed(fitted.withdrawing):
            chosen[placed & (votes[:, index] == -1)] = 2 + len(fitted.names) + index
        reasons = pa.array(words, pa.string()).take(pa.array(chosen, mask=kept))
        rejected = pc.binary_join_element_wise("rejected", rows.reject, ": ")
        return pc.if_else(pa.array(rows.usable), reasons, rejected)


def _count_votes(votes: pa.ChunkedArray, usable: np.ndarray) -> Counter[str]:
    """How often a filter said what of usable samples."""
    found = votes.to_numpy()[usable]
    return Counter({word: int((found == vote).sum()) for word, vote in (("keep", 1), ("drop", -1), ("abstain", 0))})
