"""What `chaffinch decide` left behind, for commands that show it."""

import json
from typing import Any

import yaml

from chaffinch.jobs.decide import check_counts
from chaffinch.jobs.experiment import Experiment, JobError
from chaffinch.pipeline.shards import Shard
from chaffinch.pipeline.storage import files

# What has to be as it was when the decisions were made, where shards that vanished leave no digest to compare.
_DECIDING = ("input", "reference", "metadata", "labels", "scorers", "filters", "ensemble", "keep")


def read_decided(experiment: Experiment) -> tuple[dict[str, Any], dict[str, Any], list[Shard]]:
    """Reads what was decided.

    Args:
        experiment: a decided experiment.

    Returns:
        summary.json, fitted.json, and the shards that were decided on but are no longer there.

    Raises:
        JobError: there are no decisions of this config, or the counts do not add up.
    """
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
