"""Distances of hashes against all pairs tried one by one."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaffinch.scoring.neighbourhood.hashes import (
    CELLS_PER_BAND,
    MOST,
    NONE_NEAR,
    bands,
    cells,
    distance_in_cell,
    distance_to_any,
    distance_to_preceding,
)
from chaffinch.scoring.neighbourhood.search import Search


def twin(hashes: list[int]) -> list[int]:
    return [min(((one ^ other).bit_count() for other in hashes[:row]), default=64) for row, one in enumerate(hashes)]


def families(n: int, seed: int) -> list[int]:
    """Hashes of which many are few bits apart, some equal."""
    rng = random.Random(seed)
    parents = [rng.getrandbits(64) for _ in range(max(1, n // 6))]
    found = []
    for _ in range(n):
        value = rng.choice(parents)
        for _ in range(rng.choice([0, 0, 1, 3, 6, 9, 14])):
            value ^= 1 << rng.randrange(64)
        found.append(value)
    return found


def nearest_over_cells(hashes: list[int], radius: int) -> list[int]:
    """What the scorer makes of what the cells find."""
    values = np.array(hashes, np.uint64)
    found = np.full(len(hashes), NONE_NEAR, np.uint8)
    places = cells(values, radius)
    for cell in np.unique(places):
        members = np.flatnonzero((places == cell).any(axis=1))
        found[members] = np.minimum(found[members], distance_in_cell(values[members], int(cell), radius, Search()))
    return found.tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 120), st.integers(0, 1000))
def test_equals_all_pairs(n, seed):
    hashes = families(n, seed)
    assert distance_to_preceding(np.array(hashes, np.uint64), Search()).tolist() == twin(hashes)


def test_threads_change_nothing():
    hashes = np.array(families(9000, 5), np.uint64)
    assert np.array_equal(distance_to_preceding(hashes, Search()), distance_to_preceding(hashes, Search("cpu", 4)))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 80), st.integers(0, MOST), st.integers(0, 1000))
def test_cells_miss_nothing_within_the_radius(n, radius, seed):
    hashes = families(n, seed)
    wanted = [distance if distance <= radius else NONE_NEAR for distance in twin(hashes)]
    assert nearest_over_cells(hashes, radius) == wanted


@pytest.mark.parametrize("radius", [0, 1, 3, 7, 10, MOST])
def test_bands_cover_every_bit_once(radius):
    found = bands(radius)
    assert len(found) == radius + 1
    assert [bit for start, width in found for bit in range(start, start + width)] == list(range(64))
    assert max(width for _, width in found) - min(width for _, width in found) <= 1


@given(st.integers(0, 2**64 - 1), st.sets(st.integers(0, 63), max_size=MOST))
def test_hashes_within_the_radius_share_a_cell(value, flipped):
    other = value
    for bit in flipped:
        other ^= 1 << bit
    places = cells(np.array([value, other], np.uint64), len(flipped))
    assert (places[0] == places[1]).any()
    assert places.min() >= 0
    assert places.max() < CELLS_PER_BAND * (len(flipped) + 1)
    assert (places // CELLS_PER_BAND == np.arange(len(flipped) + 1)).all()


def test_nearest_of_others():
    hashes, others = families(60, 1), families(30, 2)
    wanted = [min((one ^ other).bit_count() for other in others) for one in hashes]
    found = distance_to_any(np.array(hashes, np.uint64), np.array(others, np.uint64), Search())
    assert found.tolist() == wanted
    assert distance_to_any(np.zeros(0, np.uint64), np.array(others, np.uint64), Search()).shape == (0,)
