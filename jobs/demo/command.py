"""`chaffinch demo`: make a small pool with known noise, curate it, show what was caught."""

import json
from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from chaffinch.jobs.console import Console, table
from chaffinch.jobs.demo.pool import write_clean, write_pool
from chaffinch.jobs.run import run_command

_TRUSTED = 300


def run_demo(folder: str, samples: int, seed: int, console: Console) -> None:
    """Renders a pool, curates it with the caption and picture filters, and compares with what was planted.

    Args:
        folder: where pool, config and curated shards go.
        samples: size of the pool.
        seed: of the pool.
        console: where messages go.
    """
    place = Path(folder)
    console.say(f"rendering {samples} samples, about half of them spoiled, into {place / 'pool'}")
    write_pool(place / "pool", samples=samples, seed=seed)
    write_clean(place / "trusted", samples=_TRUSTED, seed=seed)
    config = place / "demo.yaml"
    config.write_text(config_for(place), encoding="utf-8")
    run_command("run", str(config), [], console)
    if not console.json:
        console.result(f"\n{compare(place / 'pool' / 'truth.parquet', place / 'curated')}")
        report = place / "curated" / "report.html"
        console.say(f"\nopen {report}   config: {config}   kept shards: {place / 'curated' / 'shards'}")


def config_for(place: Path) -> str:
    """The demo's config.

    Args:
        place: the folder that holds `pool` and `trusted`, and will hold `curated`.

    Returns:
        YAML.
    """
    own = resources.files("chaffinch.jobs.demo")
    template = own.joinpath("demo.yaml").read_text(encoding="utf-8")
    return template.replace("FOLDER", place.as_posix()).replace("WEIGHTS", str(own.joinpath("matcher.pt")))


def compare(truth: Path, output: Path) -> str:
    """What became of each kind of noise that was planted.

    Args:
        truth: the pool's truth.parquet.
        output: the experiment's folder.

    Returns:
        A table: per kind how many, how many were caught by the ensemble, and the filters that voted to drop most of
        them; then how clean the kept samples are.
    """
    planted = pq.read_table(truth)
    decided = _decisions(output)
    known = zip(decided["shard"].to_pylist(), decided["key"].to_pylist(), strict=True)
    place = {pair: row for row, pair in enumerate(known)}
    pairs = zip(planted["shard"].to_pylist(), planted["key"].to_pylist(), strict=True)
    decided = decided.take(pa.array([place[pair] for pair in pairs]))
    kept, kinds = decided["keep"].to_numpy(), np.array(planted["kind"].to_pylist())
    kinds = np.array(["broken" if kind.startswith("broken_") else kind for kind in kinds])
    good = planted["keep"].to_numpy()
    votes = {name.removeprefix("vote_"): decided[name].to_numpy() for name in decided.column_names if "vote_" in name}
    rows = []
    for kind in sorted(set(kinds), key=lambda kind: (kind != "clean", -np.sum(kinds == kind), kind)):
        mine = kinds == kind
        drops = sorted(((np.mean(vote[mine] == -1), name) for name, vote in votes.items()), reverse=True)
        names = ", ".join(f"{name} {share:.0%}" for share, name in drops[:3] if share >= 0.05)
        rejected = sum(
            (why or "").startswith("rejected") for why in decided["reason"].filter(pa.array(mine)).to_pylist()
        )
        rows.append([kind, str(mine.sum()), f"{1 - kept[mine].mean():.0%}", str(rejected), names or "none"])
    caught = table(["planted", "samples", "left out", "rejected", "votes to drop"], rows)
    usable = np.array([not (why or "").startswith("rejected") for why in decided["reason"].to_pylist()])
    return (
        f"{caught}\n\n{_beside_others(good, kept, usable, votes)}\n\n"
        f"of {good.sum()} clean samples {np.sum(good & kept)} were kept; of {np.sum(~good)} spoiled ones "
        f"{np.sum(~good & ~kept)} were left out; the pool was {good.mean():.0%} clean, what was kept is "
        f"{good[kept].mean():.0%}"
    )


def _beside_others(good: np.ndarray, kept: np.ndarray, usable: np.ndarray, votes: dict[str, np.ndarray]) -> str:
    """The ensemble beside the majority of its filters and the best of them alone: a table."""
    alone = {f"{name} alone": usable & (vote != -1) for name, vote in votes.items()}
    best = max(alone, key=lambda name: f1(good, alone[name]))
    majority = usable & (np.sum([vote.astype(np.int64) for vote in votes.values()], axis=0) > 0)
    sources = {"the ensemble": kept, "majority": majority, f"best filter: {best}": alone[best]}
    rows = [
        [name, f"{mine.sum()}", f"{good[mine].mean():.0%}", f"{mine[good].mean():.0%}", f"{f1(good, mine):.3f}"]
        for name, mine in sources.items()
    ]
    return table(["who decides", "kept", "of it clean", "of clean kept", "F1"], rows)


def f1(good: np.ndarray, kept: np.ndarray) -> float:
    """The harmonic mean of how much of what is kept is good, and how much of what is good is kept.

    Args:
        good: (n,) bool, the truth.
        kept: (n,) bool.

    Returns:
        F1 in [0, 1]; higher is better, 0 where nothing good is kept.
    """
    return float(2 * np.sum(good & kept) / max(np.sum(good) + np.sum(kept), 1))


def _decisions(output: Path) -> pa.Table:
    shards = json.loads((output / "summary.json").read_text())["shards"]
    tables = []
    for shard in shards:
        one = pq.read_table(output / "decisions" / f"{shard}.parquet")
        tables.append(one.append_column("shard", pa.array([shard] * one.num_rows, pa.string())))
    return pa.concat_tables(tables)
