"""`emit` over a plain copy of the kept bytes, and over DataComp's resharder on the same subset.

Plain copy: one read and one write per kept sample, from its first member's first byte to its last member's last one,
no headers, into as many files, in one process. emit: the command's own function in one process that has imported
everything, into an empty folder; it also writes headers, tables beside the shards, and the subset file.
The resharder (https://github.com/mlfoundations/datacomp, resharder.py; give its path with --resharder, and with
--resharder-python an interpreter that has what it imports) is a program, so it is compared with the whole command.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import picture_pool
import yaml

from chaffinch.jobs.config import load_config
from chaffinch.jobs.console import Console
from chaffinch.jobs.emit import run_emit
from chaffinch.jobs.experiment import Experiment
from chaffinch.pipeline.storage import parquet


def spans(store: Path, output: Path) -> list[tuple[str, list[tuple[int, int]]]]:
    """Per shard the byte ranges of its kept samples."""
    found = []
    for path in sorted((store / "samples").glob("*.parquet")):
        keep = parquet.read_table(str(output / "decisions" / path.name), ["keep"])["keep"].to_numpy()
        table = parquet.read_table(str(path), ["offsets", "sizes"])
        rows = zip(table["offsets"].to_pylist(), table["sizes"].to_pylist(), keep.tolist(), strict=True)
        found.append((path.stem, [(offsets[0], offsets[-1] + sizes[-1]) for offsets, sizes, kept in rows if kept]))
    return found


def plain_copy(pool: Path, ranges: list[tuple[str, list[tuple[int, int]]]], out: Path, size: int) -> float:
    """Seconds to copy the kept bytes."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    began = time.perf_counter()
    written, target = 0, None
    for shard, kept in ranges:
        with (pool / f"{shard}.tar").open("rb") as source:
            for start, end in kept:
                if written % size == 0:
                    if target is not None:
                        target.close()
                    target = (out / f"{written // size:08d}").open("wb")
                assert target is not None
                source.seek(start)
                target.write(source.read(end - start))
                written += 1
    if target is not None:
        target.close()
    return time.perf_counter() - began


def uids_in(folder: Path) -> list[str]:
    """The uids of all json members of a folder's shards, sorted."""
    return sorted(
        json.loads(sample["json"])["uid"] for tar in folder.glob("*.tar") for sample in picture_pool.read_samples(tar)
    )


def reshard(options: argparse.Namespace, config: Path, pool: Path, output: Path, place: Path) -> dict[str, Any]:
    """The resharder and the whole emit command in turn, and whether both hold the same samples."""
    target = place / "resharded"

    def theirs() -> float:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        command = [options.resharder_python, options.resharder, "-i", pool, "-o", target]
        command += ["-s", output / "sample_ids.npy", "-j", options.workers, "--shard-size", options.samples_per_shard]
        return measuring.run([str(word) for word in command]).seconds

    def ours() -> float:
        shutil.rmtree(output / "shards")
        return measuring.chaffinch("emit", str(config), f"run.workers={options.workers}").seconds

    seconds, their_seconds = measuring.paired(ours, theirs, options.rounds)
    subset = np.load(output / "sample_ids.npy")
    wanted = sorted(f"{high:016x}{low:016x}" for high, low in subset.tolist())
    found, emitted = uids_in(target), uids_in(output / "shards")
    return {
        "workers": options.workers,
        "whole_command_seconds": [round(value, 2) for value in seconds],
        "resharder_seconds": [round(value, 2) for value in their_seconds],
        "ratio": round(measuring.median_ratio(their_seconds, seconds), 2),
        "subset": len(wanted),
        "resharder_selected": len(found),
        "resharder_selected_exactly_ours": found == wanted == emitted,
    }


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=32)
    parser.add_argument("--rows", type=int, default=5000, help="samples in each shard")
    parser.add_argument("--samples-per-shard", type=int, default=10_000, help="of the output")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="processes of both when compared with the resharder")
    parser.add_argument("--rendered", action="store_true", help="rendered pictures although real ones are there")
    parser.add_argument("--resharder", type=Path)
    parser.add_argument("--resharder-python", type=Path)
    options = parser.parse_args()
    before = measuring.machine()
    with tempfile.TemporaryDirectory(prefix="chaffinch-benchmark-") as temporary:
        place = Path(temporary)
        tars, words = picture_pool.origin(place, options.rendered)
        pool, output, config = place / "pool", place / "output", place / "config.yaml"
        picture_pool.write(pool, tars, options.shards, options.rows)
        settings = {
            "input": str(pool),
            "output": str(output),
            "metadata": "none",
            "filters": {"words": {"column": "captions.words", "keep": "top 50%"}},
            "keep": {"fraction": 0.3},
            "emit": {"samples_per_shard": options.samples_per_shard},
            "run": {"workers": 2},
        }
        config.write_text(yaml.safe_dump(settings))
        for command in ("score", "decide", "emit"):
            measuring.chaffinch(command, str(config))
        ranges = spans(output / "store", output)

        def emitting(workers: int) -> Callable[[], float]:
            experiment = Experiment(load_config(str(config), [f"run.workers={workers}"]), Console(quiet=True))

            def ours() -> float:
                shutil.rmtree(output / "shards")
                began = time.perf_counter()
                run_emit(experiment)
                return time.perf_counter() - began

            ours()  # imports, and worker processes start
            return ours

        copies = lambda: plain_copy(pool, ranges, place / "copy", options.samples_per_shard)  # noqa: E731
        seconds, copy_seconds = measuring.paired(emitting(1), copies, options.rounds)
        shared_seconds, again_seconds = measuring.paired(emitting(options.workers), copies, options.rounds)
        kept = sum(len(one) for _, one in ranges)
        size = sum(end - start for _, one in ranges for start, end in one)
        figures: dict[str, Any] = {
            "pool": words,
            "read": options.shards * options.rows,
            "kept": kept,
            "kept_mib": round(size / 2**20),
            "seconds": [round(value, 3) for value in seconds],
            "plain_copy_seconds": [round(value, 3) for value in copy_seconds],
            f"seconds_with_{options.workers}_workers": [round(value, 3) for value in shared_seconds],
            f"speed_with_{options.workers}_workers_over_plain_copy": round(
                measuring.median_ratio(again_seconds, shared_seconds), 3
            ),
            "speed_over_plain_copy": round(measuring.median_ratio(copy_seconds, seconds), 3),
        }
        if options.resharder is not None:
            figures["resharder"] = reshard(options, config, pool, output, place)
    prose = (
        f"emit wrote {kept:,} kept samples ({figures['kept_mib']} MiB) in {statistics.median(seconds):.2f} s, "
        f"{figures['speed_over_plain_copy']:.2f} of a plain copy's speed (at least 0.7 wanted; "
        f"{figures[f'speed_with_{options.workers}_workers_over_plain_copy']:.2f} with {options.workers} workers)"
    )
    if options.resharder is None:
        prose += "; DataComp's resharder was not given."
    else:
        part = figures["resharder"]
        prose += (
            f"; the whole command is {part['ratio']:.1f} times as fast as DataComp's resharder (at least 5 wanted), "
            f"which selected {part['resharder_selected']:,} of {part['subset']:,} samples with our subset file, "
            f"{'exactly ours' if part['resharder_selected_exactly_ours'] else 'NOT exactly ours'}."
        )
    measuring.finish(figures, prose, before)


if __name__ == "__main__":
    main()
