"""The plan for emitting: sizes, blocks, and a shuffle that is a permutation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaffinch.pipeline.emitting.plan import Plan, shuffle
from chaffinch.pipeline.shards import Shard


def shards(count: int) -> list[Shard]:
    return [Shard(f"{number:08d}", f"/{number}.tar", 1, 1.0) for number in range(count)]


@pytest.mark.parametrize("seed", [0, 1, 2**63, -5])
def test_shuffle_is_a_permutation(seed):
    for total in range(1, 501):
        order = shuffle(np.arange(total), total, seed)
        assert np.array_equal(np.sort(order), np.arange(total)), total


@given(st.integers(1, 10**12), st.integers(-(2**70), 2**70), st.data())
def test_shuffle_needs_no_other_positions(total, seed, data):
    """Any part gives the same as the whole, inside the range and without repeats."""
    places = np.array(data.draw(st.lists(st.integers(0, total - 1), min_size=1, max_size=20, unique=True)))
    order = shuffle(places, total, seed)
    assert len(set(order.tolist())) == len(places)
    assert ((order >= 0) & (order < total)).all()
    assert order.tolist() == [int(shuffle(np.array([place]), total, seed)[0]) for place in places]


def test_shuffles_differ_by_seed_and_mix():
    first, second = (shuffle(np.arange(10_000), 10_000, seed) for seed in (1, 2))
    assert (first == second).mean() < 0.01
    assert (first == np.arange(10_000)).mean() < 0.01
    # Where the first tenth comes from is spread evenly: a chi-squared of 9 degrees of freedom beyond 40 is no accident.
    counts = np.histogram(first[:1000], 10, (0, 10_000))[0]
    assert ((counts - 100) ** 2 / 100).sum() < 40


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=12), st.integers(1, 40), st.sampled_from([None, 0, 7]))
def test_blocks_cover_every_kept_sample_once(kept, size, seed):
    plan = Plan(shards(len(kept)), kept, size, seed)
    sizes = plan.sizes
    assert sum(sizes) == plan.total == sum(kept)
    assert all(one == size for one in sizes[:-1])
    assert not sizes or 0 < sizes[-1] <= size
    blocks = plan.blocks()
    assert [number for block in blocks for number in range(block.first, block.first + len(block.sizes))] == list(
        range(len(sizes))
    )
    assert [one for block in blocks for one in block.sizes] == sizes
    found = [int(position) for block in blocks for position in block.sources()]
    assert sorted(found) == list(range(plan.total))
    if seed is None:
        assert found == sorted(found)
    starts = np.concatenate([[0], np.cumsum(kept)])
    for block in blocks:
        inputs = {int(one.shard.name): one.start for one in block.inputs}
        assert all(starts[number] == start for number, start in inputs.items())
        needed = np.searchsorted(starts, block.sources(), side="right") - 1
        assert set(needed.tolist()) <= set(inputs)
        if seed is None:
            assert set(needed.tolist()) == set(inputs)


def test_nothing_kept():
    plan = Plan(shards(3), [0, 0, 0], 10)
    assert plan.total == 0
    assert plan.blocks() == []
