"""Counts, confidences and areas of detections, against loops over rows and against pixels."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaffinch.filters.grounded_phrases import GroundedPhrases
from chaffinch.filters.object_area import ObjectArea, union_areas
from chaffinch.filters.object_confidence import ObjectConfidence
from chaffinch.filters.object_count import ObjectCount

SIXTEENTH = st.integers(0, 16)
BOXES = st.tuples(SIXTEENTH, SIXTEENTH, SIXTEENTH, SIXTEENTH).map(
    lambda edges: [min(edges[0], edges[2]), min(edges[1], edges[3]), max(edges[0], edges[2]), max(edges[1], edges[3])]
)
OBJECTS = st.lists(st.tuples(BOXES, st.integers(0, 20)), max_size=9)
POOL = st.lists(st.none() | OBJECTS, max_size=7)


def columns(pool):
    """Rows of (box in sixteenths, confidence in twentieths) as a detector writes them."""
    boxes = [row if row is None else [[edge / 16 for edge in box] for box, _ in row] for row in pool]
    confidences = [row if row is None else [level / 20 for _, level in row] for row in pool]
    return {
        "dino.boxes": pa.array(boxes, pa.list_(pa.list_(pa.float32(), 4))),
        "dino.confidences": pa.array(confidences, pa.list_(pa.float32())),
    }


def score(judge, pool):
    given_columns = columns(pool)
    return judge.score({name: given_columns[name] for name in judge.reads})


def by_row(pool, threshold, reduce):
    """The slow twin: a loop over rows."""
    scores = []
    for row in pool:
        if row is None:
            scores.append(np.nan)
        else:
            sure = [(box, level / 20) for box, level in row if np.float32(level / 20) >= np.float32(threshold)]
            scores.append(reduce(sure))
    return np.array(scores, np.float32)


def painted(sure):
    """The area of a union, counted in pixels: edges are sixteenths, so that it is exact."""
    canvas = np.zeros((16, 16), bool)
    for (left, top, right, bottom), _ in sure:
        canvas[top:bottom, left:right] = True
    return canvas.mean()


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1]) / 256


TWINS = {
    "count": (ObjectCount, {}, len),
    "max confidence": (ObjectConfidence, {"statistic": "max"}, lambda sure: max((one for _, one in sure), default=0)),
    "mean confidence": (
        ObjectConfidence,
        {"statistic": "mean"},
        lambda sure: np.mean([one for _, one in sure]) if sure else 0,
    ),
    "union": (ObjectArea, {"statistic": "union"}, painted),
    "max area": (ObjectArea, {"statistic": "max"}, lambda sure: max((area(box) for box, _ in sure), default=0)),
    "mean area": (
        ObjectArea,
        {"statistic": "mean"},
        lambda sure: np.mean([area(box) for box, _ in sure]) if sure else 0,
    ),
}


@pytest.mark.parametrize("twin", TWINS)
@given(pool=POOL, threshold=st.integers(0, 20))
def test_scores_agree_with_a_loop(twin, pool, threshold):
    kind, settings, reduce = TWINS[twin]
    judge = kind(scorer="dino", box_threshold=threshold / 20, **settings)
    np.testing.assert_allclose(score(judge, pool), by_row(pool, threshold / 20, reduce), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("twin", TWINS)
@given(pool=POOL)
def test_no_score_depends_on_the_other_rows(twin, pool):
    kind, settings, _ = TWINS[twin]
    judge = kind(scorer="dino", **settings)
    together = score(judge, pool)
    for row, value in zip(pool, together, strict=True):
        np.testing.assert_array_equal(score(judge, [row])[0], value)
    np.testing.assert_array_equal(score(judge, pool[::-1])[::-1], together)


def union_of(boxes):
    corners = np.array(boxes, float).reshape(-1, 4)
    return float(union_areas(np.zeros(len(corners), int), corners, 1)[0])


def inclusion_exclusion(boxes):
    """Areas of all intersections, added and taken away in turn: exact for any edges, and exponential."""
    total = 0.0
    for size in range(1, len(boxes) + 1):
        for group in itertools.combinations(np.array(boxes, float), size):
            low = np.max([box[:2] for box in group], axis=0)
            high = np.min([box[2:] for box in group], axis=0)
            total -= (-1) ** size * np.prod(np.maximum(high - low, 0))
    return total


EDGES = st.floats(0, 1)


@given(st.lists(st.tuples(EDGES, EDGES, EDGES, EDGES), max_size=7))
def test_unions_are_exact_for_any_edges(edges):
    boxes = [[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in edges]
    assert union_of(boxes) == pytest.approx(inclusion_exclusion(boxes), abs=1e-12)


def test_planted_unions():
    assert union_of([]) == 0
    assert union_of([[0, 0, 1, 1], [0.2, 0.2, 0.4, 0.4]]) == 1
    assert union_of([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]) == 0.5
    assert union_of([[0, 0, 0.5, 1], [0.25, 0, 0.75, 1]]) == 0.75
    assert union_of([[0.25, 0.25, 0.5, 0.5]] * 100) == 0.0625
    ring = [[0, 0, 1, 0.25], [0, 0.75, 1, 1], [0, 0, 0.25, 1], [0.75, 0, 1, 1]]
    assert union_of(ring) == 0.75


def test_many_boxes_take_their_turn():
    """More than fit into one array at a time."""
    tiles = [[x / 16, y / 16, (x + 1) / 16, (y + 1) / 16] for x in range(16) for y in range(16)]
    corners = np.array(tiles * 12)
    owners = np.repeat(np.arange(12), 256)
    np.testing.assert_allclose(union_areas(owners, corners, 12), 1, atol=1e-12)


def test_the_papers_rules_are_the_defaults():
    assert ObjectCount(scorer="dino").keep == (1, None)
    assert ObjectConfidence(scorer="dino").keep == "top 30%"
    assert ObjectArea(scorer="dino").keep == (0.05, 0.95)
    assert {judge(scorer="dino").box_threshold for judge in (ObjectCount, ObjectConfidence, ObjectArea)} == {0.35}


def test_a_threshold_is_met_by_the_very_number():
    """0.35 in the tables is a float32, a little below the double of that name."""
    assert score(ObjectCount(scorer="dino"), [[([0, 0, 1, 1], 7)]]).tolist() == [1]


def test_lists_that_do_not_match_are_named():
    mixed = columns([[([0, 0, 1, 1], 20)]]) | {"dino.confidences": pa.array([[0.5, 0.5]], pa.list_(pa.float32()))}
    with pytest.raises(ValueError, match=r"'dino\.boxes' and 'dino\.confidences' have lists of different lengths"):
        ObjectArea(scorer="dino").score(mixed)


@pytest.mark.parametrize("kind", [ObjectCount, ObjectConfidence, ObjectArea, GroundedPhrases])
def test_a_wrong_threshold_is_refused_before_anything_starts(kind):
    with pytest.raises(ValueError, match="give a confidence from 0 to 1"):
        kind(scorer="dino", box_threshold=35).check()
    kind(scorer="dino", box_threshold=1).check()


def ground(rows, **settings):
    judge = GroundedPhrases(scorer="dino", **settings)
    return judge.score({"dino.phrase_confidences": pa.array(rows, pa.list_(pa.float32()))})


def test_the_share_of_phrases_that_are_seen():
    scores = ground([[0.9, 0.1], [0.3], [0.2, 0.1, 0.0], [], None, [0.25, 0.5, float("nan"), None]])
    np.testing.assert_array_equal(scores, np.array([0.5, 1, 0, np.nan, np.nan, 0.5], np.float32))


@given(st.lists(st.none() | st.lists(st.floats(0, 1, width=32), max_size=5), max_size=6), st.floats(0, 1, width=32))
def test_grounded_phrases_agree_with_a_loop(rows, threshold):
    expected = [np.mean(np.array(row) >= threshold) if row else np.nan for row in rows]
    np.testing.assert_allclose(ground(rows, box_threshold=threshold), np.array(expected, np.float32), rtol=1e-6)


def test_higher_thresholds_see_less():
    rows = [[0.1, 0.3, 0.5, 0.7]]
    assert [ground(rows, box_threshold=level / 10)[0] for level in (0, 2, 4, 6, 8)] == [1, 0.75, 0.5, 0.25, 0]
