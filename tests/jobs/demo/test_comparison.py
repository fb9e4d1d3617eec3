"""Judging a demo: copies by group, since which of them survives is arbitrary."""

import numpy as np
import pyarrow as pa
import pytest

from chaffinch.jobs.demo.comparison import Planted

ROWS = pa.table(
    {
        "keep": [True, False, True, False, False, True],
        "kind": ["clean", "duplicate", "clean", "mismatch", "broken_html", "clean"],
        "group": ["a", "a", None, None, None, "b"],
    }
)


@pytest.fixture
def planted():
    return Planted.read(ROWS)


def test_the_copy_that_was_kept_is_the_good_one(planted):
    settled = planted.settle(np.array([False, True, True, False, False, True]))
    assert settled.good.tolist() == [False, True, True, False, False, True]
    assert settled.kinds.tolist()[:2] == ["duplicate", "clean"]
    assert planted.good.tolist()[:2] == [True, False]


@pytest.mark.parametrize("kept", [[1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0]])
def test_nothing_changes_places_where_the_good_one_was_kept_or_no_copy_was(planted, kept):
    settled = planted.settle(np.array(kept, bool))
    assert settled.good.tolist() == planted.good.tolist()
    assert settled.kinds.tolist() == planted.kinds.tolist()


def test_f1_against_a_count_by_hand(planted):
    assert planted.f1(np.array([0, 1, 1, 0, 0, 1], bool)) == 1
    assert planted.f1(np.array([1, 1, 1, 0, 0, 1], bool)) == pytest.approx(2 * 3 / (3 + 4))
    assert planted.f1(np.zeros(6, bool)) == 0


def test_only_copies_change_places(planted):
    rows = ROWS.set_column(2, "group", pa.array(["a", "a", "c", "c", None, "b"]))
    settled = Planted.read(rows).settle(np.array([True, False, False, True, False, True]))
    assert settled.good.tolist() == planted.good.tolist()
    assert settled.kinds.tolist() == ["clean", "duplicate", "clean", "mismatch", "broken", "clean"]
