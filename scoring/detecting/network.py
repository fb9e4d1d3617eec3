"""A detector of one megabyte in YOLOX's form: what it is made of, in torch to be trained, in ONNX to be run.

Backbone, a neck that hands coarse maps to finer ones, and at strides 8, 16 and 32 a head that parts in two: what it is,
and where. Plain convolutions with ReLU throughout; batch normalisation is folded into them when it is written.
Source: Ge, Liu, Wang, Li, Sun (2021), YOLOX, arXiv 2107.08430, section 2, for the head.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from chaffinch.scoring.yolox import STRIDES

if TYPE_CHECKING:
    import torch

# Layers of the head: where the box is, whether there is one, and of which class.
_PREDICTIONS = ("box", "object", "class")

# The share of cells that hold an object is about this before anything is learned.
_FEW = 0.01


@dataclass(frozen=True)
class Layer:
    """One convolution.

    Attributes:
        name: of its output.
        sources: what it reads, joined channel by channel; coarser maps are stretched to the size of the first.
        channels: of its output.
        size: side of the kernel.
        stride: of the kernel.
        predicts: whether it is the last: with a bias, and neither normalised nor rectified.
    """

    name: str
    sources: tuple[str, ...]
    channels: int
    size: int = 3
    stride: int = 1
    predicts: bool = False


def plan(classes: int) -> tuple[Layer, ...]:
    """The layers in the order in which they are computed; "images" is what the first reads.

    Args:
        classes: how many are told apart.
    """
    layers = [
        Layer("dark2", ("images",), 16, stride=2),
        Layer("dark4", ("dark2",), 32, stride=2),
        Layer("dark8", ("dark4",), 48, stride=2),
        Layer("seen8", ("dark8",), 48),
        Layer("dark16", ("seen8",), 64, stride=2),
        Layer("seen16", ("dark16",), 64),
        Layer("dark32", ("seen16",), 96, stride=2),
        Layer("seen32", ("dark32",), 96),
        Layer("neck32", ("seen32",), 48, 1),
        Layer("neck16", ("seen16", "neck32"), 48, 1),
        Layer("neck8", ("seen8", "neck16"), 48, 1),
    ]
    for stride in STRIDES:
        layers += [
            Layer(f"what{stride}", (f"neck{stride}",), 48),
            Layer(f"where{stride}", (f"neck{stride}",), 48),
            Layer(f"box{stride}", (f"where{stride}",), 4, 1, predicts=True),
            Layer(f"object{stride}", (f"where{stride}",), 1, 1, predicts=True),
            Layer(f"class{stride}", (f"what{stride}",), classes, 1, predicts=True),
        ]
    return tuple(layers)


def build(classes: int) -> "torch.nn.ModuleDict":
    """Builds the network with random weights, as torch's seed has it.

    Args:
        classes: how many are told apart.

    Returns:
        A module for each layer, by name.
    """
    from torch import nn

    channels, modules = {"images": 3}, {}
    for layer in plan(classes):
        inputs = sum(channels[source] for source in layer.sources)
        convolution = nn.Conv2d(inputs, layer.channels, layer.size, layer.stride, layer.size // 2, bias=layer.predicts)
        if layer.predicts:
            assert convolution.bias is not None
            nn.init.constant_(convolution.bias, 0.0 if layer.name.startswith("box") else np.log(_FEW / (1 - _FEW)))
            modules[layer.name] = nn.Sequential(convolution)
        else:
            modules[layer.name] = nn.Sequential(convolution, nn.BatchNorm2d(layer.channels), nn.ReLU())
        channels[layer.name] = layer.channels
    return nn.ModuleDict(modules)


def propose(network: "torch.nn.ModuleDict", pictures: "torch.Tensor") -> "torch.Tensor":
    """Runs the network.

    Args:
        network: what `build` returned.
        pictures: (n, 3, height, width) float32, blue, green, red, from 0 to 255; sides are multiples of 32.

    Returns:
        (n, a, 5 + classes) what `yolox.decode` reads, but logits in the place of probabilities.
    """
    import torch
    from torch.nn import functional

    maps = {"images": pictures}
    classes = network[f"class{STRIDES[0]}"][0].out_channels  # type: ignore[index]
    for layer in plan(classes):
        first, *others = (maps[source] for source in layer.sources)
        stretched = [functional.interpolate(one, size=first.shape[2:], mode="nearest") for one in others]
        maps[layer.name] = network[layer.name](torch.cat([first, *stretched], dim=1))
    flat = [torch.cat([maps[f"{part}{stride}"] for part in _PREDICTIONS], dim=1).flatten(2) for stride in STRIDES]
    return torch.cat(flat, dim=2).transpose(1, 2)


def to_onnx(network: "torch.nn.ModuleDict", side: int) -> bytes:
    """Writes the network as `onnx_detector` runs it; the same weights give the same bytes.

    Args:
        network: what `build` returned, trained.
        side: of the square canvas, pixels; a multiple of 32.

    Returns:
        The content of an .onnx file.
    """
    import onnx
    from onnx import helper, numpy_helper

    nodes: list[Any] = []
    constants: list[Any] = []

    def constant(name: str, value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    def node(kind: str, sources: list[str], target: str, **settings: Any) -> str:
        nodes.append(helper.make_node(kind, sources, [target], **settings))
        return target

    classes = network[f"class{STRIDES[0]}"][0].out_channels  # type: ignore[index]
    for layer in plan(classes):
        _add(layer, network[layer.name], node, constant)
    flat = []
    for stride in STRIDES:
        sure = [node("Sigmoid", [f"{part}{stride}"], f"{part}{stride}.probability") for part in _PREDICTIONS[1:]]
        joined = node("Concat", [f"box{stride}", *sure], f"all{stride}", axis=1)
        shape = constant(f"shape{stride}", np.array([1, 5 + classes, -1], np.int64))
        flat.append(node("Reshape", [joined, shape], f"flat{stride}"))
    node("Transpose", [node("Concat", flat, "flat", axis=2)], "output", perm=[0, 2, 1])
    places = sum((side // stride) ** 2 for stride in STRIDES)
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, [1, places, 5 + classes])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _add(layer: Layer, module: Any, node: Callable[..., str], constant: Callable[[str, np.ndarray], str]) -> None:
    """Adds a layer's nodes: stretching and joining what it reads, the convolution, and the rectifier."""
    sources = [layer.sources[0]]
    for source in layer.sources[1:]:
        scales = constant(f"{layer.name}.scales", np.array([1, 1, 2, 2], np.float32))
        rounding = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        sources.append(node("Resize", [source, "", scales], f"{layer.name}.stretched", mode="nearest", **rounding))
    joined = node("Concat", sources, f"{layer.name}.joined", axis=1) if len(sources) > 1 else sources[0]
    kernel, bias = _fold(module)
    reads = [joined, constant(f"{layer.name}.kernel", kernel), constant(f"{layer.name}.bias", bias)]
    geometry = {
        "kernel_shape": [layer.size] * 2,
        "strides": [layer.stride] * 2,
        "pads": [layer.size // 2] * 4,
    }
    if layer.predicts:
        node("Conv", reads, layer.name, **geometry)
    else:
        node("Relu", [node("Conv", reads, f"{layer.name}.raw", **geometry)], layer.name)


def _fold(module: Any) -> tuple[np.ndarray, np.ndarray]:
    """A layer's kernel and bias as float32, what batch normalisation has learned folded in."""
    kernel = module[0].weight.detach().double().numpy()
    if len(module) == 1:
        return kernel.astype(np.float32), module[0].bias.detach().numpy()
    norm = module[1]
    scale, shift, mean, variance = (
        part.detach().double().numpy() for part in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    )
    factor = scale / np.sqrt(variance + norm.eps)
    return (kernel * factor[:, None, None, None]).astype(np.float32), (shift - mean * factor).astype(np.float32)
