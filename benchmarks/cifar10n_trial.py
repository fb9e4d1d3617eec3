"""One seed of CIFAR-10N: its split, its references, and all that is learned from a set of labels and found in it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cifar10n_data import SHARED, detector_features, read_labels, read_pictures, split, standardise
from cifar10n_finding import EARLY, EPOCHS, find
from cifar10n_learners import (
    Data,
    Learner,
    Network,
    Probe,
    Run,
    State,
    Weigh,
    Weigher,
    accuracy_of,
    agrees,
    in_parts,
    losses_of,
    restore,
    train,
)

REFERENCES = {"held-out": 5000, "held-out, 2000": 2000, "same pictures": 0}
"""How many trusted pictures a reference has learned from; 0: the pool's own pictures with their true classes."""

MIMIC, BY_COSINE = "mimic, standardised", "mimic_cosine, standardised"
BY_REFERENCE = "-reference_loss, standardised"
ARMS: dict[str, Weigh] = {
    MIMIC: Weigh("mimic_score", 0.5, True),
    BY_COSINE: Weigh("mimic_cosine", 0.5, True),
    "mimic, raw, temperature 1": Weigh("mimic_score", 1.0, False),
    "mimic, raw, temperature .2": Weigh("mimic_score", 0.2, False),
    BY_REFERENCE: Weigh("reference_loss", 0.5, True),
    "excess_loss, standardised": Weigh("excess_loss", 0.5, True),
}
TRAINED = ("worst", "random1", "aggregate")
"""Label sets that re-weighted models are trained on; on the others only the plain one is."""


@dataclass(frozen=True)
class Plan:
    """What is tried with a learner.

    Attributes:
        references: of `REFERENCES`.
        arms: reference -> of `ARMS`.
        cosines: reference -> the last epoch at which cosines are measured, none where it is not named: the network
            needs a gradient for every sample.
    """

    references: Sequence[str]
    arms: Mapping[str, Sequence[str]]
    cosines: Mapping[str, int]


LEARNERS: dict[str, tuple[Learner, Plan]] = {
    "probe": (
        Probe(),
        Plan(
            list(REFERENCES),
            {
                "held-out": list(ARMS),
                "held-out, 2000": [MIMIC, BY_COSINE, BY_REFERENCE],
                "same pictures": [MIMIC, BY_COSINE, BY_REFERENCE],
            },
            dict.fromkeys(REFERENCES, max(EPOCHS)),
        ),
    ),
    "network": (
        Network(),
        Plan(
            ["held-out", "same pictures"],
            {"held-out": [MIMIC, BY_REFERENCE], "same pictures": []},
            {"held-out": max(EARLY)},
        ),
    ),
}


@dataclass(frozen=True)
class World:
    """CIFAR-10N as a learner sees it.

    Attributes:
        inputs: (n, ...) float32, of the pictures that are split.
        truth: (n,) int64.
        labels: label set -> (n,) int64.
        test: pictures and true classes.
    """

    inputs: torch.Tensor
    truth: torch.Tensor
    labels: Mapping[str, torch.Tensor]
    test: Data


def read_world(learner: str, work: Path) -> World:
    """Reads the pictures, as features for the probe and as pixels for the network."""
    pictures, others = (read_pictures(SHARED / "cifar10n" / name) for name in ("train_first10000.zip", "test_half.zip"))
    labels = read_labels(SHARED / "cifar10n" / "labels.csv", pictures)
    if learner == "probe":
        inputs, tried = standardise(detector_features(pictures, work), detector_features(others, work))
    else:
        pixels, tried = (one.pixels().astype(np.float32) for one in (pictures, others))
        mean, spread = pixels.mean(axis=(0, 2, 3), keepdims=True), pixels.std(axis=(0, 2, 3), keepdims=True)
        inputs, tried = (pixels - mean) / spread, (tried - mean) / spread
    return World(
        torch.from_numpy(inputs),
        torch.from_numpy(pictures.truth),
        {name: torch.from_numpy(given) for name, given in labels.items()},
        Data(torch.from_numpy(tried), torch.from_numpy(others.truth)),
    )


