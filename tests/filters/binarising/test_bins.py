"""Bins hold what the raw scores say, whichever way they were gathered."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chaffinch.filters.binarising import bins as module
from chaffinch.filters.binarising import tally as tallies
from chaffinch.filters.binarising.bins import Bins, count_high, count_low, read_high, read_low
from chaffinch.filters.binarising.tally import Tally
from chaffinch.filters.statistics import DIGIT_BITS, sortable

SCORES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(0, 40), st.integers(1, 3)),
    elements=st.floats(width=32) | st.sampled_from([0.0, -0.0, 1.0, 1.0 + 2**-20, -1e-42, 1e-42]),
)


def digits_of(values):
    return (sortable(values) >> DIGIT_BITS).astype(np.int64)


@given(SCORES)
def test_a_bin_has_the_mean_and_variance_of_its_values(scores):
    for column, (digits, sums) in zip(scores.T, read_high(count_high(scores), scores.shape[1]), strict=True):
        values = column[np.isfinite(column)]
        bins = Bins.of(digits, sums)
        assert bins.digits.tolist() == sorted(set(digits_of(values).tolist()))
        assert len(bins) == len(bins.digits)
        for at, digit in enumerate(bins.digits):
            inside = values[digits_of(values) == digit].astype(np.float64)
            assert bins.counts[at] == len(inside)
            assert bins.lows[at] <= inside.min() <= inside.max() <= bins.highs[at]
            width = bins.highs[at] - bins.lows[at]
            np.testing.assert_allclose(bins.means[at], inside.mean(), rtol=1e-12, atol=width * 1e-9)
            np.testing.assert_allclose(bins.variances[at], inside.var(), rtol=1e-6, atol=width**2 * 1e-9)


@given(SCORES)
def test_single_values_of_a_bin_come_back(scores):
    wanted = sorted(
        {
            (step, digit)
            for step, column in enumerate(scores.T)
            for digit in digits_of(column[~np.isnan(column)]).tolist()
        },
        reverse=True,
    )[::2]
    found = read_low(count_low(scores, wanted), wanted)
    assert list(found) == wanted
    for (step, digit), histogram in found.items():
        column = scores[:, step]
        keys = np.sort(sortable(column[~np.isnan(column)]))
        inside = keys[keys >> DIGIT_BITS == digit] & 0xFFFF
        assert np.repeat(np.arange(1 << 16), histogram.counts).tolist() == inside.tolist()


@given(st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(-5, 5)), max_size=8), min_size=1, max_size=6))
def test_parts_add_up_in_any_order(parts):
    def tally(pairs):
        return Tally.of(np.array([code for code, _ in pairs]), np.array([[n, 1] for _, n in pairs]).reshape(-1, 2))

    whole = tally([pair for part in parts for pair in part]).arrays()
    for order in (parts, parts[::-1]):
        total = tally(order[0])
        for part in order[1:]:
            total = total.merge(tally(part))
        for one, other in zip(total.arrays(), whole, strict=True):
            np.testing.assert_array_equal(one, other)


def test_parts_are_brought_together_on_the_way(monkeypatch):
    monkeypatch.setattr(tallies, "_MOST_LOOSE", 3)
    total = Tally.of(np.array([1]), np.array([[1]]))
    for _ in range(9):
        total = total.merge(Tally.of(np.array([0, 1]), np.array([[1], [2]])))
        assert sum(map(len, total.codes)) <= 8
    assert [array.tolist() for array in total.arrays()] == [[0, 1], [[9], [19]]]


def test_infinities_are_counted_but_are_in_no_bin():
    scores = np.array([[np.inf], [-np.inf], [2.0], [np.nan]], np.float32)
    ((digits, sums),) = read_high(count_high(scores), 1)
    assert sums[:, 0].sum() == 3
    assert Bins.of(digits, sums).means.tolist() == [2.0]
    largest = np.finfo(np.float32).max
    ((digits, sums),) = read_high(count_high(np.array([[largest], [-largest]], np.float32)), 1)
    assert Bins.of(digits, sums).means.tolist() == [-largest, largest]
    assert module.values_of(digits, 0xFFFF)[1] == largest
