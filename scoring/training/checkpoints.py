"""Files of weights that open_clip loads, and of everything else that a training needs to go on."""

import sys
from typing import Any, BinaryIO

import torch


def save_weights(
    file: BinaryIO,
    network: torch.nn.Module,
    name: str,
    epoch: float,
    step: int,
    classes: int | list[str] | None = None,
) -> None:
    """Writes weights as open_clip's own training does, so that `pretrained:` takes the file.

    Args:
        file: open for writing.
        network: the model.
        name: of the model.
        epoch: how many times each sample was seen.
        step: how many steps were made.
        classes: of a classifier, how many there are or their names.
    """
    known = {} if classes is None else {"classes": classes}
    torch.save({"epoch": epoch, "step": step, "name": name, **known, "state_dict": network.state_dict()}, file)


def halve(source: BinaryIO, target: BinaryIO) -> None:
    """Writes the weights of a checkpoint in float16, half as large: enough to measure with, not to train on from.

    Args:
        source: what `save_weights` wrote.
        target: open for writing; open_clip loads it as it loads the original.
    """
    checkpoint = torch.load(source, map_location="cpu", weights_only=True)
    weights = {
        name: weight.half().contiguous() if weight.is_floating_point() else weight
        for name, weight in checkpoint["state_dict"].items()
    }
    torch.save(checkpoint | {"state_dict": weights}, target)


def save_state(file: BinaryIO, state: dict[str, Any]) -> None:
    """Writes what `Trainer.state` gave; equal states give equal bytes."""
    torch.save(_rebuilt(state), file)


def load_state(file: BinaryIO) -> dict[str, Any]:
    """Reads what `save_state` wrote; tensors and plain values only, never code.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the reader of a damaged archive raises whatever it stumbles over
        raise ValueError(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
    return state


def _rebuilt(value: Any) -> Any:
    """The same content in objects that are shared in the same way: pickle writes a repeated object as a reference."""
    if isinstance(value, dict):
        return {_rebuilt(key): _rebuilt(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_rebuilt, value))
    return sys.intern(value) if isinstance(value, str) else value
