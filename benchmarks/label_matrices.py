"""Votes of real crowds and labelling functions, with gold labels for some samples."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MATRICES = Path(__file__).resolve().parents[2] / "shared" / "data" / "label-matrices"
"""Beside the repository; benchmarks say so where it is missing."""


@dataclass(frozen=True)
class Matrix:
    """Votes of m sources for k classes.

    Attributes:
        name: of the set.
        classes: k.
        fit: (n, m) int8 votes to learn from: -1 abstain, 0..k-1 classes.
        judged: (q, m) int8 votes to judge; the same object as `fit` where nothing is held out.
        rows: (t,) the judged rows whose truth is known.
        truth: (t,) their classes.
    """

    name: str
    classes: int
    fit: np.ndarray
    judged: np.ndarray
    rows: np.ndarray
    truth: np.ndarray

    @property
    def prior(self) -> np.ndarray:
        """(k,) the true shares of the classes among the gold labels."""
        return np.bincount(self.truth, minlength=self.classes) / len(self.truth)


def read_matrices(folder: Path = MATRICES) -> Iterator[Matrix]:
    """All sets below the folder: crowds, where the same items are learned from and judged, then those with a test part.

    Args:
        folder: with `crowd`, `wrench` and `tennis`.

    Yields:
        Sets in order of their names, kind by kind.
    """
    for path in sorted((folder / "crowd").glob("*/label.csv")):
        yield read_crowd(path.parent)
    for path in sorted((folder / "wrench").glob("*/label.json")):
        yield read_wrench(path.parent)
    yield read_tennis(folder / "tennis")


def read_crowd(folder: Path) -> Matrix:
    """Answers of workers to items, and the truth of some items."""
    with (folder / "label.csv").open() as file:
        answers = [(row["item"], row["worker"], row["label"]) for row in csv.DictReader(file)]
    with (folder / "truth.csv").open() as file:
        truth = {row["item"]: row["truth"] for row in csv.DictReader(file)}
    items, workers, labels = (
        {value: number for number, value in enumerate(sorted(set(column), key=float))}
        for column in zip(*answers, strict=True)
    )
    votes = np.full((len(items), len(workers)), -1, np.int8)
    for item, worker, label in answers:
        votes[items[item], workers[worker]] = labels[label]
    known = [item for item in truth if item in items]
    rows, classes = np.array([items[item] for item in known]), np.array([labels[truth[item]] for item in known])
    return Matrix(folder.name, len(labels), votes, votes, rows, classes)


def read_wrench(folder: Path) -> Matrix:
    """Labelling functions: learned from the train part, judged on the test part, as WRENCH does."""
    parts = {}
    for part in ("train", "test"):
        samples = json.loads((folder / f"{part}.json").read_text()).values()
        votes = np.array([sample["weak_labels"] for sample in samples], np.int8)
        parts[part] = votes, np.array([sample["label"] for sample in samples])
    classes = len(json.loads((folder / "label.json").read_text()))
    votes, truth = parts["test"]
    return Matrix(folder.name, classes, parts["train"][0], votes, np.arange(len(truth)), truth)


def read_tennis(folder: Path) -> Matrix:
    """Six sources per frame; learned from the large part, judged on the part with gold labels."""
    fit, judged, truth = (np.load(folder / f"{name}_video.npy") for name in ("L_train", "L_dev", "Y_dev"))
    as_classes = np.array([-1, 1, 0], np.int8)  # indexed by 0 abstain, +1, -1
    fit, judged = (as_classes[votes.astype(np.intp)] for votes in (fit, judged))
    return Matrix("tennis", 2, fit, judged, np.arange(len(truth)), (truth == 1).astype(np.intp))
