"""The diagnosis of an ensemble: everything that its counted vote patterns tell, as plain JSON values."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from chaffinch.filters.diagnosis.accuracy import Accuracy, measure_accuracy
from chaffinch.filters.diagnosis.agreement import Agreement
from chaffinch.filters.diagnosis.belonging import Standing, check_aspect
from chaffinch.filters.diagnosis.contributions import count_contributions
from chaffinch.filters.diagnosis.frequent import list_patterns
from chaffinch.filters.diagnosis.influence import leave_out
from chaffinch.filters.diagnosis.keeping import KeepRule, thin
from chaffinch.filters.diagnosis.redundancy import count_sources, list_correlated, measure_excess
from chaffinch.filters.diagnosis.refits import WORK, Refits, gather_refits
from chaffinch.filters.fitted import Fitted
from chaffinch.filters.label_models.evidence import Evidence, Votes
from chaffinch.filters.label_models.label_model import LabelModel

_MOST_SAMPLES_CHECKED = 20_000  # for what is asked of the model once a filter
_DIGITS = 6


def describe_filters(fitted: Fitted, patterns: np.ndarray, counts: np.ndarray) -> dict[str, dict[str, Any]]:
    """What each filter contributes, and what the label models made of it.

    Args:
        fitted: the judgement.
        patterns: (p patterns, m filters) int8 votes of all usable samples.
        counts: (p,) how many samples show each.

    Returns:
        Filter -> what `count_contributions` says; for filters that judge also "accuracy" (P(right given that it votes),
        null where it is not estimated) and "weight"; for those that learned, "retained".
    """
    found: dict[str, dict[str, Any]] = dict(zip(fitted.names, count_contributions(patterns, counts), strict=True))
    weights = fitted.ensemble.weights(len(fitted.names))
    accuracies = fitted.ensemble.accuracies(len(fitted.names))
    for index in fitted.judges:
        found[fitted.names[index]] |= {"accuracy": _known(accuracies[index]), "weight": float(weights[index])}
    for name in fitted.learned:
        judged = found[name]["keep"] + found[name]["drop"]
        found[name]["retained"] = found[name]["keep"] / judged if judged else None
    return found


def diagnose(
    fitted: Fitted, evidence: Evidence, patterns: np.ndarray, counts: np.ndarray, rule: KeepRule
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Says how sure the ensemble is of its filters, which of them depend on each other, and which stand wrong.

    With p patterns up to 100,000 and m filters up to 50 it takes seconds: refits look at no more than 20 million votes
    for each of their two purposes, and are made to fewer samples where all would be more.

    Args:
        fitted: the judgement, label models fitted.
        evidence: what they were fitted to.
        patterns: (p patterns, m filters) int8 votes of all usable samples, vetoed ones too.
        counts: (p,) how many samples show each.
        rule: how much is kept.

    Returns:
        Filter -> what is to be added to its description: "accuracy_interval", "accuracy_note", "worse_than_chance",
        "left_out_changes" and "left_out_note"; and the diagnosis: "aspects", "agreement", "patterns", "findings".
        The same votes give the same numbers, in any order of patterns as `Patterns` gives them.
    """
    members = fitted.ensemble.aspects
    judging = max(sum(len(columns) for columns, _ in members.values()), 1)
    refits = {
        aspect: gather_refits(model, evidence, columns, WORK * len(columns) / judging)
        for aspect, (columns, model) in members.items()
    }
    filters: dict[str, dict[str, Any]] = {name: {} for name in fitted.names}
    aspects: dict[str, dict[str, Any]] = {}
    findings: list[dict[str, Any]] = []
    for aspect, (columns, model) in members.items():
        names = [fitted.names[index] for index in columns]
        accuracy = measure_accuracy(refits[aspect])
        if fitted.ensemble.prior_interval is not None:
            told = "the share of good ones among labelled samples drawn at random"
            accuracy = replace(accuracy, prior_interval=fitted.ensemble.prior_interval, prior_note=told)
        votes = refits[aspect].evidence.votes
        checked = Votes(*thin(votes.patterns, votes.counts, _MOST_SAMPLES_CHECKED))
        worse = accuracy.worse_than_chance
        standing = check_aspect(names, aspect, list(members), model, checked, worse)
        for place, name in enumerate(names):
            filters[name] = {
                "accuracy_interval": _interval(accuracy.interval[place]),
                "accuracy_note": accuracy.notes[place],
                "worse_than_chance": bool(worse[place]),
            }
        aspects[aspect] = _describe_aspect(names, model, refits[aspect], accuracy, standing)
        findings += [asdict(finding) | {"problems": list(finding.problems)} for finding in standing.findings]
    for name, change in zip(fitted.names, leave_out(fitted, refits, rule, patterns, counts), strict=True):
        filters[name] |= {"left_out_changes": _known(change.share), "left_out_note": change.note}
    return filters, {
        "aspects": aspects,
        "agreement": _describe_agreement(fitted, evidence),
        "patterns": list_patterns(fitted, patterns, counts),
        "findings": findings,
    }


def _describe_aspect(
    names: Sequence[str], model: LabelModel, refits: Refits, accuracy: Accuracy, standing: Standing
) -> dict[str, Any]:
    votes = refits.evidence.votes
    samples = int(votes.counts.sum())
    silent = int(votes.counts[~votes.patterns.any(axis=1)].sum())
    prior = getattr(model, "class_prior_", model.class_prior)
    likelihood = getattr(model, "log_likelihood_", None)
    excess = measure_excess(refits)
    return {
        "label_model": model.kind,
        "filters": list(names),
        "samples": samples,
        "class_prior": _known(prior) if isinstance(prior, float) else None,
        "class_prior_given": model.class_prior is not None and accuracy.prior_interval is None,
        "class_prior_interval": _interval(accuracy.prior_interval),
        "class_prior_note": accuracy.prior_note,
        "log_likelihood_per_sample": None if likelihood is None or not samples else _known(likelihood / samples),
        "uncovered": _known(silent / samples) if samples else None,
        "effective_sources": None if excess is None else _known(count_sources(excess)),
        "correlated": [] if excess is None else list_correlated(names, excess),
        "proposed": standing.proposed,
    }


def _describe_agreement(fitted: Fitted, evidence: Evidence) -> dict[str, Any]:
    """Cohen's kappa of all pairs of filters that judge, and on how many samples both vote."""
    votes = evidence.votes.of(fitted.judges)
    found = Agreement.of(votes.patterns, votes.counts)
    return {
        "filters": [fitted.names[index] for index in fitted.judges],
        "kappa": [[_known(value) for value in row] for row in found.kappa],
        "common": found.common.tolist(),
    }


def _interval(bounds: Sequence[float] | np.ndarray | None) -> list[float | None] | None:
    if bounds is None or np.isnan(bounds).any():
        return None
    return [_known(bound) for bound in bounds]


def _known(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else round(float(value), _DIGITS)
