"""What re-weighting a training step by mimic scores costs, against the plain step of the same batch.

    python benchmarks/reweighting.py
    python benchmarks/reweighting.py --models ViT-B-32 --device cuda --precision bfloat16 --batch 256

Whole steps of `chaffinch train`'s own trainer, from a batch in memory to new weights, AdamW included. Everything is
measured in turn in one process, as CPU seconds (on cuda, seconds until the GPU is done), and given as the median ratio
to the plain step. Weights are random, the reference lies 5% away. `otherwise`: scores of few layers come out of the
update's own forward pass, unless the model has dropout or batch normalisation, and those of all layers have a pass of
their own; what the other choice would have cost is measured beside it. Memory is the peak of
processes of their own, weights, moments and reference included, over one that has only imported the libraries.
"""

import argparse
import gc
import io
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import torch
from PIL import Image

from chaffinch.scoring.training.building import build
from chaffinch.scoring.training.recipe import Recipe, Reweighting
from chaffinch.scoring.training.reweighting import Reweighter
from chaffinch.scoring.training.trainer import Trainer

_LAYERS = {
    "all layers": ("*",),
    "last layer": ("visual.proj",),
    "last block's second layer": ("visual.transformer.resblocks.11.mlp.c_proj",),
}
_OTHERWISE = ", otherwise"


class Noise:
    """As many pictures of noise as a batch holds, and captions that differ."""

    def __init__(self, count: int) -> None:
        rng, self._files = np.random.default_rng(0), []
        for _ in range(count):
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (224, 224, 3), np.uint8)).save(file, "PNG")
            self._files.append(file.getvalue())

    def __len__(self) -> int:
        return len(self._files)

    def picture(self, index: int) -> bytes:
        """A PNG."""
        return self._files[index]

    def captions(self, index: int) -> list[str]:
        """One."""
        return [f"a photo of thing number {index}"]


class Subject:
    """A trainer, a batch, and ways to weigh it: all make their steps on the same network."""

    def __init__(self, name: str, options: argparse.Namespace, folder: Path, ways: Sequence[str]) -> None:
        samples = Noise(options.batch)
        plain = Recipe(name, epochs=10_000, batch_size=options.batch, precision=options.precision)
        self.reference = folder / f"{name}.pt"
        if not self.reference.exists():
            self._make_reference(name)
        self.trainer = Trainer(plain, samples, options.device, 2)
        (self.loaded,) = self.trainer.task.read(samples, [self.trainer._wanted(0)], self.trainer._visits, 2)
        self.reweighters: dict[str, Reweighter | None] = {"plain": None}
        for way in ways:
            settings = Reweighting(str(self.reference), layers=_LAYERS[way.removesuffix(_OTHERWISE)])
            reweighter = Reweighter(settings, self.trainer.task)
            if way.endswith(_OTHERWISE):
                reweighter._one_pass = not reweighter._may_share
            self.reweighters[way] = reweighter

    def step(self, way: str) -> None:
        """Weighs the batch in a way, and makes a step."""
        self.trainer._reweighter = self.reweighters[way]
        self.trainer._learn(self.loaded)

    def _make_reference(self, name: str) -> None:
        network = build(name, None, 0, "cpu", "float32").network
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.05 * parameter.abs().mean() * torch.randn_like(parameter)
        torch.save({"state_dict": network.state_dict()}, self.reference)


def main() -> None:
    """Measures every model and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["ViT-S-32-alt", "ViT-B-32"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="chaffinch-benchmark-") as folder:
        if options.memory:
            what, _, place = options.memory.partition(":")
            _peak(what, options, Path(place))
            return
        before = measuring.machine()
        found = {name: _measure(name, options, Path(folder)) for name in options.models}
    figures = {"batch": options.batch, "device": options.device, "precision": options.precision, "models": found}
    measuring.finish(figures, " ".join(_sentence(name, one) for name, one in found.items()), before)


def _measure(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    ways = [*_LAYERS, f"all layers{_OTHERWISE}", f"last layer{_OTHERWISE}"]
    subject, clock = Subject(name, options, folder, ways), measuring.clock(options.device)
    seconds: dict[str, list[float]] = {way: [] for way in subject.reweighters}
    for number in range(options.rounds + 1):
        for way, taken in seconds.items():
            began = clock()
            subject.step(way)
            taken.append(clock() - began)
        told = ", ".join(f"{way} {taken[-1]:.2f}" for way, taken in seconds.items())
        print(f"  {name}: round {number} of {options.rounds}, seconds: {told}", file=sys.stderr)
    measured = {way: taken[1:] for way, taken in seconds.items()}  # the first round meets cold caches
    plain = measured["plain"]
    figures: dict[str, Any] = {
        "parameters": sum(parameter.numel() for parameter in subject.trainer.task.network.parameters()),
        "plain_seconds": round(statistics.median(plain), 3),
        "ratios": {way: round(measuring.median_ratio(taken, plain), 3) for way, taken in measured.items()},
        "seconds": {way: [round(one, 3) for one in taken] for way, taken in measured.items()},
    }
    del figures["ratios"]["plain"], subject
    if options.device == "cpu":
        peaks = {what: _peak_of(name, what, options, folder) for what in ("none", "plain", "all layers", "last layer")}
        over = {what: round(peak - peaks["none"]) for what, peak in peaks.items() if what != "none"}
        figures["memory_mib"] = over
        figures["memory_ratios"] = {what: round(peak / over["plain"], 2) for what, peak in over.items()}
    return figures


def _peak_of(name: str, what: str, options: argparse.Namespace, folder: Path) -> float:
    common = [sys.executable, __file__, "--models", name, "--batch", str(options.batch)]
    return float(json.loads(measuring.run([*common, "--memory", f"{what}:{folder}"]).output))


def _peak(what: str, options: argparse.Namespace, folder: Path) -> None:
    """Prints the peak of this process in MiB, over two steps; with `none`, of one that only imports."""
    if what != "none":
        subject = Subject(options.models[0], options, folder, [] if what == "plain" else [what])
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        subject.step(what)
        subject.step(what)
    lines = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024)


def _sentence(name: str, found: dict[str, Any]) -> str:
    ratios = found["ratios"]
    told = (
        f"{name}: a step re-weighted over all layers takes {ratios['all layers']:.2f} plain steps (at most 2.2 "
        f"wanted), over the last layer {ratios['last layer']:.2f} (1.3)"
    )
    if "memory_ratios" in found:
        told += f"; memory {found['memory_ratios']['all layers']:.2f} and {found['memory_ratios']['last layer']:.2f}"
    return f"{told}."


if __name__ == "__main__":
    main()
