import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaffinch.filters import cut
from chaffinch.filters.cut import Cut, CutSearch, hash_uids, quantise


def search(probability, soft, tie, group, wanted, parts=3):
    """Runs the search as the pipeline does, over a pool cut into parts."""
    inside = probability == np.float32(group)
    state = CutSearch(group, int(inside.sum()) - wanted, int(inside.sum()))
    steps = 0
    while isinstance(state, CutSearch):
        counted = None
        for chosen in np.array_split(np.arange(len(soft)), parts):
            part = state.count(probability[chosen], soft[chosen], tie[chosen])
            counted = part if counted is None else counted.merge(part)
        state = state.step(counted)
        steps += 1
        assert steps <= 8
    return state


@given(st.integers(1, 200), st.integers(1, 3), st.integers(0, 2**32), st.data())
def test_the_cut_keeps_exactly_as_many_as_are_wanted(n, spread, seed, data):
    rng = np.random.default_rng(seed)
    probability = rng.choice(np.array([0.2, 0.7], np.float32), n)
    soft = rng.integers(0, 4**spread, n).astype(np.uint32) << np.uint32(12 * (seed % 2))
    tie = hash_uids(rng.integers(0, 2**63, (n, 2)).astype(np.uint64), 0)
    group = data.draw(st.sampled_from([0.2, 0.7]))
    size = int(np.sum(probability == np.float32(group)))
    if not size:
        return
    wanted = data.draw(st.integers(1, size))
    few = cut.FEW
    try:
        cut.FEW = 2  # so that small pools take the long way too
        found = search(probability, soft, tie, group, wanted)
    finally:
        cut.FEW = few
    keys = sorted(zip(probability.tolist(), soft.tolist(), tie.tolist(), strict=True), reverse=True)
    above = int(np.sum(probability > np.float32(group)))
    expected = keys[above + wanted - 1]
    assert (np.float32(found.probability), found.soft, found.tie) == (np.float32(expected[0]), *expected[1:])
    assert found.keeps(probability, soft, tie).sum() == above + wanted


def test_one_value_for_all_is_decided_by_the_hash_alone():
    tie = hash_uids(np.stack([np.zeros(5000), np.arange(5000)], 1).astype(np.uint64), 3)
    probability, soft = np.full(5000, 0.5, np.float32), np.full(5000, 77, np.uint32)
    few, cut.FEW = cut.FEW, 10
    try:
        found = search(probability, soft, tie, 0.5, 1234)
    finally:
        cut.FEW = few
    assert found.keeps(probability, soft, tie).sum() == 1234
    assert found.tie == np.sort(tie)[-1234]


def test_another_seed_is_another_order():
    uids = np.arange(2000, dtype=np.uint64).reshape(-1, 2)
    one, other = hash_uids(uids, 0), hash_uids(uids, 1)
    assert len(np.unique(one)) == 1000
    assert abs(np.corrcoef(np.argsort(np.argsort(one)), np.argsort(np.argsort(other)))[0, 1]) < 0.15
    np.testing.assert_array_equal(one, hash_uids(uids, 0))


def test_negative_seeds_are_seeds():
    uids = np.arange(4, dtype=np.uint64).reshape(-1, 2)
    assert not np.array_equal(hash_uids(uids, -1), hash_uids(uids, 1))


def test_quantised_soft_scores_keep_their_order():
    soft = np.array([0.0, 1e-9, 0.25, 0.5, 1.0])
    assert np.all(np.diff(quantise(soft).astype(np.int64)) > 0)
    assert quantise(np.array([1.0]))[0] == 2**32 - 1


@pytest.mark.parametrize(
    ("threshold", "expected"), [(0.5, [False, True, True]), (-1.0, [True] * 3), (float("inf"), [False] * 3)]
)
def test_a_cut_by_probability_alone(threshold, expected):
    probability = np.array([0.2, 0.5, 0.9], np.float32)
    zero = np.zeros(3, np.uint32)
    assert Cut(threshold).keeps(probability, zero, zero.astype(np.uint64)).tolist() == expected
