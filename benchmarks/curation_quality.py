"""Curation quality: a config against what is true of its pool. The yardstick for filters and label models.

    python benchmarks/curation_quality.py examples/flickr8k.yaml ../shared/data/pool-flickr8k/truth.parquet
    python benchmarks/curation_quality.py --rendered        # a pool of the demo's kind, with the demo's config

The truth is a parquet or csv file that names samples by `shard` and `key` and says `keep` and, where known, `kind`.
Copies of one picture share their `group`, or else their `image`: rows that are good, or of a kind of `--duplicates`.

How it is judged. Every source gives an order of the samples: a filter its score, turned so that more is better (what it
cannot judge stands at its median); an ensemble what the product keeps by, probability and then soft score. Rejected
samples count as dropped; for an ensemble also those that a veto, a rule or a lack of votes excludes. AUC is over all
samples of the truth. F1 and recall by kind are at the true keep share: as many are kept as are good. Of copies, the one
that comes first counts as the good one; the others are noise. 95% intervals are of the bootstrap over samples, copies
drawn together, the same draws for every source. Nothing here chooses a range or a setting.
"""

import argparse
import contextlib
import json
import platform
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from quality_metrics import NEVER, Measures, Truth, groups_right, interval, measure, resample
from quality_sources import Judged

from chaffinch.jobs.config import load_config
from chaffinch.jobs.console import Console, table
from chaffinch.jobs.decide import run_decide
from chaffinch.jobs.demo.command import config_for
from chaffinch.jobs.demo.pool import write_clean, write_pool
from chaffinch.jobs.experiment import Experiment
from chaffinch.jobs.score import run_score
from chaffinch.jobs.train import train
from chaffinch.pipeline.deciding.verdicts import decisions_path
from chaffinch.pipeline.engines.engine import set_up_filesystems

OWN, ORACLE, CHANCE = "the config", "oracle", "chance"


def read_truth(path: str, shards: np.ndarray, keys: np.ndarray, duplicates: Sequence[str]) -> tuple[Truth, np.ndarray]:
    """Reads what is true of the samples of a pool.

    Args:
        path: a parquet or csv file.
        shards: (n,) the shard of each sample of the pool.
        keys: (n,) its key.
        duplicates: kinds whose rows are copies of the good row that shares their group.

    Returns:
        The truth, and which of the n samples it is about, in the order of the pool: (n,) bool.

    Raises:
        ValueError: a column is missing, or the file names samples that the pool has not, or has twice.
    """
    read = pyarrow.csv.read_csv if path.endswith(".csv") else pq.read_table
    rows = read(path)
    for column in ("shard", "key", "keep"):
        if column not in rows.column_names:
            raise ValueError(f"{path} has no column {column!r}, but {', '.join(rows.column_names)}")
    named = list(zip(_texts(rows, "shard"), _texts(rows, "key"), strict=True))
    places = {pair: row for row, pair in enumerate(named)}
    known = [places.get(pair, -1) for pair in zip(shards, keys, strict=True)]
    chosen = np.array([row for row in known if row >= 0], np.int64)
    if len(chosen) != len(named) or len(set(chosen.tolist())) != len(named):
        lost = sorted(set(range(len(named))) - set(chosen.tolist()))
        what = f"there is no {named[lost[0]]} in the pool" if lost else "the pool has some of its samples twice"
        raise ValueError(f"{path}: {what}; the truth has to be of this pool")
    rows = rows.take(pa.array(chosen))
    good = rows["keep"].cast(pa.bool_()).to_numpy()
    kinds = _texts(rows, "kind") if "kind" in rows.column_names else ["noise"] * len(good)
    # The ways in which a file can be broken are of one kind here: they are for `score` to reject.
    kinds = ["broken" if kind.startswith("broken") else kind for kind in kinds]
    groups: dict[str, list[int]] = {}
    grouping = [name for name in ("group", "image") if name in rows.column_names][:1]
    for row, group in enumerate(_texts(rows, grouping[0]) if grouping else []):
        if group and (good[row] or kinds[row] in duplicates):
            groups.setdefault(group, []).append(row)
    copies = [np.array(rows) for rows in groups.values() if len(rows) > 1 and good[rows].any() and not good[rows].all()]
    return Truth(good, np.array(kinds, object).astype(str), copies), np.array(known) >= 0


