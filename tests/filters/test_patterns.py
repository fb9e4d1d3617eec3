import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chaffinch.filters.patterns import Patterns

VOTES = hnp.arrays(np.int8, st.tuples(st.integers(1, 40), st.integers(1, 5)), elements=st.integers(-1, 1))


@given(VOTES, st.integers(1, 4))
def test_pattern_counts_add_up_however_the_rows_are_cut(votes, parts):
    total = Patterns(votes.shape[1])
    for part in np.array_split(votes, parts):
        total = total.merge(Patterns.of(part)) if total.codes else Patterns.of(part)
    patterns, counts = total.arrays()
    expected, expected_counts = np.unique(votes, axis=0, return_counts=True)
    assert {tuple(row): count for row, count in zip(patterns.tolist(), counts.tolist(), strict=True)} == {
        tuple(row): count for row, count in zip(expected.tolist(), expected_counts.tolist(), strict=True)
    }


def test_patterns_of_fifty_filters_are_told_apart():
    rng = np.random.default_rng(0)
    votes = rng.integers(-1, 2, (300, 50)).astype(np.int8)
    patterns, counts = Patterns.of(np.concatenate([votes, votes])).arrays()
    assert len(patterns) == 300
    assert set(counts.tolist()) == {2}
