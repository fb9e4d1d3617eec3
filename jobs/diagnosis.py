"""What the table and the warnings that end a run tell of the ensemble."""

import math
from collections.abc import Mapping
from typing import Any

_MOST_PAIRS = 6
_TOLD = (
    "label_model",
    "filters",
    "class_prior",
    "class_prior_given",
    "class_prior_interval",
    "class_prior_note",
    "effective_sources",
    "correlated",
)


def summarise_diagnosis(diagnosis: Mapping[str, Any]) -> dict[str, Any]:
    """What summary.json repeats of the diagnosis in fitted.json.

    Args:
        diagnosis: of the ensemble; empty where nothing was fitted.

    Returns:
        "aspects": per aspect its label model, filters, class prior and how sure that is, effective sources and
        correlated pairs; "findings": filters that do not belong where they stand. Empty where nothing was fitted.
    """
    if not diagnosis:
        return {}
    aspects = {name: {part: found[part] for part in _TOLD} for name, found in diagnosis["aspects"].items()}
    return {"aspects": aspects, "findings": diagnosis["findings"]}


def tell_accuracy(found: Mapping[str, Any]) -> str:
    """How often a filter is right, with its 95% interval: such as "84% (82-86)"; "n/a" where that is not estimated."""
    if found.get("accuracy") is None:
        return "n/a" if "accuracy" in found else ""
    interval = found.get("accuracy_interval")
    if interval is None:
        return f"{found['accuracy']:.0%} (?)"
    low, high = (f"{100 * bound:.0f}" for bound in interval)
    return f"{found['accuracy']:.0%} ({low}-{high})"


def tell_change(found: Mapping[str, Any]) -> str:
    """The share of samples whose decision changes if a filter is left out; "n/a" where that cannot be said."""
    share = found.get("left_out_changes")
    return "n/a" if share is None else f"{share:.1%}"


def tell_aspects(summary: Mapping[str, Any]) -> list[str]:
    """A line for each aspect with several filters: what they are worth together, its class prior, and which are alike.

    Args:
        summary: summary.json's content.
    """
    lines = []
    for name, found in summary.get("aspects", {}).items():
        if len(found["filters"]) < 2 or found["effective_sources"] is None:
            continue
        line = f"aspect {name}: {len(found['filters'])} filters count as {found['effective_sources']:.1f} independent"
        line += _tell_prior(found)
        pairs = [f"{' and '.join(pair['filters'])} {pair['excess_correlation']:.2f}" for pair in found["correlated"]]
        if pairs:
            more = f" and {len(pairs) - _MOST_PAIRS} more pairs" if len(pairs) > _MOST_PAIRS else ""
            line += f"; alike beyond what they judge: {', '.join(pairs[:_MOST_PAIRS])}{more}"
        lines.append(line)
    count = len(summary.get("findings", ()))
    if count:
        told = (
            "1 filter does not belong where it stands"
            if count == 1
            else f"{count} filters do not belong where they stand"
        )
        lines.append(f"{told}: see the warnings")
    return lines


def _tell_prior(found: Mapping[str, Any]) -> str:
    """The class prior: given, with its 95% interval, or why it is not known; nothing of models without one."""
    if found["class_prior"] is None:
        return ""
    told = f"; class prior {found['class_prior']:.0%}"
    if found["class_prior_given"]:
        return f"{told}, given"
    if found["class_prior_interval"] is None:
        return f"{told} (not known: {found['class_prior_note']})"
    low, high = (f"{100 * bound:.0f}" for bound in found["class_prior_interval"])
    return f"{told} ({low}-{high})"


def tell_misfits(models: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence for each class prior that was given and is larger than goes with the reference.

    The bound is a ratio of shares, of about half of the reference: with k samples in it, 1 / sqrt(k) of the bound is a
    standard error. Two of them are taken for chance: few pools are as good as their bound.

    Args:
        models: aspect -> the state of its label model.
    """
    lines = []
    for aspect, state in models.items():
        model = state.get("chosen_", state)
        given, bound = model.get("class_prior"), model.get("class_prior_bound_")
        if given is not None and bound is not None and given > bound * (1 + 2 / math.sqrt(model["n_reference_"])):
            lines.append(
                f"aspect {aspect}: class_prior {given:g} does not go with the reference: by their votes at most "
                f"{bound:.0%} of the pool are like it; give less, leave it out, or take a reference that is more like "
                "what is good in the pool"
            )
    return lines


def tell_finding(finding: Mapping[str, Any]) -> str:
    """A filter that does not belong where it stands, in one sentence with what to do."""
    return f"filter {finding['filter']}, aspect {finding['aspect']}: {finding['wrong']}; {finding['remedy']}"
