"""Repeated uids found in turns are those found at once, however many turns there are and whatever cannot be used."""

import random

import pyarrow as pa
import pytest

from chaffinch.pipeline.deciding import find_repeats, learn
from chaffinch.pipeline.deciding.judgement import Pool
from chaffinch.pipeline.engines.engine import Engine, add_up
from chaffinch.pipeline.metadata import Metadata
from chaffinch.pipeline.rows import Source
from chaffinch.pipeline.shards import Shard
from chaffinch.pipeline.storage import parquet
from chaffinch.pipeline.store import Store

SHARDS, ROWS = 6, 60


@pytest.fixture
def pool(tmp_path):
    """Some uids occur again, in the same shard or another; one sample in five is rejected, by one table or another."""
    rng, store = random.Random(0), Store(str(tmp_path))
    known = [f"{rng.getrandbits(128):032x}" for _ in range(SHARDS * ROWS)]
    shards = [Shard(f"{number:08d}", "", 0, 0.0) for number in range(SHARDS)]
    for shard in shards:
        uids = [rng.choice(known) for _ in range(ROWS)]
        samples, scores = ([rng.choice([None] * 9 + ["no"]) for _ in range(ROWS)] for _ in range(2))
        parquet.write_table(
            store.samples(shard.name), pa.table({"uid": uids, "reject": pa.array(samples, pa.string())})
        )
        both = [one or other for one, other in zip(samples, scores, strict=True)]
        parquet.write_table(store.scores("one-1", shard.name), pa.table({"reject": pa.array(both, pa.string())}))
    return Pool(shards, Source(store, {"one": "one-1"}, Metadata("none")))


def twin(pool):
    """A dictionary of all uids."""
    first, found = set(), {}
    for shard in pool.shards:
        uids = parquet.read_table(pool.source.store.samples(shard.name), ["uid"])["uid"].to_pylist()
        rejects = parquet.read_table(pool.source.store.scores("one-1", shard.name))["reject"].to_pylist()
        for row, (uid, reject) in enumerate(zip(uids, rejects, strict=True)):
            if reject is None and uid in first:
                found[shard.name] = (*found.get(shard.name, ()), row)
            elif reject is None:
                first.add(uid)
    return found


@pytest.fixture
def passes(tmp_path):
    """(count, labels): adds up as deciding does, and notes every pass."""
    labels = []

    def count(label, parts, function):
        labels.append(label)
        return add_up(Engine(), label, parts, function, str(tmp_path / "scratch"))

    return count, labels


@pytest.mark.parametrize(("most_bits", "turns"), [(1 << 31, 1), (1 << 12, 2), (1 << 10, 6)])
def test_equals_a_dictionary_in_any_number_of_turns(pool, passes, most_bits, turns):
    count, labels = passes
    found = find_repeats.find_repeats(count, pool, SHARDS * ROWS, most_bits)
    assert found == twin(pool)
    assert sum(map(len, found.values())) > 50
    assert len(labels) == turns + 1  # the second pass of a turn is the first of the next


def test_bits_stay_bounded_where_samples_do_not(pool, passes):
    count, _ = passes
    sizes = set()

    def watch(label, parts, function):
        total = count(label, parts, function)
        sizes.add(total.seen.size)
        return total

    for samples in (SHARDS * ROWS, 100 * SHARDS * ROWS):
        find_repeats.find_repeats(watch, pool, samples, most_bits=1 << 14)
    assert max(sizes) == 1 << 14


def test_very_many_shards_take_turns(pool, passes, monkeypatch):
    count, labels = passes
    at_once = learn.measure(count, pool, {}, {}, set()).repeated
    monkeypatch.setattr(learn, "fits_at_once", lambda shards: False)
    labels.clear()
    assert learn.measure(count, pool, {}, {}, set()).repeated == at_once == twin(pool)
    assert labels == ["Count values", "Count uids", "Count uids"]
