"""What a launch asks of very many shards: listings, opens and bytes, seen by strace, and CPU seconds and memory.

`launches.py score` launches `chaffinch score` on a pool of 128,000 small shards and six scorers that are all done: with
nothing to do, as a slice, with some tables of one scorer missing; and `chaffinch decide`, which is to refuse where a
table is missing, after the same look at the store. `launches.py decide` decides on pools of a few sizes, whose
differences tell what each shard adds. `launches.py repeats` looks for repeated uids in ten turns, as 1.28 billion
samples take, in a pool and tables 16,000 times smaller. Memory is the most that the driver had, and the most that one
worker process had; CPU seconds are of all processes of a launch. strace slows a launch, so what it takes is measured in
another one.
"""

import argparse
import functools
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import linked_pool
import measuring
import pool_store
import watching

from chaffinch.pipeline.deciding.find_repeats import find_repeats
from chaffinch.pipeline.deciding.judgement import Pool
from chaffinch.pipeline.metadata import Metadata
from chaffinch.pipeline.repeats import BITS_PER_SAMPLE
from chaffinch.pipeline.rows import Part, Source
from chaffinch.pipeline.shards import find_shards
from chaffinch.pipeline.store import Store

_SLICE = "run.slice=3/128"
_ROWS = 4


def launch(place: linked_pool.Place, *arguments: str, status: int = 0, again: Any = None) -> dict[str, Any]:
    """One kind of launch, measured and then traced; `again` puts back what it has changed."""
    took = watching.taken([arguments[0], place.config, *arguments[1:]], status)
    print(f"  {' '.join(arguments)}: {took.cpu_seconds:.1f} CPU seconds", file=sys.stderr)
    if again is not None:
        again()
    places = {name: place.folder / name for name in ("pool", "store", "output")}
    asked = watching.asked([arguments[0], place.config, *arguments[1:]], places, status)
    return {name: round(value, 1) for name, value in asdict(took).items()} | asked.described()


