"""Frames against a loop over lines and pixels, and against frames that were drawn."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from chaffinch.scoring.frames import find_frame

# Few levels, near one another, so that lines often are of one colour.
pixels = arrays.arrays(
    np.uint8,
    st.tuples(st.integers(1, 7), st.integers(1, 7), st.just(3)),
    elements=st.sampled_from([0, 5, 11, 248, 255]),
)


def measure_by_hand(lines):
    """Share of the first lines whose every pixel is near the first line's median."""
    colour = [sorted(int(pixel[channel]) for pixel in lines[0])[len(lines[0]) // 2] for channel in range(3)]
    count = 0
    for line in lines:
        if any(abs(int(pixel[channel]) - colour[channel]) > 8 for pixel in line for channel in range(3)):
            break
        count += 1
    return count / len(lines)


@settings(max_examples=300, deadline=None)
@given(pixels)
def test_frames_agree_with_a_plain_loop(values):
    columns = values.transpose(1, 0, 2)
    expected = [measure_by_hand(lines) for lines in (columns, values, columns[::-1], values[::-1])]
    assert list(find_frame(values)) == expected


@settings(max_examples=60, deadline=None)
@given(pixels)
def test_turning_the_picture_turns_the_sides(values):
    left, top, right, bottom = find_frame(values)
    assert find_frame(np.rot90(values)) == (top, right, bottom, left)
    assert find_frame(values[:, ::-1]) == (right, top, left, bottom)


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(*[st.integers(0, 40)] * 4),
    st.tuples(*[st.integers(0, 255)] * 3),
    st.sampled_from([75, 85, 95]),
)
def test_drawn_frames_are_found_behind_jpeg(frame, colour, quality):
    """JPEG spoils at most the blocks at the edge of what is inside: 16 pixels, where colour is halved."""
    left, top, right, bottom = frame
    picture = Image.new("RGB", (200, 160), colour)
    inside = np.random.default_rng(0).integers(0, 256, (160 - top - bottom, 200 - left - right, 3), np.uint8)
    picture.paste(Image.fromarray(inside), (left, top))
    assert find_frame(np.asarray(picture)) == (left / 200, top / 160, right / 200, bottom / 160)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    found = find_frame(np.asarray(Image.open(file).convert("RGB")))
    for share, drawn, length in zip(found, frame, (200, 160, 200, 160), strict=True):
        assert drawn - 16 <= round(share * length) <= drawn + 1


@pytest.mark.parametrize("level", [0, 255, 100])
def test_flat_pictures_are_frame_all_over(level):
    assert find_frame(np.full((3, 5, 3), level, np.uint8)) == (1, 1, 1, 1)
    assert find_frame(np.full((1, 1, 3), level, np.uint8)) == (1, 1, 1, 1)


def test_sides_of_different_colours_are_both_found():
    picture = np.zeros((10, 20, 3), np.uint8)
    picture[:, 5:] = 200
    assert find_frame(picture) == (0.25, 0, 0.75, 0)
