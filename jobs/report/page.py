"""Renders the report: a template that escapes whatever comes from a pool, with styles, scripts and pictures inside."""

import json
from typing import Any

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from chaffinch.jobs.pages import html, theme
from chaffinch.jobs.report import charts, words
from chaffinch.jobs.report.contents import Contents
from chaffinch.jobs.report.ensemble import describe_ensemble, draw_beyond_chance

_VOTES = {1: "keep", 0: "abstain", -1: "drop"}
_SIGNS = {1: "+", 0: "\N{MIDDLE DOT}", -1: "\N{MINUS SIGN}"}


def render(contents: Contents) -> str:
    """The whole page.

    Args:
        contents: what it shows.

    Returns:
        HTML that needs no other file and no network; equal contents give equal text.
    """
    scripts = [get_plotlyjs(), html.read_part(__package__, "charts.js")]
    environment = html.environment(__package__)
    environment.filters |= {"percent": words.percent, "number": words.number, "count": "{:,}".format}
    summary, sample = contents.summary, contents.sample
    return environment.get_template("page.html").render(
        contents=contents,
        summary=summary,
        sample=sample,
        policy=html.policy(scripts),
        scripts=[html.inside_script(script) for script in scripts],
        style=html.coloured(html.read_part(__package__, "style.css")),
        figures=_figures(contents),
        usable=summary["read"] - summary["rejected"],
        filters=_filters(contents),
        aspects=_aspects(contents),
        ensemble=describe_ensemble(contents),
        cut=_cut(contents),
        cards={pick: _card(contents, pick) for pick in contents.views},
        whole=len(sample) == summary["read"],
    )


def _figures(contents: Contents) -> Markup:
    """All figures and the colours' roles as JSON that is safe inside a script element."""
    fitted, sample = contents.fitted, contents.sample
    usable = sample.usable
    judged = usable & ~fitted.vetoed(sample.votes)
    figures: dict[str, go.Figure] = {
        "funnel": charts.draw_funnel(contents.stages),
        "probability": charts.draw_probabilities(
            sample.probability[judged], sample.keep[judged], fitted.cut.probability
        ),
    }
    if len(fitted.names) > 1:
        figures["agreement"] = charts.draw_agreement(fitted.names, *charts.find_agreement(sample))
    found = contents.state.get("diagnosis", {}).get("agreement", {"filters": []})
    if len(found["filters"]) > 1:
        figures["beyond-chance"] = draw_beyond_chance(found["filters"], found["kappa"], found["common"])
    for index, name in enumerate(fitted.names):
        figures[f"score-{name}"] = charts.draw_scores(
            sample.scores[index][usable], sample.votes[usable, index], fitted.ranges[index]
        )
    content = {
        "roles": {colour: name for name, colour in theme.LIGHT.items()},
        "figures": {name: json.loads(figure.to_json()) for name, figure in figures.items()},
    }
    return html.inside_json(content)


def _filters(contents: Contents) -> list[dict[str, Any]]:
    """One entry per filter: what it reads, its ranges in words, and what the summary says of it."""
    found = []
    usable = contents.sample.usable
    for index, (name, judge) in enumerate(contents.filters.items()):
        numbers, ranges = contents.summary["filters"][name], contents.fitted.ranges[index]
        found.append(
            {
                "name": name,
                "kind": judge.kind,
                "reads": ", ".join(judge.reads),
                "aspect": judge.aspect,
                "required": judge.require,
                "keep": words.interval(ranges.keep),
                "drop": words.interval(ranges.drop),
                "keep_asked": words.asked(judge.keep),
                "drop_asked": words.asked(judge.drop),
                "numbers": numbers,
                "abstain": max(1 - numbers["coverage"], 0.0),
                "unknown": int(np.isnan(contents.sample.scores[index][usable]).sum()),
                "edges": contents.edges[name],
            }
        )
    return found


def _aspects(contents: Contents) -> list[dict[str, Any]]:
    """One entry per aspect: its label model, its filters and the share of good samples it assumes or found."""
    fitted = contents.fitted
    found = []
    for aspect, (columns, model) in fitted.ensemble.aspects.items():
        prior = getattr(model, "class_prior_", model.class_prior)
        found.append(
            {
                "name": aspect,
                "model": model.kind,
                "filters": ", ".join(fitted.names[column] for column in columns),
                "prior": prior if isinstance(prior, float) else None,
                "given": model.class_prior is not None,
            }
        )
    return found


def _cut(contents: Contents) -> dict[str, Any]:
    """What was asked for and how the cut was made."""
    order = contents.state.get("order") or {}
    probability = contents.fitted.cut.probability
    return {"probability": probability if 0 <= probability <= 1 else None, **order}


def _card(contents: Contents, pick: int) -> dict[str, Any]:
    """What a card tells of a sample beside its picture."""
    sample = contents.sample
    reason = sample.reasons[pick]
    rejected = bool(np.isnan(sample.probability[pick]))
    state = "rejected" if rejected else "kept" if sample.keep[pick] else "dropped"
    votes = [
        {
            "name": name,
            "score": words.number(float(sample.scores[index, pick])),
            "vote": _VOTES[int(sample.votes[pick, index])],
            "sign": _SIGNS[int(sample.votes[pick, index])],
        }
        for index, name in enumerate(contents.fitted.names)
    ]
    return {
        "view": contents.views[pick],
        "state": state,
        "probability": None if rejected else float(sample.probability[pick]),
        "reason": None if reason is None else reason.partition(": ")[2],
        "votes": [] if rejected else votes,
        "key": sample.keys[pick],
        "shard": sample.shards[sample.shard[pick]].name,
    }
