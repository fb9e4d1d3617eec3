"""Small networks: a CLIP with random weights, and detectors whose behaviour is known; and pictures to try them on."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

TINY = "ViT-S-32-alt"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest model that open_clip describes, saved the way its own training saves one."""
    import open_clip
    import torch

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    network = open_clip.create_model(TINY)
    torch.save({"epoch": 1, "state_dict": network.state_dict()}, path)
    return path


@pytest.fixture(scope="session")
def aligned(tmp_path_factory: pytest.TempPathFactory, small_pool: Callable[..., Path]) -> Path:
    """A folder with a small CLIP's first.pt, with better.pt near to it, and with shards of trusted pairs."""
    import torch

    from chaffinch.scoring.training.architectures import find_architecture

    folder = tmp_path_factory.mktemp("aligned")
    torch.manual_seed(0)
    network = find_architecture("chaffinch-tiny").create()[0]
    for name in ("first.pt", "better.pt"):
        torch.save({"state_dict": network.state_dict()}, folder / name)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.3 * parameter.abs().mean() * torch.randn_like(parameter)
    small_pool(folder / "trusted", shards=1, samples=6)
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good captions, one a line."""
    path = tmp_path_factory.mktemp("corpus") / "captions.txt"
    scenes = [
        f"A {noun} {verb} on the {place}."
        for noun in ("dog", "cat")
        for verb in ("runs", "sits")
        for place in ("beach", "sofa")
    ]
    path.write_text("\n".join(scenes), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def text_detector(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """(ending) -> the .onnx file of a network that takes dark places for text: 1 for black, below 0.2 from grey on.

    Its last step is a Sigmoid; with another ending, such as Identity, it is no detector of text lines.
    """
    import onnx
    from onnx import helper

    @functools.cache
    def write(ending: str = "Sigmoid", channels: int = 3) -> Path:
        nodes = [
            helper.make_node("ReduceMean", ["x"], ["light"], axes=[1], keepdims=1),
            helper.make_node("Mul", ["light", "contrast"], ["dark"]),
            helper.make_node(ending, ["dark"], ["map"]),
        ]
        shape = ["n", channels, "h", "w"]
        graph = helper.make_graph(
            nodes,
            "dark",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("map", onnx.TensorProto.FLOAT, ["n", 1, "h", "w"])],
            [helper.make_tensor("contrast", onnx.TensorProto.FLOAT, [], [-8.0])],
        )
        path = tmp_path_factory.mktemp("text") / "dark.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
        return path

    return write


@pytest.fixture(scope="session")
def face_detector(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """(spoil) -> the .onnx file of a network in YuNet's form that takes light for faces, on a canvas of 64 x 64.

    Each cell is a box of its own size; both its probabilities are its mean light: 1 for white, 0 for black. Spoilt it
    gives "raw" light from 0 to 255, or sizes with one number too many for a "box".
    """
    import onnx
    from onnx import helper

    @functools.cache
    def write(spoil: str = "") -> Path:
        nodes = [
            helper.make_node("ReduceMean", ["input"], ["grey"], axes=[1], keepdims=1),
            helper.make_node("Mul", ["grey", "scale"], ["light"]),
        ]
        weights = [helper.make_tensor("scale", onnx.TensorProto.FLOAT, [], [1.0 if spoil == "raw" else 1 / 255])]
        outputs = []
        for stride in (8, 16, 32):
            cells = (64 // stride) ** 2
            box = np.tile(np.float32([0.5, 0.5, 0, 0, 0] if spoil == "box" else [0.5, 0.5, 0, 0]), (1, cells, 1))
            weights += [
                onnx.numpy_helper.from_array(box, f"middle_{stride}"),
                onnx.numpy_helper.from_array(np.int64([1, cells, 1]), f"shape_{stride}"),
            ]
            size = {"kernel_shape": [stride, stride], "strides": [stride, stride]}
            nodes += [
                helper.make_node("AveragePool", ["light"], [f"mean_{stride}"], **size),
                helper.make_node("Reshape", [f"mean_{stride}", f"shape_{stride}"], [f"obj_{stride}"]),
                helper.make_node("Identity", [f"obj_{stride}"], [f"cls_{stride}"]),
                helper.make_node("Identity", [f"middle_{stride}"], [f"bbox_{stride}"]),
            ]
            outputs += [
                helper.make_tensor_value_info(f"{name}_{stride}", onnx.TensorProto.FLOAT, [1, cells, numbers])
                for name, numbers in (("obj", 1), ("cls", 1), ("bbox", box.shape[2]))
            ]
        picture = helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, [1, 3, 64, 64])
        graph = helper.make_graph(nodes, "light", [picture], outputs, weights)
        path = tmp_path_factory.mktemp("faces") / "light.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
        return path

    return write


@pytest.fixture(scope="session")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings of three numbers, as of mean colours, and captions."""
    path = tmp_path_factory.mktemp("captioned") / "pictures.parquet"
    vectors = [[9.0, 1.0, 1.0], [1.0, 9.0, 1.0], [5.0, 4.0, 5.0], [4.0, 5.0, 5.0]]
    captions = ["a dog on a red sofa", "a brown dog runs along the grass", "a grey beach", "a ball and a dog"]
    pq.write_table(pa.table({"image_embedding": vectors, "caption": captions}), path)
    return path


