"""Fits one label model of ours to a file of votes and writes P(keep) of every row, looked up chunk by chunk.

    python benchmarks/label_scale_ours.py VOTES POSTERIOR MODEL

Prints the CPU and wall seconds of each stage as JSON.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from label_contenders import our_models
from label_scale import CHUNK, PRIOR, SOURCES

from chaffinch.filters.label_models.votes import as_digits
from chaffinch.filters.patterns import Patterns


def chunks(path: Path) -> Iterator[np.ndarray]:
    """(n, m) int8 parts of the file."""
    with path.open("rb") as file:
        while len(part := np.fromfile(file, np.int8, CHUNK * SOURCES)):
            yield part.reshape(-1, SOURCES)


def codes(votes: np.ndarray) -> np.ndarray:
    """(n,) int32 names of rows of votes."""
    return as_digits(votes, -1, 3, np.dtype(np.int32))


def main(votes: Path, posterior: Path, name: str) -> None:
    """Counts, fits, and looks up."""
    stages = {}
    began = time.process_time(), time.perf_counter()

    def stage(label: str) -> None:
        nonlocal began
        now = time.process_time(), time.perf_counter()
        stages[label] = {"cpu": round(now[0] - began[0], 2), "wall": round(now[1] - began[1], 2)}
        began = now

    patterns = Patterns(SOURCES, [np.array([], np.uint64)], [np.array([], np.int64)])
    for part in chunks(votes):
        patterns.merge(Patterns.of(part))
    rows, counts = patterns.arrays()
    stage("count")
    ours = our_models()[name]
    model = ours.make(classes=2, class_prior=PRIOR if ours.told else None).fit_patterns(rows, counts)
    stage("fit")
    known = np.full(3**SOURCES, np.nan, np.float32)
    known[codes(rows)] = model.predict_patterns(rows)
    with posterior.open("wb") as file:
        for part in chunks(votes):
            known[codes(part)].tofile(file)
    stage("posterior")
    print(json.dumps(stages | {"patterns": len(rows)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
