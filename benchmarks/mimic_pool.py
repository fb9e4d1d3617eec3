"""Mimic scores on the real pool: how well they find its noise, beside the reference's own loss and a plain CLIP score.

    python benchmarks/mimic_pool.py --work FOLDER

The reference: light heads trained on flickr8k-reference as examples/light_clip.yaml does. The current heads: from the
same first weights, trained on the whole pool, noise and all, in one run of 12 epochs; beside them the reference trained
on for two epochs on the pool, and points between the first weights and the reference. No pair of the reference is in
the pool, so nothing here has seen which pairs are good. The truth is looked at for AUC alone, which is told as
`curation_quality.py` tells it, with the same bootstrap for all. The second table adds votes to examples/mixed.yaml,
each with the ranges that its CLIPs have, from clean pairs; and once more without these CLIPs.

FOLDER keeps trainings and scores for the next run.
"""

import argparse
import contextlib
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from curation_quality import read_truth
from mimic_heads import EXAMPLES, Pool, between, train_on_pool, train_reference
from quality_metrics import NEVER, Truth, interval, measure, resample
from quality_sources import Judged

from chaffinch.jobs.config import load_config
from chaffinch.jobs.console import Console, table
from chaffinch.jobs.experiment import Experiment
from chaffinch.jobs.score import run_score
from chaffinch.pipeline.engines.engine import set_up_filesystems
from chaffinch.scoring.mimic_light import MimicLight
from chaffinch.scoring.scorer import Batch

EPOCHS = (0, 1, 2, 5, 12)
POINTS = (0.3, 0.5)
LAYERS = ("picture", "picture.4", "words", "caption")
LAYERED = ("epoch 2", "0.3 of the way")
DETECTOR = {"kind": "onnx_detector", "weights": "../shared/data/weights/yolox_nano.onnx", "features": True}
ABOVE = {"keep": "above reference 25%", "drop": "below reference 5%"}
"""As examples/mixed.yaml takes its CLIPs; what is better when lower has it the other way round."""
BELOW = {"keep": "below reference 75%", "drop": "above reference 95%"}
VOTES: dict[str, dict[str, Any]] = {
    "mimic, sign": {"kind": "mimic_steps", "column": "alignment.mimic_score"},
    "mimic, mean": {"kind": "mimic_steps", "column": "alignment.mimic_score", "aggregate": "mean", **ABOVE},
    "-reference_loss": {"column": "alignment.reference_loss", **BELOW},
    "reference_similarity": {"column": "alignment.reference_similarity", **ABOVE},
}
ADDED: tuple[tuple[str, ...], ...] = (
    (),
    ("mimic, sign",),
    ("mimic, mean",),
    ("-reference_loss",),
    ("-reference_loss", "mimic, sign"),
    ("-reference_loss", "mimic, mean"),
    # A second vote of the same reference: what more votes alone come to.
    ("-reference_loss", "reference_similarity"),
)
CLIPS = ("small_clip", "scratch_clip")


def write_config(path: Path, alignment: Mapping[str, Any] | None, votes: Sequence[str], without: Sequence[str]) -> str:
    """Writes examples/mixed.yaml with features, perhaps mimic scores, more votes, and without some of its filters."""
    content = yaml.safe_load((EXAMPLES / "mixed.yaml").read_text())
    content["scorers"]["features"] = DETECTOR
    if alignment is not None:
        content["scorers"]["alignment"] = dict(alignment)
    content["filters"] |= {re.sub(r"\W+", "_", vote).strip("_"): VOTES[vote] for vote in votes}
    content["filters"] = {name: one for name, one in content["filters"].items() if name not in without}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(path)


def scored(config: str, settings: list[str]) -> Judged:
    """Scores what is not yet scored and judges."""
    with contextlib.redirect_stdout(sys.stderr):
        run_score(Experiment(load_config(config, settings), Console(quiet=True)))
    return Judged(config, settings)


def read_pool(judged: Judged) -> Pool:
    """Reads what was measured."""
    side = judged.experiment.sides[0]
    folders, shards = side.folders(), list(dict.fromkeys(judged.shards))

    def column(name: str, scorer: str | None = None) -> list[Any]:
        paths = [side.store.scores(folders[scorer], one) if scorer else side.store.samples(one) for one in shards]
        return pa.concat_arrays([pq.read_table(path)[name].combine_chunks() for path in paths]).to_pylist()

    vectors = column("features", "features")
    length = max(len(vector) for vector in vectors if vector)
    features = np.array([vector or [0.0] * length for vector in vectors], np.float32)
    usable = judged.usable & np.array([vector is not None for vector in vectors])
    return Pool(column("uid"), column("text", "captions"), features, usable)


