"""Pictures per second of the zero-shot detector over a bare loop with the same model, at batches of 1, 8 and 32.

Ours: the scorer's `prepare` and `score`, from decoded pictures and captions to the columns.
Bare loop: what a user of transformers writes: the checkpoint's processor over pictures and texts of a batch, padded to
the largest of the batch; the model; its own post-processing at the same floor. Captions end with a full stop as the
model asks for, and a model that takes phrases gets those that our rules find, so that both sides look for the same.
Both run in one process, in turn, in the same precision, over the same photos of mixed aspect ratios; no reading or
decoding is counted.

Without a GPU a small model with random weights stands in, on one thread and by its CPU time, and says what our side
adds to the model's own. With one, the checkpoints that are named run there in bfloat16, also compiled.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measuring
import picture_pool
import small_detectors
import torch
from PIL import Image

from chaffinch.scoring.detecting.phrases import find_phrases, normalise
from chaffinch.scoring.detector import Detector, Model
from chaffinch.scoring.images import decode
from chaffinch.scoring.scorer import Batch, SampleError

BATCHES = (1, 8, 32)
SIDE = 224  # of the pictures that a small model sees: the photos' own, so that neither side has to blur them first
# Of the commonest cameras and of what is cut out of pictures: width over height.
ASPECTS = (4 / 3, 3 / 2, 1.0, 3 / 4, 16 / 9, 2 / 3, 1.25, 0.9)

Pairs = Sequence[tuple[str, Image.Image]]


def photos(place: Path, count: int) -> tuple[list[tuple[str, Image.Image]], str]:
    """So many captioned pictures, cut to common aspect ratios in turn, and where they are from."""
    tars, words = picture_pool.origin(place)
    pairs: list[tuple[str, Image.Image]] = []
    for tar in tars:
        for sample in picture_pool.read_samples(tar):
            try:
                caption, picture = sample["txt"].decode(), decode(sample["jpg"])
            except (KeyError, UnicodeDecodeError, SampleError):
                continue
            if not find_phrases(normalise(caption)) or min(picture.size) < 64:
                continue
            aspect = ASPECTS[len(pairs) % len(ASPECTS)]
            width, height = (224, round(224 / aspect)) if aspect >= 1 else (round(224 * aspect), 224)
            pairs.append((caption, picture.resize((width, height))))
            if len(pairs) == count:
                return pairs, words
    raise ValueError(f"{words} hold {len(pairs)} samples, and {count} are asked for: lower --pictures")


def ours(scorer: Detector, model: Model, pairs: Pairs) -> None:
    """One batch through the scorer."""
    prepared = [scorer.prepare(picture, model) for _, picture in pairs]
    scorer.score(Batch([""] * len(pairs), [caption for caption, _ in pairs], prepared), model)


def bare(network: Any, processor: Any, grounding: bool, floor: float, device: str, pairs: Pairs) -> list[Any]:
    """One batch as transformers' documentation does it."""
    pictures = [picture for _, picture in pairs]
    texts: list[Any] = [normalise(caption).rstrip(" .") + "." for caption, _ in pairs]
    if not grounding:
        texts = [[phrase.text for phrase in find_phrases(text)] for text in texts]
        longest = max(map(len, texts))
        texts = [[*phrases, *[" "] * (longest - len(phrases))] for phrases in texts]
    lengths = {"padding": True} if grounding else {"padding": "max_length", "truncation": True}
    inputs = processor(images=pictures, text=texts, return_tensors="pt", **lengths)
    inputs = inputs.to(device)
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        outputs = network(**inputs)
    sizes = [(picture.height, picture.width) for picture in pictures]
    if grounding:
        found: list[Any] = processor.post_process_grounded_object_detection(
            outputs, inputs.input_ids, threshold=floor, text_threshold=0.25, target_sizes=sizes
        )
    else:
        found = processor.post_process_grounded_object_detection(
            outputs, threshold=floor, target_sizes=sizes, text_labels=texts
        )
    return [(one["boxes"].tolist(), one["scores"].tolist(), one["text_labels"]) for one in found]


