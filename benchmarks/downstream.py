"""Downstream: does a model trained on what was kept come out better? DataComp's protocol in miniature.

    python benchmarks/downstream.py --rendered --work FOLDER
    python benchmarks/downstream.py examples/flickr8k.yaml ../shared/data/pool-flickr8k/truth.parquet \
        --clip small_clip --evaluate ../shared/data/flickr8k-eval/00000001.tar --work FOLDER

The same model is trained for the same number of samples seen, with the same recipe, on subsets of one pool: everything
that is readable, a random subset, the best single filter (chosen with the truth: an upper bound on choosing one), the
CLIP score alone, the intersection of all filters, what the config keeps, and the truth's good samples. All but the
first and the last hold as many samples as the config keeps, or all there are where a source has fewer. Each model is
tried on clean pairs that are in neither pool nor reference, by retrieval both ways; three seeds of weights, order and
augmentation each. Nothing here chooses a setting of the config, and no recipe is chosen by a subset.

With --rendered the pool is of the demo's kind and size as given, the config is the demo's, and pairs to try on are
clean scenes of another seed. FOLDER keeps each outcome: a stopped run goes on, and a subset that equals another one is
not trained on twice.

Source: S. Y. Gadre et al. (2023), DataComp, arXiv 2304.14108.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import platform
import re
import shutil
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import pyarrow as pa
import torch
from curation_quality import render
from downstream_heads import Heads
from downstream_learners import Learner, Outcome, Scratch
from downstream_subsets import OURS, Curated, Subset, choose, curate, digest, write_shards

from chaffinch.jobs.console import table
from chaffinch.jobs.demo.pool import write_clean
from chaffinch.jobs.training import ShardSamples
from chaffinch.pipeline.engines.engine import set_up_filesystems
from chaffinch.pipeline.shards import Shard, find_shards

LEARNERS = {"scratch": Scratch, "heads": Heads}
"""--learner -> its settings."""

AVERAGE = "average recall"
"""The mean of recall at 1, 5 and 10 both ways."""


def outcomes(
    curated: Curated,
    subsets: Mapping[str, Subset],
    learner: Learner,
    seeds: Sequence[int],
    evaluation: str,
    work: Path,
    say: Callable[[str], None],
) -> dict[str, list[Outcome]]:
    """Trains on every subset with every seed, seed by seed, but for what an earlier run has left in `work`.

    Args:
        curated: the pool.
        subsets: name -> subset.
        learner: who learns.
        seeds: of the learner.
        evaluation: shards to try it on.
        work: a folder.
        say: where to tell how far it is.

    Returns:
        Name -> an outcome per seed.

    Raises:
        ValueError: the evaluation holds a picture of the pool or of the reference.
        RuntimeError: somebody has seen another number of samples than the others.
    """
    tried_on = list(find_shards(evaluation))
    config = curated.experiment.config
    known = disjoint([*config.shards, *config.reference], tried_on)
    settings = hashlib.sha256(f"{learner!r} {known}".encode()).hexdigest()[:16]
    found: dict[str, list[Outcome]] = {name: [] for name in subsets}
    for seed in seeds:
        for name, subset in subsets.items():
            place = work / "trainings" / f"{digest(curated, subset)}-{settings}-{seed}"
            path = place / "outcome.json"
            if not path.exists():
                say(f"seed {seed}, {name}: {len(subset.rows)} samples")
                shards = write_shards(curated, subset, work / "subsets" / digest(curated, subset))
                outcome = learner.learn(shards, evaluation, seed, place)
                shutil.rmtree(place / "training", ignore_errors=True)  # weights are large, and nobody asks again
                path.write_text(json.dumps(dataclasses.asdict(outcome), indent=1) + "\n", encoding="utf-8")
            found[name].append(Outcome(**json.loads(path.read_text(encoding="utf-8"))))
            if found[name][-1].samples_seen != learner.samples_seen:
                raise RuntimeError(
                    f"{name} has seen {found[name][-1].samples_seen} samples, not {learner.samples_seen}: "
                    "samples seen have to be a multiple of the batch, and no subset smaller than one"
                )
    return found


def disjoint(known: Iterable[Shard], tried_on: Iterable[Shard]) -> str:
    """Makes sure that nobody is tried on what it may have been trained on or measured by.

    Args:
        known: shards of pool and reference.
        tried_on: shards of the evaluation.

    Returns:
        A digest of what is evaluated on.

    Raises:
        ValueError: a picture is on both sides, or there is nothing to try on.
    """
    seen = set().union(*(_pictures(shard) for shard in known))
    fresh = [_pictures(shard) for shard in tried_on]
    if not any(fresh):
        raise ValueError("there is nothing to evaluate on")
    if shared := seen & set().union(*fresh):
        raise ValueError(f"{len(shared)} pictures of the evaluation are in the pool or the reference too")
    return hashlib.sha256("".join(sorted(set().union(*fresh))).encode()).hexdigest()


def _pictures(shard: Shard) -> set[str]:
    with ShardSamples([shard]) as samples:
        return {hashlib.sha256(samples.picture(index)).hexdigest() for index in range(len(samples))}


def figures(
    curated: Curated, subsets: Mapping[str, Subset], found: Mapping[str, Sequence[Outcome]], seeds: Sequence[int]
) -> dict[str, Any]:
    """What all came to: JSON values. A pair is a mean over seeds and the standard deviation between them.

    Args:
        curated: the pool.
        subsets: name -> subset.
        found: name -> an outcome per seed.
        seeds: of the outcomes.

    Returns:
        "subsets": per name its size, how clean it is, and recalls; "ours_less": ours minus each, in average recall,
        seed by seed, as a pair.
    """
    ours = set(subsets[OURS].rows.tolist())
    average = {name: [statistics.mean(one.recall.values()) for one in several] for name, several in found.items()}
    told: dict[str, Any] = {}
    for name, subset in subsets.items():
        rows, several = set(subset.rows.tolist()), found[name]
        twin = next((other for other in told if set(subsets[other].rows.tolist()) == rows), None)
        told[name] = {
            "samples": len(rows),
            "found": subset.found,
            "what": subset.what,
            "same_as": twin,
            "clean": round(float(curated.good[subset.rows].mean()), 4),
            "shared_with_ours": round(len(rows & ours) / max(len(rows | ours), 1), 4),
            "samples_seen": several[0].samples_seen,
            AVERAGE: pair(average[name]),
            "recall": {key: pair([one.recall[key] for one in several]) for key in several[0].recall},
            "runs": {
                str(seed): dataclasses.asdict(one) | {AVERAGE: round(value, 4)}
                for seed, one, value in zip(seeds, several, average[name], strict=True)
            },
        }
    return {
        "pool": {
            "samples": len(curated.usable),
            "usable": int(curated.usable.sum()),
            "good": int(curated.good.sum()),
            "kept": int(curated.kept.sum()),
            "best_filter": curated.best_filter,
            "auc": {name: round(value, 4) for name, value in curated.aucs.items()},
        },
        "subsets": told,
        "ours_less": {
            name: pair([mine - other for mine, other in zip(average[OURS], values, strict=True)])
            for name, values in average.items()
            if name != OURS
        },
    }


def pair(values: Sequence[float]) -> list[float]:
    """Mean and standard deviation (of a sample; 0 for a single value), rounded to 4 digits."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return [round(statistics.mean(values), 4), round(deviation, 4)]


