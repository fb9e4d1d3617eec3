"""The network as it is trained, and as it is written for onnxruntime: the same numbers."""

import io

import numpy as np
import onnx
import pytest
import torch

from chaffinch.scoring.detecting.network import build, plan, propose, to_onnx
from chaffinch.scoring.onnx_detector import OnnxDetector
from chaffinch.scoring.yolox import find_maps, read_head

CLASSES = 4


def unsettled(seed=0):
    """A network whose batch normalisation has something to fold."""
    torch.manual_seed(seed)
    network = build(CLASSES)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.normal_(module.bias)
    return network.eval()


@pytest.fixture(scope="module")
def network():
    return unsettled()


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "tiny.onnx"
    path.write_bytes(to_onnx(network, 96))
    return str(path)


def test_onnxruntime_gives_what_torch_gives(network, weights):
    import onnxruntime

    session = onnxruntime.InferenceSession(weights, providers=["CPUExecutionProvider"])
    for seed in range(3):
        picture = np.random.default_rng(seed).integers(0, 256, (1, 3, 96, 96)).astype(np.float32)
        (found,) = session.run(None, {"images": picture})
        with torch.no_grad():
            wanted = propose(network, torch.from_numpy(picture))
        wanted[:, :, 4:] = wanted[:, :, 4:].sigmoid()
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-3, atol=1e-4)


def test_pictures_of_a_batch_do_not_touch(network):
    pictures = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (3, 3, 64, 64)).astype(np.float32))
    with torch.no_grad():
        together = propose(network, pictures)
        alone = torch.cat([propose(network, one[None]) for one in pictures])
    np.testing.assert_allclose(together.numpy(), alone.numpy(), rtol=1e-3, atol=1e-3)


def test_the_file_has_the_head_that_the_scorer_reads(weights):
    head = read_head(weights)
    assert (head.height, head.width, head.classes) == (96, 96, CLASSES)
    assert {one.channels for one in find_maps(weights)} <= {layer.channels for layer in plan(CLASSES)}
    assert len(find_maps(weights)) >= 3
    OnnxDetector(weights=weights, classes=("a", "b", "c", "d")).load("cpu")


def test_the_same_weights_give_the_same_bytes(network):
    assert to_onnx(network, 96) == to_onnx(unsettled(), 96)
    assert to_onnx(network, 96) != to_onnx(unsettled(1), 96)


def test_every_learned_number_is_in_the_file(network, weights):
    held = {one.name for one in onnx.load(weights).graph.initializer}
    assert {f"{layer.name}.{part}" for layer in plan(CLASSES) for part in ("kernel", "bias")} <= held
    assert io.BytesIO(to_onnx(network, 96)).getbuffer().nbytes < 2_000_000


def test_before_it_learns_hardly_anything_is_an_object():
    torch.manual_seed(3)
    network = build(CLASSES)
    pictures = torch.from_numpy(np.random.default_rng(2).integers(0, 256, (8, 3, 64, 64)).astype(np.float32))
    with torch.no_grad():
        sure = propose(network, pictures)[:, :, 4].sigmoid()
    assert float(sure.median()) < 0.05