class Trial:
    """One seed: its split, its references, and what is learned from each set of labels."""

    def __init__(self, learner: Learner, plan: Plan, world: World, seed: int) -> None:
        """Splits the pictures; nothing is trained yet."""
        self.learner, self.plan, self.world, self.seed = learner, plan, world, seed
        # Not a method's decorator, which would keep all trials.
        self.reference = cache(self._train_reference)

    def outcome(self, name: str) -> dict[str, Any]:
        """Trains on a set of labels in all ways and looks for the wrong ones: JSON values."""
        began = time.process_time()
        rows = split(len(self.world.truth), max(REFERENCES.values()), self.seed).pool
        pool, truth = Data(self.world.inputs[rows], self.world.labels[name][rows]), self.world.truth[rows]
        wrong = (pool.labels != truth).numpy()
        plain = train(self.learner, pool, self.seed, self.world.test, keep=(*EPOCHS, *EARLY))
        runs: dict[str, Any] = {"plain": _told(plain, plain)}
        if name in TRAINED:
            clean = train(self.learner, pool, self.seed, self.world.test, rows=np.flatnonzero(~wrong))
            runs["clean labels only"] = _told(clean, plain)
        told: dict[str, Any] = {"wrong": float(wrong.mean()), "runs": runs, "references": {}, "finding": {}}
        for kind in self.plan.references:
            state = self.reference(kind)
            model = restore(self.learner, pool, state)
            losses, right = losses_of(model, pool), agrees(model, pool)
            told["references"][kind] = {"test accuracy": accuracy_of(model, self.world.test)}
            told["finding"][kind] = find(self._align(plain, state, pool, kind), losses.numpy(), right.numpy(), wrong)
            for arm in self.plan.arms[kind] if name in TRAINED else ():
                weigher = Weigher(ARMS[arm], self.learner, state, losses)
                run = train(self.learner, pool, self.seed, self.world.test, weigh=weigher)
                gain = _told(run, plain)
                gain["accuracy less clean labels only"] = run.curve[-1][1] - clean.curve[-1][1]
                runs[f"{arm} ({kind})"] = gain
        return told | {"cpu_seconds": time.process_time() - began}

    def _align(self, plain: Run, reference: State, pool: Data, kind: str) -> dict[str, dict[int, np.ndarray]]:
        found: dict[str, dict[int, np.ndarray]] = {"mimic_score": {}, "mimic_cosine": {}, "loss": {}}
        for epoch, state in plain.states.items():
            model = restore(self.learner, pool, state)

            def scores(part: Data, model: torch.nn.Module = model) -> torch.Tensor:
                return self.learner.align(model, reference, part)

            def cosines(part: Data, model: torch.nn.Module = model) -> torch.Tensor:
                return self.learner.cosines(model, reference, part)

            size = self.learner.recipe.batch
            found["loss"][epoch] = losses_of(model, pool).numpy()
            found["mimic_score"][epoch] = in_parts(scores, pool, size).numpy()
            if epoch <= self.plan.cosines.get(kind, -1):
                found["mimic_cosine"][epoch] = in_parts(cosines, pool, size).numpy()
        return found

    def _train_reference(self, kind: str) -> State:
        parts = split(len(self.world.truth), REFERENCES[kind] or max(REFERENCES.values()), self.seed)
        rows = parts.trusted if REFERENCES[kind] else parts.pool
        run = train(self.learner, Data(self.world.inputs[rows], self.world.truth[rows]), self.seed)
        return next(iter(run.states.values()))


def _told(run: Run, plain: Run) -> dict[str, Any]:
    """The figures of a run beside the plain one."""
    best = max(accuracy for _, accuracy in plain.curve)
    steps, of_plain = (next((step for step, accuracy in one.curve if accuracy >= best), None) for one in (run, plain))
    return {
        "accuracy": run.curve[-1][1],
        "accuracy less plain": run.curve[-1][1] - plain.curve[-1][1],
        "best accuracy": max(accuracy for _, accuracy in run.curve),
        "steps to plain's best": steps,
        "of plain's own": steps / max(of_plain or 1, 1) if steps is not None else None,
        "effective batch": run.effective,
    }
