"""Lists of detections are laid out flat, whatever form they come in."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaffinch.filters.detections import check_threshold, read_boxes, read_lists

NUMBERS = st.none() | st.lists(st.none() | st.floats(0, 1, width=32), max_size=4)
FORMS = [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float16())]


@given(st.lists(NUMBERS, max_size=6), st.sampled_from(FORMS[:2]), st.integers(0, 3))
def test_numbers_keep_their_rows(rows, form, skipped):
    column = pa.array([[0.5]] * skipped + rows, form).slice(skipped)
    lists = read_lists({"dino.confidences": column}, "dino.confidences")
    expected = [(owner, value) for owner, row in enumerate(rows) for value in row or []]
    assert lists.owners.tolist() == [owner for owner, _ in expected]
    np.testing.assert_array_equal(lists.values, np.array([value for _, value in expected], np.float32))
    assert lists.measured.tolist() == [row is not None for row in rows]
    assert lists.counts.tolist() == [len(row or []) for row in rows]


@pytest.mark.parametrize("form", FORMS)
def test_any_list_of_numbers_is_read(form):
    column = pa.array([[np.float16(0.25)], None, []], form)
    assert read_lists({"x.y": column}, "x.y").values.tolist() == [0.25]


BOX = [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize("form", [pa.list_(pa.list_(pa.float32(), 4)), pa.list_(pa.list_(pa.float64()))])
def test_boxes_keep_their_rows_and_are_clipped(form):
    rows = [
        [BOX, [-1, 0.5, 2, 0.75]],
        None,
        [],
        [[0.5, 0.5, 0.25, 0.75], [float("nan"), 0, 1, 1], [0, 0, float("inf"), 1]],
    ]
    for skipped in (0, 1):
        owners, corners = read_boxes({"x.boxes": pa.array([[BOX]] * skipped + rows, form).slice(skipped)}, "x.boxes")
        assert owners.tolist() == [0, 0, 3, 3, 3]
        expected = [BOX, [0, 0.5, 1, 0.75], [0.5, 0.5, 0.5, 0.75], [0, 0, 0, 0], [0, 0, 0, 0]]
        np.testing.assert_allclose(corners, expected, rtol=1e-6)


def test_what_is_no_box_has_no_area():
    rows = [[BOX, None, [0.5], [0, 0, 1, 1, 1], [0, 0, None, 1]]]
    owners, corners = read_boxes({"x.boxes": pa.array(rows, pa.list_(pa.list_(pa.float32())))}, "x.boxes")
    assert owners.tolist() == [0] * 5
    assert (np.prod(corners[:, 2:] - corners[:, :2], axis=1) > 0).tolist() == [True, False, False, False, False]


@pytest.mark.parametrize(
    ("values", "read"),
    [
        (pa.array([1.0, 2.0]), read_lists),
        (pa.array(["a", "b"]), read_lists),
        (pa.array([["a"], []]), read_lists),
        (pa.array([1.0, 2.0]), read_boxes),
        (pa.array([[1.0], []]), read_boxes),
    ],
)
def test_another_column_is_named_with_its_type(values, read):
    with pytest.raises(ValueError, match=r"column 'x\.y' holds .*name a detector's"):
        read({"x.y": values}, "x.y")


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_that_no_confidence_can_have_is_refused(threshold):
    with pytest.raises(ValueError, match=r"box_threshold is .*: give a confidence from 0 to 1"):
        check_threshold(threshold)
