"""Two CLIPs and a detector in one pass over the pictures, against a pass for each.

One pass decodes each picture once instead of three times. What that allows is measured beside it: a pass that decodes
and does nothing else, saved twice. Both times are taken in turn: by the clock, and as CPU seconds of the process, which
other work on the machine changes less. Models are loaded and the shard is indexed before.
"""

import argparse
import io
import statistics
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import measuring
import numpy as np
import open_clip
import pyarrow as pa
import torch
from PIL import Image

from chaffinch.jobs.demo.pool import write_clean
from chaffinch.pipeline.measuring import batches
from chaffinch.pipeline.measuring.batches import LoadedScorer
from chaffinch.pipeline.measuring.feeds import Wanted
from chaffinch.pipeline.measuring.measure import measure
from chaffinch.pipeline.samples import index_shard
from chaffinch.pipeline.shards import find_shards
from chaffinch.pipeline.storage.ustar import end_archive, write_member
from chaffinch.pipeline.store import table_folder
from chaffinch.scoring.clip import Clip
from chaffinch.scoring.onnx_detector import OnnxDetector
from chaffinch.scoring.scorer import Batch, Column, Scorer

BATCH = 64
SMALL_CLIP = "ViT-S-32-alt"
MATCHER = Path(__file__).parents[1] / "jobs" / "demo" / "matcher.pt"
DATA = Path(__file__).parents[2] / "shared" / "data"


@dataclass(frozen=True)
class Decoded(Scorer):
    """Columns: width (pixels); it decodes and does nothing else."""

    reads_pictures: ClassVar[bool] = True

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """One number, because a scorer has to write something."""
        return {"width": pa.int32()}

    def prepare(self, picture: Image.Image, model: Any) -> int:
        """The width.

        Args:
            picture: mode RGB.
            model: None.
        """
        return picture.width

    def score(self, batch: Batch, model: Any) -> Mapping[str, Column]:
        """The widths.

        Args:
            batch: n samples.
            model: None.
        """
        return {"width": np.array(batch.pictures, np.int32)}


def write_photos(place: Path, samples: int, longer: int) -> tuple[Path, str]:
    """A shard of photos of one size, as web pools have them, and what they are."""
    origin, words = DATA / "coco-small" / "00000000.tar", "COCO photos"
    if not origin.is_file():
        write_clean(place / "rendered", samples=min(samples, 250), shard_size=250, seed=1)
        origin, words = place / "rendered" / "00000000.tar", "rendered pictures"
    photos = []
    with tarfile.open(origin) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if member.name.endswith(".jpg") and file is not None:
                picture = Image.open(file).convert("RGB")
                scale, content = longer / max(picture.size), io.BytesIO()
                size = (round(picture.width * scale), round(picture.height * scale))
                picture.resize(size, Image.Resampling.BICUBIC).save(content, "JPEG", quality=90)
                photos.append(content.getvalue())
    (place / "pool").mkdir()
    with (place / "pool" / "00000000.tar").open("wb") as file:
        for number in range(samples):
            write_member(file, f"{number:08d}.jpg", photos[number % len(photos)])
            write_member(file, f"{number:08d}.txt", f"a dog and a ball, photo number {number}".encode())
        end_archive(file)
    return place / "pool", f"{words} of {longer} pixels"


def load(place: Path) -> dict[str, LoadedScorer]:
    """Two CLIPs, a detector where its weights are, and what decodes alone."""
    torch.manual_seed(0)
    torch.save(open_clip.create_model(SMALL_CLIP).state_dict(), place / "small.pt")
    scorers: dict[str, Scorer] = {
        "clip": Clip(SMALL_CLIP, str(place / "small.pt")),
        "smaller_clip": Clip("chaffinch-tiny", str(MATCHER)),
    }
    if (weights := DATA / "weights" / "yolox_nano.onnx").is_file():
        scorers["detector"] = OnnxDetector(weights=str(weights))
    scorers["decoding"] = Decoded()
    return {
        name: LoadedScorer(Wanted(name, table_folder(name, one, "cpu"), one), one.load("cpu"))
        for name, one in scorers.items()
    }


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--longer", type=int, default=512, help="pixels of the longer side")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    before = measuring.machine()
    with tempfile.TemporaryDirectory(prefix="chaffinch-benchmark-") as temporary:
        place = Path(temporary)
        pool, words = write_photos(place, options.samples, options.longer)
        loaded = load(place)
        (shard,) = find_shards(str(pool))
        samples = index_shard(shard)
        spent: dict[str, list[tuple[float, float]]] = {}

        def take(name: str, scorers: Sequence[LoadedScorer]) -> float:
            began, cpu = time.perf_counter(), time.process_time()
            measure(shard.path, samples, scorers, BATCH)
            spent.setdefault(name, []).append((time.perf_counter() - began, time.process_time() - cpu))
            return spent[name][-1][0]

        *together, decoding = loaded

        def one_pass() -> float:
            return take("one_pass", [loaded[name] for name in together])

        def a_pass_for_each() -> float:
            take("decoding", [loaded[decoding]])
            return sum(take(name, [loaded[name]]) for name in together)

        one_pass()  # the first run meets cold caches
        spent.clear()
        measuring.paired(one_pass, a_pass_for_each, options.rounds)

    def ratios(kind: int) -> dict[str, float]:
        found, allowed = [], []
        for number in range(options.rounds):
            apart = sum(spent[name][number][kind] for name in together)
            found.append(spent["one_pass"][number][kind] / apart)
            allowed.append(1 - (len(together) - 1) * spent["decoding"][number][kind] / apart)
        middle, bound = statistics.median(found), statistics.median(allowed)
        return {"ratio": round(middle, 3), "allowed": round(bound, 3), "difference": round(middle - bound, 3)}

    figures: dict[str, Any] = {
        "pool": words,
        "samples": options.samples,
        "batch_size": BATCH,
        "threads": batches.THREADS,
        "scorers": together,
        "seconds": {name: [round(seconds, 2) for seconds, _ in values] for name, values in spent.items()},
        "cpu_seconds": {name: [round(seconds, 2) for _, seconds in values] for name, values in spent.items()},
        "by_the_clock": ratios(0),
        "by_cpu_seconds": ratios(1),
    }
    clock, cpu = figures["by_the_clock"], figures["by_cpu_seconds"]
    prose = (
        f"{len(together)} scorers in one pass over {words} take {clock['ratio']:.3f} of what a pass for each takes; "
        f"decoding once allows {clock['allowed']:.3f} ({clock['difference']:+.3f}, at most 0.03 wanted). "
        f"In CPU seconds: {cpu['ratio']:.3f} and {cpu['allowed']:.3f}."
    )
    measuring.finish(figures, prose, before)


if __name__ == "__main__":
    main()
