"""What a demo's curation made of what was planted in its pool."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from chaffinch.jobs.console import table
from chaffinch.jobs.demo.noise import REPEATED


@dataclass(frozen=True)
class Planted:
    """What is true of the n samples of a rendered pool.

    Attributes:
        good: (n,) bool, which are worth keeping.
        kinds: (n,) the kind of noise, "clean" for the others.
        groups: (n,) number of the scene; copies share it.
    """

    good: np.ndarray
    kinds: np.ndarray
    groups: np.ndarray

    @classmethod
    def read(cls, truth: pa.Table) -> "Planted":
        """Reads a truth.parquet of n rows."""
        kinds = ["broken" if kind.startswith("broken_") else kind for kind in truth["kind"].to_pylist()]
        groups = np.unique(np.array(truth["group"].to_pylist(), str), return_inverse=True)[1]
        return cls(truth["keep"].to_numpy(), np.array(kinds), groups)

    def settle(self, kept: np.ndarray) -> "Planted":
        """Lets the copy that was kept be the good one: which of several survives is arbitrary.

        Args:
            kept: (n,) bool.

        Returns:
            The truth in which a good sample that was not kept has changed places with a copy of it that was.
        """
        good, kinds = self.good.copy(), self.kinds.copy()
        replaced = {int(self.groups[row]): row for row in np.flatnonzero(self.good & ~kept)}
        for copy in np.flatnonzero(kept & ~self.good & np.isin(self.kinds, REPEATED)):
            row = replaced.pop(int(self.groups[copy]), None)
            if row is not None:
                good[[row, copy]] = good[[copy, row]]
                kinds[[row, copy]] = kinds[[copy, row]]
        return replace(self, good=good, kinds=kinds)

    def f1(self, kept: np.ndarray) -> float:
        """F1 in [0, 1] of the n bools `kept`, copies settled; higher is better."""
        return f1(self.settle(kept).good, kept)


def f1(good: np.ndarray, kept: np.ndarray) -> float:
    """The harmonic mean of how much of what is kept is good, and how much of what is good is kept.

    Args:
        good: (n,) bool, the truth.
        kept: (n,) bool.

    Returns:
        F1 in [0, 1]; higher is better, 0 where nothing good is kept.
    """
    return float(2 * np.sum(good & kept) / max(np.sum(good) + np.sum(kept), 1))


def compare(truth: Path, output: Path) -> str:
    """What became of each kind of noise that was planted.

    Args:
        truth: the pool's truth.parquet.
        output: the experiment's folder.

    Returns:
        A table: per kind how many, how many were caught by the ensemble, and the filters that voted to drop most of
        them; then how clean the kept samples are.
    """
    rows = pq.read_table(truth)
    decided = _decisions(output)
    known = zip(decided["shard"].to_pylist(), decided["key"].to_pylist(), strict=True)
    place = {pair: row for row, pair in enumerate(known)}
    pairs = zip(rows["shard"].to_pylist(), rows["key"].to_pylist(), strict=True)
    decided = decided.take(pa.array([place[pair] for pair in pairs]))
    planted, kept = Planted.read(rows), decided["keep"].to_numpy()
    settled = planted.settle(kept)
    good, kinds = settled.good, settled.kinds
    votes = {name.removeprefix("vote_"): decided[name].to_numpy() for name in decided.column_names if "vote_" in name}
    lines = []
    for kind in sorted(set(kinds), key=lambda kind: (kind != "clean", -np.sum(kinds == kind), kind)):
        mine = kinds == kind
        drops = sorted(((np.mean(vote[mine] == -1), name) for name, vote in votes.items()), reverse=True)
        names = ", ".join(f"{name} {share:.0%}" for share, name in drops[:3] if share >= 0.05)
        rejected = sum(
            (why or "").startswith("rejected") for why in decided["reason"].filter(pa.array(mine)).to_pylist()
        )
        lines.append([kind, str(mine.sum()), f"{1 - kept[mine].mean():.0%}", str(rejected), names or "none"])
    caught = table(["planted", "samples", "left out", "rejected", "votes to drop"], lines)
    usable = np.array([not (why or "").startswith("rejected") for why in decided["reason"].to_pylist()])
    return (
        f"{caught}\n\n{_beside_others(planted, kept, usable, votes)}\n\n"
        f"of {good.sum()} clean samples {np.sum(good & kept)} were kept; of {np.sum(~good)} spoiled ones "
        f"{np.sum(~good & ~kept)} were left out; the pool was {good.mean():.0%} clean, what was kept is "
        f"{good[kept].mean():.0%}"
    )


def _beside_others(planted: Planted, kept: np.ndarray, usable: np.ndarray, votes: dict[str, np.ndarray]) -> str:
    """The ensemble beside the majority of its filters and the best of them alone: a table."""
    alone = {f"{name} alone": usable & (vote != -1) for name, vote in votes.items()}
    best = max(alone, key=lambda name: planted.f1(alone[name]))
    majority = usable & (np.sum([vote.astype(np.int64) for vote in votes.values()], axis=0) > 0)
    sources = {"the ensemble": kept, "majority": majority, f"best filter: {best}": alone[best]}
    rows = []
    for name, mine in sources.items():
        good = planted.settle(mine).good
        rows.append(
            [name, f"{mine.sum()}", f"{good[mine].mean():.0%}", f"{mine[good].mean():.0%}", f"{planted.f1(mine):.3f}"]
        )
    return table(["who decides", "kept", "of it clean", "of clean kept", "F1"], rows)


def _decisions(output: Path) -> pa.Table:
    shards = json.loads((output / "summary.json").read_text())["shards"]
    tables = []
    for shard in shards:
        one = pq.read_table(output / "decisions" / f"{shard}.parquet")
        tables.append(one.append_column("shard", pa.array([shard] * one.num_rows, pa.string())))
    return pa.concat_tables(tables)
