"""Which cell has to find what, and that a detector learns planted squares."""

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chaffinch.scoring.detecting.network import to_onnx
from chaffinch.scoring.detecting.training import Example, assign, train
from chaffinch.scoring.onnx_detector import OnnxDetector
from chaffinch.scoring.scorer import Batch
from chaffinch.scoring.yolox import Head

SIDE = 64
CELLS = Head("images", "output", SIDE, SIDE, 2).cells()


def slow_assign(labels, boxes, cells):
    """Cell by cell: of the objects that it may have to find, the smallest; of equal ones the last."""
    found, places = [], []
    for column, row, stride in cells.tolist():
        x, y = (column + 0.5) * stride, (row + 0.5) * stride
        best, smallest = -1, math.inf
        for number, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
            size = math.sqrt((x1 - x0) * (y1 - y0))
            fits = (size >= 1.4 * stride or stride == 8) and (size <= 3.5 * stride or stride == 32)
            across = min(max((x1 - x0) / 2, stride / 2), 1.5 * stride)
            down = min(max((y1 - y0) / 2, stride / 2), 1.5 * stride)
            near = abs(x - (x0 + x1) / 2) <= across and abs(y - (y0 + y1) / 2) <= down
            if fits and near and size <= smallest:
                best, smallest = number, size
        found.append(labels[best] if best >= 0 else -1)
        places.append(boxes[best] if best >= 0 else np.zeros(4))
    return np.array(found), np.array(places, np.float32)


corners = st.tuples(*[st.integers(0, 60)] * 2, *[st.integers(2, 64)] * 2)


@settings(max_examples=60, deadline=None)
@given(st.lists(corners, max_size=5))
def test_cells_are_given_out_as_one_by_one(spots):
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in spots], np.float32).reshape(-1, 4)
    labels = np.arange(len(boxes))
    found, places = assign(labels, boxes, CELLS)
    wanted, where = slow_assign(labels, boxes, CELLS)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(places, where)


@settings(max_examples=100, deadline=None)
@given(st.tuples(*[st.floats(0, 40)] * 2, *[st.floats(1, 24)] * 2))
def test_every_object_has_a_cell(spot):
    x, y, width, height = spot
    found, _ = assign(np.array([1]), np.array([(x, y, x + width, y + height)], np.float32), CELLS)
    assert (found == 1).any()


def test_large_objects_are_left_to_coarse_cells_and_those_between_two_to_both():
    def strides(side):
        found, _ = assign(np.array([0]), np.array([(4, 4, 4 + side, 4 + side)], np.float32), CELLS)
        return set(CELLS[found == 0, 2].tolist())

    assert strides(10) == {8}
    assert strides(25) == {8, 16}
    assert strides(40) == {16}
    assert strides(50) == {16, 32}
    assert strides(59) == {32}


def squares(count, seed):
    """Red or blue squares on grey."""
    rng = np.random.default_rng(seed)
    examples = []
    for _ in range(count):
        label, size = int(rng.integers(2)), int(rng.integers(12, 40))
        x, y = rng.integers(0, SIDE - size, 2)
        canvas = rng.integers(100, 130, (3, SIDE, SIDE)).astype(np.uint8)
        canvas[:, y : y + size, x : x + size] = np.array([[30, 30, 220], [220, 30, 30]][label])[:, None, None]
        examples.append(Example(canvas, np.array([label]), np.array([(x, y, x + size, y + size)], np.float32)))
    return examples


def test_it_learns_planted_squares_the_same_way_twice(tmp_path):
    said = []
    learned = [to_onnx(train(squares(160, 0), 2, 8, seed, said.append), SIDE) for seed in (5, 5, 6)]
    assert learned[0] == learned[1] != learned[2]
    assert len(said) == 24
    assert all(line.startswith("epoch ") for line in said)

    weights = tmp_path / "squares.onnx"
    weights.write_bytes(learned[0])
    scorer = OnnxDetector(weights=str(weights), classes=("red square", "blue square"), floor=0.3)
    others = squares(40, 1)
    pictures = [one.canvas.transpose(1, 2, 0) for one in others]
    columns = scorer.score(Batch([""] * 40, ["a red square"] * 40, pictures), scorer.load("cpu"))
    right = 0
    for one, boxes, phrases in zip(others, columns["boxes"], columns["phrases"], strict=True):
        near = [np.abs(np.array(box) * SIDE - one.boxes[0]).max() < 6 for box in boxes.as_py()]
        wanted = ("red square", "blue square")[int(one.labels[0])]
        right += bool(near) and near[0] and phrases.as_py()[0] == wanted
    assert right >= 34


def test_training_does_not_change_what_it_is_given():
    examples = squares(32, 2)
    before = [(one.canvas.copy(), one.boxes.copy()) for one in examples]
    train(examples, 2, 1, 0, lambda line: None)
    for one, (canvas, boxes) in zip(examples, before, strict=True):
        np.testing.assert_array_equal(one.canvas, canvas)
        np.testing.assert_array_equal(one.boxes, boxes)
    assert torch.is_grad_enabled()
