import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chaffinch.filters.statistics import DIGIT_BITS, Histogram, Ranks, sortable, unsortable

FLOATS = hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(width=32, allow_nan=False))


@given(FLOATS)
def test_sortable_keys_sort_as_the_numbers_do_and_come_back(values):
    keys = sortable(values)
    order = np.argsort(keys, kind="stable")
    assert np.all(values[order][1:] >= values[order][:-1])
    np.testing.assert_array_equal(unsortable(keys), values)


@given(FLOATS, st.data())
def test_two_levels_of_counts_find_the_value_at_any_rank(values, data):
    rank = data.draw(st.integers(0, len(values) - 1))
    keys = sortable(values)
    halves = np.array_split(keys, 3)
    high = Histogram()
    for part in halves:
        high.merge(Histogram.of((part >> DIGIT_BITS).astype(np.int64)))
    digit, inside = high.locate(rank)
    low = Histogram.of((keys[keys >> DIGIT_BITS == digit] & np.uint32(0xFFFF)).astype(np.int64))
    found, _ = low.locate(inside)
    assert unsortable(np.array([(digit << DIGIT_BITS) | found], np.uint32))[0] == np.sort(values)[rank]


@pytest.mark.parametrize("draw", ["normal", "uniform", "exponential"])
def test_ranks_are_the_share_of_the_pool_below(draw):
    rng = np.random.default_rng(1)
    values = getattr(rng, draw)(size=20_000).astype(np.float32)
    ranks = Ranks.from_histogram(Histogram.of((sortable(values) >> DIGIT_BITS).astype(np.int64)))
    probes = np.quantile(values, np.linspace(0.01, 0.99, 50)).astype(np.float32)
    expected = np.searchsorted(np.sort(values), probes) / len(values)
    np.testing.assert_allclose(ranks.of(probes), expected, atol=0.006)
    assert np.all(np.diff(ranks.of(np.sort(values))) >= 0)
    assert np.isnan(ranks.of(np.array([np.nan]))).all()


def test_a_rank_does_not_depend_on_what_else_is_asked():
    rng = np.random.default_rng(2)
    values = rng.normal(size=5000).astype(np.float32)
    ranks = Ranks.from_histogram(Histogram.of((sortable(values) >> DIGIT_BITS).astype(np.int64)))
    together = ranks.of(values)
    alone = np.concatenate([ranks.of(values[index : index + 1]) for index in range(0, 5000, 97)])
    np.testing.assert_array_equal(together[::97], alone)


def test_ranks_of_nothing_say_nothing():
    np.testing.assert_array_equal(Ranks.from_histogram(Histogram()).of(np.array([-1.0, 5.0])), [0.5, 0.5])


def test_ranks_of_one_value():
    ranks = Ranks.from_histogram(Histogram.of((sortable(np.full(9, 3.0)) >> DIGIT_BITS).astype(np.int64)))
    below, at, above = ranks.of(np.array([2.0, 3.0, 4.0]))
    assert below == at == 0
    assert above == 1
