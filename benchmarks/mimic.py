"""What exact mimic scores cost: forward mode over all parameters or one layer, and other ways, against plain forwards.

    python benchmarks/mimic.py
    python benchmarks/mimic.py --models ViT-L-14 --device cuda --precision bfloat16 --batch 256 --loop 0

Everything is measured in turn in one process, as CPU seconds (on cuda, seconds until the GPU is done), and given as the
median ratio to a plain forward pass of the same batch, which is what the clip scorer does. Weights are random, the
reference lies 5% away. Memory is the peak of processes of their own, weights and what a score adds to them included,
over one that has only imported the libraries.
"""

import argparse
import gc
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measuring
import torch
from torch.nn import functional

from chaffinch.scoring.alignment.derivatives import Derivative, differentiate
from chaffinch.scoring.alignment.direction import Direction, find_direction, own_state
from chaffinch.scoring.alignment.losses import Logits, against_bank
from chaffinch.scoring.training.building import build

_BANK = 256
_LAST = {"ViT-S-32-alt": "visual.proj", "ViT-B-32": "visual.proj", "ViT-L-14": "visual.proj"}
_FIRST = "visual.conv1"


class Subject:
    """A model, a batch and all ways to run it."""

    def __init__(self, name: str, batch: int, device: str, precision: str) -> None:
        torch.manual_seed(0)
        self.model = build(name, None, 0, device, precision)
        self.network = self.model.network.eval().to(memory_format=torch.contiguous_format)
        size = self.network.visual.image_size
        height, width = (size, size) if isinstance(size, int) else size
        self.batch = batch
        self.pictures = list(torch.randn(batch, 3, height, width))
        self.tokens = self.model.tokenise([f"a photo of thing number {number}" for number in range(batch)])
        dimensions = self.model.encode_captions(self.tokens[:1]).shape[1]
        bank = functional.normalize(torch.randn(2, _BANK, dimensions, device=device), dim=-1)
        self.bank = bank[0], bank[1]
        self.hidden = torch.zeros(batch, _BANK, dtype=torch.bool, device=device)
        self.state = own_state(self.network)
        self.reference = {
            name: tensor + 0.05 * tensor.abs().mean() * torch.randn_like(tensor)
            if tensor.is_floating_point()
            else tensor
            for name, tensor in self.state.items()
        }

    def direction(self, layers: str = "*") -> Direction:
        """The way to the reference."""
        return find_direction(self.network, self.state, self.reference, (layers,))

    def derivative(self, method: Any, layers: str = "*") -> Derivative:
        """By a method, over some layers."""
        return differentiate(method, self.network, self.state, self.direction(layers))

    def losses(self) -> torch.Tensor:
        """(n,) of the batch."""
        with self.model.arithmetic():
            pictures = self.model.encode_pictures(self.pictures)
            captions = self.model.encode_captions(self.tokens)
        logits = Logits(self.network.logit_scale.exp())
        return against_bank(pictures, captions, *self.bank, self.hidden, logits)

    def plain(self) -> torch.Tensor:
        """As the clip scorer runs it."""
        with torch.inference_mode():
            return self.losses()

    def loop(self, samples: int, direction: Direction) -> torch.Tensor:
        """A backward pass for each of some samples through the batch's graph, as losses within a batch need it."""
        chosen = self._chosen(direction)
        losses = self.losses()
        return torch.stack([_along(losses[row], chosen, direction) for row in range(samples)])

    def loop_alone(self, samples: int, direction: Direction) -> torch.Tensor:
        """A forward and a backward pass for each of some samples alone, which losses among a bank allow."""
        chosen, whole, slopes = self._chosen(direction), (self.pictures, self.tokens, self.hidden), []
        for row in range(samples):
            self.pictures, self.tokens, self.hidden = whole[0][row : row + 1], whole[1][row : row + 1], whole[2][:1]
            slopes.append(_along(self.losses()[0], chosen, direction))
        self.pictures, self.tokens, self.hidden = whole
        return torch.stack(slopes)

    def _chosen(self, direction: Direction) -> list[torch.nn.Parameter]:
        return [parameter for name, parameter in self.network.named_parameters() if name in direction.tensors]


def _along(loss: torch.Tensor, chosen: list[torch.nn.Parameter], direction: Direction) -> torch.Tensor:
    """<g, v> of one loss."""
    gradients = torch.autograd.grad(loss, chosen, allow_unused=True, retain_graph=True)
    pairs = zip(gradients, direction.tensors.values(), strict=True)
    return torch.stack([(one * way).sum() for one, way in pairs if one is not None]).sum()


def _near(tensor: torch.Tensor) -> torch.Tensor:
    """A twentieth of its mean size away."""
    return tensor + 0.05 * tensor.abs().mean() * torch.randn_like(tensor) if tensor.is_floating_point() else tensor


