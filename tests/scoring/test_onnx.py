"""ONNX models are opened the same way every time, and files that are none are told by name."""

import hashlib
import logging
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from chaffinch.scoring.onnx import digest_weights, open_session, read_signature


def save(path, side=4, scale=2.0):
    """A model of two steps: doubled = scale * x, output = doubled + x."""
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["doubled"]),
        helper.make_node("Add", ["doubled", "x"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", side])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", side])],
        [helper.make_tensor("scale", TensorProto.FLOAT, [], [scale])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return str(path)


@pytest.fixture
def small(tmp_path):
    return save(tmp_path / "small.onnx")


def test_the_signature_gives_names_kinds_and_shapes(small):
    signature = read_signature(small)
    assert [(one.name, one.kind, one.shape) for one in signature.inputs] == [("x", "float32", (None, 4))]
    assert [one.name for one in signature.outputs] == ["output"]
    assert str(signature) == "x float32 [?, 4] -> output float32 [?, 4]"


def test_a_changed_file_is_read_again(tmp_path, small):
    before = digest_weights(small)
    assert before == hashlib.sha256((tmp_path / "small.onnx").read_bytes()).hexdigest()
    save(tmp_path / "small.onnx", side=5)
    assert read_signature(small).inputs[0].shape == (None, 5)
    assert digest_weights(small) != before


def test_a_moved_file_has_the_same_digest(tmp_path, small):
    assert digest_weights(save(tmp_path / "other.onnx")) == digest_weights(small)


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_runs_come_back_in_order_and_do_not_know_of_each_other(small, threads):
    session = open_session(small, "cpu", threads=threads)
    inputs = [{"x": np.full((1, 4), value, np.float32)} for value in range(20)]
    together = session.map(session.run, inputs)
    assert [len(outputs) for outputs in together] == [1] * 20
    for value, ((output,), one) in enumerate(zip(together, inputs, strict=True)):
        np.testing.assert_array_equal(output, np.full((1, 4), 3 * value, np.float32))
        np.testing.assert_array_equal(output, session.run(one)[0])
    assert session.map(session.run, []) == []


def test_tensors_inside_the_graph_can_become_outputs(small):
    session = open_session(small, "cpu", extra_outputs=["doubled", "output"])
    ones = {"x": np.ones((1, 4), np.float32)}
    output, doubled = session.run(ones)
    assert (output[0, 0], doubled[0, 0]) == (3, 2)
    assert [one[0, 0] for one in session.run(ones, ["doubled"])] == [2]


def test_a_tensor_that_is_not_there_is_named(small):
    with pytest.raises(ValueError, match="no tensor named 'tripled'"):
        open_session(small, "cpu", extra_outputs=["tripled"])


@pytest.mark.parametrize("use", [read_signature, digest_weights, lambda path: open_session(path, "cpu")])
@pytest.mark.parametrize("weights", ["", "missing.onnx", "."])
def test_a_missing_file_is_named(tmp_path, monkeypatch, use, weights):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="is not a file here: give the path"):
        use(weights)


@pytest.mark.parametrize(
    "use",
    [
        read_signature,
        lambda path: open_session(path, "cpu"),
        lambda path: open_session(path, "cpu", extra_outputs=["doubled"]),
    ],
)
@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"\x80\x02}q\x00", "half"])
def test_a_file_that_is_no_model_is_named_with_the_remedy(tmp_path, small, use, content):
    path = tmp_path / "damaged.onnx"
    whole = (tmp_path / "small.onnx").read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(ValueError, match=r"damaged\.onnx' cannot be used: is it a complete ONNX model"):
        use(str(path))


def test_without_cuda_the_cpu_is_used_and_a_warning_says_so(small, caplog):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime can use cuda")
    with caplog.at_level(logging.WARNING):
        session = open_session(small, "cuda")
    assert "pip install onnxruntime-gpu" in caplog.text
    assert session.run({"x": np.ones((1, 4), np.float32)})[0][0, 0] == 3


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu(small):
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime cannot use cuda")
    ones = {"x": np.ones((1, 4), np.float32)}
    np.testing.assert_allclose(open_session(small, "cuda").run(ones)[0], open_session(small, "cpu").run(ones)[0])


def test_looking_at_a_file_loads_no_runtime(small):
    program = (
        "import sys; from chaffinch.scoring.onnx import digest_weights, read_signature;"
        f"digest_weights({small!r}); read_signature({small!r});"
        "print(sorted({'torch', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
