"""How well scores find wrong labels: AUC, F1 of what binarisers drop; and what the kept share tells of the noise."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from chaffinch.filters.binarising import Binariser, binarise

BINARISERS: dict[str, Binariser] = {
    "sign": Binariser(),
    "two means": Binariser("two_means"),
    "mixture": Binariser("mixture"),
    "two means, untested": Binariser("two_means", test_groups=False),
    "mixture, untested": Binariser("mixture", test_groups=False),
    "1/B": Binariser("softmax"),
}
"""Untested as published: without a test that there are two groups. 1/B in its form for a pool, at the authors' tau."""

EPOCHS = (0, 1, 2, 5, 10)
"""After which single scores are reported."""

EARLY = (0, 1, 2, 3)
"""Over which scores are averaged, and votes brought together."""


def auc(scores: np.ndarray, wrong: np.ndarray) -> float:
    """P(a right label scores higher than a wrong one); ties count half.

    Args:
        scores: (n,) higher is better.
        wrong: (n,) bool.
    """
    _, place = np.unique(scores, return_inverse=True)
    right_at, wrong_at = (np.bincount(place[rows], minlength=place.max() + 1) for rows in (~wrong, wrong))
    below = np.cumsum(wrong_at) - wrong_at / 2
    return float((right_at * below).sum() / (right_at.sum() * wrong_at.sum()))


def f1(found: np.ndarray, wrong: np.ndarray) -> float:
    """Harmonic mean of precision and recall of finding wrong labels; 0 where nothing is found rightly."""
    return float(2 * (found & wrong).sum() / max(found.sum() + wrong.sum(), 1))


def judge(scores: np.ndarray, wrong: np.ndarray, binarisers: Sequence[str]) -> dict[str, Any]:
    """Judges scores of one or several steps.

    Args:
        scores: (n, t) higher is better; of several steps the mean score and the majority of votes are judged, where a
            draw keeps.
        wrong: (n,) bool.
        binarisers: which to try.

    Returns:
        "auc"; "f1 of the worst", as many as are wrong, which only the truth tells; and "f1", "kept" and "kept right",
        the share of the right labels that is kept, by binariser.
    """
    mean = scores.mean(axis=1)
    worst = np.zeros(len(wrong), bool)
    worst[np.argsort(mean, kind="stable")[: wrong.sum()]] = True
    told: dict[str, Any] = {"auc": auc(mean, wrong), "f1 of the worst": f1(worst, wrong)}
    if binarisers:
        found = {name: binarise(scores, BINARISERS[name]).sum(axis=1) < 0 for name in binarisers}
        told["f1"] = {name: f1(one, wrong) for name, one in found.items()}
        told["kept"] = {name: float((~one).mean()) for name, one in found.items()}
        told["kept right"] = {name: float((~one)[~wrong].mean()) for name, one in found.items()}
    return told


def find(
    by_epoch: Mapping[str, Mapping[int, np.ndarray]], reference_loss: np.ndarray, agrees: np.ndarray, wrong: np.ndarray
) -> dict[str, Any]:
    """Judges all that a current model and a reference say of a pool's labels.

    Args:
        by_epoch: mimic_score, mimic_cosine and loss -> epoch of the current model -> (n,); for mimic_cosine, the
            first four or none will do.
        reference_loss: (n,).
        agrees: (n,) bool, whether the reference's class is the label.
        wrong: (n,) bool, whether the label is wrong.

    Returns:
        Source -> epoch, or "mean of 0 to 3", -> what `judge` says; the reference's own without an epoch.
    """
    told: dict[str, Any] = {
        "-reference_loss": judge(-reference_loss[:, None], wrong, ("two means, untested", "mixture, untested")),
        "reference disagrees": {"auc": auc(agrees.astype(float), wrong), "f1": f1(~agrees, wrong)},
    }
    signed = {
        "mimic_score": by_epoch["mimic_score"],
        "mimic_cosine": by_epoch["mimic_cosine"],
        "excess_loss": {epoch: loss - reference_loss for epoch, loss in by_epoch["loss"].items()},
        "-loss": {epoch: -loss for epoch, loss in by_epoch["loss"].items()},
    }
    for source, scores in signed.items():
        if not scores:
            continue
        names = list(BINARISERS) if source.startswith("mimic") else ["two means, untested", "mixture, untested"]
        names += ["sign"] if source == "excess_loss" else []
        told[source] = {str(epoch): judge(scores[epoch][:, None], wrong, names) for epoch in EPOCHS if epoch in scores}
        early = np.stack([scores[epoch] for epoch in EARLY], axis=1)
        told[source]["mean of 0 to 3"] = judge(early, wrong, names)
    return told


def quality(kept: Mapping[str, Sequence[float]], clean: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """How the share that is kept follows the share that is clean, over sets of labels.

    Args:
        kept: label set -> a share per seed.
        clean: label set -> the true one, likewise.

    Returns:
        "pearson" over label sets of the means over seeds, None for fewer than three sets, and both "kept" and "clean".
    """
    means = {name: (round(float(np.mean(kept[name])), 4), round(float(np.mean(clean[name])), 4)) for name in kept}
    points = np.array(list(means.values()))
    pearson = round(float(np.corrcoef(points.T)[0, 1]), 4) if len(points) > 2 and np.ptp(points[:, 0]) > 0 else None
    return {
        "pearson": pearson,
        "kept": {name: one[0] for name, one in means.items()},
        "clean": {name: one[1] for name, one in means.items()},
    }
