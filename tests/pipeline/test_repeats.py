"""Repeated uids against a plain dictionary, whatever the order of merging and however many hashes collide."""

import pickle
import random

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from chaffinch.pipeline.repeats import Claims, Seen, parse_uids, table_size

POOL = [f"{number:032x}" for number in (0, 1, 2**64, 2**64 + 1, 2**127, 2**128 - 1, 2**63, 2**32, 77, 78)]


def find(shards: list[list[str]], usable: list[list[bool]], size: int, seed: int) -> dict[str, tuple[int, ...]]:
    """The two passes as deciding makes them, their parts merged in a random order and as a random tree."""
    rng = random.Random(seed)
    uids = [parse_uids(pa.chunked_array([pa.array(shard, pa.string())])) for shard in shards]
    masks = [np.array(mask, bool) for mask in usable]
    seen = _merge([Seen.of(uid[mask], size) for uid, mask in zip(uids, masks, strict=True)], rng)
    suspects = seen.suspects()
    parts = []
    for number, (uid, mask) in enumerate(zip(uids, masks, strict=True)):
        rows = suspects.rows(uid)
        rows = rows[mask[rows]]
        parts.append(Claims(uid[rows], np.stack([np.full(len(rows), number), rows], axis=1)))
    names = [f"shard{number}" for number in range(len(shards))]
    return dict(_merge(parts, rng).repeated(names))


def _merge(parts, rng):
    parts = list(parts)
    while len(parts) > 1:
        first = parts.pop(rng.randrange(len(parts)))
        second = parts.pop(rng.randrange(len(parts)))
        if rng.random() < 0.3:
            first, second = pickle.loads(pickle.dumps((first, second)))
        parts.append(first.merge(second))
    return parts[0]


def twin(shards: list[list[str]], usable: list[list[bool]]) -> dict[str, tuple[int, ...]]:
    first: set[str] = set()
    found: dict[str, tuple[int, ...]] = {}
    for number, (shard, mask) in enumerate(zip(shards, usable, strict=True)):
        for row, (uid, one) in enumerate(zip(shard, mask, strict=True)):
            if one and uid in first:
                found[f"shard{number}"] = (*found.get(f"shard{number}", ()), row)
            elif one:
                first.add(uid)
    return found


UIDS = st.lists(st.one_of(st.sampled_from(POOL), st.integers(0, 2**128 - 1).map("{:032x}".format)), max_size=30)


@settings(max_examples=150, deadline=None)
@given(st.lists(UIDS, min_size=1, max_size=8), st.sampled_from([8, 16, 64, 1 << 16]), st.data())
def test_equals_a_dictionary(shards, size, data):
    usable = [data.draw(st.lists(st.booleans(), min_size=len(shard), max_size=len(shard))) for shard in shards]
    seed = data.draw(st.integers(0, 1000))
    assert find(shards, usable, size, seed) == twin(shards, usable)


def test_a_larger_pool_with_planted_repeats():
    rng = random.Random(0)
    shards = [[f"{rng.getrandbits(128):032x}" for _ in range(500)] for _ in range(20)]
    for _ in range(300):
        shards[rng.randrange(20)][rng.randrange(500)] = shards[rng.randrange(20)][rng.randrange(500)]
    usable = [[rng.random() < 0.9 for _ in shard] for shard in shards]
    wanted = twin(shards, usable)
    assert sum(map(len, wanted.values())) > 200
    for size in (64, 1 << 12, 1 << 16):
        for seed in range(3):
            assert find(shards, usable, size, seed) == wanted


def test_without_repeats_nothing_is_suspected():
    shards = [[f"{shard * 100 + row:032x}" for row in range(100)] for shard in range(3)]
    parts = [Seen.of(parse_uids(pa.array(shard)), 1 << 24) for shard in shards]
    assert _merge(parts, random.Random(0)).suspects().bits is None


@given(st.lists(st.integers(0, 2**128 - 1), max_size=20), st.integers(0, 5))
def test_uids_are_parsed_exactly(numbers, skipped):
    texts = [f"{number:032x}" for number in numbers]
    found = parse_uids(pa.array(texts, pa.string())[skipped:])
    assert found.dtype == np.uint64
    assert [(high << 64) + low for high, low in found.tolist()] == numbers[skipped:]
    chunks = pa.chunked_array([texts[:2], texts[2:]], pa.string())
    assert parse_uids(chunks).tolist() == parse_uids(pa.array(texts, pa.string())).tolist()


def test_tables_grow_with_the_pool():
    sizes = [table_size(count) for count in (0, 1, 10, 1000, 100_000)]
    assert sizes == sorted(sizes)
    assert all(size & (size - 1) == 0 for size in sizes)
    assert sizes[2] >= 10 * 10_000 * 16
