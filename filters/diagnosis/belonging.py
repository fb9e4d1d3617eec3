"""Whether a filter belongs to the aspect where it stands, and to which it should go."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from chaffinch.filters.diagnosis.agreement import BEYOND_CHANCE, Agreement, agree_with_peers
from chaffinch.filters.diagnosis.grouping import group_filters, stand_apart
from chaffinch.filters.label_models.evidence import Votes
from chaffinch.filters.label_models.label_model import LabelModel

LEAST_RAISE = 0.01
"""By less than this a drop vote does not raise P(keep) to speak of."""

_REVERSED = -0.1  # correlation with its peers from which the ranges may be the wrong way round


@dataclass(frozen=True)
class Finding:
    """A filter that does not belong where it stands.

    Attributes:
        filter: its name.
        aspect: where it stands.
        problems: what is wrong, one word each: silent, never_keeps, never_drops, raises, turned, worse_than_chance,
            disagrees, apart.
        wrong: the same in words.
        remedy: what to do, in words of the config.
    """

    filter: str
    aspect: str
    problems: tuple[str, ...]
    wrong: str
    remedy: str


@dataclass(frozen=True)
class Standing:
    """How the filters of an aspect stand to each other.

    Attributes:
        findings: those that do not belong there.
        proposed: aspect -> its filters, as they would stand better; empty where they stand well.
    """

    findings: Sequence[Finding]
    proposed: dict[str, list[str]] = field(default_factory=dict)


def check_aspect(
    names: Sequence[str],
    aspect: str,
    taken: Sequence[str],
    model: LabelModel,
    votes: Votes,
    worse_than_chance: np.ndarray,
) -> Standing:
    """Looks for filters that judge something else than the others of their aspect.

    Under a plain rule filters need not agree, and nothing is looked for but filters that are silent.

    Args:
        names: (m,) the filters of the aspect.
        aspect: its name.
        taken: names of all aspects.
        model: its fitted label model.
        votes: of its filters.
        worse_than_chance: (m,) bool, whether the label model is sure that a filter is wrong more often than by chance.

    Returns:
        The findings, in the order of the filters, and the grouping that votes propose.
    """
    agreement = Agreement.of(votes.patterns, votes.counts)
    groups = [list(range(len(names)))] if model.is_rule else group_filters(agreement)
    home = groups[0] if groups else []
    apart = {} if model.is_rule else stand_apart(agreement, home)
    wrong: list[dict[str, str]] = [dict(_unheard(model, column, votes.counts)) for column in votes.patterns.T]
    if len(names) > 1 and not model.is_rule:
        raises = np.zeros(len(names)) if model.is_soft else measure_raises(model, votes)
        turned = getattr(model, "turned_", np.zeros(len(names), bool))
        peers = agree_with_peers(votes.patterns, votes.counts)
        below = peers.testable & (np.nan_to_num(peers.correlation) * np.sqrt(peers.common) < -BEYOND_CHANCE)
        for index, told in enumerate(wrong):
            if raises[index] > LEAST_RAISE:
                told["raises"] = f"its drop votes raise P(keep), by {raises[index]:.2f} on the mean"
            if turned[index]:
                told["turned"] = "it drops the reference more often than the pool"
            if worse_than_chance[index]:
                told["worse_than_chance"] = "its votes are wrong more often than votes at random would be"
            if below[index]:
                told["disagrees"] = (
                    f"it agrees with its aspect's others less often than by chance (kappa {peers.kappa[index]:.2f})"
                )
            elif index in apart:
                around = [other for other in (home if len(home) > 1 else range(len(names))) if other != index]
                few = ", ".join(names[other] for other in around[:3]) + (" ..." if len(around) > 3 else "")
                told["apart"] = f"it agrees with {few} no more often than by chance (correlation {apart[index]:.2f})"
    else:
        peers = None
    moved = [index for index, told in enumerate(wrong) if told.keys() & {"raises", "turned", "disagrees", "apart"}]
    places = _places(names, aspect, taken, groups, set(moved))
    findings = []
    for index, told in enumerate(wrong):
        if told:
            reversed_ = peers is not None and "disagrees" in told and peers.correlation[index] < _REVERSED
            remedy = _remedy(told, names, index, places, aspect, reversed_)
            findings.append(Finding(names[index], aspect, tuple(told), "; ".join(told.values()), remedy))
    proposed: dict[str, list[str]] = {}
    for index, place in enumerate(places):
        proposed.setdefault(place, []).append(names[index])
    return Standing(findings, proposed if len(proposed) > 1 else {})


def measure_raises(model: LabelModel, votes: Votes) -> np.ndarray:
    """How much a drop vote of each source raises P(keep), on the mean over the samples on which it votes drop.

    Args:
        model: fitted, of two classes, judging by votes.
        votes: of its sources.

    Returns:
        (m,) P(keep given all votes) less P(keep given that the source abstains and the others vote as they do), in
        [-1, 1]; below 0 is as it should be. 0 for a source that never votes drop.
    """
    found = np.zeros(votes.patterns.shape[1])
    for index in range(len(found)):
        drops = votes.patterns[:, index] == -1
        if drops.any():
            with_drop = votes.patterns[drops]
            without = with_drop.copy()
            without[:, index] = 0
            raised = model.predict_patterns(with_drop) - model.predict_patterns(without)
            found[index] = np.average(raised, weights=votes.counts[drops])
    return found


def _unheard(model: LabelModel, column: np.ndarray, counts: np.ndarray) -> Iterator[tuple[str, str]]:
    """What is wrong with a source's votes taken by themselves."""
    if not counts.sum():
        return
    if not column.any():
        yield "silent", "it abstains on every sample"
    elif model.is_rule:
        return
    elif not (column == 1).any():
        yield "never_keeps", "it never votes keep"
    elif not (column == -1).any():
        yield "never_drops", "it never votes drop"


def _places(
    names: Sequence[str], aspect: str, taken: Sequence[str], groups: Sequence[Sequence[int]], moved: set[int]
) -> list[str]:
    """(m,) the aspect to which each filter should go: those that stay keep theirs, others move as a group."""
    places = [aspect] * len(names)
    used = set(taken)
    leaving = [[index for index in group if index in moved] for group in groups]
    if leaving and len(leaving[0]) < len(groups[0]):  # what leaves the largest group has nobody to go with
        leaving = [[index] for index in leaving[0]] + leaving[1:]
    else:
        leaving = leaving[1:]
    for going in filter(None, leaving):
        place = names[going[0]] if names[going[0]] not in used else f"{names[going[0]]}_apart"
        used.add(place)
        for index in going:
            places[index] = place
    return places


def _remedy(
    told: dict[str, str], names: Sequence[str], index: int, places: Sequence[str], aspect: str, reversed_: bool
) -> str:
    if "silent" in told:
        return "see whether its ranges can hold any score, and whether its column is measured"
    if told.keys() <= {"never_keeps", "never_drops"}:
        missing = "keep" if "never_keeps" in told else "drop"
        other = "`require: true`" if missing == "keep" else "leave it out"
        return f"give it a `{missing}:` range that holds some scores, or {other}"
    turn = "; or swap its `keep:` and `drop:`, if they are the wrong way round" if reversed_ else ""
    if places[index] == aspect:
        return f"see whether its ranges say what they should, or give it an aspect of its own, or `require: true`{turn}"
    others = [name for name, place in zip(names, places, strict=True) if place == places[index]]
    others.remove(names[index])
    beside = f" together with {', '.join(others)}" if others else ""
    return f"give it `aspect: {places[index]}`{beside}, or `require: true`{turn}"
