"""Slices of a pool: every shard in one, whatever else is in the pool."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaffinch.pipeline.measuring.slices import Slice, note_count, noted_count, slice_of
from chaffinch.pipeline.store import Store


@pytest.mark.parametrize("text", ["3/128", "0/1", "127/128"])
def test_read_and_written(text):
    assert str(Slice.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("128/128", "0/128 to 127/128"),
        ("1/0", "at least one"),
        ("-1/4", "is no slice"),
        ("1", "is no slice"),
        ("a/b", "is no slice"),
        ("1/4/2", "is no slice"),
        ("1 / 4", "is no slice"),
    ],
)
def test_no_slices(text, told):
    with pytest.raises(ValueError, match=told):
        Slice.parse(text)


@given(st.text(), st.integers(1, 1000))
def test_a_shard_is_in_one_slice(shard, count):
    assert [number for number in range(count) if Slice(number, count).holds(shard)] == [slice_of(shard, count)]


def test_the_same_in_every_process_and_for_ever():
    module = "chaffinch.pipeline.measuring.slices"
    code = f"from {module} import slice_of; print([slice_of(f'{{n:08d}}', 128) for n in range(4)])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told == "[15, 107, 10, 16]\n"


def test_slices_are_about_even():
    sizes = [0] * 128
    for number in range(12_800):
        sizes[slice_of(f"{number:08d}", 128)] += 1
    assert sum(sizes) == 12_800
    assert min(sizes) > 60
    assert max(sizes) < 140  # four standard deviations of a Poisson of mean 100


def test_how_many_there_are_is_noted(tmp_path):
    store = Store(str(tmp_path / "store"))
    assert noted_count(store) is None
    note_count(store, 128)
    assert noted_count(store) == 128
    for content in ("", "{", "[]", '{"count": "x"}', '{"count": 0}'):
        (tmp_path / "store" / "slices.json").write_text(content)
        assert noted_count(store) is None
