"""What a slice of a pool can be scored for by itself, what has to wait for the others, and who has not been scored."""

from collections.abc import Mapping

from chaffinch.jobs.documents import ConfigError
from chaffinch.jobs.experiment import Experiment, JobError
from chaffinch.jobs.side import Side
from chaffinch.pipeline.deciding.ranges import find_shares
from chaffinch.pipeline.measuring.gate import Gate
from chaffinch.pipeline.measuring.slices import noted_count, slice_of

_FEW = 5
_MOST_SLICES = 20


def refuse_slice(text: str | None, command: str) -> None:
    """Refuses a slice for a command that needs the whole pool.

    Args:
        text: what `run.slice` says.
        command: the command.

    Raises:
        ConfigError: there is a slice; says what to do.
    """
    if text is not None:
        raise ConfigError(
            f"run.slice: {text} is a part of the pool, and {command} needs all of it: run `chaffinch score` with each "
            f"slice, then `chaffinch {command}` without run.slice"
        )


def what_waits(side: Side, folders: Mapping[str, str], name: str, left: Mapping[str, str]) -> str | None:
    """Why a slice cannot measure a scorer yet.

    Scorers that lean on the whole pool are measured only where all tables that they lean on are there, from whichever
    slice: what they say never comes of a part of the pool.

    Args:
        side: the input or the reference, cut to a slice.
        folders: scorer -> folder of its tables.
        name: the scorer, for which this slice lacks tables.
        left: scorers of earlier levels that this slice has left, and why.

    Returns:
        The reason, or None where it can be measured now.
    """
    if side.scorers[name].whole_pool:
        return "compares the whole pool"
    filters = side.gates.get(name, {})
    before = _before(side, name)
    if missing := [one for one in before if one in left]:
        return f"comes after {missing[0]}"
    leaning = []
    if Gate.leans_on_pool(filters):
        leaning.append((side, folders))
    if side.reference is not None and find_shares(filters, of_reference=True):
        leaning.append((side.reference, side.reference.folders()))
    for other, tables in leaning:
        if not other.is_whole({one: tables[one] for one in before}):
            return f"required filters lean on the whole {other.label}, which is not scored yet"
    return None


def of_slice(side: Side) -> str:
    """Words for whose shards are meant, after their number."""
    return f" of slice {side.slice}" if side.slice else ""


def tell_left(experiment: Experiment, side: Side, left: Mapping[str, str]) -> None:
    """Says what a slice has left, and who does it."""
    if not left:
        return
    told = "; ".join(f"{name} ({why})" for name, why in left.items())
    alone = all(side.scorers[name].whole_pool for name in left)
    again = "" if alone else "; or the slices once more, which measure what no longer waits"
    experiment.console.say(
        f"{side.label}: left for when all slices are done: {told}; then `chaffinch score` without run.slice{again}"
    )


def require_scored(experiment: Experiment, side: Side, folders: Mapping[str, str]) -> None:
    """Makes sure that all shards have all tables, whichever slices they come from.

    Args:
        experiment: the experiment.
        side: the input or the reference.
        folders: scorer -> folder of its tables.

    Raises:
        JobError: some lack tables; says how many, names the first, and how to score them.
    """
    unscored = side.tasks(folders, retry_unreadable=False)
    if not unscored:
        return
    # The reference's store lies in the pool's; slices are of both.
    count = noted_count(experiment.sides[0].store)
    waiting = {folders[name] for name in _waiting(side)} if count else set()
    # What a slice could have measured comes first: the rest leans on it.
    missed = [task for task in unscored if not task.indexed or not waiting.issuperset(task.folders)]
    named = missed or unscored
    few = ", ".join(task.shard.name for task in named[:_FEW]) + (" ..." if len(named) > _FEW else "")
    lacking = {folder for task in named for folder in task.folders}
    names = ", ".join(name for name, folder in folders.items() if folder in lacking) or "the list of their samples"
    problem = (
        f"{len(named)} of {len(side.shards)} shards of the {side.label} are not scored or have changed since ({few}) "
        f"in the store {side.store.root}: they lack {names}; run `chaffinch score`"
    )
    if count is None:
        raise JobError(problem)
    if not missed:
        raise JobError(f"{problem} without run.slice: all {count} slices are done, and that is for the whole pool")
    numbers = sorted({slice_of(task.shard.name, count) for task in missed})
    told = ", ".join(f"{number}/{count}" for number in numbers[:_MOST_SLICES])
    more = f" and {len(numbers) - _MOST_SLICES} more" if len(numbers) > _MOST_SLICES else ""
    raise JobError(f"{problem}, or with each of run.slice={told}{more}")


def _waiting(side: Side) -> list[str]:
    """Scorers that slices may have to leave: those that lean on the whole pool, and what comes after them."""
    found: list[str] = []
    for level in side.order.levels:
        for name in level:
            filters = side.gates.get(name, {})
            leans = Gate.leans_on_pool(filters) or bool(find_shares(filters, of_reference=True))
            if side.scorers[name].whole_pool or leans or set(_before(side, name)) & set(found):
                found.append(name)
    return found


def _before(side: Side, name: str) -> list[str]:
    """The scorers whose tables a scorer reads, or its gate."""
    filters = side.gates.get(name, {})
    owners = {column.partition(".")[0] for judge in filters.values() for column in judge.reads}
    return [one for one in side.scorers if one in owners or one in side.order.reads[name]]
