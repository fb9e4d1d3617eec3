"""Label models at size: seconds by stage and peak memory of a process of their own, from votes in a file.

Votes are rows of 12 int8 (-1 drop, 0 abstain, +1 keep) drawn from one planted model. Ours read the file in chunks, once
to count patterns and once to look posteriors up, which they write to a file. Snorkel gets the whole matrix, as int8
(its own applier's int64 would take eight times as much), runs with its default of 100 epochs, and writes the same.
"""

import json
import sys
from pathlib import Path
from typing import Any

import measuring
import numpy as np

SOURCES = 12
PRIOR = 0.3
CHUNK = 1_000_000
OURS, SNORKEL = (Path(__file__).with_name(f"label_scale_{name}.py") for name in ("ours", "snorkel"))


def draw(path: Path, rows: int, seed: int = 0) -> None:
    """Writes votes, unless they are there: accuracies .55 to .9 and coverages .1 to 1, in an order of the seed."""
    if path.exists() and path.stat().st_size == rows * SOURCES:
        return
    generator = np.random.default_rng(seed)
    accuracies = generator.permutation(np.linspace(0.55, 0.9, SOURCES)).astype(np.float32)
    coverages = generator.permutation(np.linspace(0.1, 1.0, SOURCES)).astype(np.float32)
    with path.open("wb") as file:
        for first in range(0, rows, CHUNK):
            count = min(CHUNK, rows - first)
            truth = np.where(generator.random((count, 1), np.float32) < PRIOR, 1, -1).astype(np.int8)
            votes = np.where(generator.random((count, SOURCES), np.float32) < accuracies, truth, -truth)
            votes *= generator.random((count, SOURCES), np.float32) < coverages
            votes.tofile(file)


def measure(interpreter: str, program: Path, *arguments: str) -> dict[str, Any]:
    """Runs a program that prints its stages as JSON."""
    try:
        done = measuring.run([interpreter, str(program), *arguments], OMP_NUM_THREADS="1")
    except RuntimeError as reason:
        return {"failed": str(reason)[-300:]}
    return {
        "wall_seconds": round(done.seconds, 2),
        "cpu_seconds": round(done.cpu_seconds, 2),
        "peak_mib": round(done.peak_mib),
        "stages": json.loads(done.output.splitlines()[-1]),
    }


def scale(python: str | None, work: Path, sizes: list[int], models: list[str], largest: int) -> dict[str, Any]:
    """Runs every size, one process after the other.

    Args:
        python: an interpreter with Snorkel; None: only ours.
        work: a folder for votes and posteriors, which are removed at once.
        sizes: numbers of rows.
        models: names of ours, as `label_contenders.our_models` knows them.
        largest: rows that Snorkel is still given.

    Returns:
        rows -> model -> seconds, memory and stages.
    """
    work.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {}
    for rows in sizes:
        votes, answer = work / "votes.int8", work / "posterior.float32"
        draw(votes, rows)
        found = {}
        for model in models:
            found[model] = measure(sys.executable, OURS, str(votes), str(answer), model)
        if python and rows <= largest:
            found["snorkel LabelModel"] = measure(python, SNORKEL, str(votes), str(answer), str(SOURCES))
        figures[f"{rows}"] = found
        print(f"  {rows:,} rows: {json.dumps(found)}", file=sys.stderr)
        votes.unlink()
        answer.unlink(missing_ok=True)
    return figures


def told(figures: dict[str, Any]) -> str:
    """The verdict as prose."""
    parts = []
    for rows, found in figures.items():
        snorkel = found.get("snorkel LabelModel")
        each = []
        for model, one in found.items():
            if "failed" in one:
                each.append(f"{model} failed")
                continue
            text = f"{model} {one['cpu_seconds']:.1f} CPU-s, {one['wall_seconds']:.1f} s, {one['peak_mib']} MiB"
            if snorkel and one is not snorkel and "failed" not in snorkel:
                text += (
                    f" ({snorkel['cpu_seconds'] / one['cpu_seconds']:.1f} times as fast by CPU, "
                    f"{snorkel['wall_seconds'] / one['wall_seconds']:.1f} by the clock)"
                )
            each.append(text)
        parts.append(f"{int(rows) / 1e6:g} million rows of {SOURCES} votes: {'; '.join(each)}")
    return ". ".join(parts) + "."
