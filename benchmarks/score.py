"""`score` over a bare loop with the same scorers, read-ahead and batch size over the same shards.

Bare loop: for each tar, Python's tarfile in stream mode, as webdataset reads; members gathered into samples; a pool of
as many threads decodes and prepares as many batches ahead; the same scorers' load, prepare and score; nothing written.
`score`: the command's own function over the same shards into an empty store: index, score tables, Beam.
Both run in one process that has imported everything and loaded the models before, so that start-up is not counted; it
is measured apart, as the whole command over one small shard.
"""

import argparse
import functools
import shutil
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import measuring
import open_clip
import picture_pool
import torch
import yaml

from chaffinch.pipeline.engines.engine import Engine
from chaffinch.pipeline.measuring import batches
from chaffinch.pipeline.measuring.feeds import Wanted
from chaffinch.pipeline.measuring.score import find_tasks, score
from chaffinch.pipeline.metadata import Metadata
from chaffinch.pipeline.rows import Source
from chaffinch.pipeline.shards import Shard, find_shards
from chaffinch.pipeline.store import Store, table_folder
from chaffinch.scoring.captions import Captions
from chaffinch.scoring.clip import Clip
from chaffinch.scoring.images import decode
from chaffinch.scoring.pictures import Pictures
from chaffinch.scoring.scorer import Batch, SampleError, Scorer

BATCH = 64
SMALL_CLIP = "ViT-S-32-alt"


def prepare(sample: dict[str, bytes], scorers: Sequence[tuple[Scorer, Any]]) -> tuple[str, list[Any]] | None:
    """What scorers need of a sample; None where it cannot be used."""
    try:
        caption = sample["txt"].decode()
        picture = decode(sample["jpg"])
        if not caption.strip():
            return None
        return caption, [one.prepare(picture, model) for one, model in scorers if one.reads_pictures]
    except (SampleError, UnicodeDecodeError, KeyError):
        return None


def bare(paths: Sequence[str], scorers: Sequence[tuple[Scorer, Any]]) -> int:
    """The bare loop; returns how many samples it measured."""
    measured = 0

    def finish(futures: list[Future[tuple[str, list[Any]] | None]]) -> int:
        usable = [found for found in (future.result() for future in futures) if found is not None]
        captions, number = [caption for caption, _ in usable], 0
        for one, model in scorers:
            pictures: Sequence[Any] = ()
            if one.reads_pictures:
                pictures, number = [prepared[number] for _, prepared in usable], number + 1
            one.score(Batch([""] * len(usable), captions, pictures), model)
        return len(usable)

    with ThreadPoolExecutor(batches.THREADS) as threads:
        for path in paths:
            ahead: deque[list[Future[Any]]] = deque([[]])
            for sample in picture_pool.read_samples(path):
                ahead[-1].append(threads.submit(prepare, sample, scorers))
                if len(ahead[-1]) == BATCH:
                    if len(ahead) > batches._BATCHES_AHEAD:
                        measured += finish(ahead.popleft())
                    ahead.append([])
            measured += sum(finish(futures) for futures in ahead if futures)
    return measured


def compare(shards: list[Shard], scorers: dict[str, Scorer], place: Path, rounds: int) -> dict[str, Any]:
    """Samples per second of both, in turn."""
    loaded = [(one, one.load("cpu")) for one in scorers.values()]
    wanted = [Wanted(name, table_folder(name, one, "cpu"), one) for name, one in scorers.items()]
    store = place / "store"
    counts: dict[str, int] = {}

    def ours() -> float:
        shutil.rmtree(store, ignore_errors=True)
        source = Source(Store(str(store)), {}, Metadata("none"))
        tasks = find_tasks(shards, source.store, [one.folder for one in wanted])
        began = time.perf_counter()
        counts["ours"] = score(Engine(), tasks, source, wanted, BATCH, "cpu", str(place)).samples
        return counts["ours"] / (time.perf_counter() - began)

    def theirs() -> float:
        began = time.perf_counter()
        counts["measured"] = bare([shard.path for shard in shards], loaded)
        # Samples that cannot be used are read by both.
        return counts["ours"] / (time.perf_counter() - began)

    ours()  # the first run meets cold caches
    speeds, bare_speeds = measuring.paired(ours, theirs, rounds)
    return {
        "samples": counts["ours"],
        "measured_by_bare_loop": counts["measured"],
        "samples_per_second": [round(value, 1) for value in speeds],
        "bare_samples_per_second": [round(value, 1) for value in bare_speeds],
        "ratio": round(measuring.median_ratio(speeds, bare_speeds), 3),
    }


def start_up(place: Path, tar: Path, scorers: dict[str, Any]) -> float:
    """Seconds of the whole command over one small shard, nearly all of them imports and loading."""
    (place / "one").mkdir(parents=True)
    shutil.copy(tar, place / "one")
    settings = {"input": str(place / "one"), "output": str(place / "out"), "metadata": "none", "scorers": scorers}
    config = place / "one.yaml"
    config.write_text(yaml.safe_dump(settings | {"run": {"device": "cpu"}}))
    return round(measuring.chaffinch("score", str(config)).seconds, 1)


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--copies", type=int, default=7, help="how often the pool's shards are gone through")
    parser.add_argument("--clip-shards", type=int, default=2, help="shards for the clip scorer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rendered", action="store_true", help="rendered pictures although real ones are there")
    options = parser.parse_args()
    before = measuring.machine()
    # Models are loaded once for both sides; start-up is measured apart.
    for kind in (Captions, Clip):
        kind.load = functools.cache(kind.load)  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory(prefix="chaffinch-benchmark-") as temporary:
        place = Path(temporary)
        weights = place / "small.pt"
        torch.manual_seed(0)
        torch.save({"epoch": 1, "state_dict": open_clip.create_model(SMALL_CLIP).state_dict()}, weights)
        tars, words = picture_pool.origin(place, options.rendered)
        picture_pool.link(place / "pool", tars, options.copies)
        shards = find_shards(str(place / "pool"))
        plain: dict[str, Scorer] = {"captions": Captions(), "pictures": Pictures()}
        figures: dict[str, Any] = {"pool": words, "batch_size": BATCH, "threads": batches.THREADS}
        figures["captions_and_pictures"] = compare(shards, plain, place, options.rounds)
        few = shards[: options.clip_shards]
        figures["clip"] = compare(few, {"clip": Clip(SMALL_CLIP, str(weights))}, place, options.rounds)
        figures["clip"]["model"] = SMALL_CLIP
        tar = min(tars, key=lambda path: path.stat().st_size)
        clip = {"clip": {"kind": "clip", "model": SMALL_CLIP, "pretrained": str(weights)}}
        figures["whole_command_over_one_small_shard_seconds"] = {
            "captions_and_pictures": start_up(place / "a", tar, {"captions": {}, "pictures": {}}),
            "clip": start_up(place / "b", tar, clip),
        }
    speeds = {
        name: statistics.median(figures[name]["samples_per_second"]) for name in ("captions_and_pictures", "clip")
    }
    prose = (
        f"score over {words}: captions and pictures {speeds['captions_and_pictures']:.0f} samples/s, "
        f"{figures['captions_and_pictures']['ratio']:.2f} of the bare loop's; with a small clip {speeds['clip']:.0f} "
        f"samples/s, {figures['clip']['ratio']:.2f} of the bare loop's (at least 0.95 wanted)."
    )
    measuring.finish(figures, prose, before)


if __name__ == "__main__":
    main()
