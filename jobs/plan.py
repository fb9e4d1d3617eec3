"""`chaffinch plan`: what will it cost? Scores, decides and emits a small sample of the pool, and forecasts the rest.

The sample is scored where a run's workers are, for their machines may differ from this one; and decided on and emitted
here. Workers of one machine get in each other's way, so that there two of them score it once more. All that happens in
a folder of its own, which goes afterwards, and not in the store: a plan that is asked for again must measure again;
tables of scorers that heed the whole pool (`where: required`, `neighbours`) would be of no use to it; and what emitting
and deciding write is measured too.
"""

import contextlib
import dataclasses
import json
import os
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from chaffinch.jobs.config import Config, load_config
from chaffinch.jobs.console import Console, table
from chaffinch.jobs.decide import run_decide
from chaffinch.jobs.documents import ConfigError
from chaffinch.jobs.emit import run_emit
from chaffinch.jobs.experiment import Experiment, JobError
from chaffinch.jobs.forecast import Forecast, Place, Sampled
from chaffinch.jobs.run import check_beam_options
from chaffinch.jobs.score import run_score
from chaffinch.jobs.sections import KeepSection
from chaffinch.jobs.side import Side
from chaffinch.jobs.slicing import refuse_slice
from chaffinch.pipeline.engines.engine import set_up_filesystems
from chaffinch.pipeline.engines.local_workers import cores
from chaffinch.pipeline.measuring.leases import visible_gpus
from chaffinch.pipeline.measuring.spent import Spent, peak_memory
from chaffinch.pipeline.shards import Shard
from chaffinch.pipeline.storage import files, listings
from chaffinch.pipeline.storage.processes import started_at

_SAMPLE = 2
_WORKERS = (1, 2, 4, 8, 16)
_SEED = 0


