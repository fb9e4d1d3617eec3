"""Galleries: which samples are worth looking at, chosen in an order that does not depend on chance."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from chaffinch.filters.fitted import Fitted
from chaffinch.filters.ranges import FittedRanges
from chaffinch.jobs.report.sample import Sample

_LARGE, _SMALL, _MOST_EDGE, _MOST_REJECTS = 10, 5, 120, 12
_SAME_PATTERN = 2
_REJECTED = "rejected: "


@dataclass(frozen=True)
class Gallery:
    """Some samples to look at.

    Attributes:
        title: what they are.
        picks: positions in the sample.
        note: how they were chosen, or why there are none.
    """

    title: str
    picks: list[int]
    note: str = ""


@dataclass
class Rejects:
    """Samples that were rejected for one reason.

    Attributes:
        reason: the reason; what differs between samples (numbers, brackets) is left out where it does.
        count: how many in the whole pool.
        picks: positions in the sample.
    """

    reason: str
    count: int = 0
    picks: list[int] = field(default_factory=list)


def find_extremes(sample: Sample, fitted: Fitted) -> list[Gallery]:
    """The surest kept, the surest dropped and the most disputed.

    Args:
        sample: the sampled rows.
        fitted: the judgement.

    Returns:
        Three galleries.
    """
    soft = fitted.soft_scores(list(sample.scores), len(sample))
    judged = sample.usable & ~fitted.vetoed(sample.votes)
    order = np.lexsort((sample.tie, soft, np.nan_to_num(sample.probability)))  # from surest dropped to surest kept
    kept, dropped = order[sample.keep[order]][::-1], order[(judged & ~sample.keep)[order]]
    votes = sample.votes[:, fitted.judges]
    against = np.minimum((votes == 1).sum(axis=1), (votes == -1).sum(axis=1))
    doubt = np.abs(np.nan_to_num(sample.probability) - 0.5)
    disputed = np.lexsort((sample.tie, -against, doubt))
    disputed = disputed[(judged & (against > 0))[disputed]]
    return [
        Gallery("Surest kept", kept[:_LARGE].tolist(), "Highest P(keep), then highest soft score."),
        Gallery(
            "Surest dropped",
            dropped[:_LARGE].tolist(),
            "Lowest P(keep), then lowest soft score, of what no required filter dropped.",
        ),
        Gallery(
            "Most disputed",
            _spread(disputed, votes),
            "P(keep) nearest to one half, then most votes against each other; at most two of the same votes.",
        ),
    ]


def _spread(order: np.ndarray, votes: np.ndarray) -> list[int]:
    """The first rows of an order, but no more than two with the same votes."""
    seen: dict[bytes, int] = {}
    picks: list[int] = []
    for pick in order.tolist():
        pattern = votes[pick].tobytes()
        seen[pattern] = seen.get(pattern, 0) + 1
        if seen[pattern] <= _SAME_PATTERN:
            picks.append(pick)
        if len(picks) == _LARGE:
            break
    return picks


def find_edges(sample: Sample, fitted: Fitted) -> dict[str, tuple[Gallery, Gallery]]:
    """What each filter only just kept, and only just dropped.

    Args:
        sample: the sampled rows.
        fitted: the judgement.

    Returns:
        Filter -> those it votes to keep and those it votes to drop whose score is nearest to the end of that range.
    """
    # With many filters a few pictures each: the page has to stay quick to open.
    most = max(2, min(_SMALL, _MOST_EDGE // max(2 * len(fitted.names), 1)))
    found = {}
    for index, name in enumerate(fitted.names):
        galleries = []
        for vote, title in ((1, "Last kept"), (-1, "First dropped")):
            rows = np.flatnonzero(sample.usable & (sample.votes[:, index] == vote))
            distance = _distance(sample.scores[index, rows], fitted.ranges[index], vote)
            rows = rows[np.lexsort((sample.tie[rows], distance))]
            verb = "keep" if vote > 0 else "drop"
            note = f"This filter votes to {verb} nothing here."
            if len(rows):
                note = f"Nearest to the end of the range by which this filter votes to {verb}, whatever became of them."
            galleries.append(Gallery(title, rows[:most].tolist(), note))
        found[name] = (galleries[0], galleries[1])
    return found


def _distance(scores: np.ndarray, ranges: FittedRanges, vote: int) -> np.ndarray:
    """How far scores lie from the nearest end of the range that they voted by."""
    own, other = (ranges.keep, ranges.drop) if vote > 0 else (ranges.drop, ranges.keep)
    ends = [end for end in (own or other or ()) if np.isfinite(end)]
    if not ends:
        return np.zeros(len(scores))
    distance: np.ndarray = np.min([np.abs(scores.astype(np.float64) - end) for end in ends], axis=0)
    return distance


def find_rejects(sample: Sample, reasons: Mapping[str, int]) -> list[Rejects]:
    """Rejected samples by reason, the most frequent first.

    Args:
        sample: the sampled rows.
        reasons: the summary's reasons and counts, of the whole pool.

    Returns:
        At most twelve groups; the last stands for all rarer ones where there are more.
    """
    exact = {reason: count for reason, count in reasons.items() if reason.startswith(_REJECTED)}
    variants: dict[str, set[str]] = {}
    for reason in exact:
        variants.setdefault(_shorten(reason), set()).add(reason)
    groups: dict[str, Rejects] = {}
    for reason, count in exact.items():
        short = _shorten(reason)
        text = next(iter(variants[short])) if len(variants[short]) == 1 else short
        groups.setdefault(short, Rejects(text.removeprefix(_REJECTED))).count += count
    ranked = sorted(groups, key=lambda short: (-groups[short].count, short))
    rest = Rejects("other reasons")
    for short in ranked[_MOST_REJECTS - 1 :] if len(ranked) > _MOST_REJECTS else []:
        rest.count += groups.pop(short).count
    for pick in np.argsort(sample.tie, kind="stable").tolist():
        reason = sample.reasons[pick]
        if reason is not None and reason.startswith(_REJECTED):
            group = groups.get(_shorten(reason), rest)
            if len(group.picks) < _SMALL:
                group.picks.append(pick)
    shown = [groups[short] for short in ranked if short in groups]
    return [*shown, rest] if rest.count else shown


def _shorten(reason: str) -> str:
    """A reason without what differs from sample to sample."""
    return re.sub(r"\d+", "...", reason.partition(" (")[0])
