"""Weights of heads, which are stacks of linear layers: their shapes without torch, and the layers themselves."""

import itertools
import json
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

Layer = tuple[np.ndarray, np.ndarray]
"""(outputs, inputs) and (outputs,) float64: what a vector is multiplied by, and what is added."""

_NUMBER = re.compile(r"(\d+)")


def peek(path: Path) -> tuple[int, int] | None:
    """How many inputs and outputs a head has, without torch.

    Args:
        path: a file of weights.

    Returns:
        Inputs and outputs; None where only torch can tell, as with files that it wrote before 1.6.

    Raises:
        ValueError: the file is no stack of linear layers.
    """
    try:
        if path.suffix == ".safetensors":
            with path.open("rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            shapes = {name: tuple(one["shape"]) for name, one in header.items() if name != "__metadata__"}
        else:
            with zipfile.ZipFile(path) as archive:
                name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
                with archive.open(name) as file:
                    content = _Shapes(file).load()
            shapes = {name: one for name, one in _unwrap(content).items() if isinstance(one, tuple)}
    except Exception:  # whatever is wrong with the file, torch says it better
        return None
    stack = _stack(shapes)
    return shapes[f"{stack[0]}weight"][1], shapes[f"{stack[-1]}weight"][0]


def read_layers(path: Path, activation: Literal["none", "relu"]) -> list[Layer]:
    """Reads a stack of linear layers; pickled code is not run.

    Args:
        path: a file of weights.
        activation: what stands between the layers; with none they are multiplied into one.

    Returns:
        The layers, from the embedding on.

    Raises:
        ValueError: the file is damaged, holds more than tensors, or is no stack of linear layers.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            content: Any = load_file(path)
        else:
            import torch

            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise whatever the reader of their format raises
        reason = " ".join(str(error).split())[:200]
        remedy = "save its state_dict() with torch.save, or as .safetensors"
        raise ValueError(f"weights {str(path)!r} cannot be read as tensors alone: {remedy} ({reason})") from error
    tensors = {name: _array(one) for name, one in _unwrap(content).items() if hasattr(one, "shape")}
    stack = _stack({name: one.shape for name, one in tensors.items()})
    weights = [tensors[f"{prefix}weight"] for prefix in stack]
    layers = [
        (weight, tensors.get(f"{prefix}bias", np.zeros(len(weight))))
        for prefix, weight in zip(stack, weights, strict=True)
    ]
    if activation == "relu":
        return layers
    weight, bias = layers[0]
    for following, more in layers[1:]:
        weight, bias = following @ weight, following @ bias + more
    return [(weight, bias)]


def _stack(shapes: Mapping[str, Sequence[int]]) -> list[str]:
    """The prefixes of the layers' names in their order; ValueError where these are no linear layers in a row."""
    prefixes = sorted(
        (name.removesuffix("weight") for name in shapes if name.endswith("weight")),
        key=lambda prefix: [int(part) if part.isdigit() else part for part in _NUMBER.split(prefix)],
    )
    known = {f"{prefix}{part}" for prefix in prefixes for part in ("weight", "bias")}
    wrong = sorted(set(shapes) - known)
    wrong += [f"{prefix}weight" for prefix in prefixes if len(shapes[f"{prefix}weight"]) != 2]
    if wrong or not prefixes:
        found = f"{wrong[0]} is not of one" if wrong else "there is no weight among them"
        raise ValueError(f"weights are no stack of linear layers: {found}")
    for before, after in itertools.pairwise(prefixes):
        outputs, inputs = shapes[f"{before}weight"][0], shapes[f"{after}weight"][1]
        if outputs != inputs:
            raise ValueError(f"weights are no stack: {before}weight gives {outputs}, {after}weight takes {inputs}")
    for prefix in prefixes:
        bias = shapes.get(f"{prefix}bias")
        if bias is not None and tuple(bias) != (shapes[f"{prefix}weight"][0],):
            raise ValueError(f"weights are no stack of linear layers: {prefix}bias has the shape {tuple(bias)}")
    return prefixes


def _unwrap(content: Any) -> dict[str, Any]:
    """The tensors by their names; trainers put them under state_dict."""
    content = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping):
        raise ValueError("weights are no stack of linear layers: the file holds no names")
    return {str(name): value for name, value in content.items()}


def _array(tensor: Any) -> np.ndarray:
    """float64, of whichever type it was."""
    return np.asarray(tensor if isinstance(tensor, np.ndarray) else tensor.detach().double().numpy(), np.float64)


class _Shapes(pickle.Unpickler):
    """Reads the shapes of a file of torch's and nothing else: no name it meets is looked up anywhere."""

    _STEPS: ClassVar[dict[tuple[str, str], Any]] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): lambda storage, offset, size, *rest: tuple(size),
        ("torch._utils", "_rebuild_parameter"): lambda shape, *rest: shape,
    }

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name in the file."""
        if module == "torch" and name.endswith("Storage"):
            return None
        if (module, name) not in self._STEPS:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return self._STEPS[module, name]

    def persistent_load(self, pid: Any) -> None:
        """The numbers themselves, which lie elsewhere in the file."""
