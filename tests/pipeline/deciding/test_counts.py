"""Digits that very many tiny shards add are counted exactly, and kept in few arrays."""

import numpy as np

from chaffinch.filters.statistics import DIGITS
from chaffinch.pipeline.deciding.counts import DigitCounts


def test_digits_of_many_tiny_shards_lie_in_few_arrays():
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, DIGITS, rng.integers(0, 5)).astype(np.uint16) for _ in range(2000)]
    total = DigitCounts([])
    for part in parts:
        total = total.merge(DigitCounts([part]))
        assert len(total.waiting) <= 33
    assert np.array_equal(total.histogram().counts, np.bincount(np.concatenate(parts), minlength=DIGITS))
