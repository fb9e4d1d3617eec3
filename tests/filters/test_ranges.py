import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaffinch.filters.ranges import (
    NOTHING,
    FittedRanges,
    Search,
    Share,
    check_overlap,
    check_ranges,
    parse_bounds,
)
from chaffinch.filters.statistics import DIGIT_BITS, Histogram, sortable

INF = float("inf")


def fit(share, values):
    keys = sortable(np.asarray(values, np.float32))
    search = Search.start(share, Histogram.of((keys >> DIGIT_BITS).astype(np.int64)))
    if search is None:
        return share.interval(None)
    inside = keys[keys >> DIGIT_BITS == search.digit] & np.uint32(0xFFFF)
    return share.interval(search.finish(Histogram.of(inside.astype(np.int64))))


def test_what_a_config_may_say():
    assert parse_bounds((0.25, None)) == (0.25, INF)
    assert parse_bounds((None, 3)) == (-INF, 3.0)
    assert parse_bounds("top 30%") == Share("top", 30.0)
    assert parse_bounds(" bottom  2.5 % ") == Share("bottom", 2.5)
    assert parse_bounds("above reference 50%") == Share("above", 50.0)


@pytest.mark.parametrize("wrong", ["30%", "top 30", "top 130%", "best 10%", "below 5%", (3.0, 1.0)])
def test_what_it_may_not(wrong):
    with pytest.raises(ValueError, match=r"range|more than"):
        parse_bounds(wrong)


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=50, unique=True), st.integers(0, 100))
def test_a_share_of_distinct_values_is_exact(values, percent):
    scores = np.array(values, np.float32)
    for side in ("top", "bottom"):
        low, high = fit(Share(side, percent), scores)
        assert np.sum((scores >= low) & (scores <= high)) == round(percent * len(scores) / 100)


def test_equal_values_fall_on_one_side_of_a_share():
    scores = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, 3], np.float32)
    assert fit(Share("top", 50), scores) == (1.0, INF)
    assert fit(Share("bottom", 20), scores) == (-INF, 0.0)
    assert fit(Share("top", 100), scores) == (0.0, INF)
    assert fit(Share("top", 0), scores) == NOTHING


@pytest.mark.parametrize(("percent", "expected"), [(1, 0.0), (50, 49.0), (51, 50.0), (100, 99.0), (0, 0.0)])
def test_reference_quantiles_are_values_of_the_reference(percent, expected):
    scores = np.arange(100, dtype=np.float32)
    assert fit(Share("above", percent), scores) == (expected, INF)
    assert fit(Share("below", percent), scores) == (-INF, expected)


def test_votes_follow_scores():
    scores = np.array([0.1, 0.3, 0.5, 0.7, np.nan], np.float32)
    assert FittedRanges((0.5, INF), None).vote(scores).tolist() == [-1, -1, 1, 1, 0]
    assert FittedRanges(None, (-INF, 0.3)).vote(scores).tolist() == [-1, -1, 1, 1, 0]
    assert FittedRanges((0.5, INF), (-INF, 0.1)).vote(scores).tolist() == [-1, 0, 1, 1, 0]
    assert FittedRanges((0.3, INF), (-INF, 0.3)).vote(scores).tolist() == [-1, 1, 1, 1, 0]
    assert FittedRanges(NOTHING, (-INF, 0.1)).vote(scores).tolist() == [-1, 0, 0, 0, 0]
    assert FittedRanges((0.3, 0.5), None).vote(scores).dtype == np.int8


def test_direction_says_which_way_is_better():
    assert FittedRanges((0.5, INF), None).direction == 1
    assert FittedRanges(None, (-INF, 0.5)).direction == 1
    assert FittedRanges((-INF, 0.5), None).direction == -1
    assert FittedRanges(None, (0.5, INF)).direction == -1
    assert FittedRanges((0.1, 0.5), None).direction == 0


@pytest.mark.parametrize(
    ("keep", "drop"),
    [
        (None, None),
        ("top 60%", "bottom 50%"),
        ("top 30%", "top 50%"),
        ((0.2, None), (None, 0.3)),
        ("above reference 10%", "below reference 20%"),
    ],
)
def test_ranges_that_overlap_are_refused_before_anything_starts(keep, drop):
    with pytest.raises(ValueError, match=r"overlap|needs keep"):
        check_ranges(keep, drop)


@pytest.mark.parametrize(
    ("keep", "drop"),
    [("top 50%", "bottom 50%"), ((0.3, None), (None, 0.3)), ("top 30%", (None, 0.1)), ("top 3%", None)],
)
def test_ranges_may_touch(keep, drop):
    check_ranges(keep, drop)


def test_overlap_is_also_found_once_shares_are_known():
    check_overlap((0.5, INF), (-INF, 0.5), "clip")
    check_overlap(NOTHING, (-INF, 0.5), "clip")
    with pytest.raises(ValueError, match=r"clip overlap between 0\.4 and 0\.5"):
        check_overlap((0.4, INF), (-INF, 0.5), "clip")
