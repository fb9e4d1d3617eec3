"""Lines from maps of probabilities: against twins that try every angle and every pixel, and lines drawn by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from chaffinch.scoring.text_lines import LEAST_SIDE, LEVEL, enclose, find_lines

masks = arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))
maps = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])
)


def corners_of(mask):
    """Every corner of every pixel, x and y."""
    rows, columns = np.nonzero(mask)
    return np.concatenate([np.stack([columns + dx, rows + dy], axis=1) for dx in (0, 1) for dy in (0, 1)])


@settings(max_examples=100, deadline=None)
@given(masks)
def test_no_rectangle_around_the_pixels_is_smaller(mask):
    mask = mask[mask.any(axis=1)]
    if not len(mask):
        return
    found = enclose(mask)
    points = corners_of(mask)
    for axis, extent in ((found.along, found.length), (found.across, found.height)):
        assert abs((points - found.centre) @ axis).max() <= extent / 2 + 1e-9  # all of them lie inside
    areas = []
    for angle in np.linspace(0, math.pi / 2, 721):
        turned = points @ np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        areas.append(np.ptp(turned, axis=0).prod())
    assert found.length * found.height <= min(areas) + 1e-9
    assert found.length * found.height == pytest.approx(min(areas), rel=0.02)


def test_a_rectangle_is_where_the_mask_is():
    found = enclose(np.ones((2, 5), bool), left=10, top=20)
    assert sorted(map(tuple, found.corners().round(9))) == [(10, 20), (10, 22), (15, 20), (15, 22)]


def patches(probabilities):
    """Sets of places above the level that touch, corners included, by flooding from each."""
    left = {(int(row), int(column)) for row, column in np.argwhere(probabilities > LEVEL)}
    found = []
    while left:
        waiting, patch = [left.pop()], set()
        while waiting:
            row, column = waiting.pop()
            patch.add((row, column))
            near = {(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)} & left
            left -= near
            waiting += near
        found.append(patch)
    return found


@settings(max_examples=150, deadline=None)
@given(maps)
def test_lines_agree_with_flooding_and_plain_loops(probabilities):
    height, width = probabilities.shape
    expected = []
    for patch in patches(probabilities):
        mask = np.zeros(probabilities.shape, bool)
        mask[tuple(np.array(sorted(patch)).T)] = True
        first = int(mask.any(axis=1).argmax())
        core = enclose(mask[mask.any(axis=1)], 0, first)
        if min(core.length, core.height) >= LEAST_SIDE:
            margin = 1.5 * core.length * core.height / (2 * (core.length + core.height))
            sides = core.length + 2 * margin, core.height + 2 * margin
            confidence = sum(float(probabilities[place]) for place in patch) / len(patch)
            expected.append((confidence, max(sides), min(sides)))
    found = find_lines(probabilities, width, height)
    assert (np.diff(found.confidences) <= 0).all()
    order = np.lexsort((found.heights, found.lengths))
    numbers = np.stack([found.confidences, found.lengths, found.heights], axis=1)[order]
    by_hand = np.array(sorted(expected, key=lambda one: one[1:])).reshape(-1, 3)
    np.testing.assert_allclose(numbers, by_hand, rtol=1e-5)
    np.testing.assert_allclose(found.areas, found.lengths * found.heights / (width * height))


def test_a_core_grows_by_its_area_over_its_perimeter():
    probabilities = np.zeros((60, 120), np.float32)
    probabilities[20:30, 10:100] = 0.8
    margin = 1.5 * (90 * 10) / (2 * (90 + 10))
    lines = find_lines(probabilities, 120, 60)
    edges = np.array([10 - margin, 20 - margin, 100 + margin, 30 + margin])
    np.testing.assert_allclose(lines.boxes, [edges / [120, 60, 120, 60]], rtol=1e-6)
    np.testing.assert_allclose((lines.lengths, lines.heights), [[90 + 2 * margin], [10 + 2 * margin]])
    assert lines.confidences == np.float32(0.8)


def test_sizes_are_in_pixels_of_the_picture_however_the_map_is_stretched():
    probabilities = np.zeros((32, 320), np.float32)
    probabilities[10:20, 50:250] = 1
    plain, stretched = find_lines(probabilities, 320, 32), find_lines(probabilities, 640, 16)
    np.testing.assert_array_equal(stretched.boxes, plain.boxes)
    np.testing.assert_allclose(stretched.lengths, 2 * plain.lengths)
    np.testing.assert_allclose(stretched.heights, plain.heights / 2)
    np.testing.assert_allclose(stretched.areas, plain.areas)


@pytest.mark.parametrize("angle", range(0, 180, 15))
def test_a_line_has_the_same_size_at_any_angle(angle):
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    right, down = np.meshgrid(np.arange(200) - 99.5, np.arange(200) - 99.5)
    inside = (abs(right * cosine + down * sine) <= 60) & (abs(down * cosine - right * sine) <= 8)
    lines = find_lines(np.where(inside, np.float32(0.9), np.float32(0)), 200, 200)
    margin = 1.5 * 120 * 16 / (2 * (120 + 16))
    assert len(lines.boxes) == 1
    assert lines.lengths[0] == pytest.approx(120 + 2 * margin, abs=4)
    assert lines.heights[0] == pytest.approx(16 + 2 * margin, abs=4)
    assert lines.confidences[0] == np.float32(0.9)


@pytest.mark.parametrize(("thickness", "level", "count"), [(2, 1.0, 0), (3, 1.0, 1), (9, LEVEL, 0), (9, 0.31, 1)])
def test_thin_and_faint_marks_are_no_lines(thickness, level, count):
    probabilities = np.zeros((40, 40), np.float32)
    probabilities[10 : 10 + thickness, 5:35] = level
    assert len(find_lines(probabilities, 40, 40).boxes) == count


def test_boxes_end_at_the_edge_of_the_picture():
    lines = find_lines(np.ones((32, 64), np.float32), 64, 32)
    np.testing.assert_array_equal(lines.boxes, [[0, 0, 1, 1]])
    assert find_lines(np.zeros((32, 64), np.float32), 64, 32).boxes.shape == (0, 4)