def compare(scorer: Detector, device: str, pairs: Pairs, rounds: int) -> dict[str, Any]:
    """Pictures per second of both at each size of batch."""
    import transformers

    model = scorer.load(device)
    network = transformers.AutoModelForZeroShotObjectDetection.from_pretrained(scorer.checkpoint, dtype=torch.float32)
    network = network.eval().to(device)
    processors: Any = transformers.AutoProcessor
    processor = processors.from_pretrained(scorer.checkpoint)
    grounding = network.config.model_type.endswith("grounding-dino")

    def now() -> float:
        if device == "cpu":  # on one thread, which other work on the machine then does not disturb
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def speed(detect: Any, size: int) -> float:
        began = now()
        for start in range(0, len(pairs), size):
            detect(pairs[start : start + size])
        return len(pairs) / (now() - began)

    figures = {}
    for size in BATCHES:
        # The first pass meets every canvas, and compiles where that is asked for.
        sides = (
            lambda part: ours(scorer, model, part),
            lambda part: bare(network, processor, grounding, scorer.floor, device, part),
        )
        for side in sides:
            speed(side, size)
        one, other = measuring.paired(
            lambda size=size, side=sides[0]: speed(side, size),
            lambda size=size, side=sides[1]: speed(side, size),
            rounds,
        )
        figures[f"batch_{size}"] = {
            "pictures_per_second": [round(value, 1) for value in one],
            "bare_pictures_per_second": [round(value, 1) for value in other],
            "ratio": round(measuring.median_ratio(one, other), 3),
        }
    return figures


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=64, help="a multiple of 32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--families", nargs="+", default=["grounding-dino", "owlv2"], choices=small_detectors.FAMILIES)
    parser.add_argument("--checkpoints", nargs="+", help="folders or hub names to run on a GPU")
    options = parser.parse_args()
    before = measuring.machine()
    cuda = torch.cuda.is_available()
    if cuda and not options.checkpoints:
        parser.error("there is a GPU: name --checkpoints to run on it")
    figures: dict[str, Any] = {"gpu": torch.cuda.get_device_name() if cuda else "none: that part was not run"}
    with tempfile.TemporaryDirectory(prefix="chaffinch-benchmark-") as temporary:
        place = Path(temporary)
        pairs, words = photos(place, options.pictures)
        figures["pictures"] = f"{len(pairs)} of {words}, cut to {len(ASPECTS)} aspect ratios"
        if cuda:
            for checkpoint in options.checkpoints:
                scorer = Detector(checkpoint)
                figures[checkpoint] = compare(scorer, "cuda", pairs, options.rounds)
                compiled = dataclasses.replace(scorer, compile=True)
                figures[f"{checkpoint}, compiled"] = compare(compiled, "cuda", pairs, options.rounds)
        else:
            torch.set_num_threads(1)
            for family in options.families:
                folder = small_detectors.write_detector(place / family, family, SIDE)
                figures[f"small {family}"] = compare(Detector(str(folder)), "cpu", pairs, options.rounds)
    parts = []
    for name, found in figures.items():
        if isinstance(found, dict):
            speeds = [statistics.median(found[f"batch_{size}"]["pictures_per_second"]) for size in BATCHES]
            ratios = [found[f"batch_{size}"]["ratio"] for size in BATCHES]
            parts.append(
                f"{name}: {', '.join(f'{speed:.0f}' for speed in speeds)} pictures/s at batches of 1, 8 and 32, "
                f"{', '.join(f'{ratio:.2f}' for ratio in ratios)} of the bare loop's"
            )
    where = (
        "on a GPU in bfloat16"
        if cuda
        else "by CPU time of one thread, with random weights (no GPU: that part was not run)"
    )
    measuring.finish(figures, f"detector {where}: {'; '.join(parts)}", before)


if __name__ == "__main__":
    main()
