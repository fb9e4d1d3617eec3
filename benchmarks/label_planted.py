"""Label models on votes drawn from known models: how far estimated accuracies and posteriors are from the truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from label_contenders import ALGORITHMS, Answer, Votes, library_answers, our_models

SAMPLES = 10_000
JUDGED = 2_000
"""So many of the samples are judged: FlyingSquid goes through them one by one."""
PATIENCE = 120
"""Seconds of CPU after which another library's model is given up on one draw."""
LEAST = 1e-6
"""Probabilities are held this far from 0 and 1 in the log loss, so that one certain error is not everything."""
MEASURES = ("accuracy_error", "posterior_error", "excess_log_loss")


@dataclass(frozen=True)
class Case:
    """A family of models to draw votes from.

    Attributes:
        sources: m.
        accuracy: from and to; spread evenly over the sources.
        coverage: from and to; spread evenly over the sources, in another order for each seed.
        prior: P(keep).
        copies: blocks of sources (first, others ...) in which the others repeat the first.
        repeat: with this probability; else they look for themselves.
        one_sided: half the sources only ever vote keep, half drop.
    """

    sources: int = 12
    accuracy: tuple[float, float] = (0.55, 0.9)
    coverage: tuple[float, float] = (0.1, 1.0)
    prior: float = 0.3
    copies: tuple[tuple[int, ...], ...] = ()
    repeat: float = 1.0
    one_sided: bool = False


