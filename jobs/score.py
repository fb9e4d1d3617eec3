"""`chaffinch score`: measure every sample with every scorer; resumes, and computes only what is missing."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from chaffinch.jobs.documents import ConfigError
from chaffinch.jobs.experiment import Experiment, JobError
from chaffinch.jobs.side import Side
from chaffinch.jobs.slicing import of_slice, tell_left, what_waits
from chaffinch.pipeline.measuring.feeds import Wanted
from chaffinch.pipeline.measuring.gate import Gate
from chaffinch.pipeline.measuring.measure import MemoryShortage
from chaffinch.pipeline.measuring.score import Task, narrow, score
from chaffinch.pipeline.measuring.slices import note_count
from chaffinch.pipeline.measuring.spent import Spent
from chaffinch.pipeline.measuring.workbench import LoadError, check_loading
from chaffinch.pipeline.whole_pool.neighbours import clear_exchanges, score_pool
from chaffinch.pipeline.whole_pool.picture_sets import SetError
from chaffinch.scoring.scorer import Scorer


def run_score(experiment: Experiment) -> dict[str, Spent]:
    """Scores the reference, if there is one, and the input, one level of scorers after the other.

    Of both only the slice where the config names one. Nothing is locked: whoever scores the same shard at the same time
    writes the same tables, each of them whole or not at all.

    Args:
        experiment: what to score.

    Returns:
        What it cost: "input" and "reference" -> what was spent on that.

    Raises:
        JobError: a scorer cannot be loaded on this machine, or a batch does not fit into its memory; a shard has no
            tables although nothing failed, or a set of pictures that a setting names is no use.
        ConfigError: the settings of a scorer do not let it load.
        RangeError: keep and drop of a required filter overlap, seen where a scorer waits for it.
    """
    spent: dict[str, Spent] = {}
    cut = experiment.config.slice
    if cut is not None:
        note_count(experiment.sides[0].store, cut.count)
    try:
        # What a slice took says little of the pool; all slices at once would write each other's times away.
        stage: AbstractContextManager[dict[str, Any]] = experiment.timed("score") if cut is None else nullcontext({})
        with stage as timing:
            # One listing of each store says what is to do, and, where that is nothing, is all that is asked of it.
            sides = [(side, side.tasks(side.folders())) for side in reversed(experiment.sides)]
            _check_loading(experiment, sides)
            for side, tasks in sides:
                spent[side.label] = _score_side(experiment, side, tasks)
                timing[side.label] = spent[side.label].summary()
            return spent
    except LoadError as error:
        raise (ConfigError if error.by_settings else JobError)(f"scorers.{error}") from error
    except MemoryShortage as error:
        raise JobError(str(error)) from error


def _check_loading(experiment: Experiment, sides: Sequence[tuple[Side, Sequence[Task]]]) -> None:
    """Tries whether the scorers that come later can be loaded; those that come first are, before they read a shard."""
    if not experiment.engine.is_local:
        return  # workers load, and this process may have no GPU
    first: set[str] | None = None
    later: dict[str, Scorer] = {}
    for side, tasks in sides:
        folders = side.folders()
        missing = {folder for task in tasks for folder in task.folders}
        for level in side.order.levels:
            lacking = [name for name in level if folders[name] in missing]
            names = {name for name in lacking if not side.scorers[name].whole_pool}
            if lacking and first is None:
                first = names
            later |= {name: side.scorers[name] for name in sorted(names - (first or set()))}
    if later:
        experiment.console.say(f"trying whether {', '.join(later)} can be loaded")
        check_loading(later, experiment.sides[0].device)


def _score_side(experiment: Experiment, side: Side, tasks: Sequence[Task]) -> Spent:
    """Scores what a side lacks, which `tasks` say: one level of scorers after the other."""
    folders = side.folders()
    total, left = Spent(), dict[str, str]()
    if not tasks:
        if side.slice is None:
            for name in (one for one in folders if side.scorers[one].whole_pool):
                clear_exchanges(side.store.root, folders[name])
        experiment.console.say(f"{side.label}: all {len(side.mine)} shards{of_slice(side)} are scored")
        return total
    # Without any scorer there is still an index of the samples to be made; and before what is fitted on metadata alone.
    levels = side.order.levels or [[]]
    if any(Gate.leans_on_pool(side.gates.get(name, {})) for name in levels[0]):
        levels = [[], *levels]
    for number, level in enumerate(levels):
        if side.slice is not None:
            level, waiting = _ready(side, folders, level, left)
            left |= waiting
        at_once = [name for name in level if not side.scorers[name].whole_pool]
        if at_once or not number:
            known = tasks if not number else None
            total.follow(_score_level(experiment, side, folders, at_once, known))
        for name in level:
            if side.scorers[name].whole_pool:
                total.follow(_score_whole_pool(experiment, side, folders, name))
    tell_left(experiment, side, left)
    done = {name: folder for name, folder in folders.items() if name not in left}
    if unscored := side.tasks(done, retry_unreadable=False):
        raise JobError(
            f"{len(unscored)} shards such as {unscored[0].shard.name} have no tables after scoring: run again"
        )
    if not total.samples:
        experiment.console.say(f"{side.label}: all {len(side.mine)} shards{of_slice(side)} are scored")
    return total


def _ready(
    side: Side, folders: Mapping[str, str], level: Sequence[str], left: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Which scorers of a level a slice can be measured with now; and which have to wait, and why."""
    if not left and not any(side.scorers[name].whole_pool or side.gates.get(name) for name in level):
        return list(level), {}  # without another listing
    tasks = side.tasks({name: folders[name] for name in level}, retry_unreadable=False)
    lacking = {folder for task in tasks for folder in task.folders}
    ready, waiting = [], {}
    for name in level:
        if folders[name] in lacking and (why := what_waits(side, folders, name, left)):
            waiting[name] = why
        elif not side.scorers[name].whole_pool:  # what is there of those is not for a slice to clean up after
            ready.append(name)
    return ready, waiting


def _score_level(
    experiment: Experiment,
    side: Side,
    folders: Mapping[str, str],
    names: Sequence[str],
    known: Sequence[Task] | None = None,
) -> Spent:
    """Scores what a level of scorers lacks; those of earlier levels are done.

    Args:
        experiment: what to score.
        side: the input or the reference.
        folders: scorer -> folder of its tables.
        names: the level.
        known: what shards lack of all levels, if that was seen just now; shards that could not be read are among them.
    """
    level = {name: folders[name] for name in names}
    tasks = side.tasks(level, retry_unreadable=False) if known is None else narrow(known, level.values())
    if not tasks:
        return Spent()
    missing = {name: sum(folder in task.folders for task in tasks) for name, folder in level.items()}
    told = ", ".join(f"{name} {count}" for name, count in missing.items() if count) or "samples only"
    experiment.console.say(f"{side.label}: {len(tasks)} of {len(side.mine)} shards{of_slice(side)} to score ({told})")

    def finished() -> set[str]:
        unfinished = {task.shard.name for task in side.tasks(level, retry_unreadable=False)}
        return last.keys() - unfinished

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
