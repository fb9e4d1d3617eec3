"""Fits Snorkel's label model to a file of votes, all in memory, and writes P(keep) of every row.

    PYTHON benchmarks/label_scale_snorkel.py VOTES POSTERIOR SOURCES

Prints the CPU and wall seconds of each stage as JSON. PYTHON is an interpreter that has Snorkel.
"""

import json
import sys
import time

import numpy as np
from snorkel.labeling.model import LabelModel


def main(votes: str, posterior: str, sources: int) -> None:
    """Reads, fits, and predicts."""
    stages = {}
    began = time.process_time(), time.perf_counter()

    def stage(label: str) -> None:
        nonlocal began
        now = time.process_time(), time.perf_counter()
        stages[label] = {"cpu": round(now[0] - began[0], 2), "wall": round(now[1] - began[1], 2)}
        began = now

    given = np.fromfile(votes, np.int8).reshape(-1, sources)
    matrix = np.array([-1, 1, 0], np.int8)[given]  # indexed by 0, +1, -1
    del given
    stage("read")
    model = LabelModel(2, verbose=False)
    model.fit(matrix, seed=0, progress_bar=False)
    stage("fit")
    model.predict_proba(matrix)[:, 1].astype(np.float32).tofile(posterior)
    stage("posterior")
    print(json.dumps(stages))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