def main() -> None:
    """Measures every model, prints a table's worth of prose and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["ViT-S-32-alt", "ViT-B-32", "RN50"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loop", type=int, default=4, help="samples to run backward one by one; 0 for none")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--memory", choices=["none", "plain", "forward"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        _peak(options)
        return
    before = measuring.machine()
    found = {name: _measure(name, options) for name in options.models}
    figures = {"batch": options.batch, "device": options.device, "precision": options.precision, "models": found}
    prose = " ".join(_sentence(name, one) for name, one in found.items())
    measuring.finish(figures, prose, before)


def _measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    subject = Subject(name, options.batch, options.device, options.precision)
    clock = measuring.clock(options.device)
    everything, central = subject.derivative("forward"), subject.derivative("central")
    ways: dict[str, Callable[[], Any]] = {
        "plain": subject.plain,
        "exact": lambda: everything.evaluate(lambda _: (subject.losses(),)),
        "central": lambda: central.evaluate(lambda _: (subject.losses(),)),
    }
    layers = {"last_layer": _LAST.get(name), "first_layer": _FIRST}
    for label, layer in layers.items():
        if layer is not None:
            one = subject.derivative("forward", layer)
            ways[label] = lambda one=one: one.evaluate(lambda _: (subject.losses(),))
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {label: [] for label in ways}
    for number in range(options.rounds):
        for label, way in ways.items():
            began = clock()
            way()
            seconds[label].append(clock() - began)
        print(f"  {name}: round {number + 1} of {options.rounds}", file=sys.stderr)
    figures: dict[str, Any] = {
        "parameters": sum(parameter.numel() for parameter in subject.network.parameters()),
        "plain_ms_a_sample": round(1000 * statistics.median(seconds["plain"]) / options.batch, 2),
        "ratios": {
            label: round(measuring.median_ratio(taken, seconds["plain"]), 3)
            for label, taken in seconds.items()
            if label != "plain"
        },
        "seconds": {label: [round(one, 3) for one in taken] for label, taken in seconds.items()},
    }
    exact = ways["exact"]()[1][0].float()
    ranks = [values.argsort().argsort().double() for values in (exact, ways["central"]()[1][0].float())]
    figures["central_rank_correlation"] = round(float(torch.corrcoef(torch.stack(ranks))[0, 1]), 5)
    if options.loop:
        direction, scored = subject.direction(), statistics.median(seconds["exact"]) / options.batch
        for label, loop in (("backward_loop", subject.loop), ("backward_alone", subject.loop_alone)):
            began = clock()
            slopes = loop(options.loop, direction)
            figures[f"{label}_over_exact"] = round((clock() - began) / options.loop / scored, 1)
            error = float((slopes - exact[: options.loop]).abs().max() / slopes.abs().max())
            figures[f"{label}_largest_relative_difference"] = float(f"{error:.1e}")
    if options.device == "cpu":
        figures["memory"] = _memory(name, options)
    return figures


def _memory(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Peaks of a plain forward pass and of an exact score over a process that does neither, MiB, and their ratio."""
    common = [sys.executable, __file__, "--models", name, "--batch", str(options.batch), "--memory"]
    peaks = {what: json.loads(measuring.run([*common, what]).output) for what in ("none", "plain", "forward")}
    plain, forward = peaks["plain"] - peaks["none"], peaks["forward"] - peaks["none"]
    return {"plain_mib": round(plain), "forward_mib": round(forward), "ratio": round(forward / plain, 2)}


def _peak(options: argparse.Namespace) -> None:
    """Prints the peak of this process in MiB, from when everything that lasts is in place."""
    if options.memory != "none":
        subject = Subject(options.models[0], options.batch, "cpu", "float32")
        derivative = subject.derivative("forward") if options.memory == "forward" else None
        del subject.reference
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        if derivative is None:
            subject.plain()
        else:
            derivative.evaluate(lambda _: (subject.losses(),))
    lines = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024)


def _sentence(name: str, found: dict[str, Any]) -> str:
    ratios = found["ratios"]
    parts = [f"{label.replace('_', ' ')} {ratio:.2f}" for label, ratio in ratios.items()]
    text = f"{name}: {', '.join(parts)} plain forwards"
    if "backward_loop_over_exact" in found:
        text += (
            f"; backward passes through the batch, a sample each, take {found['backward_loop_over_exact']:.0f} times"
        )
        text += f" as long, of samples alone {found['backward_alone_over_exact']:.1f} times"
    if "memory" in found:
        text += f"; peak memory {found['memory']['ratio']:.2f} that of a plain forward"
    return text + "."


if __name__ == "__main__":
    main()
