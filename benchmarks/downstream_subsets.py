"""What to train on: the subsets of a curated pool that are compared, and each of them as shards."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from curation_quality import read_truth
from quality_metrics import NEVER, measure
from quality_sources import Judged

from chaffinch.jobs.config import load_config
from chaffinch.jobs.console import Console
from chaffinch.jobs.decide import run_decide
from chaffinch.jobs.emit import run_emit
from chaffinch.jobs.experiment import Experiment
from chaffinch.jobs.score import run_score
from chaffinch.pipeline.deciding.verdicts import decisions_path

OURS, ORACLE = "our ensemble", "oracle"
_DUPLICATES = ("duplicate", "repeated_uid")
"""Kinds of the truth whose rows are copies of a good one, for the AUC that chooses the best filter."""


@dataclass(frozen=True)
class Curated:
    """A pool that was scored and decided, beside what is true of it.

    Attributes:
        experiment: the config's.
        uids: (n,) str, of all samples, in the order of the pool.
        usable: (n,) bool, not rejected.
        kept: (n,) bool, what the config keeps.
        good: (n,) bool, by the truth; False where it says nothing.
        orders: filter -> (n,) float64, its own order; higher is kept first.
        votes: (n samples, m filters) int8, -1, 0 or +1, vetoes included.
        aucs: filter -> AUC of its order on the truth, in [0, 1]; higher is better.
    """

    experiment: Experiment
    uids: np.ndarray
    usable: np.ndarray
    kept: np.ndarray
    good: np.ndarray
    orders: Mapping[str, np.ndarray]
    votes: np.ndarray
    aucs: Mapping[str, float]

    @property
    def best_filter(self) -> str:
        """The filter with the highest AUC on the truth: nobody without a truth could choose it."""
        return max(self.aucs, key=lambda name: self.aucs[name])


@dataclass(frozen=True)
class Subset:
    """Samples to train on.

    Attributes:
        rows: (k,) int64, their positions in the pool, rising.
        found: how many there were before they were cut to the size of the others.
        what: in words, where the name does not say it.
    """

    rows: np.ndarray
    found: int
    what: str = ""


def curate(config: str, truth_file: str, settings: list[str]) -> Curated:
    """Scores and decides a pool with the product, and reads its truth, which the product never sees.

    Args:
        config: path of the config.
        truth_file: a parquet or csv file as for curation_quality.py.
        settings: `key=value` settings.

    Returns:
        The pool as it was judged.
    """
    experiment = Experiment(load_config(config, settings), Console(quiet=True))
    run_score(experiment)
    run_decide(experiment)
    judged = Judged(config, settings)
    tables = [
        pq.read_table(decisions_path(experiment.output, shard), columns=["uid", "key", "keep"])
        for shard in dict.fromkeys(judged.shards)
    ]
    decided = pa.concat_tables(tables)
    if decided["key"].to_pylist() != judged.keys.tolist():
        raise RuntimeError("the decisions are not in the order of the pool")
    truth, about = read_truth(truth_file, judged.shards, judged.keys, _DUPLICATES)
    good = np.zeros(len(about), bool)
    good[about] = truth.good
    orders = {name: judged.filter_order(position) for position, name in enumerate(judged.scores)}
    once = np.ones((1, int(about.sum())), np.int64)
    aucs = {name: float(measure(order[about], truth, once).auc[0]) for name, order in orders.items()}
    uids = np.array([uid or "" for uid in decided["uid"].to_pylist()])
    return Curated(experiment, uids, judged.usable, decided["keep"].to_numpy(), good, orders, judged.votes, aucs)


def choose(curated: Curated, clip: str, seed: int) -> dict[str, Subset]:
    """The subsets that are compared. All but the first and the last are cut to as many samples as the config keeps.

    Args:
        curated: the pool.
        clip: the filter that is the CLIP score.
        seed: of the random subset, and of what is taken where samples tie or too many are left.

    Returns:
        Name -> subset.

    Raises:
        ValueError: there is no such filter.
    """
    if clip not in curated.orders:
        raise ValueError(f"no filter is called {clip!r}; there are {', '.join(curated.orders)}")
    size, best = int(curated.kept.sum()), curated.best_filter
    chance = np.random.default_rng(seed).permutation(len(curated.usable)).astype(np.float64)
    nobody_drops = curated.usable & (curated.votes != -1).all(axis=1)
    usable = curated.usable

    def of(order: np.ndarray, what: str = "") -> Subset:
        return Subset(_first(order, chance, size), int((order != NEVER).sum()), what)

    return {
        "everything": Subset(np.flatnonzero(usable), int(usable.sum()), "all readable samples"),
        "random": of(np.where(usable, 0.0, NEVER)),
        "best filter": of(curated.orders[best], f"{best}: chosen with the truth, so an upper bound"),
        "CLIP score": of(curated.orders[clip], clip),
        "intersection": of(np.where(nobody_drops, 0.0, NEVER), "no filter votes drop; a random part where too many"),
        OURS: Subset(np.flatnonzero(curated.kept), size, "what the config keeps"),
        ORACLE: Subset(np.flatnonzero(curated.good & usable), int((curated.good & usable).sum()), "the truth's good"),
    }


def _first(order: np.ndarray, chance: np.ndarray, size: int) -> np.ndarray:
    """The samples that come first, at most `size`: (k,) positions, rising; chance decides between equals."""
    ranked = np.lexsort((chance, -order))
    return np.sort(ranked[order[ranked] != NEVER][:size])


def digest(curated: Curated, subset: Subset) -> str:
    """16 hex digits that tell a subset from others, of whatever pool: from its uids in order."""
    return hashlib.sha256("\n".join(curated.uids[subset.rows]).encode()).hexdigest()[:16]


def write_shards(curated: Curated, subset: Subset, folder: Path) -> Path:
    """Writes a subset as shards, as the product would: `chosen` is a column made elsewhere, and a veto reads it.

    Args:
        curated: the pool.
        subset: what to write.
        folder: where to; goes on where it was stopped.

    Returns:
        The folder of shards.

    Raises:
        RuntimeError: the shards do not hold the subset.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # What a scorer could not read is not known to be rejected where that scorer does not run: it is named too, as out.
    chosen = dict.fromkeys(filter(None, curated.uids.tolist()), 0.0)
    chosen |= dict.fromkeys(curated.uids[subset.rows].tolist(), 1.0)
    rows = pa.table({"uid": list(chosen), "chosen": pa.array(chosen.values(), pa.float32())})
    pq.write_table(rows, folder / "chosen.parquet")
    content = {
        "input": [shard.path for shard in curated.experiment.config.shards],
        "store": curated.experiment.config.store,
        "output": str(folder),
        "metadata": str(folder / "chosen.parquet"),
        "filters": {"chosen": {"column": "metadata.chosen", "keep": [0.5, None], "require": True}},
        "keep": {"fraction": 1.0},
        "run": {"max_rejected": 1.0},  # whether too much is broken was judged by the config itself
    }
    (folder / "subset.yaml").write_text(json.dumps(content, indent=1), encoding="utf-8")  # YAML includes JSON
    experiment = Experiment(load_config(str(folder / "subset.yaml"), []), Console(quiet=True))
    run_score(experiment)
    kept = run_decide(experiment)["kept"]
    if kept != len(subset.rows):
        raise RuntimeError(f"{folder} was to hold {len(subset.rows)} samples, and would hold {kept}")
    run_emit(experiment)
    return folder / "shards"
