"""Builds the models to train, and describes them so that others can build them again."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from chaffinch.scoring.clips.from_open_clip import OpenClipCheckpoint, OpenClipModel
from chaffinch.scoring.clips.model import Precision, resolve_precision
from chaffinch.scoring.training.architectures import Architecture, find_architecture, open_clip_name


def build(model: str, pretrained: str | None, seed: int, device: str, precision: Precision) -> OpenClipModel:
    """Builds the network to train, in training mode, weights float32.

    Args:
        model: as in `Recipe`.
        pretrained: as in `Recipe`; without it weights are random.
        seed: of random weights.
        device: "cpu" or "cuda".
        precision: as in `Recipe`.

    Returns:
        The model, as the clip scorer holds it.

    Raises:
        ValueError: open_clip cannot build it; the weights cannot be had or belong to another architecture.
    """
    if pretrained is not None:
        loaded = OpenClipCheckpoint(model, pretrained).load("cpu", "float32")
        network, transform, tokenizer = loaded.network, loaded.evaluation, loaded.tokenizer
    else:
        import open_clip

        torch.manual_seed(seed)
        architecture, name = find_architecture(model), open_clip_name(model)
        try:
            if architecture is not None:
                network, transform, tokenizer = architecture.create()
            else:
                network, _, transform = open_clip.create_model_and_transforms(
                    name, precision="fp32", device="cpu", pretrained_text=False
                )
                tokenizer = open_clip.get_tokenizer(name)
        except Exception as error:  # descriptions may say anything, and fail wherever it is used
            reason = " ".join(str(error).split())[:400]
            raise ValueError(f"open_clip cannot build {model!r}: {reason}") from error
    # Convolutions are up to twice as fast where the colours of a pixel lie side by side; other layers do not care.
    network = network.train().to(device, memory_format=torch.channels_last)
    return OpenClipModel(network, device, resolve_precision(precision, device), transform, tokenizer)


def describe(model: str, network: Any) -> dict[str, bytes]:
    """The files that describe a model to open_clip and to the clip scorer, to be put beside its weights.

    Weights that a tag names may want other colours and another activation than the model's name tells; once they are a
    local file, nothing else says so.

    Args:
        model: as in `Recipe`.
        network: what `build` made of it.

    Returns:
        Name -> content; the first is the JSON that `model:` takes.
    """
    import open_clip

    architecture = find_architecture(model)
    if architecture is None:
        described = open_clip.get_model_config(open_clip_name(model))
        if any(type(module).__name__ == "QuickGELU" for module in network.modules()):
            described["quick_gelu"] = True
        architecture = Architecture(described, {}, Path())
    look = {name: network.visual.preprocess_cfg[name] for name in ("mean", "std", "interpolation", "resize_mode")}
    return dataclasses.replace(architecture, preprocessing=look).published()
