import numpy as np
import pyarrow as pa
import pytest

from chaffinch.filters.column import Column


def score(values):
    return Column(column="metadata.x").score({"metadata.x": values})


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint16(), pa.int64(), pa.float16(), pa.float32(), pa.float64()])
def test_numbers_of_any_width_become_float32(kind):
    scores = score(pa.array([3, None, 0], type=kind))
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, [3, np.nan, 0])


def test_nan_stays_and_infinity_stays():
    np.testing.assert_array_equal(score(pa.array([np.nan, np.inf, -np.inf])), [np.nan, np.inf, -np.inf])


def test_large_whole_numbers_are_rounded_not_refused():
    np.testing.assert_array_equal(score(pa.array([2**24 + 1, 2**62])), np.float32([2**24 + 1, 2**62]))


def test_truth_values_count_as_0_and_1():
    np.testing.assert_array_equal(score(pa.array([True, False, None])), [1, 0, np.nan])


def test_a_column_that_is_null_throughout_judges_nothing():
    assert np.isnan(score(pa.nulls(3))).all()


def test_a_slice_reads_its_own_rows():
    np.testing.assert_array_equal(score(pa.array([1.0, 2.0, None, 4.0]).slice(1, 2)), [2, np.nan])


def test_scores_can_be_written_to():
    scores = score(pa.array([1.0, 2.0], type=pa.float32()))
    scores[0] = 5  # an arrow buffer behind it would refuse


@pytest.mark.parametrize("values", [pa.array(["a"]), pa.array([[1.0]])])
def test_columns_without_numbers_are_refused_by_name(values):
    with pytest.raises(ValueError, match=r"metadata\.x.*scalar column"):
        score(values)


def test_reads_its_column():
    assert Column(column="b32.similarity").reads == ("b32.similarity",)


@pytest.mark.parametrize("name", ["words", ".words", "captions.", ""])
def test_names_need_two_parts(name):
    with pytest.raises(ValueError, match="of the form <scorer>"):
        Column(column=name).check()
