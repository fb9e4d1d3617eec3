"""Deciding: what was learned from the pool, applied to every shard. Reads tables, never a pixel."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from chaffinch.filters.fitted import Fitted
from chaffinch.filters.label_models.label_model import LabelModel
from chaffinch.pipeline.deciding.judgement import Judgement, Pool
from chaffinch.pipeline.deciding.learn import learn
from chaffinch.pipeline.deciding.verdicts import Decide, Verdicts
from chaffinch.pipeline.engines.engine import Engine, add_up
from chaffinch.pipeline.rows import Part
from chaffinch.pipeline.storage import files, listings


def decide(
    engine: Engine,
    pool: Pool,
    reference: Pool | None,
    judgement: Judgement,
    output: str,
    made_from: str,
    model_class: Callable[[str], type[LabelModel]],
    frozen: Fitted | None = None,
) -> tuple[Verdicts, Mapping[str, Any]]:
    """Judges a pool: writes fitted.json and a decisions table per shard.

    Earlier decisions stay until everything is learned, so that a judgement that fails costs nothing. A run that was
    stopped goes on where it was: fitted.json is only there once older decisions are gone, and decisions are only
    written once it is there. What counts them, summary.json, goes first, so that nobody takes it for the new ones'.

    Args:
        engine: where to run.
        pool: scored shards.
        reference: known-good samples, scored.
        judgement: what the config asks for.
        output: the experiment's folder.
        made_from: digest of all that decides the result, but for which shards could be read; if it is that of the
            fitted.json found, nothing is fitted.
        model_class: label model kind -> its class.
        frozen: numbers learned elsewhere.

    Returns:
        The counts, and what fitted.json says.
    """
    path = files.join(output, "fitted.json")
    state = _read_state(path)
    rows_from = _digest([pool] if reference is None else [pool, reference])
    if state.get("made_from") != made_from or state.get("rows_from") != rows_from:
        # Repeats depend on the tables alone, not on what is asked of them.
        known = _repeats(state) if state.get("rows_from") == rows_from else None

        def count(label: str, parts: Sequence[Part], function: Callable[[Part], Any]) -> Any:
            return add_up(engine, label, parts, function, output)

        learned = learn(count, pool, reference, judgement, frozen, known)
        repeated = {name: list(rows) for name, rows in learned.repeated.items()}
        state = {"made_from": made_from, "rows_from": rows_from, "repeated": repeated, **learned.report}
        state["judgement"] = learned.fitted.state()
        files.remove(files.join(output, "summary.json"))
        files.remove(path)
        for name in sorted(listings.names_below(files.join(output, "decisions"))):
            files.remove(files.join(output, "decisions", name))
        files.write_bytes(path, (json.dumps(state, indent=1) + "\n").encode())
        fitted = learned.fitted
    else:
        fitted = Fitted.restore(state["judgement"], model_class)
    parts = pool.parts(_repeats(state))
    judge = Decide(pool.source, fitted.teach(judgement.filters), fitted, judgement.seed, output)
    return add_up(engine, "Decide", parts, judge, output), state


def _read_state(path: str) -> dict[str, Any]:
    if not files.exists(path):
        return {}
    try:
        state = json.loads(files.read_bytes(path))
    except ValueError:
        return {}
    return state if isinstance(state, dict) else {}


def _repeats(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(rows) for name, rows in state["repeated"].items()}


def _digest(pools: Sequence[Pool]) -> str:
    """Names the tables that rows are in: shards that could not be read at first are scored later on."""
    content: list[object] = []
    for pool in pools:
        stamps = pool.source.store.stamps()
        content += [[shard.name, sorted(stamps.get(shard.name, ()))] for shard in pool.shards]
        content.append(dict(pool.source.tables))
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