def show(told: Mapping[str, Any]) -> str:
    """The figures as a table, recalls in percent: mean ± standard deviation over seeds."""
    subsets = told["subsets"]
    keys = list(next(iter(subsets.values()))["recall"])
    rows = [
        [
            name if one["same_as"] is None else f"{name} (= {one['same_as']})",
            str(one["samples"]),
            f"{one['clean']:.0%}",
            f"{one['shared_with_ours']:.2f}",
            *(_percent(one["recall"][key]) for key in keys),
            _percent(one[AVERAGE]),
        ]
        for name, one in subsets.items()
    ]
    header = [key.replace("image to text", "i→t").replace("text to image", "t→i") for key in keys]
    return table(["trained on", "samples", "clean", "Jaccard", *header, "average"], rows)


def prose(name: str, told: Mapping[str, Any]) -> str:
    """The figures that matter most, as a few sentences."""
    subsets, less = told["subsets"], told["ours_less"]
    order = sorted(subsets, key=lambda one: -subsets[one][AVERAGE][0])
    ranked = ", ".join(f"{one} {_percent(subsets[one][AVERAGE])}" for one in order)
    gains = ", ".join(f"{other} {100 * mean:+.1f} ± {100 * spread:.1f}" for other, (mean, spread) in less.items())
    seen, runs = subsets[OURS]["samples_seen"], len(subsets[OURS]["runs"])
    return (
        f"{name}: average recall in percent after {seen} samples seen, mean ± standard deviation over {runs} seeds: "
        f"{ranked}. Ours minus each, seed by seed: {gains}."
    )


