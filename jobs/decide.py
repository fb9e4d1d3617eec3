"""`chaffinch decide`: votes, label models, keep or drop; reads score tables, never a pixel."""

import json
from collections.abc import Mapping
from typing import Any

from chaffinch.filters.fitted import Fitted
from chaffinch.jobs import kinds
from chaffinch.jobs.console import table
from chaffinch.jobs.diagnosis import (
    summarise_diagnosis,
    tell_accuracy,
    tell_aspects,
    tell_change,
    tell_finding,
    tell_misfits,
)
from chaffinch.jobs.documents import ConfigError
from chaffinch.jobs.experiment import Experiment, JobError
from chaffinch.jobs.label_findings import tell_dropped, tell_labels
from chaffinch.jobs.slicing import require_scored
from chaffinch.pipeline.deciding.decide import decide
from chaffinch.pipeline.deciding.learn import EmptyPoolError, LabelModelError
from chaffinch.pipeline.deciding.ranges import RangeError
from chaffinch.pipeline.deciding.verdicts import Verdicts, decisions_path
from chaffinch.pipeline.storage import files, listings

_DRIFT = 0.05


def run_decide(experiment: Experiment) -> dict[str, Any]:
    """Decides on every sample and writes decisions, fitted.json, config.yaml and summary.json.

    Args:
        experiment: a scored experiment.

    Returns:
        The summary.

    Raises:
        JobError: shards are not scored, the counts do not add up, or too much was rejected.
        ConfigError: ranges turn out to overlap or cannot be decided by labels, or fitted.json is of other filters.
    """
    config = experiment.config
    folders = [side.found_folders() for side in experiment.sides]
    for side, found in zip(experiment.sides, folders, strict=True):
        require_scored(experiment, side, found)
    pools = [experiment.pool(side, found) for side, found in zip(experiment.sides, folders, strict=True)]
    frozen = _read_frozen(experiment)
    before = _kept_before(experiment.output)
    tables = {shard.name: decisions_path(experiment.output, shard.name) for shard in config.shards}

    def finished() -> set[str]:
        return listings.names_below(files.join(experiment.output, "decisions"), ".parquet")

    with experiment.timed("decide") as timing:
        with experiment.console.progress("decide", tables, finished):
            try:
                verdicts, state = decide(
                    experiment.engine,
                    pools[0],
                    pools[1] if len(pools) > 1 else None,
                    experiment.judgement,
                    experiment.output,
                    experiment.made_from(folders),
                    lambda kind: kinds.label_models()[kind],
                    frozen,
                )
            except EmptyPoolError as error:
                raise JobError(f"{error}: nothing can be decided") from error
            except LabelModelError as error:
                raise JobError(str(error)) from error
            except RangeError as error:
                raise ConfigError(str(error)) from error
        timing["samples"] = sum(counts["read"] for counts in verdicts.shards.values())
        timing["filters"] = {name: round(seconds, 3) for name, seconds in verdicts.seconds.items()}
    diagnosis = state.get("diagnosis", {})
    summary = summarise(verdicts, state["filters"]) | summarise_diagnosis(diagnosis)
    files.write_bytes(files.join(experiment.output, "config.yaml"), config.dump().encode())
    if before is not None and before != summary["kept"]:
        experiment.console.say(f"kept {summary['kept']} samples; before, it was {before}")
    files.write_bytes(files.join(experiment.output, "summary.json"), (json.dumps(summary, indent=1) + "\n").encode())
    models = {aspect: part["model"] for aspect, part in state["judgement"]["ensemble"]["aspects"].items()}
    for aspect, model in models.items():
        if reasons := model.get("reasons_"):
            experiment.console.say(f"label model of the aspect {aspect}: {'; '.join(reasons)}")
    for misfit in tell_misfits(models):
        experiment.console.warn(misfit)
    if config.labels is not None and "labels" in state:
        tell_labels(experiment.console, len(config.labels), state["labels"])
    for name, found in state["filters"].items():
        if "dropped_source" in found:
            experiment.console.warn(tell_dropped(name, found["dropped_source"]))
    for finding in diagnosis.get("findings", ()):
        experiment.console.warn(tell_finding(finding))
    if frozen is not None:
        _warn_of_drift(experiment, state["filters"])
    check_counts(summary)
    most = config.sections.run.max_rejected
    if summary["rejected"] > most * summary["read"]:
        worst = ", ".join(f"{reason}: {count}" for reason, count in _rejects(summary)[:3])
        raise JobError(
            f"{summary['rejected']} of {summary['read']} samples were rejected, more than run.max_rejected={most} "
            f"allows ({worst}); mend the input, or raise it"
        )
    return summary


def _kept_before(output: str) -> int | None:
    """How many samples an earlier decision kept; None where there is none."""
    path = files.join(output, "summary.json")
    try:
        kept: int | None = json.loads(files.read_bytes(path)).get("kept") if files.exists(path) else None
    except ValueError:
        return None
    return kept


