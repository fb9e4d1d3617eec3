"""What YOLOX's raw numbers mean, and where its trunk is tapped."""

import math

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from chaffinch.scoring.yolox import Head, canvas, check_proposals, decode, describe, find_maps, fit, read_head


def slow_decode(proposals, height, width):
    """Cell by cell and number by number."""
    boxes, probabilities, place = [], [], 0
    for stride in (8, 16, 32):
        for row in range(height // stride):
            for column in range(width // stride):
                x, y, w, h, sure, *classes = map(float, proposals[place])
                middle = (column + x) * stride, (row + y) * stride
                half = math.exp(w) * stride / 2, math.exp(h) * stride / 2
                boxes.append([middle[0] - half[0], middle[1] - half[1], middle[0] + half[0], middle[1] + half[1]])
                probabilities.append([sure * one for one in classes])
                place += 1
    assert place == len(proposals)
    return np.array(boxes), np.array(probabilities)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (96, 32)])
def test_decoding_agrees_with_a_loop(height, width):
    head = Head("x", "y", height, width, 4)
    generator = np.random.default_rng(height + width)
    proposals = generator.normal(size=(head.places, 9)).astype(np.float32)
    proposals[:, 4:] = generator.random((head.places, 5))
    boxes, probabilities = decode(proposals, head.cells())
    expected = slow_decode(proposals, height, width)
    np.testing.assert_allclose(boxes, expected[0], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(probabilities, expected[1], rtol=1e-6)


def test_absurd_sizes_stay_finite():
    head = Head("x", "y", 32, 32, 1)
    proposals = np.full((head.places, 6), 1000, np.float32)
    assert np.isfinite(decode(proposals, head.cells())[0]).all()


@given(st.integers(1, 900), st.integers(1, 900))
def test_a_fitted_picture_touches_the_canvas_and_keeps_its_shape(width, height):
    pixels = fit(Image.new("RGB", (width, height), (1, 2, 3)), 64, 96)
    rows, columns = pixels.shape[:2]
    assert rows <= 64
    assert columns <= 96
    assert rows == 64 or columns == 96
    scale = min(64 / height, 96 / width)
    assert (rows, columns) == pytest.approx((max(height * scale, 1), max(width * scale, 1)), abs=1)
    assert pixels[0, 0].tolist() == [3, 2, 1]  # blue comes first


def test_the_canvas_is_grey_beside_the_picture():
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    laid = canvas(pixels, 4, 5)
    assert (laid.shape, laid.dtype) == ((1, 3, 4, 5), np.float32)
    np.testing.assert_array_equal(laid[0, :, :2, :3], pixels.transpose(2, 0, 1))
    assert (laid[0, :, 2:] == 114).all()
    assert (laid[0, :, :, 3:] == 114).all()


def test_maps_are_pooled_over_positions():
    generator = np.random.default_rng(1)
    maps = [generator.normal(size=(1, 2, 3, 4)).astype(np.float32), generator.normal(size=(1, 1, 2, 2))]
    pooled = describe(maps)
    expected = [
        statistic(one[0, channel])
        for one in maps
        for statistic in (np.mean, np.max, np.std)
        for channel in range(one.shape[1])
    ]
    np.testing.assert_allclose(pooled, expected, rtol=1e-5)


def test_the_maps_are_found_by_the_shape_of_the_graph(colour_detector):
    path = str(colour_detector())
    names = ["dark8", "stem8", "dark16", "stem16", "neck32", "stem32"]
    assert [one.name for one in find_maps(path)] == names
    assert all(one.channels == 3 for one in find_maps(path))
    assert [one.channels for one in find_maps(str(colour_detector(trunk=5)))] == [5] * 6


def test_the_head_is_read_from_the_file(colour_detector):
    head = read_head(str(colour_detector(side=96)))
    assert head == Head("images", "output", 96, 96, 2)
    assert head.places == 144 + 36 + 9
    assert head.cells().shape == (189, 3)
    assert head.cells()[-1].tolist() == [2, 2, 32]


def rewrite(path, target, change):
    model = onnx.load(path)
    change(model.graph)
    onnx.save(model, target)
    return str(target)


def set_shape(value, shape):
    del value.type.tensor_type.shape.dim[:]
    for length in shape:
        dimension = value.type.tensor_type.shape.dim.add()
        if isinstance(length, int):
            dimension.dim_value = length
        else:
            dimension.dim_param = length


@pytest.mark.parametrize(
    ("picture", "proposals"),
    [
        ([1, 3, 64, 64], [1, 84, 8]),  # as many numbers, laid out for another head
        ([1, 3, 64, 64], [1, 252, 7]),  # three anchors to a cell
        ([1, 3, 64, 64], [1, 84, 4]),  # no room for a class
        ([1, 3, 64, 64], [84, 7]),
        ([1, 4, 64, 64], [1, 84, 7]),
        ([1, 3, 60, 64], [1, 84, 7]),
        ([4, 3, 64, 64], [4, 84, 7]),
        ([1, 3, "height", "width"], [1, 84, 7]),
        ([1, 3, 64], [1, 84, 7]),
    ],
)
def test_another_head_is_refused_with_both_shapes_and_the_remedy(colour_detector, tmp_path, picture, proposals):
    def change(graph):
        set_shape(graph.input[0], picture)
        set_shape(graph.output[0], proposals)

    path = rewrite(colour_detector(), tmp_path / "other.onnx", change)
    if proposals == [1, 84, 8]:
        assert read_head(path).classes == 3  # only running it tells
        with pytest.raises(ValueError, match=r"other\.onnx' gives \[1, 84, 7\] where \[1, 84, 8\] should be"):
            check_proposals(path, read_head(path), np.zeros((1, 84, 7), np.float32))
        return
    with pytest.raises(ValueError, match=r"other\.onnx' has no head like YOLOX's: it is images float32") as caught:
        read_head(path)
    assert "export it with YOLOX's own" in str(caught.value)


def test_lengths_that_the_file_leaves_open_are_taken_as_they_should_be(colour_detector, tmp_path):
    def change(graph):
        set_shape(graph.input[0], ["batch", 3, 64, 64])
        set_shape(graph.output[0], ["batch", "places", 7])

    assert read_head(rewrite(colour_detector(), tmp_path / "open.onnx", change)).places == 84


def test_a_graph_without_a_trunk_has_no_features(tmp_path):
    helper, kinds = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [helper.make_node("Expand", ["number", "shape"], ["output"])],
        "constant",
        [helper.make_tensor_value_info("images", kinds.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("output", kinds.FLOAT, [1, 21, 7])],
        [
            helper.make_tensor("number", kinds.FLOAT, [], [0.5]),
            helper.make_tensor("shape", kinds.INT64, [3], [1, 21, 7]),
        ],
    )
    path = str(tmp_path / "constant.onnx")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    with pytest.raises(ValueError, match=r"constant\.onnx' has no maps of stride 8 .* say `features: false`"):
        find_maps(path)
