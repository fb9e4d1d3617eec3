"""The bare loop that `redecide` is compared with: pyarrow and numpy in two processes, no Beam, no checks, no resuming.

It does what deciding does pass by pass, with the same reads, counts and writes, for the pool of `pool_store` only:
histograms of the high halves, histograms of the low halves around the ends of shares, vote patterns, the label model
(the same code), keys around the cut, and the decisions tables.
"""

import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from chaffinch.filters.label_models.dawid_skene import DawidSkene

PROCESSES = 2
Ranges = list[tuple[float, float]]


def tables(store: Path, shard: str, wanted: Sequence[Sequence[str]], reject: bool) -> tuple[list[np.ndarray], Any]:
    """Scores of a shard, one array per filter, and which rows are usable."""
    scores, usable = [], None
    if reject:
        usable = read(store / "samples" / shard, ["reject"])["reject"].is_null().to_numpy()
    for folder, *columns in wanted:
        table = read(store / "scores" / folder / shard, [*columns, "reject"] if reject else columns)
        scores += [table[name].combine_chunks().fill_null(np.nan).to_numpy(zero_copy_only=False) for name in columns]
        if reject:
            usable = usable & table["reject"].is_null().to_numpy()
    return scores, usable


def read(path: Path, columns: Sequence[str]) -> pa.Table:
    """Columns of a parquet file."""
    return pq.ParquetFile(pa.OSFile(str(path))).read(columns=list(columns), use_threads=False)


def keys_of(scores: np.ndarray) -> np.ndarray:
    """float32 as uint32 of the same order, NaN left out."""
    bits = scores[~np.isnan(scores)].view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def values_of(keys: np.ndarray) -> np.ndarray:
    """The inverse of `keys_of`."""
    return np.where(keys >> 31, keys & np.uint32((1 << 31) - 1), ~keys).astype(np.uint32).view(np.float32)


def hashes(store: Path, shard: str, rows: np.ndarray) -> np.ndarray:
    """A hash of the uids of some rows."""
    uids = read(store / "samples" / shard, ["uid"])["uid"].filter(pa.array(rows)).combine_chunks()
    halves = np.frombuffer(bytes.fromhex(uids.buffers()[2].to_pybytes().decode()), ">u8").astype(np.uint64)
    halves = halves.reshape(-1, 2)
    mixed = (halves[:, 0] ^ (halves[:, 1] * np.uint64(0x9E3779B97F4A7C15))) * np.uint64(0xBF58476D1CE4E5B9)
    return mixed ^ (mixed >> np.uint64(31))


def count_high(store: Path, wanted: Any, shards: Sequence[str]) -> list[np.ndarray]:
    """First pass: (12, 65536) counts of high halves."""
    total = np.zeros((12, 65536), np.int64)
    for shard in shards:
        for counts, values in zip(total, tables(store, shard, wanted, False)[0], strict=True):
            counts += np.bincount(keys_of(values) >> 16, minlength=65536)
    return [total]


def count_low(store: Path, wanted: Any, digits: Any, shards: Sequence[str]) -> list[np.ndarray]:
    """Second pass: counts of the low halves of values with some high halves."""
    total = np.zeros((len(digits), 65536), np.int64)
    for shard in shards:
        scores, _ = tables(store, shard, wanted, False)
        for counts, (number, digit) in zip(total, digits, strict=True):
            keys = keys_of(scores[number])
            counts += np.bincount(keys[keys >> 16 == digit] & np.uint32(0xFFFF), minlength=65536)
    return [total]


def votes_of(scores: Sequence[np.ndarray], keep: Ranges, drop: Ranges) -> np.ndarray:
    """(m filters, n) int8."""
    votes = np.empty((len(scores), len(scores[0])), np.int8)
    for row, values, (low, high), (least, most) in zip(votes, scores, keep, drop, strict=True):
        inside = (values >= np.float32(low)) & (values <= np.float32(high))
        outside = (values >= np.float32(least)) & (values <= np.float32(most)) & ~inside
        row[:] = inside.astype(np.int8) - outside.astype(np.int8)
    return votes


