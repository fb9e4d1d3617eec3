"""A sample of a decided pool, small enough to draw: seeded, so that the same pool always shows the same rows."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from chaffinch.filters.cut import hash_uids
from chaffinch.filters.filter import Filter
from chaffinch.jobs.experiment import JobError
from chaffinch.pipeline.deciding.verdicts import decisions_path
from chaffinch.pipeline.repeats import parse_uids
from chaffinch.pipeline.rows import Source
from chaffinch.pipeline.shards import Shard
from chaffinch.pipeline.storage import files, parquet

MOST_ROWS = 200_000
"""How many samples histograms and galleries are made from at most."""

MOST_SHARDS = 40
"""How many shards they are taken from at most: a listing's worth of reading, also from an object store."""


@dataclass(frozen=True)
class Sample:
    """Rows of a pool with what was decided on them.

    Attributes:
        shards: the shards the rows are from.
        shard: (n,) int, position in `shards`.
        row: (n,) int, row of the shard's tables.
        keys: (n,) the samples' keys.
        tie: (n,) uint64, a seeded hash of the uid: orders rows when nothing else does.
        scores: (m, n) float32, one row per filter; NaN where it cannot judge.
        votes: (n, m) int8.
        probability: (n,) float32 P(keep); NaN for rejected samples, 0 where a required filter dropped them.
        keep: (n,) bool.
        reasons: (n,) why a sample was not kept, None where it was.
        unread: shards whose tables could not be read.
    """

    shards: Sequence[Shard]
    shard: np.ndarray
    row: np.ndarray
    keys: np.ndarray
    tie: np.ndarray
    scores: np.ndarray
    votes: np.ndarray
    probability: np.ndarray
    keep: np.ndarray
    reasons: np.ndarray
    unread: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.row)

    @property
    def usable(self) -> np.ndarray:
        """(n,) bool: not rejected."""
        return ~np.isnan(self.probability)


def draw_sample(
    shards: Sequence[Shard],
    counts: Mapping[str, int],
    source: Source,
    filters: Mapping[str, Filter],
    output: str,
    seed: int,
    most_rows: int = MOST_ROWS,
    most_shards: int = MOST_SHARDS,
) -> Sample:
    """Reads a seeded sample of a pool, or all of it where it is small.

    Args:
        shards: the pool, decided.
        counts: shard -> how many samples it has.
        source: where columns come from.
        filters: (m,) all filters by name.
        output: the experiment's folder, with decisions.
        seed: of the hashes that choose.
        most_rows: about how many rows at most.
        most_shards: from how many shards at most.

    Returns:
        Rows in shard order.

    Raises:
        JobError: the decisions of a shard are missing.
    """
    filled = [shard for shard in shards if counts[shard.name]]
    chosen = sorted(sorted(filled, key=lambda shard: _hash_name(shard.name, seed))[:most_shards], key=lambda s: s.name)
    share = min(1.0, most_rows / max(sum(counts[shard.name] for shard in chosen), 1))
    parts, read, unread = [], [], []
    for shard in chosen:
        path = decisions_path(output, shard.name)
        if not files.exists(path):
            raise JobError(f"the decisions of shard {shard.name} are missing: run `chaffinch decide`")
        try:
            parts.append(_read_part(shard, path, source, list(filters), list(filters.values()), seed, share))
            read.append(shard)
        except OSError:
            unread.append(shard.name)
    if not parts:
        parts.append(_empty_part(len(filters)))
    rows = [len(part["row"]) for part in parts]
    return Sample(
        shards=read,
        shard=np.repeat(np.arange(len(parts)), rows),
        scores=np.concatenate([part["scores"] for part in parts], axis=1),
        unread=unread,
        **{name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name != "scores"},
    )


def _hash_name(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {name}".encode()).digest()


def _read_part(
    shard: Shard, path: str, source: Source, names: list[str], filters: list[Filter], seed: int, share: float
) -> dict[str, np.ndarray]:
    """One shard's rows of the sample."""
    samples = parquet.read_table(source.store.samples(shard.name), ["uid", "key", "reject"])
    needed = list(dict.fromkeys(column for judge in filters for column in judge.reads))
    columns = source.columns(shard, samples, needed)
    tie = hash_uids(parse_uids(samples["uid"]), seed)
    rows = np.sort(np.argsort(tie, kind="stable")[: round(share * len(tie))])
    decided = parquet.read_table(path).take(pa.array(rows))
    columns = {name: column.take(pa.array(rows)) for name, column in columns.items()}
    votes = [decided[f"vote_{name}"].to_numpy() for name in names]
    return {
        "row": rows,
        "keys": np.array(decided["key"].to_pylist(), object),
        "tie": tie[rows],
        "scores": np.array([judge.score(columns) for judge in filters], np.float32).reshape(len(filters), len(rows)),
        "votes": np.array(votes, np.int8).reshape(len(filters), len(rows)).T,
        "probability": decided["probability"].to_numpy().astype(np.float32),
        "keep": decided["keep"].to_numpy(),
        "reasons": np.array(decided["reason"].to_pylist(), object),
    }


def _empty_part(filters: int) -> dict[str, np.ndarray]:
    return {
        "row": np.zeros(0, np.int64),
        "keys": np.zeros(0, object),
        "tie": np.zeros(0, np.uint64),
        "scores": np.zeros((filters, 0), np.float32),
        "votes": np.zeros((0, filters), np.int8),
        "probability": np.zeros(0, np.float32),
        "keep": np.zeros(0, bool),
        "reasons": np.zeros(0, object),
    }
