"""`chaffinch report`: one self-contained report.html about what was decided."""

import json
from typing import Any

import yaml

from chaffinch.filters.fitted import Fitted
from chaffinch.jobs import kinds
from chaffinch.jobs.decide import check_counts
from chaffinch.jobs.experiment import Experiment, JobError
from chaffinch.pipeline import files
from chaffinch.pipeline.shards import Shard

# What has to be as it was when the decisions were made, where shards that vanished leave no digest to compare.
_DECIDING = ("input", "reference", "metadata", "scorers", "filters", "ensemble", "keep")


def run_report(experiment: Experiment) -> None:
    """Writes report.html; the same input and config give the same bytes.

    Args:
        experiment: a decided experiment.

    Raises:
        JobError: there are no decisions of this config, or the counts do not add up.
    """
    # The plotting library takes a second to import; no other command need wait for it.
    from chaffinch.jobs.report.contents import gather
    from chaffinch.jobs.report.page import render

    summary, state, vanished = _read_decided(experiment)
    with experiment.timed("report") as timing:
        fitted = Fitted.restore(state["judgement"], lambda kind: kinds.label_models()[kind])
        contents = gather(experiment, summary, state, fitted, vanished)
        for note in contents.notes:
            experiment.console.warn(f"report: {note}")
        page = render(contents).encode("utf-8", "replace")
        path = files.join(experiment.output, "report.html")
        files.write_bytes(path, page)
        timing["samples"] = len(contents.sample)
    experiment.console.say(f"report of {len(page) / 1e6:.1f} MB: {path}")


def _read_decided(experiment: Experiment) -> tuple[dict[str, Any], dict[str, Any], list[Shard]]:
    """summary.json, fitted.json, and the shards that were decided on but are no longer there."""
    paths = {name: files.join(experiment.output, name) for name in ("fitted.json", "summary.json", "config.yaml")}
    if not all(map(files.exists, paths.values())):
        raise JobError(f"{experiment.output} holds no decisions: run `chaffinch decide`")
    state: dict[str, Any] = json.loads(files.read_bytes(paths["fitted.json"]))
    summary: dict[str, Any] = json.loads(files.read_bytes(paths["summary.json"]))
    check_counts(summary)
    there = {shard.name for shard in experiment.config.shards}
    vanished = [Shard(name, "", 0, 0.0) for name in summary["shards"] if name not in there]
    if vanished:
        same = _deciding(experiment.config.dump()) == _deciding(files.read_bytes(paths["config.yaml"]).decode())
        current = same and there <= summary["shards"].keys()
    else:
        folders = [side.found_folders() for side in experiment.sides]
        current = state["made_from"] == experiment.made_from(folders)
    if not current:
        raise JobError(f"the decisions in {experiment.output} are of another config or input: run `chaffinch decide`")
    return summary, state, vanished


def _deciding(config: str) -> dict[str, Any]:
    content = yaml.safe_load(config)
    return {name: content.get(name) for name in _DECIDING}
