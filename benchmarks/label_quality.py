"""Label models on real votes: accuracy, F1 and AUC against gold labels, which nothing else sees."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from label_contenders import ALGORITHMS, Answer, Votes, library_answers, our_models
from label_matrices import Matrix, read_matrices

from chaffinch.filters.label_models.auto import Auto

PATIENCE = 100
"""Seconds of CPU after which a model is given up on one set."""
ALLOWED = 0.005


@dataclass(frozen=True)
class Quality:
    """In [0, 1], higher is better.

    Attributes:
        accuracy: share of samples with the right class first; classes that tie share the sample.
        f1: of class 1 with two classes, with more the mean over the classes that the gold labels have.
        auc: P(a sample of class 1 has a higher probability than one of class 0), ties half; None with more classes.
    """

    accuracy: float
    f1: float
    auc: float | None


def assess(proba: np.ndarray, truth: np.ndarray) -> Quality:
    """Compares (t, k) probabilities with (t,) gold labels."""
    best = np.isclose(proba, proba.max(axis=1, keepdims=True), rtol=0, atol=1e-12)
    shares = best / best.sum(axis=1, keepdims=True)
    classes = proba.shape[1]
    confusion = np.array([shares[truth == number].sum(axis=0) for number in range(classes)])  # true, said
    right = np.diag(confusion)
    with np.errstate(invalid="ignore"):
        f1 = 2 * right / (confusion.sum(axis=0) + confusion.sum(axis=1))
    known = confusion.sum(axis=1) > 0
    return Quality(
        accuracy=float(right.sum() / len(truth)),
        f1=float(f1[1] if classes == 2 else f1[known].mean()),
        auc=auc(proba[:, 1], truth == 1) if classes == 2 else None,
    )


def auc(scores: np.ndarray, good: np.ndarray) -> float:
    """P(a good sample comes before another) by ranks; ties count half."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    wins = ranks[good].sum() - good.sum() * (good.sum() + 1) / 2
    return float(wins / (good.sum() * (~good).sum()))


def told(answer: Answer, matrix: Matrix) -> dict[str, Any]:
    """The figures of one model on one set."""
    if answer.proba is None:
        return {"refused": answer.refused}
    if not np.isfinite(answer.proba).all():
        return {"refused": "its probabilities are not finite"}
    found = asdict(assess(answer.proba[matrix.rows], matrix.truth))
    figures: dict[str, Any] = {name: None if value is None else round(value, 4) for name, value in found.items()}
    figures["cpu_seconds"] = round(answer.seconds, 2)
    if isinstance(answer.model, Auto):
        figures["reasons"] = answer.model.reasons_
    return figures


def quality(python: str | None, work: Path) -> dict[str, Any]:
    """Runs everything on everything.

    Args:
        python: an interpreter with the other libraries; None: only ours.
        work: a folder that keeps what the other libraries answered.

    Returns:
        Figures: sets -> size and model -> quality; means; best of ours and theirs by algorithm; where ours fall short.
    """
    matrices = {matrix.name: matrix for matrix in read_matrices()}
    votes = {name: Votes(matrix.classes, matrix.fit, matrix.judged, matrix.prior) for name, matrix in matrices.items()}
    others = [model for several in ALGORITHMS.values() for model in several]
    theirs = (
        library_answers(python, work / "quality", votes, PATIENCE, others) if python else {name: {} for name in votes}
    )
    sets: dict[str, Any] = {}
    for name, matrix in matrices.items():
        models = {model: told(ours.answer(votes[name], PATIENCE), matrix) for model, ours in our_models().items()}
        sets[name] = {
            "samples": len(matrix.fit),
            "sources": matrix.fit.shape[1],
            "classes": matrix.classes,
            "gold": len(matrix.truth),
            "ours": models,
            "theirs": {model: told(answer, matrix) for model, answer in theirs[name].items()},
        }
    return {
        "sets": sets,
        "means": {side: means(sets, side) for side in ("ours", "theirs")},
        "best": {name: best(one) for name, one in sets.items()},
        "short": shortfalls(sets),
        "automatic": automatic(sets),
    }


def means(sets: Mapping[str, Any], side: str) -> dict[str, Any]:
    """Each model's mean over the sets; over fewer where it refused some."""
    found = {}
    for model in next(iter(sets.values()))[side]:
        answered = [one[side][model] for one in sets.values() if "accuracy" in one[side][model]]
        if answered:
            found[model] = {
                "accuracy": round(float(np.mean([one["accuracy"] for one in answered])), 4),
                "f1": round(float(np.mean([one["f1"] for one in answered])), 4),
                "sets": len(answered),
            }
    return found


def best(one: Mapping[str, Any]) -> dict[str, Any]:
    """Algorithm -> the best accuracy of ours and of theirs on one set."""
    families = {name: model.algorithm for name, model in our_models().items()}
    found: dict[str, Any] = {}
    for algorithm in [*ALGORITHMS, *families.values()]:
        ours = [figures for name, figures in one["ours"].items() if families[name] == algorithm]
        theirs = [one["theirs"][name] for name in ALGORITHMS.get(algorithm, ()) if name in one["theirs"]]
        found[algorithm] = {
            side: max((figures["accuracy"] for figures in several if "accuracy" in figures), default=None)
            for side, several in (("ours", ours), ("theirs", theirs))
        }
    return found


def shortfalls(sets: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Where a model of ours is worse than a library's best of the same algorithm, by half a point and by one sample."""
    families = {name: model.algorithm for name, model in our_models().items()}
    found = []
    for name, one in sets.items():
        allowed = max(ALLOWED, 1 / one["gold"])
        for model, figures in one["ours"].items():
            others = {other: one["theirs"].get(other, {}) for other in ALGORITHMS.get(families[model], ())}
            others = {other: theirs for other, theirs in others.items() if "accuracy" in theirs}
            for measure in ("accuracy", "f1", "auc"):
                known = {other: theirs[measure] for other, theirs in others.items() if theirs[measure] is not None}
                if not known:
                    continue
                first = max(known, key=lambda other: known[other])
                is_ = figures.get(measure)
                if is_ is None or is_ < known[first] - allowed - 1e-9:
                    entry = {"set": name, "measure": measure, "ours": model, "is": is_}
                    found.append(entry | {"theirs": first, "has": known[first]})
    return found


def automatic(sets: Mapping[str, Any]) -> dict[str, Any]:
    """The automatic choice beside the best model of any library, over the sets that it answered.

    Returns:
        Its mean accuracy, how many sets, and, not told the true prior, the library model with the best mean.
    """
    answered = [one for one in sets.values() if "accuracy" in one["ours"]["Auto"]]
    found: dict[str, Any] = {
        "mean": round(float(np.mean([one["ours"]["Auto"]["accuracy"] for one in answered])), 4),
        "sets": len(answered),
    }
    theirs = {
        model: round(float(np.mean([one["theirs"][model]["accuracy"] for one in answered])), 4)
        for model in answered[0]["theirs"]
        if "true prior" not in model and all("accuracy" in one["theirs"][model] for one in answered)
    }
    if theirs:
        found["library"] = max(theirs, key=lambda model: theirs[model])
        found["library_mean"] = theirs[found["library"]]
    return found
