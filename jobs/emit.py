"""`chaffinch emit`: write the kept samples as shards and as a subset file."""

import json

import pyarrow as pa

from chaffinch.jobs.decide import check_counts
from chaffinch.jobs.experiment import Experiment, JobError
from chaffinch.pipeline.emitting.emit import emit
from chaffinch.pipeline.emitting.plan import Plan
from chaffinch.pipeline.rows import Source
from chaffinch.pipeline.storage import files, listings


def run_emit(experiment: Experiment) -> None:
    """Writes what was decided to keep.

    Args:
        experiment: a decided experiment.

    Raises:
        JobError: there are no decisions of this config, or the counts do not add up.
    """
    config, side = experiment.config, experiment.sides[0]
    folders = [one.found_folders() for one in experiment.sides]
    path = files.join(experiment.output, "fitted.json")
    if not files.exists(path) or not files.exists(files.join(experiment.output, "summary.json")):
        raise JobError(f"{experiment.output} holds no decisions: run `chaffinch decide`")
    if json.loads(files.read_bytes(path))["made_from"] != experiment.made_from(folders):
        raise JobError(f"the decisions in {experiment.output} are of another config or input: run `chaffinch decide`")
    summary = json.loads(files.read_bytes(files.join(experiment.output, "summary.json")))
    check_counts(summary)
    counts = [summary["shards"][shard.name] for shard in config.shards]
    taken_down = [found.get("taken_down", 0) for found in counts]
    placed = [found["kept"] + empty for found, empty in zip(counts, taken_down, strict=True)]
    settings = config.sections.emit
    plan = Plan(config.shards, placed, settings.samples_per_shard, settings.shuffle_seed, taken_down)
    source = Source(side.store, folders[0], config.metadata)
    shards = files.join(experiment.output, "shards")
    names = [f"{number:08d}" for number in range(len(plan.sizes))]

    def finished() -> set[str]:
        return listings.names_below(shards, "_stats.json")

    with experiment.timed("emit") as timing:
        with experiment.console.progress(
            "emit", {name: files.join(shards, name + ".parquet") for name in names}, finished
        ):
            emitted = emit(experiment.engine, plan, source, experiment.output, _scores(experiment))
        timing["samples"] = plan.total
    left_out = f", {sum(taken_down)} taken down" if any(taken_down) else ""
    experiment.console.say(f"{plan.total} samples in {len(emitted.sizes)} shards{left_out}: {shards}")


def _scores(experiment: Experiment) -> list[str]:
    """The columns written beside kept samples: every number per sample, and what filters read of the metadata.

    But for those that only take samples down: where such a filter is added, the other shards stay as they are.
    """
    found = [
        f"{name}.{column}"
        for name, scorer in experiment.config.scorers.items()
        for column, kind in scorer.columns.items()
        if pa.types.is_floating(kind) or pa.types.is_integer(kind)
    ]
    judges = [judge for judge in experiment.config.filters.values() if not judge.takes_down]
    read = dict.fromkeys(column for judge in judges for column in judge.reads)
    return found + [column for column in read if column.startswith("metadata.")]
