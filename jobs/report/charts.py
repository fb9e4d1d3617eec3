"""The report's figures, made with Plotly in the colours of the light theme; the page swaps them for dark screens."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from chaffinch.filters.ranges import FittedRanges, Interval
from chaffinch.jobs.pages.theme import LIGHT
from chaffinch.jobs.report.bins import find_bands, find_bins, label_bins
from chaffinch.jobs.report.sample import Sample

_NAMED_CELLS = 14
_VOTES = ((1, "keep"), (0, "abstain"), (-1, "drop"))
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def _layout(height: int, **settings: Any) -> go.Layout:
    axis = {"fixedrange": True, "zeroline": False, "automargin": True, "ticks": "", "gridcolor": LIGHT["line"]}
    layout = go.Layout(
        template=None,
        height=height,
        margin={"l": 48, "r": 16, "t": 20, "b": 44},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": _FONT, "size": 12, "color": LIGHT["muted"]},
        hoverlabel={
            "bgcolor": LIGHT["surface"],
            "bordercolor": LIGHT["line"],
            "font": {"family": _FONT, "color": LIGHT["ink"]},
        },
        showlegend=False,
        dragmode=False,
        xaxis={**axis, "showgrid": False},
        yaxis={**axis, "rangemode": "tozero", "nticks": 5},
    )
    return layout.update(**settings)


def draw_funnel(stages: Sequence[tuple[str, int]]) -> go.Figure:
    """From read to kept: each stage and how many samples reach it.

    Args:
        stages: name and count, in order.
    """
    names, counts = [name for name, _ in stages], [count for _, count in stages]
    last = len(stages) - 1
    colours = [LIGHT["keep"] if index == last else LIGHT["accent"] for index in range(len(stages))]
    bars = go.Funnel(
        y=names,
        x=counts,
        texttemplate="%{value:,} (%{percentInitial:.1%})",
        textposition="auto",
        constraintext="none",
        cliponaxis=False,
        insidetextfont={"color": LIGHT["surface"]},
        outsidetextfont={"color": LIGHT["ink"]},
        marker={"color": colours},
        connector={"visible": True, "fillcolor": LIGHT["abstain-soft"], "line": {"width": 0}},
        hovertemplate="%{y}: %{x:,}<br>%{percentPrevious:.1%} of the stage before<extra></extra>",
    )
    layout = _layout(36 * len(stages) + 40, margin={"l": 8, "r": 16, "t": 8, "b": 8})
    layout.yaxis.update(showgrid=False, tickfont={"color": LIGHT["ink"], "size": 13}, nticks=len(stages) + 1)
    layout.xaxis.update(visible=False)
    return go.Figure(bars, layout)


def draw_scores(scores: np.ndarray, votes: np.ndarray, ranges: FittedRanges) -> go.Figure:
    """The histogram of a filter's score, coloured by the votes it causes, its ranges behind.

    Args:
        scores: (n,) float32 of usable samples; NaN where the filter cannot judge.
        votes: (n,) int8.
        ranges: the filter's ranges.
    """
    known = ~np.isnan(scores)
    values, votes = scores[known].astype(np.float64), votes[known]
    ends = [end for interval in (ranges.keep, ranges.drop) if interval for end in interval if np.isfinite(end)]
    edges, whole = find_bins(values, ends)
    inside = np.clip(values, edges[0], np.nextafter(edges[-1], -np.inf))
    counts = {vote: np.histogram(inside[votes == vote], edges)[0] for vote, _ in _VOTES}
    below, above = int((values < edges[0]).sum()), int((values > edges[-1]).sum())
    layout = _layout(250, barmode="stack", bargap=0.04 if whole else 0)
    layout.xaxis.update(range=[edges[0], edges[-1]])
    if below or above:
        layout.xaxis.update(title={"text": f"{below + above:,} beyond, counted at the end", "standoff": 6})
    layout.yaxis.update(title={"text": "samples", "standoff": 8})
    _cap(layout, counts, edges)
    bands = find_bands(ranges, whole)
    lines = sorted({end for _, interval in bands for end in interval if np.isfinite(end)})
    layout.shapes = [*(_band(name, interval, edges) for name, interval in bands), *map(_line, lines)]
    labels = label_bins(edges, whole, below > 0, above > 0)
    return go.Figure(_stack(counts, edges, labels, None if whole else np.diff(edges)), layout)


def _stack(
    counts: Mapping[int, np.ndarray], edges: np.ndarray, labels: Sequence[str], widths: np.ndarray | None
) -> list[go.Bar]:
    centres = (edges[:-1] + edges[1:]) / 2
    return [
        go.Bar(
            name=name,
            x=np.round(centres, 9).tolist(),
            y=counts[vote].tolist(),
            width=None if widths is None else np.round(widths, 9).tolist(),
            marker={"color": LIGHT[name], "line": {"width": 0}},
            customdata=list(labels),
            hovertemplate=f"%{{customdata}}<br>%{{y:,}} vote {name}<extra></extra>",
        )
        for vote, name in _VOTES
        if counts[vote].any()
    ]


def _cap(layout: go.Layout, counts: Mapping[int, np.ndarray], edges: np.ndarray) -> None:
    """Cuts the one bar that would flatten all others, and says how high it is."""
    total = np.sum(list(counts.values()), axis=0)
    order = np.argsort(total, kind="stable")
    top, second = int(total[order[-1]]), int(total[order[-2]]) if len(total) > 1 else 0
    if not second or top < 8 * second:
        return
    height = 2.2 * second
    layout.yaxis.update(range=[0, height])
    centre = float((edges[order[-1]] + edges[order[-1] + 1]) / 2)
    right = centre > float((edges[0] + edges[-1]) / 2)
    layout.annotations = [
        {
            "x": centre,
            "y": height,
            "text": f"cut off here: {top:,} samples ",
            "showarrow": False,
            "xanchor": "right" if right else "left",
            "xshift": -8 if right else 8,
            "yanchor": "top",
            "font": {"color": LIGHT["ink"]},
        }
    ]


def _band(name: str, interval: Interval, edges: np.ndarray) -> dict[str, Any]:
    return {
        "type": "rect",
        "layer": "below",
        "xref": "x",
        "yref": "paper",
        "x0": min(max(float(interval[0]), float(edges[0])), float(edges[-1])),
        "x1": max(min(float(interval[1]), float(edges[-1])), float(edges[0])),
        "y0": 0,
        "y1": 1,
        "fillcolor": LIGHT[f"{name}-soft"],
        "opacity": 0.55,
        "line": {"width": 0},
    }


def _line(x: float) -> dict[str, Any]:
    line = {"color": LIGHT["ink"], "width": 1, "dash": "dot"}
    return {"type": "line", "xref": "x", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1, "line": line}


def draw_probabilities(probability: np.ndarray, keep: np.ndarray, cut: float) -> go.Figure:
    """P(keep) of the samples that no required filter dropped, and where the cut lies.

    Args:
        probability: (n,) in [0, 1].
        keep: (n,) bool.
        cut: the least P(keep) that is kept; outside [0, 1] where there is no such number.
    """
    edges = np.linspace(0, 1, 51)
    counts = {
        1: np.histogram(probability[keep], edges)[0],
        0: np.zeros(50, np.int64),
        -1: np.histogram(probability[~keep], edges)[0],
    }
    bars = _stack(counts, edges, label_bins(edges), None)
    for bar in bars:
        told = "kept" if bar.name == "keep" else "dropped"
        bar.update(name=told, hovertemplate=f"P(keep) %{{customdata}}<br>%{{y:,}} {told}<extra></extra>")
    layout = _layout(250, barmode="stack", bargap=0.04)
    layout.xaxis.update(range=[-0.005, 1.005], title={"text": "P(keep)", "standoff": 8})
    layout.yaxis.update(title={"text": "samples", "standoff": 8})
    _cap(layout, counts, edges)
    if 0 <= cut <= 1:
        layout.shapes = [_line(cut)]
    return go.Figure(bars, layout)


def find_agreement(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """How often two filters agree where both vote.

    Args:
        sample: the sampled rows.

    Returns:
        (m, m) shares in [0, 1], NaN where they never vote on the same sample; and (m, m) on how many they do.
    """
    votes = sample.votes[sample.usable].astype(np.float64)
    keeps, drops = (votes == 1).astype(np.float64), (votes == -1).astype(np.float64)
    both = (keeps + drops).T @ (keeps + drops)
    agree = keeps.T @ keeps + drops.T @ drops
    return np.divide(agree, both, out=np.full_like(both, np.nan), where=both > 0), both.astype(np.int64)


def draw_agreement(names: Sequence[str], share: np.ndarray, both: np.ndarray) -> go.Figure:
    """The matrix of agreement.

    Args:
        names: (m,) filters.
        share: (m, m) as `find_agreement` returns it.
        both: (m, m) likewise.
    """
    cells = [[None if np.isnan(x) or i == j else float(x) for j, x in enumerate(row)] for i, row in enumerate(share)]
    heat = go.Heatmap(
        x=list(names),
        y=list(names),
        z=cells,
        customdata=both.tolist(),
        zmin=0,
        zmax=1,
        colorscale=[[0, LIGHT["low"]], [0.5, LIGHT["middle"]], [1, LIGHT["high"]]],
        xgap=2,
        ygap=2,
        hoverongaps=False,
        hovertemplate="%{y} and %{x}<br>agree on %{z:.1%} of %{customdata:,} samples<extra></extra>",
        showscale=False,
        textfont={"color": LIGHT["ink"], "size": 11},
        texttemplate="%{z:.0%}" if len(names) <= _NAMED_CELLS else None,
    )
    layout = _layout(110 + 34 * len(names), margin={"l": 8, "r": 8, "t": 8, "b": 8})
    ticks = {"showgrid": False, "nticks": len(names) + 1, "tickfont": {"color": LIGHT["ink"]}, "type": "category"}
    layout.xaxis.update(**ticks, side="top", tickangle=-45)
    layout.yaxis.update(**ticks, autorange="reversed")
    return go.Figure(heat, layout)