def score(place: linked_pool.Place, shards: int, missing: int) -> dict[str, Any]:
    """Launches of `score`, and of a `decide` that refuses."""
    lost = [f"{number:08d}" for number in range(0, shards, shards // missing)][:missing]

    def lose() -> None:
        for shard in lost:
            place.table("beta", shard).unlink()

    found = {"nothing_to_do": launch(place, "score"), "slice_with_nothing_to_do": launch(place, "score", _SLICE)}
    before = place.table("beta", lost[0]).read_bytes()
    lose()
    found["resumed"] = launch(place, "score", again=lose) | {"missing": missing}
    found["resumed"]["same_bytes"] = place.table("beta", lost[0]).read_bytes() == before
    place.table("beta", lost[0]).unlink()
    found["decide_refused"] = launch(place, "decide", status=1)
    place.table("beta", lost[0]).write_bytes(before)
    return found


def decide(place: linked_pool.Place, traced: bool) -> dict[str, Any]:
    """Deciding, and deciding again what is decided."""
    output = place.folder / "output"
    shutil.rmtree(output, ignore_errors=True)
    found: dict[str, Any] = {}
    for name in ("first", "again"):
        took = watching.taken(["decide", place.config])
        found[name] = {key: round(value, 1) for key, value in asdict(took).items()}
        print(f"  decide, {name}: {took.cpu_seconds:.1f} CPU seconds", file=sys.stderr)
    if traced:
        places = {name: place.folder / name for name in ("pool", "store", "output")}
        shutil.rmtree(output)
        for name in ("first", "again"):
            found[name] |= watching.asked(["decide", place.config], places).described()
    return found


def repeats(turns: int, shards: int, rows: int) -> dict[str, Any]:
    """CPU microseconds a sample that the search for repeated uids takes, its bit tables as full as in a large pool."""
    with tempfile.TemporaryDirectory(prefix="chaffinch-benchmark-") as temporary:
        folder = Path(temporary)
        pool_store.make(folder, pool_store.Size(shards, rows))
        source = Source(Store(str(folder / "store")), pool_store.folders(), Metadata("none"))
        pool, passes = Pool(find_shards(str(folder / "pool")), source), 0

        def count(_: str, parts: Sequence[Part], function: Callable[[Part], Any]) -> Any:
            nonlocal passes
            passes += 1
            return functools.reduce(lambda total, part: total.merge(function(part)), parts[1:], function(parts[0]))

        bits = shards * rows * BITS_PER_SAMPLE
        began = time.process_time()
        find_repeats(count, pool, shards * rows, most_bits=1 << (bits // turns).bit_length())
        taken = time.process_time() - began
    return {
        "samples": shards * rows,
        "passes": passes,
        "cpu_microseconds_per_sample": round(taken / (shards * rows) * 1e6, 2),
    }


@contextmanager
def made(folder: Path | None, shards: int) -> Any:
    """A pool: the one that lies in a folder, made there where it does not, or one that goes afterwards."""
    with tempfile.TemporaryDirectory(prefix="chaffinch-benchmark-") as temporary:
        place = (folder or Path(temporary)) / str(shards)
        yield linked_pool.Place(place) if place.exists() else linked_pool.make(place, shards, _ROWS)


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("score", "decide", "repeats"))
    parser.add_argument(
        "--shards", type=int, nargs="+", help="how many; for decide several numbers, the first is traced"
    )
    parser.add_argument("--missing", type=int, default=300, help="tables that are missing where a score resumes")
    parser.add_argument("--folder", type=Path, help="keeps pools, for further launches; temporary files by default")
    options = parser.parse_args()
    before = measuring.machine()
    figures: dict[str, Any] = {"scorers": len(linked_pool.SCORERS), "samples_per_shard": _ROWS}
    if options.part == "repeats":
        figures = repeats(10, 8, 10_000)
        prose = (
            f"Repeated uids in {figures['passes']} passes: {figures['cpu_microseconds_per_sample']} CPU microseconds a "
            "sample over all of them."
        )
    elif options.part == "score":
        (shards,) = options.shards or [128_000]
        with made(options.folder, shards) as place:
            figures |= {"shards": shards, "launches": score(place, shards, options.missing)}
        told = [
            f"{name} {one['cpu_seconds']} CPU s, {one['driver_mib']:.0f} MiB, {sum(one['listings'].values())} folders "
            f"listed, {sum(one['opens'].get(where, 0) for where in ('pool', 'store'))} files of pool and store opened"
            for name, one in figures["launches"].items()
        ]
        prose = f"{shards:,} shards x {len(linked_pool.SCORERS)} scorers: {'; '.join(told)}."
    else:
        sizes = options.shards or [1000, 4000]
        figures["decide"] = {}
        for size in sizes:
            with made(options.folder, size) as place:
                figures["decide"][str(size)] = decide(place, size == sizes[0])
        first, last = (figures["decide"][str(size)]["first"] for size in (sizes[0], sizes[-1]))
        more = sizes[-1] - sizes[0]
        opens = figures["decide"][str(sizes[0])]["first"]["opens"]["store"] / sizes[0]
        figures["opens_per_shard"] = round(opens, 1)
        if more:
            figures["cpu_milliseconds_per_shard"] = round((last["cpu_seconds"] - first["cpu_seconds"]) / more * 1e3, 1)
            for who in ("driver", "worker"):
                figures[f"{who}_kib_per_shard"] = round((last[f"{who}_mib"] - first[f"{who}_mib"]) / more * 1024, 2)
        prose = (
            f"Deciding on {', '.join(f'{size:,}' for size in sizes)} shards of {_ROWS} samples took "
            f"{', '.join(str(found['first']['cpu_seconds']) for found in figures['decide'].values())} CPU s; "
            f"{opens:.1f} files of the store opened a shard; driver {last['driver_mib']:.0f} MiB, workers "
            f"{last['worker_mib']:.0f} MiB at most."
        )
    measuring.finish(figures, prose, before, options.part)


if __name__ == "__main__":
    main()
