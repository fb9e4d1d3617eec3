"""A light detector whose behaviour is known, made of a few convolutions; the fixture `colour_detector` brings it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper


def write_detector(path: Path, side: int = 64, trunk: int = 3, spoil: str = "") -> Path:
    """A detector of coloured light in YOLOX's form: backbone, upsampling neck, decoupled head at strides 8, 16 and 32.

    A cell holds an object as far as it is red or blue, and the class is which of both. The box is the square of two
    cells' length around the cell's middle. Where the colour is pure, the object is sure and so is its class.

    Args:
        path: where to write it.
        side: of the canvas.
        trunk: channels of every map: blue, green, red and whatever is empty.
        spoil: "decoded" gives sizes in pixels, "raw" leaves out the sigmoid of objects.

    Returns:
        The path.
    """
    nodes, weights = [], []

    def constant(name: str, value: Any) -> str:
        weights.append(onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def convolve(source: str, target: str, kernel: np.ndarray, bias: Sequence[float], act: str = "Relu") -> str:
        parts = [source, constant(f"{target}.w", kernel.astype(np.float32)), constant(f"{target}.b", np.float32(bias))]
        shape = {"kernel_shape": kernel.shape[2:], "strides": kernel.shape[2:]}
        nodes.append(helper.make_node("Conv", parts, [f"{target}.raw" if act else target], **shape))
        if act:
            nodes.append(helper.make_node(act, [f"{target}.raw"], [target]))
        return target

    def same(source: str, target: str, inputs: int = trunk, size: int = 1) -> str:
        kernel = np.zeros((trunk, inputs, size, size))
        kernel[range(min(trunk, inputs)), range(min(trunk, inputs))] = 1 / size**2
        return convolve(source, target, kernel, np.zeros(trunk))

    backbone = [same("images", "dark8", 3, 8)]
    backbone.append(same(backbone[0], "dark16", size=2))
    backbone.append(same(backbone[1], "dark32", size=2))
    neck = [same(backbone[2], "neck32")]
    for stride in (16, 8):
        scales = constant(f"scales{stride}", np.float32([1, 1, 2, 2]))
        nodes.append(helper.make_node("Resize", [neck[-1], "", scales], [f"up{stride}"], mode="nearest"))
        nodes.append(helper.make_node("Concat", [f"dark{stride}", f"up{stride}"], [f"both{stride}"], axis=1))
        neck.append(same(f"both{stride}", f"neck{stride}", 2 * trunk))
    outputs = []
    for stride, source in zip((8, 16, 32), reversed(neck), strict=True):
        stem = same(source, f"stem{stride}")
        colours = np.zeros((2, trunk, 1, 1))
        colours[0, :3, 0, 0], colours[1, :3, 0, 0] = (-0.1, -0.1, 0.1), (0.1, -0.1, -0.1)
        classes = convolve(same(stem, f"seen{stride}"), f"class{stride}", colours, [-10, -10], "Sigmoid")
        traces = same(stem, f"traced{stride}")
        size = stride if spoil == "decoded" else np.log(2)
        box = convolve(traces, f"box{stride}", np.zeros((4, trunk, 1, 1)), [0.5, 0.5, size, size], "")
        light = np.zeros((1, trunk, 1, 1))
        light[0, :3, 0, 0] = 0.1, -0.2, 0.1
        sure = convolve(traces, f"object{stride}", light, [-10], "" if spoil == "raw" else "Sigmoid")
        nodes.append(helper.make_node("Concat", [box, sure, classes], [f"all{stride}"], axis=1))
        shape = constant(f"shape{stride}", np.int64([1, 7, -1]))
        nodes.append(helper.make_node("Reshape", [f"all{stride}", shape], [f"flat{stride}"]))
        outputs.append(f"flat{stride}")
    nodes.append(helper.make_node("Concat", outputs, ["flat"], axis=2))
    nodes.append(helper.make_node("Transpose", ["flat"], ["output"], perm=[0, 2, 1]))
    places = sum((side // stride) ** 2 for stride in (8, 16, 32))
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, [1, places, 7])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path
