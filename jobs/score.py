"""`chaffinch score`: measure every sample with every scorer; resumes, and computes only what is missing."""

from collections.abc import Mapping, Sequence

from chaffinch.jobs.documents import ConfigError
from chaffinch.jobs.experiment import Experiment, JobError
from chaffinch.jobs.side import Side
from chaffinch.pipeline.feeds import Wanted
from chaffinch.pipeline.gate import Gate
from chaffinch.pipeline.measure import MemoryShortage
from chaffinch.pipeline.neighbours import clear_exchanges, score_pool
from chaffinch.pipeline.picture_sets import SetError
from chaffinch.pipeline.score import Spent, score
from chaffinch.pipeline.workbench import LoadError, check_loading
from chaffinch.scoring.scorer import Scorer


def run_score(experiment: Experiment) -> None:
    """Scores the reference, if there is one, and the input, one level of scorers after the other.

    Args:
        experiment: what to score.

    Raises:
        JobError: a scorer cannot be loaded on this machine, or a batch does not fit into its memory; a shard has no
            tables although nothing failed, or a set of pictures that a setting names is no use.
        ConfigError: the settings of a scorer do not let it load.
        RangeError: keep and drop of a required filter overlap, seen where a scorer waits for it.
    """
    try:
        with experiment.timed("score") as timing:
            _check_loading(experiment)
            for side in reversed(experiment.sides):
                timing[side.label] = _score_side(experiment, side)
    except LoadError as error:
        raise (ConfigError if error.by_settings else JobError)(f"scorers.{error}") from error
    except MemoryShortage as error:
        raise JobError(str(error)) from error


def _check_loading(experiment: Experiment) -> None:
    """Tries whether the scorers that come later can be loaded; those that come first are, before they read a shard."""
    if not experiment.engine.is_local:
        return  # workers load, and this process may have no GPU
    first: set[str] | None = None
    later: dict[str, Scorer] = {}
    for side in reversed(experiment.sides):
        folders = side.folders()
        missing = {folder for task in side.tasks(folders) for folder in task.folders}
        for level in side.order.levels:
            lacking = [name for name in level if folders[name] in missing]
            names = {name for name in lacking if not side.scorers[name].whole_pool}
            if lacking and first is None:
                first = names
            later |= {name: side.scorers[name] for name in sorted(names - (first or set()))}
    if later:
        experiment.console.say(f"trying whether {', '.join(later)} can be loaded")
        check_loading(later, experiment.sides[0].device)


def _score_side(experiment: Experiment, side: Side) -> dict[str, object]:
    folders = side.folders()
    samples, seconds = 0, dict[str, float]()
    # Without any scorer there is still an index of the samples to be made; and before what is fitted on metadata alone.
    levels = side.order.levels or [[]]
    if any(Gate.leans_on_pool(side.gates.get(name, {})) for name in levels[0]):
        levels = [[], *levels]
    for number, level in enumerate(levels):
        at_once = [name for name in level if not side.scorers[name].whole_pool]
        if at_once or not number:
            spent = _score_level(experiment, side, folders, at_once, retry_unreadable=not number)
            samples, seconds = max(samples, spent.samples), seconds | spent.seconds
        for name in level:
            if side.scorers[name].whole_pool:
                spent = _score_whole_pool(experiment, side, folders, name)
                samples, seconds = max(samples, spent.samples), seconds | spent.seconds
    if unscored := side.tasks(folders, retry_unreadable=False):
        raise JobError(
            f"{len(unscored)} shards such as {unscored[0].shard.name} have no tables after scoring: run again"
        )
    if not samples:
        experiment.console.say(f"{side.label}: all {len(side.shards)} shards are scored")
        return {}
    return {"samples": samples, "scorers": {name: round(spent, 3) for name, spent in sorted(seconds.items())}}


def _score_level(
    experiment: Experiment, side: Side, folders: Mapping[str, str], names: Sequence[str], retry_unreadable: bool
) -> Spent:
    """Scores what a level of scorers lacks; those of earlier levels are done."""
    level = {name: folders[name] for name in names}
    tasks = side.tasks(level, retry_unreadable)
    if not tasks:
        return Spent()
    missing = {name: sum(folder in task.folders for task in tasks) for name, folder in level.items()}
    told = ", ".join(f"{name} {count}" for name, count in missing.items() if count) or "samples only"
    experiment.console.say(f"{side.label}: {len(tasks)} of {len(side.shards)} shards to score ({told})")

    def finished() -> set[str]:
        unfinished = {task.shard.name for task in side.tasks(level, retry_unreadable=False)}
        return {task.shard.name for task in tasks} - unfinished

    # The last table that a shard gets knows of everything that was rejected by then.
    last = {
        task.shard.name: side.store.scores(task.folders[-1], task.shard.name)
        if task.folders
        else side.store.samples(task.shard.name)
        for task in tasks
    }
    wanted = [_want(experiment, side, folders, name) for name in names]
    with experiment.console.progress(f"score {side.label}", last, finished):
        return score(
            experiment.engine,
            tasks,
            side.source(folders),
            wanted,
            experiment.config.sections.run.batch_size,
            side.device,
            experiment.output,
        )


def _score_whole_pool(experiment: Experiment, side: Side, folders: Mapping[str, str], name: str) -> Spent:
    """Scores the whole pool with a scorer that looks at all of it, unless all tables are there."""
    folder = folders[name]
    tasks = side.tasks({name: folder}, retry_unreadable=False)
    if not tasks:
        clear_exchanges(side.store.root, folder)
        return Spent()
    experiment.console.say(f"{side.label}: {len(side.shards)} shards to score together ({name})")
    last = {shard.name: side.store.scores(folder, shard.name) for shard in side.shards}

    def finished() -> set[str]:
        unfinished = {task.shard.name for task in side.tasks({name: folder}, retry_unreadable=False)}
        return last.keys() - unfinished

    leaned_on = side.reference or side
    try:
        with experiment.console.progress(f"score {side.label} ({name})", last, finished):
            return score_pool(
                experiment.engine,
                experiment.pool(side, folders),
                _want(experiment, side, folders, name),
                side.device,
                experiment.output,
                experiment.pool(leaned_on, leaned_on.folders()) if side.needs_reference(name) else None,
            )
    except SetError as error:
        raise JobError(f"scorers.{name}: {error}") from error


def _want(experiment: Experiment, side: Side, folders: Mapping[str, str], name: str) -> Wanted:
    scorer, filters = side.scorers[name], side.gates.get(name)
    if not filters:
        return Wanted(name, folders[name], scorer)
    reference = side.reference
    leaned_on = None if reference is None else experiment.pool(reference, reference.folders())
    gate = Gate.fit(experiment.count, experiment.pool(side, folders), leaned_on, filters)
    relatives = [one for one in side.store.score_folders() if one.rpartition("-")[0] == name and one != folders[name]]
    return Wanted(name, folders[name], scorer, gate, side.ungated(name, folders), tuple(relatives))
