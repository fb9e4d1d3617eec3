"""Real human labels, 9% to 41% of them wrong: training re-weighted by mimic scores, and finding the wrong ones.

    python benchmarks/cifar10n.py probe --work FOLDER
    python benchmarks/cifar10n.py network --work FOLDER --labels worst random1

CIFAR-10N's first 10,000 training pictures are halved by seed: 5,000 are the pool, whose human labels are learned from,
the others are trusted. References have learned true classes: of all 5,000 trusted pictures; of 2,000 of them; and of
the pool's own pictures, as in the publication, which is leakage: such a reference knows the answers, and is no use
where nobody does. Accuracy is of 5,000 test pictures. FOLDER keeps features and outcomes: a stopped run goes on.

AdamW's rate of 1e-4 and weight decay of 1e-5, batches of 32 and the raw scores' temperature of 1 are the authors'
code's, .2 is what their paper prefers; standardised scores at .5 are Chaffinch's own default, and other sources of
weights get the same. The network has AdamW's default rate of 1e-3 and batches of 64. Everybody trains for as many steps
as 10 epochs of the pool have, from the same first weights and, but for the clean labels alone, over the same batches;
references for 10 epochs of their own pictures. Features are the light detector's (`detector_features` says how they
were chosen, without test pictures), each brought to mean 0 and deviation 1 over the 10,000 pictures. Test accuracy
chooses nothing: accuracies are of the last step, and the best ones stand beside them because "steps to plain's best"
needs one.

Source: Huang, Bilkhu, Cooper, Sala, Movellan 2025, Evaluating Sample Utility for Data Selection by Mimicking Model
    Weights, arXiv 2501.06708.
"""

import argparse
import json
import platform
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import torch
from cifar10n_data import LABEL_SETS
from cifar10n_finding import quality
from cifar10n_trial import LEARNERS, Trial, read_world

_SHOWN = ("0", "1", "mean of 0 to 3")


def over_seeds(several: Sequence[Any]) -> Any:
    """Brings outcomes of one form together.

    Args:
        several: one JSON value per seed, all of one form.

    Returns:
        The same form with [mean, standard deviation] in the place of numbers; a list where one is None.
    """
    if isinstance(several[0], Mapping):
        return {key: over_seeds([one[key] for one in several]) for key in several[0]}
    if None in several:
        return [None if one is None else round(one, 4) for one in several]
    spread = statistics.stdev(several) if len(several) > 1 else 0.0
    return [round(statistics.mean(several), 4), round(spread, 4)]


def qualities(outcomes: Mapping[str, Sequence[Mapping[str, Any]]], kinds: Sequence[str]) -> dict[str, Any]:
    """What the sign keeps of each set of labels beside what is clean, by reference and epoch."""
    clean = {name: [1 - one["wrong"] for one in several] for name, several in outcomes.items()}
    told: dict[str, Any] = {}
    for kind in kinds:
        found = {name: [one["finding"][kind]["mimic_score"] for one in several] for name, several in outcomes.items()}
        epochs = list(next(iter(found.values()))[0])
        told[kind] = {
            epoch: quality(
                {name: [one[epoch]["kept"]["sign"] for one in several] for name, several in found.items()}, clean
            )
            for epoch in epochs
        }
    return told


def prose(learner: str, told: Mapping[str, Any]) -> str:
    """The figures that matter most, as sentences: those of the held-out reference, and the AUC of the leaking one."""
    words = [f"{learner}, mean ± standard deviation over {len(told['seeds'])} seeds."]
    for name, one in told["labels"].items():
        words.append(f"{name}, {one['wrong'][0]:.1%} wrong:")
        shown = {arm: run for arm, run in one["runs"].items() if "(" not in arm or arm.endswith("(held-out)")}
        accuracies = ", ".join(
            f"{arm.removesuffix(' (held-out)')} {_pair(run['accuracy'])}{_sooner(run)}" for arm, run in shown.items()
        )
        own = ", ".join(f"{kind} {_pair(run['test accuracy'])}" for kind, run in one["references"].items())
        words.append(f"test accuracy {accuracies}; the references themselves {own}.")
        for kind, found in one["finding"].items():
            by_epoch = {
                source: f"{' '.join(_pair(found[source][epoch]['auc']) for epoch in _SHOWN)}"
                for source in ("mimic_score", "mimic_cosine", "excess_loss", "-loss")
                if source in found
            }
            alone = f"-reference_loss {_pair(found['-reference_loss']['auc'])}"
            disagrees = f"reference disagrees {_pair(found['reference disagrees']['auc'])}"
            rest = ", ".join(f"{source} {value}" for source, value in by_epoch.items())
            words.append(
                f"AUC for wrong labels with the reference {kind}: {alone}, {disagrees}, {rest} (epoch 0, 1, 0-3)."
            )
    for kind, found in told["quality"].items():
        pearson = {epoch: one["pearson"] for epoch, one in found.items() if one["pearson"] is not None}
        if pearson:
            rest = ", ".join(f"{epoch}: {value:.3f}" for epoch, value in pearson.items())
            words.append(f"Pearson r of what the sign keeps and what is clean, reference {kind}, by epoch {rest}.")
    return " ".join(words)


def _sooner(run: Mapping[str, Any]) -> str:
    """In how many of plain training's own steps its best is reached; nothing where a seed does not reach it."""
    share = run["of plain's own"]
    return "" if len(share) > 2 or None in share else f" ({share[0]:.0%} of plain's steps to its best)"


def _pair(values: Sequence[float]) -> str:
    return f"{values[0]:.3f} ± {values[1]:.3f}".replace("0.", ".")


def main() -> None:
    """Trains, looks, prints the prose and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("learner", choices=list(LEARNERS))
    parser.add_argument("--work", type=Path, required=True, help="what a stopped run goes on from")
    parser.add_argument("--labels", nargs="+", choices=list(LABEL_SETS), default=list(LABEL_SETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    before = measuring.machine()
    torch.set_num_threads(1)
    learner, plan = LEARNERS[options.learner]
    world = read_world(options.learner, options.work)
    outcomes: dict[str, list[Any]] = {name: [] for name in options.labels}
    for seed in options.seeds:
        trial = Trial(learner, plan, world, seed)
        for name in options.labels:
            path = options.work / f"{options.learner}-{name}-{seed}.json"
            if not path.exists():
                path.write_text(json.dumps(trial.outcome(name)), encoding="utf-8")
                print(f"seed {seed}, {name}: {path.stat().st_size} bytes", file=sys.stderr, flush=True)
            outcomes[name].append(json.loads(path.read_text(encoding="utf-8")))
    told = {
        "learner": {"name": options.learner} | asdict(learner.recipe),
        "seeds": options.seeds,
        "labels": {name: over_seeds(several) for name, several in outcomes.items()},
        "quality": qualities(outcomes, plan.references),
    }
    words = prose(options.learner, told)
    print(words)
    command = re.sub(r" --work \S+", " --work FOLDER", measuring.command_line())
    versions = {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__}
    content = {"command": command, "prose": words, "figures": told, "machine": before, "versions": versions}
    measuring.RESULTS.mkdir(exist_ok=True)
    text = json.dumps(content, indent=1)
    for innermost in (r"\[\s[^][{}]*\]", r"\{\s[^{}]*\}"):  # on one line each
        text = re.sub(innermost, lambda one: " ".join(one[0].split()), text)
    (measuring.RESULTS / f"cifar10n-{options.learner}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