def align(
    pool: Pool, paths: Mapping[str, Path], reference: Path, layers: str = "*"
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Mimic scores and all that comes with them: column -> (n, t), NaN where rejected; and what was warned of."""
    names = tuple(map(str, paths.values()))
    scorer = MimicLight("features.features", names, str(reference), layers=(layers,), cosine=layers == "*")
    warned: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: warned.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("chaffinch.scoring.alignment.aligner")
    logger.addHandler(handler)
    model = scorer.load("cpu")
    rows = np.flatnonzero(pool.usable).tolist()
    found: dict[str, list[np.ndarray]] = {name: [] for name in scorer.columns}
    for start in range(0, len(rows), 64):
        part = rows[start : start + 64]
        lists = pa.FixedSizeListArray.from_arrays(pa.array(pool.features[part].ravel()), pool.features.shape[1])
        uids, captions = [pool.uids[row] for row in part], [pool.captions[row] for row in part]
        for name, values in scorer.score(Batch(uids, captions, (), {"features.features": lists}), model).items():
            flat = values.flatten().to_numpy() if isinstance(values, pa.Array) else values
            found[name].append(flat.reshape(len(part), -1))
    logger.removeHandler(handler)
    whole = {}
    for name, parts in found.items():
        values = np.concatenate(parts)
        whole[name] = np.full((len(pool.usable), values.shape[1]), np.nan)
        whole[name][rows] = values
    known = {str(path): name for name, path in paths.items()}
    told = [re.sub(r"\S+\.pt", lambda one: known.get(one[0], "the reference"), line) for line in warned]
    return whole, told


def orders(found: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Every order of the pool that mimic scores and their companions give, more is better."""
    mimic, cosine = found["mimic_score"], found["mimic_cosine"]
    told = {f"mimic_score, {name}": mimic[:, step] for step, name in enumerate(names)}
    early = [names.index(f"epoch {epoch}") for epoch in (0, 1, 2)]
    told["mimic_score, mean of epochs 0-2"] = mimic[:, early].mean(axis=1)
    told |= {f"mimic_cosine, {name}": cosine[:, step] for step, name in enumerate(names)}
    told["mimic_cosine, mean of epochs 0-2"] = cosine[:, early].mean(axis=1)
    told |= {f"excess_loss, {name}": found["excess_loss"][:, step] for step, name in enumerate(names)}
    told |= {f"-loss, {name}": -found["loss"][:, step] for step, name in enumerate(names)}
    told["-reference_loss"] = -found["reference_loss"][:, 0]
    return told | {"reference_similarity": found["reference_similarity"][:, 0]}


def judge(order: np.ndarray, usable: np.ndarray, truth: Truth, weights: np.ndarray) -> dict[str, Any]:
    """AUC over all and by kind of noise, each with its interval."""
    known = np.where(np.isnan(order), np.nanmedian(order[usable]), order)
    found = measure(np.where(usable, known, NEVER), truth, weights)
    return {"auc": interval(found.auc), "by_kind": {kind: interval(one) for kind, one in found.aucs.items()}}


def sign(scores: np.ndarray, usable: np.ndarray, truth: Truth) -> dict[str, float]:
    """What the sign of a mimic score keeps: its share of the usable samples, and how right it is."""
    kept = usable & (scores >= 0)
    return {
        "kept": round(float(kept.sum() / usable.sum()), 4),
        "precision": round(float(truth.good[kept].mean()) if kept.any() else 0.0, 4),
        "recall": round(float(kept[truth.good].mean()), 4),
    }


def ensembles(work: Path, settings: list[str], alignment: Mapping[str, Any], options: argparse.Namespace) -> Any:
    """Examples/mixed.yaml with and without mimic votes: AUC, F1, and what is gained, sample by sample the same."""
    figures: dict[str, Any] = {}
    for base, without in (("mixed", ()), ("mixed without its CLIPs", CLIPS)):
        alone = None
        for votes in ADDED:
            config = write_config(work / "variant.yaml", alignment, votes, without)
            judged = scored(config, settings)
            truth, _ = read_truth(options.truth, judged.shards, judged.keys, ["duplicate", "repeated_uid"])
            weights = resample(truth, options.resamples, options.seed)
            found = measure(judged.ensemble_order([]), truth, weights)
            alone = found if alone is None else alone
            name = " + ".join([base, *votes])
            figures[name] = {
                "auc": interval(found.auc),
                "f1": interval(found.f1),
                "auc_gained": interval(found.auc - alone.auc),
                "f1_gained": interval(found.f1 - alone.f1),
            }
            print(f"  {name}: {figures[name]}", file=sys.stderr)
    return figures


def show(sources: Mapping[str, Any], ensembles: Mapping[str, Any]) -> str:
    """Both tables."""
    kinds = list(next(iter(sources.values()))["by_kind"])
    rows = [
        [name, _span(one["auc"]), *(f"{one['by_kind'][kind][0]:.3f}" for kind in kinds)]
        for name, one in sources.items()
    ]
    more = [
        [name, _span(one["auc"]), f"{one['auc_gained'][0]:+.3f}", _span(one["f1"]), f"{one['f1_gained'][0]:+.3f}"]
        for name, one in ensembles.items()
    ]
    heads = ["ensemble", "AUC", "gain", "F1", "gain"]
    return f"{table(['source', 'AUC', *kinds], rows)}\n\n{table(heads, more)}"


def _span(values: Sequence[float]) -> str:
    return f"{values[0]:.3f} ({values[1]:.3f}-{values[2]:.3f})"


def prose(figures: Mapping[str, Any]) -> str:
    """The figures that matter most, as sentences."""
    auc = {name: one["auc"][0] for name, one in figures["sources"].items()}
    mimic = {name: value for name, value in auc.items() if name.startswith("mimic")}
    best = max(mimic, key=lambda name: mimic[name])
    steps = ", ".join(f"{auc[f'mimic_score, epoch {epoch}']:.3f}" for epoch in EPOCHS)
    low, high = figures["sources"][best]["auc"][1:]
    gains = "; ".join(
        f"{name} {one['auc'][0]:.3f} ({one['auc_gained'][0]:+.3f}, 95% {one['auc_gained'][1]:+.3f} to "
        f"{one['auc_gained'][2]:+.3f})"
        for name, one in figures["ensembles"].items()
    )
    return (
        f"AUC of the mimic score with current heads of {', '.join(map(str, EPOCHS))} epochs {steps}; its best form, "
        f"{best}, {mimic[best]:.3f} ({low:.3f} to {high:.3f}); minus the reference's loss "
        f"{auc['-reference_loss']:.3f}, its similarity {auc['reference_similarity']:.3f}, the plain CLIP score "
        f"{auc['small_clip']:.3f}. Ensembles: {gains}."
    )


def main() -> None:
    """Trains, scores, measures, prints both tables and a line of prose, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="where trainings and scores are kept")
    parser.add_argument("--truth", default=str(measuring.REAL_POOL / "truth.parquet"))
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of trainings and bootstrap")
    options = parser.parse_args()
    before = measuring.machine()
    torch.set_num_threads(1)
    set_up_filesystems(())
    work = options.work
    work.mkdir(parents=True, exist_ok=True)
    settings = [f"store={work}/store", f"output={work}/out", "run.device=cpu"]
    trained = train_reference(work / "reference", options.seed)
    first, reference = trained / "epoch_0.pt", trained / "final.pt"
    judged = scored(write_config(work / "variant.yaml", None, [], ()), settings)
    pool = read_pool(judged)
    current = train_on_pool(pool, first, work / "current", EPOCHS, options.seed)
    paths = {f"epoch {epoch}": path for epoch, path in zip(EPOCHS, current, strict=True)}
    tuned = train_on_pool(pool, reference, work / "tuned", (1, 2), options.seed)
    paths |= {f"reference, {epoch} on the pool": path for epoch, path in zip((1, 2), tuned, strict=True)}
    paths |= {f"{share} of the way": between(first, reference, share, work / f"{share}.pt") for share in POINTS}

    truth, _ = read_truth(options.truth, judged.shards, judged.keys, ["duplicate", "repeated_uid"])
    weights = resample(truth, options.resamples, options.seed)
    found, warned = align(pool, paths, reference)
    lines = orders(found, list(paths))
    some = {name: paths[name] for name in LAYERED}
    for layer in LAYERS:
        alone, _ = align(pool, some, reference, layer)
        for step, name in enumerate(some):
            lines[f"mimic_score, {name}, {layer} alone"] = alone["mimic_score"][:, step]
    lines |= {name: judged.scores[name].astype(np.float64) for name in CLIPS}
    figures: dict[str, Any] = {
        "samples": len(truth.good),
        "good": int(truth.good.sum()),
        "resamples": options.resamples,
        "seed": options.seed,
        "sources": {name: judge(order, pool.usable, truth, weights) for name, order in lines.items()},
        "sign": {name: sign(found["mimic_score"][:, step], pool.usable, truth) for step, name in enumerate(paths)},
        "warned": warned,
    }
    alignment = {"kind": "mimic_light", "features": "features.features", "reference": str(reference)}
    alignment["weights"] = [str(path) for path in current[:3]]
    figures["ensembles"] = ensembles(work, settings, alignment, options)
    print(show(figures["sources"], figures["ensembles"]), end="\n\n")
    measuring.finish(figures, prose(figures), before)


if __name__ == "__main__":
    main()
