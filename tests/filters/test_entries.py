"""Lists of entries: what counts as one, and sets of numbers that say what Python's own sets say."""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaffinch.filters import entries
from chaffinch.filters.entries import Keys, Neighbours, hex_keys, read_entries, text_keys


def read(path, column=None):
    values, numbers = [], []
    for part, places in read_entries(path, column):
        values += part.to_pylist()
        numbers += places.tolist()
    return values, numbers


class TestReading:
    """Text files and parquet."""

    def test_lines(self, tmp_path):
        path = tmp_path / "list.txt"
        path.write_bytes("\ufeff# why\n one \r\n\n\t\n#two\nthree # four\nfünf".encode())
        assert read(path) == (["one", "three # four", "fünf"], [2, 6, 7])

    @pytest.mark.parametrize("content", [b"", b"\n\n", b"# nothing yet\n"])
    def test_nothing(self, tmp_path, content):
        path = tmp_path / "list.txt"
        path.write_bytes(content)
        assert read(path) == ([], [])

    def test_parts_are_one_list(self, tmp_path, monkeypatch):
        lines = [f"entry {number}" if number % 3 else "" for number in range(100)]
        text, table = tmp_path / "list.txt", tmp_path / "list.parquet"
        text.write_text("\n".join(lines))
        pq.write_table(pa.table({"entry": [line or None for line in lines]}), table)
        whole = read(text)
        assert whole == ([line for line in lines if line], [row + 1 for row, line in enumerate(lines) if line])
        assert read(table) == whole
        monkeypatch.setattr(entries, "_LINES_AT_ONCE", 7)
        assert read(text) == whole
        assert read(table) == whole

    def test_parquet_by_any_name_and_of_many_types(self, tmp_path):
        path = tmp_path / "blocked"
        table = {
            "small": pa.array(["a", None, " b "]),
            "large": pa.array(["a", None, " b "], pa.large_string()),
            "coded": pa.array(["a", None, " b "]).dictionary_encode(),
            "number": pa.array([3, None, -1]),
        }
        pq.write_table(pa.table(table), path)
        for name in ("small", "large", "coded"):
            assert read(path, name) == (["a", "b"], [1, 3])
        assert read(path, "number") == ([3, -1], [1, 3])

    def test_what_is_wrong_is_named(self, tmp_path):
        text, table = tmp_path / "list.txt", tmp_path / "list.parquet"
        pq.write_table(pa.table({"one": ["a"], "two": ["b"]}), table)
        with pytest.raises(ValueError, match="columns one, two: say list_column"):
            read(table)
        with pytest.raises(ValueError, match="no column 'three'; it has one, two"):
            read(table, "three")
        text.write_text("a")
        with pytest.raises(ValueError, match="text file and has no column 'one'"):
            read(text, "one")
        text.write_bytes(b"caf\xe9\n")
        with pytest.raises(ValueError, match=r"list\.txt cannot be read: .*UTF-8"):
            read(text)
        text.write_bytes(b"PAR1 cut")
        with pytest.raises(ValueError, match=r"list\.txt cannot be read: .*parquet"):
            read(text)
        with pytest.raises(ValueError, match=r"nowhere cannot be read: No such file"):
            read(tmp_path / "nowhere")


# Few halves, so that upper halves repeat.
halves = st.sampled_from([0, 1, 2**63, 2**64 - 1])
pairs = st.lists(st.tuples(halves, halves), max_size=30)


def matrix(rows):
    return np.array(rows, np.uint64).reshape(-1, 2)


@given(pairs, pairs)
def test_keys_are_a_set(known, asked):
    keys = Keys.of(matrix(known))
    assert keys.has(matrix(asked)).tolist() == [one in set(known) for one in asked]
    assert keys.digest == Keys.of(matrix(sorted(set(known), reverse=True))).digest
    assert (keys.digest == Keys.of(matrix(asked)).digest) == (set(known) == set(asked))


def test_keys_of_texts_are_their_digests():
    texts = ["", "a", "ä", "a" * 1000]
    digests = [int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big") for text in texts]
    assert [(int(high) << 64) + int(low) for high, low in text_keys(pa.array(texts))] == digests
    assert text_keys(pa.array([], pa.string())).shape == (0, 2)


def test_keys_of_hex_digits():
    assert hex_keys(pa.array(["00000000000000ff", "f" * 16])).tolist() == [[255], [2**64 - 1]]
    assert hex_keys(pa.array(["0" * 31 + "1"])).tolist() == [[0, 1]]
    assert hex_keys(pa.array([], pa.string())).shape == (0, 1)


@given(st.integers(0, 16), st.integers(0, 2**32), st.integers(0, 40))
def test_neighbours_are_those_within_the_distance(distance, seed, count):
    rng = np.random.default_rng(seed)
    known = rng.integers(0, 2**64, count, np.uint64)
    flips = rng.integers(0, distance + 3, 60)
    masks = [sum(1 << int(bit) for bit in rng.choice(64, number, replace=False)) for number in flips]
    asked = rng.integers(0, 2**64, 60, np.uint64)
    if count:
        asked = rng.choice(known, 60) ^ np.array(masks, np.uint64)
    expected = [any((int(one) ^ int(other)).bit_count() <= distance for other in known) for one in asked]
    assert Neighbours.of(known, distance).has(asked).tolist() == expected


def test_neighbours_in_small_portions(monkeypatch):
    rng = np.random.default_rng(0)
    known, asked = rng.integers(0, 8, 300, np.uint64), rng.integers(0, 2**7, 200, np.uint64)
    whole = Neighbours.of(known, 2).has(asked)
    assert 0 < whole.sum() < len(whole)
    monkeypatch.setattr(entries, "_PAIRS_AT_ONCE", 50)
    assert np.array_equal(Neighbours.of(known, 2).has(asked), whole)
