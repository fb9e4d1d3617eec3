"""How the ensemble judges: the diagnosis in fitted.json as the report shows it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from chaffinch.jobs.report import charts
from chaffinch.jobs.report.contents import Contents

_MOST_PATTERNS = 40
_SIGNS = {
    "+": ("keep", "+"),
    "0": ("abstain", "\N{MIDDLE DOT}"),
    "-": ("drop", "\N{MINUS SIGN}"),
}


def describe_ensemble(contents: Contents) -> dict[str, Any] | None:
    """What the template needs.

    Args:
        contents: what the report shows.

    Returns:
        aspects, filters, patterns, findings and what labels say; None where nothing was fitted, since numbers came from
        elsewhere.
    """
    diagnosis = contents.state.get("diagnosis")
    if diagnosis is None:
        return None
    table = diagnosis["patterns"]
    names = table["filters"]
    told = [{**one, "signs": [_SIGNS[sign] for sign in one["votes"]]} for one in table["patterns"][:_MOST_PATTERNS]]
    shown = sum(one["samples"] for one in told)
    every = sum(one["samples"] for one in table["patterns"]) + table["rest"]["samples"]
    return {
        "aspects": [{"name": name, **found} for name, found in diagnosis["aspects"].items()],
        "filters": [_describe_filter(name, numbers) for name, numbers in contents.summary["filters"].items()],
        "findings": diagnosis["findings"],
        "names": names,
        "patterns": told,
        "untold": len(table["patterns"]) - len(told) + table["rest"]["patterns"],
        "untold_samples": every - shown,
        "ruled_out": table["ruled_out"],
        "uncovered": table["uncovered"],
        "compared": len(names) > 1,
        "labels": contents.state.get("labels"),
    }


def _describe_filter(name: str, numbers: Mapping[str, Any]) -> dict[str, Any]:
    accuracy, interval = numbers.get("accuracy"), numbers.get("accuracy_interval")
    bar = None
    if accuracy is not None:
        low, high = interval or (accuracy, accuracy)
        bar = {"left": 100 * low, "width": max(100 * (high - low), 0.4), "at": 100 * accuracy}
    return {
        "name": name,
        "judges": "weight" in numbers,
        "accuracy": accuracy,
        "interval": interval,
        "bar": bar,
        "note": numbers.get("accuracy_note", ""),
        "worse": numbers.get("worse_than_chance", False),
        "weight": numbers.get("weight"),
        "changes": numbers.get("left_out_changes"),
        "changes_note": numbers.get("left_out_note", ""),
    }


def draw_beyond_chance(names: Sequence[str], kappa: Sequence[Sequence[float | None]], common: Any) -> go.Figure:
    """The matrix of agreement beyond chance.

    Args:
        names: (m,) filters that judge.
        kappa: (m, m) Cohen's kappa in [-1, 1]; None where a filter does not vary.
        common: (m, m) on how many samples both vote.
    """
    values = np.array([[np.nan if value is None else value for value in row] for row in kappa], np.float64)
    figure = charts.draw_agreement(names, values, np.asarray(common))
    return figure.update_traces(
        zmin=-1,
        hovertemplate="%{y} and %{x}<br>kappa %{z:.2f} on %{customdata:,} samples<extra></extra>",
        texttemplate="%{z:.2f}" if figure.data[0].texttemplate else None,
    )
