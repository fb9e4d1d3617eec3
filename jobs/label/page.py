"""Renders the labelling page: samples as data inside it, which its script shows as text and pictures."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chaffinch.jobs.pages import html
from chaffinch.jobs.pages.pictures import View
from chaffinch.pipeline.deciding.labels import Labels

_VOTES = {1: "keep", 0: "abstains", -1: "drop"}


@dataclass(frozen=True)
class Question:
    """A sample that is asked about.

    Attributes:
        uid: 32 hex digits.
        at_random: whether it was drawn by chance.
        view: what can be seen of it.
        shard: its shard.
        key: its key.
        votes: filter -> -1, 0 or 1; shown when all is answered.
        probability: P(keep); shown then, too.
    """

    uid: str
    at_random: bool
    view: View
    shard: str
    key: str
    votes: Mapping[str, int]
    probability: float


def render(title: str, questions: Sequence[Question], labels: Labels | None, met: np.ndarray) -> str:
    """The whole page.

    Args:
        title: the pool's name.
        questions: what is asked, in this order.
        labels: what has been said already: the file that the page saves begins with it, and so takes its place.
        met: (k, 2) uint64 uids of samples among these that count as drawn by chance from now on.

    Returns:
        HTML that needs no other file and no network; equal arguments give equal text.
    """
    script = html.read_part(__package__, "label.js")
    uids = "\n".join(question.uid for question in questions)
    data = {
        # Answers are kept under this name: another page, of other samples, does not see them.
        "name": f"chaffinch-label-{hashlib.sha256(uids.encode()).hexdigest()[:16]}",
        "earlier": _earlier(labels, met),
        "questions": [_plain(question) for question in questions],
    }
    environment = html.environment(__package__)
    environment.filters["count"] = "{:,}".format
    return environment.get_template("label.html").render(
        title=title,
        questions=len(questions),
        drawn=sum(question.at_random for question in questions),
        earlier=0 if labels is None else len(labels),
        policy=html.policy([script]),
        script=html.inside_script(script),
        style=html.coloured(html.read_part(__package__, "label.css")),
        data=html.inside_json(data),
    )


def _earlier(labels: Labels | None, met: np.ndarray) -> list[str]:
    """Lines of the file for what has been said already."""
    if labels is None:
        return []
    drawn = set(map(tuple, met.tolist()))
    return [
        f"{high:016x}{low:016x},{_word(keep)},{_drawn(at_random or (high, low) in drawn)}"
        for (high, low), keep, at_random in zip(
            labels.uids.tolist(), labels.keep.tolist(), labels.at_random.tolist(), strict=True
        )
    ]


def _plain(question: Question) -> dict[str, Any]:
    view = question.view
    return {
        "uid": question.uid,
        "drawn": _drawn(question.at_random),
        "picture": view.thumbnail,
        "size": view.size,
        "problem": view.problem,
        "caption": view.caption,
        "bytes": view.cut,
        "where": f"shard {question.shard}, key {question.key}",
        "votes": [[name, _VOTES[vote]] for name, vote in question.votes.items()],
        "probability": f"{question.probability:.3f}",
    }


def _word(keep: bool) -> str:
    return "true" if keep else "false"


def _drawn(at_random: bool) -> str:
    return "random" if at_random else "picked"