def _texts(rows: pa.Table, column: str) -> list[str]:
    return [text or "" for text in pc.cast(rows[column], pa.string()).to_pylist()]


def tell(found: Measures) -> dict[str, Any]:
    """A source's figures with their intervals, as JSON values: [figure, low, high]."""
    return {
        "auc": interval(found.auc),
        "f1": interval(found.f1),
        "precision": interval(found.precision),
        "recall": interval(found.recall),
        "caught": {kind: interval(values) for kind, values in found.caught.items()},
        "auc_by_kind": {kind: interval(values) for kind, values in found.aucs.items()},
    }


def judge(config: str, truth_file: str, settings: list[str], options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Scores and decides, and measures everything there is to measure.

    Args:
        config: path of the config.
        truth_file: path of the truth.
        settings: `key=value` settings.
        options: of the command line.

    Returns:
        The figures, and the table of them.
    """
    set_up_filesystems(())
    # Whatever the product says on standard output is not this script's result.
    with contextlib.redirect_stdout(sys.stderr):
        experiment = Experiment(load_config(config, settings), Console(quiet=True))
        if not experiment.config.filters:
            raise SystemExit(f"{config} has no filters: there is nothing to compare")
        run_score(experiment)
        summary = run_decide(experiment)
    judged = Judged(config, settings)
    truth, about = read_truth(truth_file, judged.shards, judged.keys, options.duplicates)
    kept = np.concatenate(
        [
            pq.read_table(decisions_path(experiment.output, shard), columns=["keep"])["keep"].to_numpy()
            for shard in dict.fromkeys(judged.shards)
        ]
    )[about]
    own = judged.ensemble_order([])[about]
    if (kept.any() and (own[kept] == NEVER).any()) or own[kept].min(initial=np.inf) < own[~kept].max(initial=NEVER):
        raise RuntimeError("what the product keeps is not what comes first in the order that is measured here")

    orders = {name: judged.filter_order(position)[about] for position, name in enumerate(judged.scores)}
    filters = list(orders)
    models, refused = judged.label_models()
    orders |= {name: order[about] for name, order in models.items()}
    orders[OWN] = own
    if about.all():
        orders[ORACLE] = judged.oracle_order(truth, options.seed)
    rng = np.random.default_rng(options.seed)
    orders[CHANCE] = np.where(judged.usable[about], rng.random(len(own)), NEVER)

    weights = resample(truth, options.resamples, options.seed)
    found = {name: measure(order, truth, weights) for name, order in orders.items()}
    decision = measure(np.where(kept, 1.0, NEVER), truth, weights, as_many_as_good=False)
    best = max(filters, key=lambda name: float(found[name].auc[0]))
    weakest = min(found[OWN].aucs, key=lambda kind: float(found[OWN].aucs[kind][0]))
    votes = judged.votes[about]
    figures: dict[str, Any] = {
        "samples": len(truth.good),
        "good": int(truth.good.sum()),
        "kinds": {kind: int((truth.kinds == kind).sum()) for kind in truth.noise},
        "groups_of_copies": len(truth.copies),
        "without_truth": int((~about).sum()),
        "resamples": options.resamples,
        "seed": options.seed,
        "sources": {name: tell(one) for name, one in found.items()},
        "drop_votes": {
            name: {
                kind: round(float((votes[truth.kinds == kind, position] == -1).mean()), 4)
                for kind in np.unique(truth.kinds)
            }
            for position, name in enumerate(filters)
        },
        "decision": tell(decision) | {"kept": int(kept.sum()), "groups_right": groups_right(kept, truth)},
        "best_filter": best,
        "gain_over_best_filter": interval(found[OWN].auc - found[best].auc),
        "weakest_kind": {weakest: interval(found[OWN].aucs[weakest])},
        "not_applicable": refused,
        "reasons": summary["reasons"],
    }
    return figures, show(found, decision, filters, truth)


def show(found: Mapping[str, Measures], decision: Measures, filters: Sequence[str], truth: Truth) -> str:
    """The figures as a table: a line per source, AUC and F1 with their intervals, then recall by kind of noise."""
    rows = []
    for name, one in [*found.items(), ("as decided", decision)]:
        label = f"filter {name}" if name in filters else name
        rows.append([label, _span(one.auc), _span(one.f1), *(f"{one.caught[kind][0]:.2f}" for kind in truth.noise)])
    return table(["source", "AUC", "F1", *truth.noise], rows)


def _span(values: np.ndarray) -> str:
    figure, low, high = interval(values)
    return f"{figure:.3f} ({low:.3f}-{high:.3f})"


def prose(name: str, figures: Mapping[str, Any]) -> str:
    """The figures that matter most, as a few sentences."""
    sources, decision, best = figures["sources"], figures["decision"], figures["best_filter"]
    gain, (weakest, weakest_auc) = figures["gain_over_best_filter"], next(iter(figures["weakest_kind"].items()))
    ceiling = f", oracle {sources[ORACLE]['auc'][0]:.3f}" if ORACLE in sources else ""
    rules = [f"{label} {sources[label]['auc'][0]:.3f}" for label in ("all, one aspect", "majority, one aspect")]
    return (
        f"{name}: AUC {sources[OWN]['auc'][0]:.3f} and F1 {sources[OWN]['f1'][0]:.3f} at the true keep share of "
        f"{figures['good'] / figures['samples']:.1%}; the best single filter, {best}, {sources[best]['auc'][0]:.3f} "
        f"(gain {gain[0]:+.3f}, 95% {gain[1]:+.3f} to {gain[2]:+.3f}; {', '.join(rules)}{ceiling}). Weakest against "
        f"{weakest}, AUC {weakest_auc[0]:.3f}. As decided: {decision['kept']} kept, precision "
        f"{decision['precision'][0]:.3f}, recall {decision['recall'][0]:.3f}, F1 {decision['f1'][0]:.3f}."
    )


def main() -> None:
    """Measures one config, prints the table and a line of prose, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="*", metavar="CONFIG TRUTH key=value", help="store=FOLDER uses scores again")
    parser.add_argument("--rendered", action="store_true", help="instead of CONFIG and TRUTH")
    parser.add_argument("--samples", type=int, default=2000, help="of the rendered pool")
    parser.add_argument("--pool-seed", type=int, default=100, help="of the rendered pool; the demo's own is 0")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap, the folds and chance")
    parser.add_argument("--name", help="of the result file; else the config's, and no file where settings change it")
    parser.add_argument("--duplicates", nargs="*", default=["duplicate", "repeated_uid"], help="kinds that are copies")
    options = parser.parse_intermixed_args()
    named = [] if options.rendered else options.inputs[:2]
    settings = options.inputs[len(named) :]
    if not options.rendered and len(named) < 2:
        parser.error("give CONFIG and TRUTH, or --rendered")
    with tempfile.TemporaryDirectory(prefix="chaffinch-quality-") as temporary:
        if options.rendered:
            name, (config, truth) = "rendered", render(Path(temporary), options.samples, options.pool_seed)
        else:
            name, (config, truth) = Path(named[0]).stem, (named[0], named[1])
        if not any(setting.startswith("output=") for setting in settings):
            settings = [*settings, f"output={temporary}/output"]
        figures, shown = judge(config, truth, settings, options)
    told = prose(name, figures)
    print(f"{shown}\n\n{told}")
    # Where scores lie changes no figure, and is nobody else's place.
    command = re.sub(r" (store|output)=\S+", "", measuring.command_line())
    content = {"command": command, "prose": told, "figures": figures}
    content["versions"] = {"python": platform.python_version(), "numpy": np.__version__, "pyarrow": pa.__version__}
    if options.name or all(setting.startswith(("output=", "store=")) for setting in settings):
        measuring.RESULTS.mkdir(exist_ok=True)
        path = measuring.RESULTS / f"curation_quality-{options.name or name}.json"
        # A figure and its interval stay on one line.
        text = re.sub(
            r"\[\s+([^][{}]*?)\s+\]", lambda one: f"[{' '.join(one[1].split())}]", json.dumps(content, indent=1)
        )
        path.write_text(text + "\n")


def render(folder: Path, samples: int, seed: int) -> tuple[str, str]:
    """Writes a pool of the demo's kind and its config, and trains what that asks for; the paths of config and truth."""
    write_pool(folder / "pool", samples=samples, seed=seed)
    write_clean(folder / "trusted", samples=300, seed=seed)
    (folder / "demo.yaml").write_text(config_for(folder), encoding="utf-8")
    train(str(folder / "demo.yaml"), [], Console(quiet=True))
    return str(folder / "demo.yaml"), str(folder / "pool" / "truth.parquet")


if __name__ == "__main__":
    main()