def codes_of(votes: np.ndarray) -> np.ndarray:
    """(n,) a number for each column of votes."""
    codes = np.zeros(votes.shape[1], np.int64)
    for row in votes:
        codes = codes * 3 + (row + 1)
    return codes


def count_votes(store: Path, wanted: Any, keep: Ranges, drop: Ranges, shards: Sequence[str]) -> list[np.ndarray]:
    """Third pass: how often each of the 3^12 patterns occurs."""
    total = np.zeros(3**12, np.int64)
    for shard in shards:
        scores, usable = tables(store, shard, wanted, True)
        codes, counts = np.unique(codes_of(votes_of(scores, keep, drop))[usable], return_counts=True)
        total[codes] += counts
    return [total]


def soft_scores(scores: Sequence[np.ndarray], ranks: Any, weights: np.ndarray) -> np.ndarray:
    """(n,) uint32 weighted mean of ranks."""
    total, mass = np.zeros(len(scores[0])), np.zeros(len(scores[0]))
    for values, (ends, shares), weight in zip(scores, ranks, weights, strict=True):
        known = ~np.isnan(values)
        total[known] += weight * np.interp(values[known], ends, shares)
        mass[known] += weight
    return (np.divide(total, mass, out=np.full_like(total, 0.5), where=mass > 0) * 0xFFFFFFFF).astype(np.uint32)


def find_keys(
    store: Path, wanted: Any, keep: Ranges, drop: Ranges, learned: Any, edge: float, shards: Sequence[str]
) -> list[np.ndarray]:
    """Fourth pass: soft scores and hashes of the samples among which the cut lies."""
    probabilities, ranks, weights = learned
    soft, ties = [], []
    for shard in shards:
        scores, usable = tables(store, shard, wanted, True)
        chosen = usable & (probabilities[codes_of(votes_of(scores, keep, drop))] == np.float32(edge))
        if chosen.any():
            soft.append(soft_scores([values[chosen] for values in scores], ranks, weights))
            ties.append(hashes(store, shard, chosen))
    return [np.concatenate([np.zeros(0, np.uint32), *soft]), np.concatenate([np.zeros(0, np.uint64), *ties])]


def write(
    store: Path, wanted: Any, keep: Ranges, drop: Ranges, learned: Any, cut: Any, out: Any, shards: Sequence[str]
) -> list[np.ndarray]:
    """Last pass: the decisions tables; returns how many are kept, dropped and rejected."""
    probabilities, ranks, weights = learned
    output, names = out
    total = np.zeros(3, np.int64)
    for shard in shards:
        scores, usable = tables(store, shard, wanted, True)
        samples = read(store / "samples" / shard, ["uid", "key", "reject"])
        votes = votes_of(scores, keep, drop)
        probability = probabilities[codes_of(votes)]
        kept = usable & (probability > np.float32(cut[0]))
        edge = usable & (probability == np.float32(cut[0]))
        if edge.any():
            soft = soft_scores([values[edge] for values in scores], ranks, weights)
            kept[edge] = (soft > cut[1]) | ((soft == cut[1]) & (hashes(store, shard, edge) >= cut[2]))
        votes[:, ~usable] = 0
        words = pa.array(["dropped: below the cut", "rejected: "]).take(pa.array((~usable).astype(np.int8), mask=kept))
        reason = pc.if_else(pa.array(usable), words, pc.binary_join_element_wise("rejected", samples["reject"], ": "))
        columns = {f"vote_{name}": row for name, row in zip(names, votes, strict=True)}
        table = pa.table(
            {"uid": samples["uid"], "key": samples["key"], **columns}
            | {"probability": pa.array(probability, mask=~usable, from_pandas=False), "keep": kept, "reason": reason}
        )
        path = output / shard
        pq.write_table(table, path, compression="zstd", use_dictionary=[*columns, "reason"])
        total += [kept.sum(), (usable & ~kept).sum(), (~usable).sum()]
    return [total]


