"""`chaffinch label`: one self-contained label.html that asks about samples worth asking about."""

from typing import Any

import numpy as np
import pyarrow as pa

from chaffinch.filters.fitted import Fitted
from chaffinch.jobs import kinds
from chaffinch.jobs.decided import read_decided
from chaffinch.jobs.experiment import Experiment, JobError
from chaffinch.jobs.label.choice import choose
from chaffinch.jobs.label.page import Question, render
from chaffinch.jobs.pages.html import pool_name
from chaffinch.jobs.pages.pictures import Extent, view_rows
from chaffinch.pipeline.deciding.candidates import FindCandidates
from chaffinch.pipeline.deciding.verdicts import decisions_path
from chaffinch.pipeline.storage import files, listings, parquet

_EXTENT = Extent(size=(640, 480), quality=80, caption=2000, boxes=False)


def run_label(experiment: Experiment) -> None:
    """Writes label.html; the same input, config and labels give the same bytes.

    Args:
        experiment: a decided experiment. Samples that its labels name are not asked about again.

    Raises:
        JobError: there are no decisions of this config, or no sample is left to ask about.
    """
    config = experiment.config
    section = config.sections.label
    _, state, vanished = read_decided(experiment)
    fitted = Fitted.restore(state["judgement"], lambda kind: kinds.label_models()[kind])
    pool = experiment.pool(experiment.sides[0], experiment.sides[0].found_folders())
    _require_decisions(experiment)
    if vanished:
        experiment.console.warn(
            f"label: {len(vanished)} shards are gone since scored: their samples are not asked about"
        )
    with experiment.timed("label") as timing:
        find = FindCandidates(experiment.output, fitted, section.samples, section.seed, config.labels)
        candidates = experiment.count("FindCandidates", pool.parts(), find)
        choice = None if candidates is None else choose(candidates, fitted, section.samples, section.seed)
        if choice is None or not len(choice):
            raise JobError("no sample is left to ask about: all are rejected, vetoed or have a label already")
        shards, rows = choice.rows["shard"], choice.rows["row"]
        views, missing = view_rows(pool.shards, shards, rows, range(len(choice)), pool.source, _EXTENT)
        if missing:
            experiment.console.warn(f"label: {', '.join(missing)}: cannot be read; their pictures are not shown")
        votes = _read_votes(experiment, choice.rows)
        questions = [
            Question(
                uid=f"{row['high']:016x}{row['low']:016x}",
                at_random=bool(at_random),
                view=views[number],
                shard=pool.shards[row["shard"]].name,
                key=votes[number]["key"],
                votes={name: votes[number][f"vote_{name}"] for name in fitted.names},
                probability=float(row["probability"]),
            )
            for number, (row, at_random) in enumerate(zip(choice.rows, choice.at_random, strict=True))
        ]
        title = pool_name(config.sections.input)
        page = render(title, questions, config.labels, choice.met).encode("utf-8", "replace")
        path = files.join(experiment.output, "label.html")
        files.write_bytes(path, page)
        timing["samples"] = len(questions)
    drawn = int(choice.at_random.sum())
    experiment.console.say(
        f"{len(questions)} samples to label, {drawn} of them drawn at random ({len(page) / 1e6:.1f} MB): {path}"
    )


def _require_decisions(experiment: Experiment) -> None:
    there = listings.names_below(files.join(experiment.output, "decisions"), ".parquet")
    for shard in experiment.config.shards:
        if shard.name not in there:
            raise JobError(f"the decisions of shard {shard.name} are missing: run `chaffinch decide`")


def _read_votes(experiment: Experiment, rows: np.ndarray) -> list[dict[str, Any]]:
    """The decisions on (n,) rows, each shard's table read once."""
    found: dict[int, dict[str, Any]] = {}
    for number in np.unique(rows["shard"]).tolist():
        mine = np.flatnonzero(rows["shard"] == number)
        table = parquet.read_table(decisions_path(experiment.output, experiment.config.shards[number].name))
        found |= zip(mine.tolist(), table.take(pa.array(rows["row"][mine])).to_pylist(), strict=True)
    return [found[number] for number in range(len(rows))]