@pytest.fixture(scope="session")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear head over vectors of three, saved as LAION saves its own."""
    import torch

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "head.pth"
    torch.save(torch.nn.Linear(3, 1).state_dict(), path)
    return path


@pytest.fixture(scope="session")
def trusted_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another such head."""
    import torch

    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "trusted_head.pth"
    torch.save(torch.nn.Linear(3, 1).state_dict(), path)
    return path


@pytest.fixture(scope="session")
def photos() -> list[Image.Image]:
    """Smooth random colours with shapes on them, of several sizes."""
    generator = np.random.default_rng(3)
    photos = []
    for width, height in ((224, 224), (640, 480), (90, 300), (257, 33), (20, 20)):
        seeds = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        photo = Image.fromarray(seeds).resize((width, height), Image.Resampling.BICUBIC)
        for _ in range(3):
            left, top = int(generator.integers(width)), int(generator.integers(height))
            photo.paste(
                tuple(generator.integers(0, 256, 3).tolist()), (left, top, left + width // 3, top + height // 4)
            )
        photos.append(photo)
    return photos


@pytest.fixture(scope="session")
def light_heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Light heads with random weights over six features, and a vocabulary of a few words."""
    import torch

    from chaffinch.scoring.light.checkpoint import save_checkpoint
    from chaffinch.scoring.light.heads import Heads, Size
    from chaffinch.scoring.light.vocabulary import Vocabulary

    vocabulary = Vocabulary(("a", "ball", "boat", "dog", "runs", "the"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        heads = Heads(Size(6, len(vocabulary), 8, 4))
    path = tmp_path_factory.mktemp("light") / "final.pt"
    with path.open("wb") as file:
        save_checkpoint(file, heads, vocabulary)
    return path


@pytest.fixture(scope="session")
def better_light_heads(light_heads: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other weights of the same light heads, with trusted pairs beside them."""
    import torch

    from chaffinch.scoring.light.checkpoint import load_checkpoint, save_checkpoint
    from chaffinch.scoring.light.negatives import save_pairs

    folder = tmp_path_factory.mktemp("better")
    model, generator = load_checkpoint(light_heads), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.heads.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
    with (folder / "final.pt").open("wb") as file:
        save_checkpoint(file, model.heads, model.vocabulary)
    captions = [["a dog runs"], ["the boat", "a boat"], ["the ball"]]
    with (folder / "pairs.parquet").open("wb") as file:
        save_pairs(file, "features", np.eye(3, 6, dtype=np.float32), captions, [f"{row:032x}" for row in (7, 8, 9)])
    return folder / "final.pt"
