"""`chaffinch doctor`: is everything in place, here and where the workers are? One line per check."""

import contextlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterator, Sequence

import pyarrow as pa

from chaffinch.jobs.checks import Check, Wanted, check_all
from chaffinch.jobs.config import Config, load_config
from chaffinch.jobs.console import Console
from chaffinch.jobs.experiment import Experiment, JobError
from chaffinch.jobs.run import check_beam_options
from chaffinch.jobs.slicing import refuse_slice
from chaffinch.pipeline.engines.engine import add_up, set_up_filesystems
from chaffinch.pipeline.measuring.examination import Examination, Examine, Examined, Reports
from chaffinch.pipeline.samples import index_shard
from chaffinch.pipeline.storage import files, listings

_SHARDS_READ = 3
_QUESTIONS_PER_WORKER = 4
# Elsewhere nobody knows here how many workers there are.
_QUESTIONS_ELSEWHERE = 32
_BYTES_PER_LIST = 100
"""Of a column whose values differ in length, such as boxes; of the samples table as well."""


def run_doctor(config: str, settings: Sequence[str], console: Console, beam_options: tuple[str, ...] = ()) -> None:
    """Looks at everything that a run will need, here and through the configured runner on its workers.

    Args:
        config: the config's path.
        settings: `key=value` settings.
        console: where the lines go.
        beam_options: options for Beam.

    Raises:
        ConfigError: the config or a setting is wrong.
        JobError: something else is; the lines say what.
    """
    check_beam_options(beam_options, console)
    set_up_filesystems(beam_options)
    experiment = Experiment(load_config(config, list(settings)), console, beam_options)
    refuse_slice(experiment.config.sections.run.slice, "doctor")
    checks = [_tell_config(experiment.config), *_examine(experiment)]
    if console.json:
        console.result(json.dumps({"checks": [vars(check) for check in checks]}))
    else:
        console.result("\n".join(map(str, checks)))
    wrong = [check.name for check in checks if check.status == "wrong"]
    if wrong:
        raise JobError(f"wrong: {', '.join(wrong)}")


def _tell_config(config: Config) -> Check:
    parts = [f"{len(config.shards):,} shards, {sum(one.size for one in config.shards) / 1e9:,.3f} GB"]
    parts += [f"a reference of {len(config.reference):,}"] if config.reference else []
    parts += [f"scorers {', '.join(config.scorers) or 'none'}", f"{len(config.filters)} filters"]
    return Check("config", "ok", "; ".join(parts))


def _examine(experiment: Experiment) -> list[Check]:
    config = experiment.config
    device = experiment.sides[0].device
    shards = [*config.shards[:1], *config.shards[1:][-1:], *config.reference[:1]][:_SHARDS_READ]
    folders = list(dict.fromkeys([config.store, experiment.output]))
    token = uuid.uuid4().hex[:12]
    look = Examination(token, dict(config.scorers), device, [one.path for one in shards], folders)
    with contextlib.ExitStack() as cleaning:
        for folder in folders:
            cleaning.enter_context(_left_as_it_was(folder, f"doctor-{token}"))
        # What cannot be written says so when it is looked at.
        for folder in folders:
            with contextlib.suppress(Exception):
                files.write_bytes(look.probe(folder), b"from the launching process")
        here = look.examine(loads=False)
        try:
            scratch = _scratch(experiment, here, cleaning)
            engine = experiment.engine
            questions = range(
                max(_QUESTIONS_PER_WORKER * engine.workers, 0 if engine.is_local else _QUESTIONS_ELSEWHERE)
            )
            found: Reports | None = add_up(engine, "Examine workers", questions, Examine(look), scratch)
        except JobError as error:
            return [Check("workers", "wrong", str(error)), *_alone(here, experiment, len(shards))]
        except Exception as error:  # whatever a runner says when its workers cannot do what they are asked
            return [_tell_failure(error, experiment), *_alone(here, experiment, len(shards))]
        workers = list((found or Reports()).found.values())
        probes = [one.probe for worker in workers for one in worker.folders.values() if one.probe]
        seen = {probe for probe in probes if files.exists(probe)}
        at_once = experiment.engine.workers if experiment.engine.is_local else None
        return check_all(here, workers, _wanted(experiment, len(shards), at_once), seen)


def _scratch(experiment: Experiment, here: Examined, cleaning: contextlib.ExitStack) -> str:
    """Where workers' answers pass through: the output; or a temporary folder, where workers are of this machine."""
    if not here.folders[experiment.output].problem:
        return experiment.output
    if experiment.engine.is_local:
        return cleaning.enter_context(tempfile.TemporaryDirectory(prefix="chaffinch-doctor-"))
    raise JobError("were not asked: their answers pass through the output, which cannot be written to")


def _tell_failure(error: Exception, experiment: Experiment) -> Check:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else type(error).__name__
    if isinstance(error, FileNotFoundError):
        message = f"what they write to {experiment.output} is not seen here: it must lie on a filesystem that all share"
    elif "No module named" in reason:
        message = f"they lack something ({reason}): install chaffinch and what it needs there, as here"
    else:
        message = f"they do not answer: {type(error).__name__}: {reason}; see the runner's address and its own logs"
    return Check("workers", "wrong", message)


def _alone(here: Examined, experiment: Experiment, shards: int) -> list[Check]:
    """What can be said without workers."""
    names = ("input", "folder ")
    found = check_all(here, [], _wanted(experiment, shards, None), set())
    return [check for check in found if check.name.startswith(names)]


def _wanted(experiment: Experiment, shards: int, workers: int | None) -> Wanted:
    """What a run will ask of its workers, of which so many are on this machine; None where that is not known."""
    device = experiment.sides[0].device
    would = [name for name, scorer in experiment.config.scorers.items() if scorer.uses_device]
    uses = would if device == "cuda" else []
    return Wanted(device, uses, would, workers, _bytes_needed(experiment), shards)


def _bytes_needed(experiment: Experiment) -> dict[str, int]:
    """How much will be written below store and output, from what one shard holds; rather too much than too little."""
    config = experiment.config
    store = 0
    for side in experiment.sides:
        tasks = side.tasks(side.folders(), retry_unreadable=False)
        smallest = min(side.shards, key=lambda one: one.size)
        per_byte = index_shard(smallest).num_rows / max(smallest.size, 1)
        row = _BYTES_PER_LIST + sum(
            _width(kind) for scorer in config.scorers.values() for kind in scorer.columns.values()
        )
        store += round(sum(task.shard.size for task in tasks) * per_byte * row)
    share = config.sections.keep.fraction
    output = round(sum(one.size for one in config.shards) * (1.0 if share is None else share))
    needed = {config.store: store, experiment.output: output}
    inside = config.store.startswith(experiment.output.rstrip("/") + "/")
    return needed | ({experiment.output: output + store} if inside else {})


def _width(kind: pa.DataType) -> int:
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * _width(kind.value_type)
    return kind.bit_width // 8 + 1 if pa.types.is_primitive(kind) else _BYTES_PER_LIST


@contextlib.contextmanager
def _left_as_it_was(folder: str, probe: str) -> Iterator[None]:
    """Removes afterwards what probing has left, and local folders that were made for it."""
    made, place = [], os.path.abspath(folder)
    while files.is_local(folder) and not os.path.exists(place):
        made.append(place)
        place = os.path.dirname(place)
    try:
        yield
    finally:
        with contextlib.suppress(Exception):  # where nothing can be written there is nothing to remove
            for info in listings.listing(files.join(folder, f"{probe}*")):
                files.remove(info.path)
        for place in made:
            with contextlib.suppress(OSError):
                os.rmdir(place)