def cases() -> dict[str, Case]:
    """One thing changes at a time: prior, coverage, accuracy, and blocks, each with few and many sources."""
    found = {}
    for m in (5, 12, 50):
        for prior in (0.1, 0.3, 0.5, 0.7, 0.9):
            found[f"{m} sources, prior {prior}"] = Case(m, prior=prior)
        for coverage in (0.1, 0.4, 1.0):
            found[f"{m} sources, coverage {coverage}"] = Case(m, coverage=(coverage, coverage))
        for name, accuracy in {"poor": (0.55, 0.65), "good": (0.75, 0.9)}.items():
            found[f"{m} sources, {name}"] = Case(m, accuracy=accuracy)
        found[f"{m} sources, one-sided"] = Case(m, one_sided=True)
        block = tuple(range(max(2, m // 4 + 1)))
        found[f"{m} sources, {len(block)} the same"] = Case(m, copies=(block,))
        found[f"{m} sources, {len(block)} nearly the same"] = Case(m, copies=(block,), repeat=0.9)
        pairs = tuple((2 * number, 2 * number + 1) for number in range(max(1, m // 4)))
        found[f"{m} sources, {len(pairs)} pairs"] = Case(m, copies=pairs, repeat=0.5)
    found["ten nearly the same and three others"] = Case(
        13, accuracy=(0.75, 0.75), coverage=(0.8, 0.8), prior=0.5, copies=(tuple(range(10)),), repeat=0.95
    )
    return found


@dataclass(frozen=True)
class Drawn:
    """Votes with what made them.

    Attributes:
        votes: (n, m) int8: -1 abstain, 0 drop, 1 keep.
        truth: (q,) 0 or 1, of the first q = `JUDGED`.
        exact: (q,) P(keep) under the model that made the votes.
        accuracy: (m,) P(a vote is right) under it.
    """

    votes: np.ndarray
    truth: np.ndarray
    exact: np.ndarray
    accuracy: np.ndarray


def draw(case: Case, seed: int) -> Drawn:
    """Draws a model of the family, and votes from it."""
    generator = np.random.default_rng(seed)
    accuracies = generator.permutation(np.linspace(*case.accuracy, case.sources))
    coverages = generator.permutation(np.linspace(*case.coverage, case.sources))
    tables = np.array([[[a, 1 - a, 0], [1 - a, a, 0]] for a in accuracies])  # source, truth, drop keep abstain
    if case.one_sided:
        tables[0::2, :, 0] = tables[1::2, :, 1] = 0
    tables *= coverages[:, None, None]
    tables[:, :, 2] = 1 - tables.sum(axis=2)
    parents = {other: block[0] for block in case.copies for other in block[1:]}
    for source, parent in parents.items():
        tables[source] = tables[parent]

    truth = (generator.random(SAMPLES) < case.prior).astype(np.intp)
    edges = np.cumsum(tables, axis=2)
    shown = np.empty((SAMPLES, case.sources), np.intp)
    joint = np.tile(np.log([1 - case.prior, case.prior]), (SAMPLES, 1))
    for source in range(case.sources):
        symbols = (generator.random(SAMPLES)[:, None] > edges[source][truth, :2]).sum(axis=1)
        likely = tables[source][:, symbols].T  # n, truth
        if source in parents:
            followed = shown[:, parents[source]]
            symbols = np.where(generator.random(SAMPLES) < case.repeat, followed, symbols)
            alone = (1 - case.repeat) * tables[source][:, symbols].T
            likely = alone + case.repeat * (symbols == followed)[:, None]
        shown[:, source] = symbols
        joint += np.log(likely)
    exact = 1 / (1 + np.exp(joint[:JUDGED, 0] - joint[:JUDGED, 1]))
    shares = np.array([1 - case.prior, case.prior])
    right = tables[:, 0, 0] * shares[0] + tables[:, 1, 1] * shares[1]
    accuracy = right / (tables[:, :, :2].sum(axis=2) @ shares)
    return Drawn(np.array([0, 1, -1], np.int8)[shown], truth[:JUDGED], exact, accuracy)


def errors(answer: Answer, drawn: Drawn) -> dict[str, float] | None:
    """How far a label model is from the truth; None where it refused.

    Returns:
        accuracy_error: mean absolute error of the estimated accuracies, absent where it has none. posterior_error:
        mean absolute difference from the exact posterior. excess_log_loss: nats per sample above the exact one's.
    """
    if answer.proba is None:
        return None
    keep = answer.proba[:, 1]
    found = {
        "posterior_error": float(np.abs(keep - drawn.exact).mean()),
        "excess_log_loss": log_loss(keep, drawn.truth) - log_loss(drawn.exact, drawn.truth),
    }
    known = np.isfinite(answer.accuracy)
    if known.any():
        found["accuracy_error"] = float(np.abs(answer.accuracy - drawn.accuracy)[known].mean())
    return found


def log_loss(keep: np.ndarray, truth: np.ndarray) -> float:
    """Nats per sample."""
    said = np.clip(np.where(truth == 1, keep, 1 - keep), LEAST, 1 - LEAST)
    return float(-np.log(said).mean())


def planted(python: str | None, work: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Runs everything on everything.

    Args:
        python: an interpreter with the other libraries; None: only ours.
        work: a folder that keeps what the other libraries answered.
        seeds: draws per case.

    Returns:
        Figures: case -> model -> mean errors over seeds; means over cases; where an algorithm of ours is worse.
    """
    theirs_of = {model: name for name, models in ALGORITHMS.items() for model in models if name != "GLAD"}
    drawn, votes = {}, {}
    for number, case in enumerate(cases().values()):
        for seed in seeds:
            one = drawn[number, seed] = draw(case, seed)
            prior = np.array([1 - case.prior, case.prior])
            votes[f"{number}-{seed}"] = Votes(2, one.votes, one.votes[:JUDGED], prior)
    theirs = {}
    if python:
        theirs = library_answers(python, work / "planted", votes, PATIENCE, tuple(theirs_of))
    outcomes: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(cases()):
        outcomes[name] = {
            "ours": {
                model: mean_errors(
                    [errors(ours.answer(votes[f"{number}-{seed}"]), drawn[number, seed]) for seed in seeds]
                )
                for model, ours in our_models().items()
            },
            "theirs": {
                model: mean_errors([errors(theirs[f"{number}-{seed}"][model], drawn[number, seed]) for seed in seeds])
                for model in theirs_of
                if python
            },
        }
    return {"cases": outcomes, "means": means(outcomes), "worse": worse(outcomes, theirs_of)}


def mean_errors(several: Sequence[Mapping[str, float] | None]) -> dict[str, float] | None:
    """The mean over seeds; None where a model refused one."""
    if any(one is None for one in several):
        return None
    found = {}
    for measure in MEASURES:
        values = [one[measure] for one in several if one is not None and measure in one]
        if values:
            found[measure] = round(float(np.mean(values)), 4)
    return found


def means(outcomes: Mapping[str, Any]) -> dict[str, Any]:
    """Side -> model -> its mean errors over all cases that it answered, and how many those are."""
    found: dict[str, Any] = {}
    for side in ("ours", "theirs"):
        found[side] = {}
        for model in next(iter(outcomes.values()))[side]:
            answered = [one[side][model] for one in outcomes.values() if one[side][model] is not None]
            found[side][model] = (mean_errors(answered) or {}) | {"cases": len(answered)}
    return found


def worse(outcomes: Mapping[str, Any], theirs_of: Mapping[str, str]) -> list[dict[str, Any]]:
    """Where a model of ours is further from the truth than the same algorithm elsewhere, by .005 and a tenth.

    Not majority: a share of votes, which ours and crowd-kit's give, is no posterior, nor is Snorkel's all or nothing.
    """
    found = []
    learned = {model: ours for model, ours in our_models().items() if ours.algorithm != "majority"}
    for case, one in outcomes.items():
        for model, ours in learned.items():
            figures = one["ours"][model]
            others = {name: one["theirs"][name] for name in one["theirs"] if theirs_of[name] == ours.algorithm}
            for measure in MEASURES:
                known = {name: each[measure] for name, each in others.items() if each and measure in each}
                if not known:
                    continue
                first = min(known, key=lambda name: known[name])
                is_ = None if figures is None else figures.get(measure)
                if is_ is None or is_ > max(known[first] + 0.005, 1.1 * known[first]):
                    found.append(
                        {
                            "case": case,
                            "measure": measure,
                            "ours": model,
                            "is": is_,
                            "theirs": first,
                            "has": known[first],
                        }
                    )
    return found
