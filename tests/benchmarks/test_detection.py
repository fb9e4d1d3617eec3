"""The yardstick of detectors, on detections whose precision is known."""

import importlib.util
from pathlib import Path

import pytest
from PIL import Image

PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "detection.py"
LEFT, RIGHT, NOWHERE = [0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0], [0.9, 0.9, 1.0, 1.0]


@pytest.fixture(scope="module")
def detection():
    spec = importlib.util.spec_from_file_location("detection", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measure(detection, objects, found):
    """Objects of each photo as (class, box), detections as (class, box, confidence)."""
    photos = [detection.Photo(Image.new("RGB", (1, 1)), "", one) for one in objects]
    rows = [
        {
            "phrases": [name for name, _, _ in one],
            "boxes": [box for _, box, _ in one],
            "confidences": [confidence for _, _, confidence in one],
        }
        for one in found
    ]
    return detection.mean_average_precision(photos, rows)


DOGS = [[("dog", LEFT), ("dog", RIGHT)]]


@pytest.mark.parametrize(
    ("objects", "found", "expected"),
    [
        (DOGS, [[("dog", LEFT, 0.9), ("dog", RIGHT, 0.8)]], 1),
        (DOGS, [[]], 0),
        (DOGS, [[("dog", NOWHERE, 0.9)]], 0),
        (DOGS, [[("cat", LEFT, 0.9), ("cat", RIGHT, 0.8)]], 0),
        (DOGS, [[("dog", LEFT, 0.9)]], 51 / 101),  # levels of recall from 0 to .5
        (DOGS, [[("dog", LEFT, 0.9), ("dog", LEFT, 0.8), ("dog", RIGHT, 0.7)]], (51 + 50 * 2 / 3) / 101),  # found twice
        (DOGS, [[("dog", LEFT, 0.7), ("dog", RIGHT, 0.6), ("dog", NOWHERE, 0.9)]], 2 / 3),  # the surest is wrong
        ([*DOGS, [("cat", LEFT)]], [[("dog", LEFT, 0.9), ("dog", RIGHT, 0.8)], []], 0.5),  # every class counts the same
        ([*DOGS, None], [[("dog", LEFT, 0.6), ("dog", RIGHT, 0.6)], [("dog", LEFT, 0.9)]], 1),  # nobody looked there
        ([[("dog", LEFT)]], [[("dog", [0.0, 0.0, 0.26, 1.0], 0.9)]], 1),  # overlaps by more than half
        ([[("dog", LEFT)]], [[("dog", [0.0, 0.0, 0.24, 1.0], 0.9)]], 0),
    ],
)
def test_mean_average_precision(detection, objects, found, expected):
    assert measure(detection, objects, found) == pytest.approx(expected, abs=1e-6)