def summarise(verdicts: Verdicts, filters: Mapping[str, Any]) -> dict[str, Any]:
    """summary.json: what became of every sample; no times in it.

    Args:
        verdicts: counts per shard and reason.
        filters: what each filter contributed.

    Returns:
        {"read", "kept", "dropped", "rejected", "shards", "filters", "reasons"}.
    """
    parts = ("read", "kept", "dropped", "rejected")
    totals = {part: sum(counts[part] for counts in verdicts.shards.values()) for part in parts}
    shards = dict(sorted(verdicts.shards.items()))
    return {**totals, "shards": shards, "filters": filters, "reasons": dict(sorted(verdicts.reasons.items()))}


def check_counts(summary: Mapping[str, Any]) -> None:
    """Makes sure that nothing was lost.

    Raises:
        JobError: read is not kept + dropped + rejected somewhere; names the shard.
    """
    for name, counts in [*summary["shards"].items(), ("all shards", summary)]:
        if counts["read"] != counts["kept"] + counts["dropped"] + counts["rejected"]:
            raise JobError(
                f"{name}: {counts['read']} samples were read, but {counts['kept']} kept + {counts['dropped']} dropped "
                f"+ {counts['rejected']} rejected do not add up to that"
            )


def show(summary: Mapping[str, Any]) -> str:
    """The table that ends a run.

    Args:
        summary: summary.json's content.

    Returns:
        Each filter's coverage, votes, what only it dropped, what changes without it and how often it is right with its
        95% interval; how many independent filters there are in an aspect; then the counts.
    """
    rows = [
        [
            name,
            *(f"{found[part]:.1%}" for part in ("coverage", "keep", "drop", "conflict")),
            f"{found['only_drop']}",
            tell_change(found),
            tell_accuracy(found),
            "veto" if "weight" not in found else f"{found['weight']:.2f}",
        ]
        for name, found in summary["filters"].items()
    ]
    header = [
        "filter",
        "covers",
        "votes keep",
        "votes drop",
        "conflicts",
        "only it drops",
        "if left out",
        "accuracy",
        "weight",
    ]
    lines = [table(header, rows)] if rows else []
    lines += tell_aspects(summary)
    lines += [
        _tell_quality(name, found) for name, found in summary["filters"].items() if found.get("retained") is not None
    ]
    share = summary["kept"] / max(summary["read"] - summary["rejected"], 1)
    lines.append(
        f"read {summary['read']} = kept {summary['kept']} + dropped {summary['dropped']} + rejected "
        f"{summary['rejected']}; kept {share:.1%} of what could be used"
    )
    rejects = _rejects(summary)
    if rejects:
        told = [f"{reason} {count}" for reason, count in rejects[:8]]
        if len(rejects) > 8:
            told.append(f"{len(rejects) - 8} more reasons {sum(count for _, count in rejects[8:])}")
        lines.append("rejected: " + ", ".join(told))
    return "\n".join(lines)


def _tell_quality(name: str, found: Mapping[str, Any]) -> str:
    """What a filter that learned from the pool retains of it: the dataset's quality, as it sees it."""
    told = f"quality by {name}: {found['retained']:.1%} retained"
    steps = [share for share in found.get("steps_retained", []) if share is not None]
    if len(steps) > 1:
        told += f" (steps: {', '.join(f'{share:.1%}' for share in steps[:8])}{' ...' if len(steps) > 8 else ''})"
    notes = [f"step {step}: {why}" for step, why in found.get("steps_by_sign", {}).items()]
    return told + (f"; by the sign at {', '.join(notes[:8])}" if notes else "")


def _rejects(summary: Mapping[str, Any]) -> list[tuple[str, int]]:
    found = [
        (reason.removeprefix("rejected: "), count)
        for reason, count in summary["reasons"].items()
        if reason.startswith("rejected: ")
    ]
    return sorted(found, key=lambda item: (-item[1], item[0]))


def _read_frozen(experiment: Experiment) -> Fitted | None:
    if experiment.fitted is None:
        return None
    try:
        state = json.loads(files.read_bytes(experiment.fitted))
        frozen = Fitted.restore(state["judgement"], lambda kind: kinds.label_models()[kind])
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"command line: fitted={experiment.fitted}: is no fitted.json: {error}") from error
    wanted = [(name, judge.require) for name, judge in experiment.config.filters.items()]
    if list(zip(frozen.names, frozen.required, strict=True)) != wanted:
        raise ConfigError(
            f"command line: fitted={experiment.fitted}: it was fitted with the filters {', '.join(frozen.names)}; "
            f"the config has {', '.join(experiment.config.filters)}"
        )
    untaught = [name for name, judge in frozen.teach(experiment.config.filters).items() if judge.learns]
    if untaught:
        raise ConfigError(
            f"command line: fitted={experiment.fitted}: its numbers for {', '.join(untaught)} were learned with other "
            "settings; give the config it was fitted with"
        )
    return frozen


def _warn_of_drift(experiment: Experiment, filters: Mapping[str, Any]) -> None:
    assert experiment.fitted is not None
    known = json.loads(files.read_bytes(experiment.fitted))["filters"]
    for name, found in filters.items():
        for vote in ("keep", "drop"):
            before, now = known[name][vote], found[vote]
            if abs(now - before) > _DRIFT:
                experiment.console.warn(
                    f"drift: filter {name} votes {vote} on {now:.1%} of these samples; it was {before:.1%} where it "
                    f"was fitted ({experiment.fitted})"
                )