def run_plan(
    config: str, settings: Sequence[str], console: Console, beam_options: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Forecasts what scoring a pool will cost, and what all commands will write.

    Args:
        config: the config's path.
        settings: `key=value` settings; also `sample=N`, how many shards of input and reference are tried, and
            `workers=N,M,...`, which numbers of workers to forecast for.
        console: where messages and the result go.
        beam_options: options for Beam.

    Returns:
        The forecast as plain numbers.

    Raises:
        ConfigError: the config or a setting is wrong.
        JobError: the sample cannot be scored.
    """
    own, overrides = _split(settings)
    check_beam_options(beam_options, console)
    set_up_filesystems(beam_options)
    whole = load_config(config, overrides)
    refuse_slice(whole.sections.run.slice, "plan")
    workers = sorted({*own["workers"], *([] if "workers" in _names(settings) else [whole.sections.run.choice.at_once])})
    scratch = files.join(whole.sections.output, "plan")
    made = files.is_local(scratch) and not files.exists(whole.sections.output)
    listings.remove_below(scratch)
    try:
        small = _shrink(whole, files.join(scratch, "one"), own["sample"][0])
        experiment = Experiment(small, dataclasses.replace(console, quiet=True), beam_options)
        told = f"{len(small.shards)} of {len(whole.shards)} shards"
        if whole.reference:
            told += f", {len(small.reference)} of {len(whole.reference)} of the reference"
        console.say(f"trying {told}: {scratch}")
        before, began = peak_memory(), _seconds_since_start()
        spent = run_score(experiment)
        ended = _seconds_since_start()
        start_up_cpu = time.process_time() - sum(one.cpu_seconds for one in spent.values())
        working = sum(one.seconds for one in spent.values()) + _pool_seconds(experiment, spent)
        beside, waiting = dict[str, Spent](), 0.0
        if experiment.engine.is_local and max(workers) > 1 and len(small.shards) > 1:
            console.say("trying them with two workers")
            two = dataclasses.replace(experiment, config=_placed(small, files.join(scratch, "two"), 2))
            beside = run_score(two)
            waiting = _seconds_since_start() - ended - _pool_seconds(two, beside) / 2
        sides = {
            side.label: _sampled(side, spent[side.label], shards, beside.get(side.label))
            for side, shards in zip(experiment.sides, (whole.shards, whole.reference), strict=False)
        }
        more = waiting - sum(side.seconds_beside for side in sides.values()) - (ended - began - working)
        output, kept = _judge(experiment, console)
        place = _place(experiment, before)
        devices = _devices(experiment)
        forecast = Forecast(sides, ended - working, place, start_up_cpu, devices, output, kept, max(more, 0.0))
    finally:
        listings.remove_below(scratch)
        if made:
            with contextlib.suppress(OSError):  # somebody else has put something there meanwhile
                os.rmdir(whole.sections.output)
    figures = forecast.summary(workers)
    scored = _scored(Experiment(whole, console, beam_options).sides[0])
    console.result(json.dumps(figures) if console.json else _show(figures, forecast, scored))
    return figures


def _names(settings: Sequence[str]) -> set[str]:
    return {setting.partition("=")[0] for setting in settings}


def _split(settings: Sequence[str]) -> tuple[dict[str, list[int]], list[str]]:
    """The command's own settings, and those of the config."""
    own, overrides = {"sample": [_SAMPLE], "workers": list(_WORKERS)}, []
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in own:
            overrides.append(setting)
            continue
        try:
            own[name] = [int(part) for part in value.split(",")]
        except ValueError:
            own[name] = []
        if not own[name] or min(own[name]) < 1 or (name == "sample" and len(own[name]) > 1):
            wanted = "a number of shards, from 1" if name == "sample" else "numbers of workers, such as 1,8,64"
            raise ConfigError(f"command line: {setting}: {name} is {wanted}")
    return own, overrides


def _shrink(config: Config, scratch: str, sample: int) -> Config:
    """The same experiment on a few shards, in a folder of its own, with one worker."""
    shards, reference = _draw(config.shards, sample), _draw(config.reference, sample)
    keep = config.sections.keep
    if keep.count is not None:
        share = sum(one.size for one in shards) / max(sum(one.size for one in config.shards), 1)
        keep = KeepSection(count=round(keep.count * share), uncovered=keep.uncovered, seed=keep.seed)
    run = config.sections.run.model_copy(update={"max_rejected": 1.0, "slice": None})
    sections = config.sections.model_copy(update={"run": run, "keep": keep})
    return _placed(dataclasses.replace(config, sections=sections, shards=shards, reference=reference), scratch, 1)


def _placed(config: Config, folder: str, workers: int) -> Config:
    """The same with an output and store of its own, and so many workers."""
    run = config.sections.run.model_copy(update={"workers": workers})
    changed = {"output": folder, "store": files.join(folder, "store"), "run": run}
    return dataclasses.replace(config, sections=config.sections.model_copy(update=changed))


def _draw(shards: Sequence[Shard], sample: int) -> list[Shard]:
    """Some shards, by a fixed seed and in their order; large ones are drawn sooner, for they are most of the pool.

    Source: weighted sampling without replacement, Efraimidis and Spirakis 2006, "Weighted random sampling with a
        reservoir".
    """
    source = random.Random(_SEED)
    waits = [source.expovariate(max(one.size, 1)) for one in shards]
    chosen = sorted(range(len(shards)), key=waits.__getitem__)[:sample]
    return [shards[number] for number in sorted(chosen)]


def _sampled(side: Side, spent: Spent, shards: Sequence[Shard], beside: Spent | None) -> Sampled:
    tables = {"samples": _bytes_below(files.join(side.store.root, "samples"))}
    for name, folder in side.folders().items():
        tables[name] = _bytes_below(files.join(side.store.root, "scores", folder))
    whole_pool = frozenset(name for name, scorer in side.scorers.items() if scorer.whole_pool)
    sizes = [one.size for one in shards]
    return Sampled(spent, [one.size for one in side.shards], sizes, tables, whole_pool, beside)


def _bytes_below(folder: str) -> int:
    return sum(info.size for info in listings.listing_below(folder))


def _pool_seconds(experiment: Experiment, spent: Mapping[str, Spent]) -> float:
    """Seconds in scorers of the whole pool, over all workers."""
    scorers = experiment.config.scorers
    efforts = [(name, effort) for one in spent.values() for name, effort in one.scorers.items()]
    return sum(effort.seconds for name, effort in efforts if scorers[name].whole_pool)


def _judge(experiment: Experiment, console: Console) -> tuple[dict[str, int], int | None]:
    """Decides and emits the sample: the bytes of both, and how many samples were kept; nothing where that fails.

    What is written is the same wherever it is done, and here it is done soonest.
    """
    config = experiment.config
    if not config.filters:
        return {}, None
    run = config.sections.run.model_copy(update={"runner": "local"})
    local = dataclasses.replace(config, sections=config.sections.model_copy(update={"run": run}))
    experiment = dataclasses.replace(experiment, config=local)
    try:
        kept = run_decide(experiment)["kept"]
        run_emit(experiment)
    except (ConfigError, JobError) as error:
        console.warn(f"the sample alone cannot be decided on, so that decisions and shards are not forecast: {error}")
        return {}, None
    folders = {name: files.join(experiment.output, name) for name in ("decisions", "shards")}
    return {name: _bytes_below(folder) for name, folder in folders.items()}, kept


def _devices(experiment: Experiment) -> frozenset[str]:
    on_gpu = experiment.sides[0].device == "cuda"
    return frozenset(name for name, scorer in experiment.config.scorers.items() if on_gpu and scorer.uses_device)


def _place(experiment: Experiment, memory: int) -> Place:
    used = bool(_devices(experiment))
    if not experiment.engine.is_local:
        return Place(gpus=None if used else 0)
    gpus = len(visible_gpus()) if used else 0
    return Place(cores(), gpus, None if experiment.config.sections.run.runner == "processes" else memory)


def _scored(side: Side) -> int:
    """How many shards of the real store have all tables."""
    return len(side.shards) - len(side.tasks(side.folders(), retry_unreadable=False))


def _seconds_since_start() -> float:
    """Seconds since this process was started, as the kernel knows it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_at(os.getpid()) / os.sysconf("SC_CLK_TCK")


def _show(figures: dict[str, Any], forecast: Forecast, scored: int) -> str:
    shards, samples = figures["shards"], figures["samples"]
    parts = [
        f"{name}: {shards[name]:,} shards, {_size(figures['bytes'][name])}, about {samples[name]:,} samples "
        f"({figures['sampled_shards'][name]} tried)"
        for name in figures["shards"]
    ]
    if scored:
        parts.append(f"{scored:,} shards of the input are scored already; this is the price of all")
    rows = []
    for name, found in figures["scorers"].items():
        measured = max(found["samples"], 1)
        rows.append(
            [
                name,
                found["device"],
                f"{1000 * found['seconds'] / measured:.2f}",
                f"{1000 * found['preparing_seconds'] / measured:.2f}",
                _duration(found["seconds"]),
                _duration(found["loading_seconds"]),
                "" if found["batch_fill"] is None else f"{found['batch_fill']:.0%}",
                _size(found["bytes"]),
            ]
        )
    # Threads read, decode and prepare while scorers score: what is left is what these had to wait for, and writing.
    waiting = figures["shard_seconds"] - sum(
        found["seconds"] for name, found in figures["scorers"].items() if not _is_whole_pool(forecast, name)
    )
    total = max(sum(samples.values()), 1)
    index = _size(forecast.tables["samples"])
    rows.append(["waiting, writing", "", f"{1000 * waiting / total:.2f}", "", _duration(waiting), "", "", index])
    header = ["scorer", "device", "ms a sample", "ms preparing it", "for all", "loading", "batch fill", "tables"]
    written = "; ".join(f"{name} {_size(size)}" for name, size in figures["output_bytes"].items())
    kept = "" if figures["kept"] is None else f"; about {figures['kept']:,} samples kept"
    bytes_line = f"written: score tables {_size(figures['table_bytes'])}" + (f"; {written}" if written else "") + kept
    times = table(
        ["workers", "scoring takes", "GPU hours", "CPU hours", "memory"],
        [
            [
                str(one["workers"]),
                _duration(one["seconds"]),
                f"{one['gpu_hours']:.3g}",
                f"{figures['cpu_seconds'] / 3600:.3g}",
                _size(one["memory_bytes"]),
            ]
            for one in figures["workers"]
        ],
    )
    own = "of the process, whose threads they are" if forecast.place.memory is not None else "of each worker"
    notes = f"start-up is {_duration(figures['start_up_seconds'])} of that; memory is that {own}; deciding comes on top"
    return "\n".join([*parts, "", table(header, rows), "", bytes_line, "", times, notes])


def _is_whole_pool(forecast: Forecast, name: str) -> bool:
    return any(name in side.whole_pool for side in forecast.sides.values())


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
