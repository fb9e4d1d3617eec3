"""Against real crowds: the reference for majority is its published accuracy on the same sets."""

import csv
from pathlib import Path

import numpy as np
import pytest

from chaffinch.filters.label_models import DawidSkene, Majority

CROWDS = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "label-matrices" / "crowd"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not CROWDS.is_dir(), reason="needs ../shared/data/label-matrices/crowd"),
]

PUBLISHED = {"bluebird": 0.759, "dog": 0.815, "rte": 0.908, "web": 0.732, "product": 0.897}


def read(name):
    """(n items, m workers) votes, k classes, and the (t,) rows and classes of the items whose truth is known."""
    with (CROWDS / name / "label.csv").open() as file:
        answers = [(row["item"], row["worker"], row["label"]) for row in csv.DictReader(file)]
    with (CROWDS / name / "truth.csv").open() as file:
        truth = {row["item"]: row["truth"] for row in csv.DictReader(file)}
    items, workers, labels = (
        {value: number for number, value in enumerate(sorted(set(column), key=float))}
        for column in zip(*answers, strict=True)
    )
    votes = np.zeros((len(items), len(workers)), np.int8)
    for item, worker, label in answers:
        votes[items[item], workers[worker]] = 2 * labels[label] - 1 if len(labels) == 2 else labels[label] + 1
    known = [item for item in truth if item in items]
    return votes, len(labels), np.array([items[item] for item in known]), np.array([labels[truth[i]] for i in known])


def accuracy(model, votes, rows, truth):
    """The expected accuracy when ties are broken at random."""
    posterior = model.fit(votes).predict_proba(votes)[rows]
    if posterior.ndim == 1:
        posterior = np.column_stack([1 - posterior, posterior])
    best = np.isclose(posterior, posterior.max(axis=1, keepdims=True), rtol=0, atol=1e-12)
    return (best[np.arange(len(truth)), truth] / best.sum(axis=1)).mean()


@pytest.mark.parametrize("name", PUBLISHED)
def test_majority_is_as_published_and_dawid_skene_is_better(name):
    votes, k, rows, truth = read(name)
    plain = accuracy(Majority(classes=k), votes, rows, truth)
    assert plain == pytest.approx(PUBLISHED[name], abs=0.015)  # ties were broken at random
    assert accuracy(DawidSkene(classes=k), votes, rows, truth) > max(plain, PUBLISHED[name])


@pytest.mark.parametrize("name", ["dog", "rte", "web", "product"])
def test_one_accuracy_per_worker_is_enough_for_most(name):
    votes, k, rows, truth = read(name)
    assert accuracy(DawidSkene(classes=k, form="one_coin"), votes, rows, truth) > PUBLISHED[name]


def test_one_accuracy_per_worker_is_not_enough_for_the_birds():
    """Telling two birds apart, workers err in one direction; a single coin takes the wrong side."""
    votes, _, rows, truth = read("bluebird")
    assert accuracy(DawidSkene(form="one_coin"), votes, rows, truth) < PUBLISHED["bluebird"]
    assert accuracy(DawidSkene(), votes, rows, truth) > 0.85