def _percent(values: Sequence[float]) -> str:
    return f"{100 * values[0]:.1f} ± {100 * values[1]:.1f}"


def main() -> None:
    """Curates, trains and tries, prints the table and a line of prose, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="*", metavar="CONFIG TRUTH key=value")
    parser.add_argument("--rendered", action="store_true", help="instead of CONFIG and TRUTH")
    parser.add_argument("--work", type=Path, required=True, help="what a stopped run goes on from")
    parser.add_argument("--clip", help="the filter that is the CLIP score; needed with CONFIG")
    parser.add_argument("--evaluate", help="shards of clean pairs to try models on; needed with CONFIG")
    parser.add_argument("--learner", choices=sorted(LEARNERS), default="scratch")
    parser.add_argument("--samples-seen", type=int, default=24_000, help="by each model, each visit counted")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=8000, help="of the rendered pool")
    parser.add_argument("--pool-seed", type=int, default=100, help="of the rendered pool")
    parser.add_argument("--pairs", type=int, default=1000, help="to try models on, of the rendered world")
    parser.add_argument("--subset-seed", type=int, default=0, help="of the random subset")
    options = parser.parse_intermixed_args()
    settings = options.inputs[0 if options.rendered else 2 :]
    if not options.rendered and (len(options.inputs) < 2 or not options.clip or not options.evaluate):
        parser.error("give CONFIG, TRUTH, --clip and --evaluate; or --rendered")
    before, work = measuring.machine(), options.work
    # Whatever the product says on standard output is not this script's result.
    with contextlib.redirect_stdout(sys.stderr):
        set_up_filesystems(())
        if options.rendered:
            name, work = "rendered", work / f"rendered-{options.samples}-{options.pool_seed}-{options.pairs}"
            config, truth = str(work / "demo.yaml"), str(work / "pool" / "truth.parquet")
            clip, evaluation = options.clip or "match", str(work / "evaluation")
            if not Path(config).exists():  # it is written last
                write_clean(evaluation, samples=options.pairs, seed=options.pool_seed + 1)
                render(work, options.samples, options.pool_seed)
        else:
            name, (config, truth) = Path(options.inputs[0]).stem, options.inputs[:2]
            clip, evaluation, work = options.clip, options.evaluate, work / Path(options.inputs[0]).stem
        curated = curate(config, truth, [*settings, f"output={work}/curated", f"store={work}/store"])
        learner = LEARNERS[options.learner](options.samples_seen)
        subsets = choose(curated, clip, options.subset_seed)
        found = outcomes(curated, subsets, learner, options.seeds, evaluation, work, _say)
    told = figures(curated, subsets, found, options.seeds)
    told |= {"learner": {"kind": options.learner} | dataclasses.asdict(learner), "seeds": options.seeds}
    words = prose(name, told)
    print(f"{show(told)}\n\n{words}")
    command = re.sub(r" --work \S+", " --work FOLDER", measuring.command_line())
    versions = {"python": platform.python_version(), "numpy": np.__version__, "pyarrow": pa.__version__}
    versions["torch"] = torch.__version__
    content = {"command": command, "prose": words, "figures": told, "machine": before, "versions": versions}
    measuring.RESULTS.mkdir(exist_ok=True)
    text = re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda one: f"[{' '.join(one[1].split())}]", json.dumps(content, indent=1))
    (measuring.RESULTS / f"downstream-{name}-{options.learner}.json").write_text(text + "\n", encoding="utf-8")


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
