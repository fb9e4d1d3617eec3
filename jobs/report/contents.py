"""Gathers everything the report shows: exact counts from the summary, the rest from a sample of the pool."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from chaffinch.filters.filter import Filter
from chaffinch.filters.fitted import Fitted
from chaffinch.jobs.experiment import Experiment
from chaffinch.jobs.label_findings import tell_dropped
from chaffinch.jobs.pages.html import pool_name
from chaffinch.jobs.pages.pictures import View, view_rows
from chaffinch.jobs.report.galleries import Gallery, Rejects, find_edges, find_extremes, find_rejects
from chaffinch.jobs.report.sample import Sample, draw_sample
from chaffinch.pipeline.rows import Source
from chaffinch.pipeline.shards import Shard

_MOST_STAGES = 6
_DROPPED = "dropped: "


@dataclass(frozen=True)
class Contents:
    """What the report shows.

    Attributes:
        title: the pool's name.
        summary: summary.json.
        state: fitted.json.
        fitted: the judgement.
        filters: name -> filter.
        sample: the rows that figures and galleries are made from.
        stages: the funnel: stage and how many samples reach it.
        losses: why samples are not kept, and how many, vetoes first.
        extremes: surest kept, surest dropped, most disputed.
        edges: filter -> its last kept and first dropped.
        rejects: rejected samples by reason.
        views: position in the sample -> what can be seen of it.
        settings: the config, as far as it decides.
        notes: what the reader should know about what is missing, and which filters were left out.
    """

    title: str
    summary: Mapping[str, Any]
    state: Mapping[str, Any]
    fitted: Fitted
    filters: Mapping[str, Filter]
    sample: Sample
    stages: Sequence[tuple[str, int]]
    losses: Sequence[tuple[str, int]]
    extremes: Sequence[Gallery]
    edges: Mapping[str, tuple[Gallery, Gallery]]
    rejects: Sequence[Rejects]
    views: Mapping[int, View]
    settings: str
    notes: Sequence[str]


def gather(
    experiment: Experiment,
    summary: Mapping[str, Any],
    state: Mapping[str, Any],
    fitted: Fitted,
    vanished: Sequence[Shard],
) -> Contents:
    """Reads what the report shows.

    Args:
        experiment: a decided experiment.
        summary: summary.json.
        state: fitted.json.
        fitted: the judgement in it.
        vanished: shards that were decided on but are no longer there.

    Returns:
        The report's contents.
    """
    config, side = experiment.config, experiment.sides[0]
    source = Source(side.store, side.found_folders(), config.metadata)
    counts = {name: found["read"] for name, found in summary["shards"].items()}
    shards = [*config.shards, *vanished]
    seed = config.sections.keep.seed
    sample = draw_sample(shards, counts, source, fitted.teach(config.filters), experiment.output, seed)
    extremes, edges = find_extremes(sample, fitted), find_edges(sample, fitted)
    rejects = find_rejects(sample, summary["reasons"])
    picks = [pick for gallery in extremes for pick in gallery.picks]
    picks += [pick for pair in edges.values() for gallery in pair for pick in gallery.picks]
    picks += [pick for group in rejects for pick in group.picks]
    views, missing = view_rows(sample.shards, sample.shard, sample.row, picks, source)
    gone = [shard.name for shard in vanished]
    notes = [
        *_note(gone, "vanished since scored; counts and scores include them, their pictures cannot be shown"),
        *_note(sample.unread, "have tables that cannot be read; figures and galleries are without them"),
        *_note([name for name in missing if name not in gone], "cannot be read; their pictures cannot be shown"),
        *[
            f"{tell_dropped(name, found['dropped_source'])}."
            for name, found in summary["filters"].items()
            if "dropped_source" in found
        ],
    ]
    return Contents(
        title=pool_name(config.sections.input),
        summary=summary,
        state=state,
        fitted=fitted,
        filters=config.filters,
        sample=sample,
        stages=find_stages(summary, config.filters),
        losses=find_losses(summary, config.filters),
        extremes=extremes,
        edges=edges,
        rejects=rejects,
        views=views,
        settings=_settings(config.dump()),
        notes=notes,
    )


def find_stages(summary: Mapping[str, Any], filters: Mapping[str, Filter]) -> list[tuple[str, int]]:
    """The funnel from read to kept.

    Args:
        summary: summary.json.
        filters: all filters by name.

    Returns:
        Stage and how many samples reach it, in order; the first is all that was read, the last what was kept.
    """
    left = summary["read"] - summary["rejected"]
    stages = [("read", summary["read"]), ("usable", left)]
    losses = find_losses(summary, filters)
    vetoes = [(reason, count) for reason, count in losses if reason.startswith("required filter ")]
    if len(vetoes) > _MOST_STAGES:
        vetoes = [(f"{len(vetoes)} required filters", sum(count for _, count in vetoes))]
    for reason, count in vetoes:
        left -= count
        stages.append((f"past {reason.removeprefix('required filter ')}", left))
    silent = summary["reasons"].get(_DROPPED + "every filter abstains", 0)
    if silent:
        left -= silent
        stages.append(("voted on", left))
    return [*stages, ("kept", summary["kept"])]


def find_losses(summary: Mapping[str, Any], filters: Mapping[str, Filter]) -> list[tuple[str, int]]:
    """Why samples were dropped: required filters in their order, then everything else.

    Args:
        summary: summary.json.
        filters: all filters by name.

    Returns:
        Reason and count; required filters that dropped nothing first are there too.
    """
    reasons = {
        reason.removeprefix(_DROPPED): count
        for reason, count in summary["reasons"].items()
        if reason.startswith(_DROPPED)
    }
    ordered = [f"required filter {name}" for name, judge in filters.items() if judge.require]
    ordered += [reason for reason in sorted(reasons) if reason not in ordered]
    return [(reason, reasons.get(reason, 0)) for reason in ordered]


def _settings(config: str) -> str:
    content = yaml.safe_load(config)
    chosen = {name: content[name] for name in ("scorers", "filters", "ensemble", "keep", "emit")}
    return yaml.safe_dump(chosen, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None)


def _note(shards: Sequence[str], problem: str) -> list[str]:
    if not shards:
        return []
    few = ", ".join(sorted(shards)[:5]) + (" ..." if len(shards) > 5 else "")
    return [f"{len(shards)} {'shard' if len(shards) == 1 else 'shards'} ({few}): {problem}."]
