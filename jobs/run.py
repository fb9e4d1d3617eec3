"""`chaffinch run`: score, decide, emit, report; and the single commands, which are its parts."""

import json
from collections.abc import Sequence
from typing import Any

from chaffinch.jobs.config import load_config
from chaffinch.jobs.console import Console
from chaffinch.jobs.decide import run_decide, show
from chaffinch.jobs.documents import ConfigError
from chaffinch.jobs.emit import run_emit
from chaffinch.jobs.experiment import Experiment, JobError
from chaffinch.jobs.label.command import run_label
from chaffinch.jobs.report.command import run_report
from chaffinch.jobs.score import run_score
from chaffinch.jobs.slicing import refuse_slice
from chaffinch.pipeline.engines.engine import set_up_filesystems
from chaffinch.pipeline.engines.runners import named_runner, refuse, unknown_options
from chaffinch.pipeline.storage import files
from chaffinch.pipeline.storage.leftovers import remove_leftovers
from chaffinch.pipeline.storage.locks import LockError, holding

_STAGES = {
    "run": ("score", "decide", "emit", "report"),
    "score": ("score",),
    "decide": ("decide",),
    "emit": ("emit",),
    "report": ("report",),
    "label": ("label",),
}

# What may run once at a time for one output. Scoring may run as often as one likes, and pages are one file each.
_LOCKING = ("run", "decide", "emit")


def run_command(
    command: str, config: str, settings: Sequence[str], console: Console, beam_options: tuple[str, ...] = ()
) -> dict[str, Any] | None:
    """Runs one of the commands that take a config.

    Args:
        command: run, score, decide, emit, report or label.
        config: the config's path.
        settings: `key=value` settings; for decide and run also `fitted=FILE`.
        console: where messages go.
        beam_options: options for Beam.

    Returns:
        summary.json's content where the command decides, else None.

    Raises:
        ConfigError: the config or a setting is wrong.
        JobError: the job failed.
    """
    fitted, overrides = None, []
    for setting in settings:
        if setting.startswith("fitted="):
            fitted = setting.removeprefix("fitted=")
        else:
            overrides.append(setting)
    if fitted is not None and command == "score":
        raise ConfigError(
            "command line: fitted= has no meaning for score; it goes with decide, emit, report, label and run"
        )
    check_beam_options(beam_options, console)
    set_up_filesystems(beam_options)
    experiment = Experiment(load_config(config, overrides, fitted is not None), console, beam_options, fitted)
    cut = experiment.config.slice
    if command != "score":
        refuse_slice(experiment.config.sections.run.slice, command)
    if cut is None:  # many slices would list the store at once, and what they leave waits for whoever needs all of it
        remove_leftovers(experiment.output)
        remove_leftovers(experiment.config.store)
    try:
        files.check_writable(experiment.output)
        if command in ("score", "run"):
            files.check_writable(experiment.config.store)
    except OSError as error:
        raise JobError(str(error)) from error
    if command not in _LOCKING:
        return _run_stages(experiment, command)
    try:
        with holding(experiment.output, f"chaffinch {command} {config}"):
            return _run_stages(experiment, command)
    except LockError as error:
        raise JobError(str(error)) from error


def check_beam_options(beam_options: tuple[str, ...], console: Console) -> None:
    """Refuses runners that lose data, and warns of options that nobody may ever read."""
    try:
        refuse(named_runner(beam_options))
    except ValueError as error:
        raise ConfigError(f"command line: {error}") from error
    for message in unknown_options(beam_options):
        console.warn(message)


def _run_stages(experiment: Experiment, command: str) -> dict[str, Any] | None:
    console, summary = experiment.console, None
    emitted = _made_from(experiment) if command == "decide" else None
    for stage in _STAGES[command]:
        if stage == "score":
            run_score(experiment)
        elif stage == "decide":
            summary = run_decide(experiment)
        elif stage == "emit":
            run_emit(experiment)
        elif stage == "report":
            run_report(experiment)
        else:
            run_label(experiment)
    if emitted is not None and emitted != _made_from(experiment):
        console.say(f"shards and report in {experiment.output} are of an earlier decision: run `chaffinch run`")
    if summary is not None:
        console.result(json.dumps(summary) if console.json else show(summary))
    return summary


def _made_from(experiment: Experiment) -> str | None:
    """What the decisions are of, where shards were emitted; None where there are none."""
    path = files.join(experiment.output, "fitted.json")
    if not files.exists(files.join(experiment.output, "shards", "meta.json")) or not files.exists(path):
        return None
    state: dict[str, str] = json.loads(files.read_bytes(path))
    return state.get("made_from")
