"""What a run tells of labels: how many were of use, and what they made of ranges, sources and probabilities."""

from collections.abc import Mapping
from typing import Any

from chaffinch.jobs.console import Console


def tell_labels(console: Console, given: int, found: Mapping[str, Any]) -> None:
    """How many labels were of use, what they say of ranges and of the pool, and how well probabilities fit them.

    Args:
        console: where it is told.
        given: how many labels the file holds.
        found: "labels" of fitted.json.
    """
    if found["samples"] < given:
        console.warn(
            f"labels: {given - found['samples']} of {given} are of samples that are not in this pool, were rejected or "
            "are dropped by a required filter, and tell nothing of those that are left to judge"
        )
    for name, cut in found["ranges"].items():
        _tell_range(console, name, cut)
    if not found["samples"]:
        return
    told = f"labels: {found['samples']} samples"
    if found["at_random"]:
        low, high = found["keep_share_interval"]
        told += (
            f", {found['at_random']} of them drawn at random: {found['keep_share']:.0%} are good ({low:.0%}-{high:.0%})"
        )
    before, after = found["before"], found["after"]
    told += f"; mean square error of P(keep) {before['brier']:.3f}, {after['brier']:.3f} calibrated by them"
    console.say(told if before["auc"] is None else f"{told}; AUC {before['auc']:.3f}")


def _tell_range(console: Console, name: str, cut: Mapping[str, Any]) -> None:
    """Where labels put a filter's range, and whether they show that its scores tell good from bad at all."""
    ends = " and ".join(f"{end:.4g}" for end in cut["ends"])
    picked = f" ({cut['picked']} labels are of picked samples)" if cut["picked"] else ""
    console.say(
        f"filter {name}: {cut['good']} good and {cut['bad']} bad samples put its range at {ends}; "
        f"{cut['good_kept']:.0%} of the good and {cut['bad_kept']:.0%} of the bad pass{picked}"
    )
    if cut["finding"] == "reversed":
        other = "below" if cut["good_side"] == "above" else "above"
        console.warn(
            f"filter {name}: by the labels, good samples lie {other} and not {cut['good_side']} "
            f"(AUC {cut['auc']:.2f}); turn its range round, or leave it out"
        )
    elif cut["finding"] == "nothing":
        console.warn(
            f"filter {name}: labels do not show that its score tells good samples from bad ones "
            f"(AUC {cut['auc']:.2f}), so that chance decides where its range ends; label more, or give numbers"
        )


def tell_dropped(name: str, found: Mapping[str, Any]) -> str:
    """Why a filter was left out of its aspect's label model, in one sentence with what to do.

    Args:
        name: the filter.
        found: "dropped_source" of its description in fitted.json.
    """
    if found["why"] == "extreme":
        return (
            f"filter {name} is left out (ensemble.drop_sources): {found['keep_share']:.1%} of its votes are keep; "
            "where it alone sees a defect, make it a veto, `require: true`, or give it an aspect of its own"
        )
    low, high = found["interval"]
    verdict = "worse than chance: its range may be the wrong way round" if high < 0.5 else "no better than chance"
    return (
        f"filter {name} is left out (ensemble.drop_sources): on {found['labels']} samples with a label its balanced "
        f"accuracy is {found['balanced_accuracy']:.2f} ({low:.2f}-{high:.2f}), {verdict}"
    )
