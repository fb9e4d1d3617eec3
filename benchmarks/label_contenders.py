"""Label models side by side: ours in this process, those of other libraries through their own interpreter."""

import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from chaffinch.filters import label_models
from chaffinch.filters.label_models.auto import Auto
from chaffinch.filters.label_models.flying_squid import FlyingSquid
from chaffinch.filters.label_models.label_model import LabelModel
from chaffinch.filters.label_models.metal import Metal

RUNNER = Path(__file__).with_name("label_libraries.py")

ALGORITHMS = {
    "majority": ("snorkel MajorityLabelVoter", "crowd-kit MajorityVote"),
    "weighted majority": ("crowd-kit Wawa",),
    "Dawid-Skene, one coin": ("crowd-kit OneCoinDawidSkene",),
    "Dawid-Skene": ("crowd-kit DawidSkene",),
    "MeTaL": ("snorkel LabelModel", "snorkel LabelModel, 500 epochs"),
    "MeTaL, true prior": ("snorkel LabelModel, true prior", "snorkel LabelModel, 500 epochs, true prior"),
    "triplets": ("flyingsquid mean", "flyingsquid median"),
    "triplets, true prior": ("flyingsquid mean, true prior", "flyingsquid median, true prior"),
    "GLAD": ("crowd-kit GLAD",),
}
"""The algorithm that models of theirs implement; ours are held against the same."""


@dataclass(frozen=True)
class Votes:
    """What every label model gets.

    Attributes:
        classes: k.
        fit: (n, m) int8 votes to learn from: -1 abstain, 0..k-1 classes.
        judged: (q, m) int8 votes to judge; the same object as `fit` where nothing is held out.
        prior: (k,) the true class prior, for models that are told.
    """

    classes: int
    fit: np.ndarray
    judged: np.ndarray
    prior: np.ndarray


@dataclass(frozen=True)
class Answer:
    """What a label model says.

    Attributes:
        proba: (q, k) posterior; None where it refused.
        accuracy: (m,) estimated accuracies, NaN where there are none.
        seconds: of CPU, fit and posterior.
        refused: why there is no answer.
        model: of ours, the fitted label model.
    """

    proba: np.ndarray | None
    accuracy: np.ndarray
    seconds: float = 0.0
    refused: str = ""
    model: LabelModel | None = None


@dataclass(frozen=True)
class Ours:
    """A label model of ours.

    Attributes:
        algorithm: key of `ALGORITHMS`, or one of its own.
        make: takes `classes` and `class_prior`, None where it is not told.
        told: whether it is told the true prior.
    """

    algorithm: str
    make: Callable[..., LabelModel]
    told: bool = False

    def answer(self, votes: Votes, seconds: float = 0.0) -> Answer:
        """Fits and judges; given up after so many seconds of CPU, 0 for never."""
        prior = None
        if self.told:
            prior = float(votes.prior[1]) if votes.classes == 2 else tuple(votes.prior.tolist())
        began = time.process_time()
        signal.signal(signal.SIGPROF, _give_up)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            model = self.make(classes=votes.classes, class_prior=prior).fit(as_ours(votes.fit, votes.classes))
            proba = model.predict_proba(as_ours(votes.judged, votes.classes))
        except (ValueError, TimeoutError) as reason:
            return Answer(None, np.full(votes.fit.shape[1], np.nan), refused=str(reason))
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0.0)
        if proba.ndim == 1:
            proba = np.column_stack([1 - proba, proba])
        return Answer(proba, model.accuracy_, time.process_time() - began, model=model)


def _give_up(signal_number: int, frame: object) -> None:
    raise TimeoutError("took too long")


def as_ours(votes: np.ndarray, classes: int) -> np.ndarray:
    """Votes as Chaffinch writes them: -1, 0, +1 with two classes, 0 abstain and 1..k with more."""
    if classes == 2:
        return np.array([-1, 1, 0], np.int8)[votes.astype(np.intp)]  # indexed by 0, 1, -1
    return (votes + 1).astype(np.int8)


def our_models() -> dict[str, Ours]:
    """Every label model of ours that learns from votes alone, by name; told the true prior and not."""
    kinds: dict[str, tuple[str, Callable[..., LabelModel]]] = {
        "Majority": ("majority", label_models.Majority),
        "WeightedMajority": ("weighted majority", label_models.WeightedMajority),
        "DawidSkene one_coin": ("Dawid-Skene, one coin", partial(label_models.DawidSkene, form="one_coin")),
        "DawidSkene": ("Dawid-Skene", label_models.DawidSkene),
        "Metal": ("MeTaL", Metal),
        "FlyingSquid mean": ("triplets", partial(FlyingSquid, combine="mean")),
        "FlyingSquid median": ("triplets", partial(FlyingSquid, combine="median")),
        "Auto": ("automatic choice", Auto),
    }
    found = {}
    for name, (algorithm, make) in kinds.items():
        found[name] = Ours(algorithm, make)
        if name != "Majority":
            found[f"{name}, true prior"] = Ours(f"{algorithm}, true prior", make, told=True)
    return found


def library_answers(
    python: str, folder: Path, votes: Mapping[str, Votes], seconds: int, names: Sequence[str]
) -> dict[str, dict[str, Answer]]:
    """Runs the other libraries on several sets.

    Args:
        python: an interpreter that has them.
        folder: keeps what they answered, so that a run that was stopped goes on, and votes are not judged twice.
        votes: by name of the set.
        seconds: of CPU after which a model is given up on a set.
        names: of the models to run.

    Returns:
        Set -> model -> what it said.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, one in votes.items():
        held_out = {} if one.judged is one.fit else {"judged": one.judged}
        np.savez(folder / f"{name}.npz", fit=one.fit, classes=one.classes, prior=one.prior, **held_out)
    command = [python, "-W", "ignore", str(RUNNER), str(folder), str(seconds), *names]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{python} could not run the libraries ({done.returncode}): {done.stderr[-2000:]}")
    return {name: {model: _read(folder / f"{name}.answers" / f"{model}.npz") for model in names} for name in votes}


def _read(path: Path) -> Answer:
    with np.load(path) as file:
        if "refused" in file:
            return Answer(None, np.array([]), refused=str(file["refused"]))
        return Answer(file["proba"], file["accuracy"], float(file["seconds"]))


def library_versions(python: str) -> dict[str, str]:
    """The versions of what the interpreter has."""
    code = "import importlib.metadata as m, sys; print(*(m.version(name) for name in sys.argv[1:]))"
    names = ("snorkel", "crowd-kit", "flyingsquid", "pgmpy", "scikit-learn", "numpy", "torch")
    found = subprocess.run([python, "-c", code, *names], capture_output=True, text=True, check=True).stdout.split()
    return dict(zip(names, found, strict=True))