def main(config: Path, output: Path) -> None:
    """Decides, and prints how many are kept, dropped and rejected."""
    settings = yaml.safe_load(config.read_text())
    store = Path(settings["store"])
    places = {folder.name.rsplit("-", 1)[0]: folder.name for folder in (store / "scores").iterdir()}
    columns: dict[str, list[str]] = {}
    for judge in settings["filters"].values():
        scorer, column = judge["column"].split(".")
        columns.setdefault(scorer, []).append(column)
    wanted = [[places[scorer], *names] for scorer, names in columns.items()]
    judges = list(settings["filters"].values())
    shards = sorted(path.name for path in (store / "samples").iterdir())
    halves = [shards[start::PROCESSES] for start in range(PROCESSES)]
    output.mkdir(parents=True, exist_ok=True)
    for old in output.iterdir():
        old.unlink()
    with ProcessPoolExecutor(PROCESSES) as processes:

        def over_all(function: Callable[[Sequence[str]], list[np.ndarray]]) -> list[list[np.ndarray]]:
            return list(processes.map(function, halves))

        high = sum(part[0] for part in over_all(partial(count_high, store, wanted)))
        below = [np.cumsum(counts) for counts in high]
        ends: dict[tuple[int, str], tuple[int, int]] = {}
        for number, judge in enumerate(judges):
            for which in ("keep", "drop"):
                if isinstance(judge.get(which), str):
                    side, percent = judge[which].rstrip("%").split()
                    count = round(float(percent) * int(below[number][-1]) / 100)
                    rank = int(below[number][-1]) - count if side == "top" else count - 1
                    digit = int(np.searchsorted(below[number], rank, side="right"))
                    ends[number, which] = (digit, rank - int(below[number][digit] - high[number][digit]))
        shared = sorted({number for number, _ in ends})
        few = [[places[s], c] for s, c in (judges[number]["column"].split(".") for number in shared)]
        digits = [(shared.index(number), digit) for (number, _), (digit, _) in ends.items()]
        low = sum(part[0] for part in over_all(partial(count_low, store, few, digits)))
        infinity = float("inf")
        keep, drop = [], []
        for number, judge in enumerate(judges):
            edges = {}
            for row, ((other, which), (digit, rank)) in enumerate(ends.items()):
                if other == number:
                    key = (digit << 16) | int(np.searchsorted(np.cumsum(low[row]), rank, side="right"))
                    edges[which] = float(values_of(np.array([key], np.uint32))[0])
            if edges:
                keep.append((edges["keep"], infinity))
                drop.append((-infinity, edges["drop"]))
            else:
                keep.append((judge["keep"][0], infinity))
                drop.append((-infinity, infinity))
        counts = sum(part[0] for part in over_all(partial(count_votes, store, wanted, keep, drop)))
        codes = np.flatnonzero(counts)
        patterns = (codes[:, None] // 3 ** np.arange(11, -1, -1) % 3 - 1).astype(np.int8)
        model = DawidSkene().fit_patterns(patterns, counts[codes])
        probabilities = np.full(3**12, -1, np.float32)
        probabilities[codes] = model.predict_proba(patterns)
        probabilities[codes[(patterns == 0).all(axis=1)]] = -1  # uncovered
        ranks = []
        for number in range(len(judges)):
            filled = np.flatnonzero(high[number]).astype(np.uint32)
            some = np.unique(np.linspace(0, len(filled) - 1, 512).astype(int))
            ranks.append((values_of(filled[some] << 16), below[number][filled[some]] / below[number][-1]))
        learned = (probabilities, ranks, model.weight_)
        goal = round(settings["keep"]["fraction"] * int(counts.sum()))
        order = codes[np.argsort(-probabilities[codes], kind="stable")]
        edge = float(probabilities[order[np.searchsorted(np.cumsum(counts[order]), goal)]])
        rank = goal - int(counts[codes[probabilities[codes] > edge]].sum())
        found = over_all(partial(find_keys, store, wanted, keep, drop, learned, edge))
        soft, ties = (np.concatenate([part[number] for part in found]) for number in range(2))
        last = np.lexsort((ties, soft))[len(soft) - rank] if rank else None
        cut = (edge, infinity, 0) if last is None else (edge, soft[last], ties[last])
        out = (output, list(settings["filters"]))
        totals = sum(part[0] for part in over_all(partial(write, store, wanted, keep, drop, learned, cut, out)))
    print(json.dumps(dict(zip(("kept", "dropped", "rejected"), totals.tolist(), strict=True))))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
