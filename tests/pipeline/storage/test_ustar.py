"""Headers against Python's tarfile, and the names that samples get in an output."""

import io
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaffinch.pipeline.storage.archive import read_groups
from chaffinch.pipeline.storage.ustar import (
    UnfitNameError,
    archive_size,
    end_archive,
    header,
    output_names,
    write_member,
)

PARTS = st.text(st.sampled_from("abcdefgh._-0é猫 "), min_size=1, max_size=60)
NAMES = st.lists(PARTS, min_size=1, max_size=6).map("/".join)


def oracle(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")


@given(NAMES, st.one_of(st.integers(0, 8**11 - 1), st.sampled_from([0, 511, 512, 8**11 - 1])))
def test_header_equals_tarfile(name, size):
    try:
        expected = oracle(name, size)
    except ValueError:
        with pytest.raises(UnfitNameError):
            header(name, size)
        return
    assert header(name, size) == expected


@pytest.mark.parametrize("length", [1, 99, 100])
def test_names_up_to_a_hundred_bytes(length):
    assert header("n" * length, 1) == oracle("n" * length, 1)


@pytest.mark.parametrize(
    "name", ["n" * 101, "a/" + "n" * 101, "p" * 156 + "/n", "/" + "n" * 100, "a/" * 100 + "n" * 60]
)
def test_names_that_do_not_fit(name):
    with pytest.raises(UnfitNameError):
        header(name, 1)


def test_the_longest_name():
    name = "p" * 155 + "/" + "n" * 100
    assert header(name, 1) == oracle(name, 1)


def test_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match="8 GiB"):
        header("a", 8**11)


@given(st.lists(st.tuples(NAMES, st.binary(max_size=1500)), max_size=8))
def test_archives_equal_tarfiles(members):
    """Write, then read: the same bytes as tarfile writes, and the same members as it reads."""
    expected, written = io.BytesIO(), io.BytesIO()
    fitting = []
    for name, data in members:
        try:
            oracle(name, len(data))
        except ValueError:
            continue
        fitting.append((name, data))
    with tarfile.open(fileobj=expected, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in fitting:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
            write_member(written, name, data)
    end_archive(written)
    assert written.getvalue() == expected.getvalue()
    assert archive_size(np.array([len(data) for _, data in fitting], np.int64)) == len(written.getvalue())
    assert all(group.damage is None for group in read_groups(written, len(written.getvalue())))


class TestNames:
    """What a kept sample is called in an output shard."""

    def test_unchanged(self):
        taken: set[str] = set()
        assert output_names("a/k", "u" * 32, ["a/k.jpg", "a/k.v2.TXT"], taken) == ("a/k", ["a/k.jpg", "a/k.v2.TXT"])
        assert taken == {"a/k"}

    def test_equal_keys(self):
        taken = {"k"}
        assert output_names("k", "u" * 32, ["k.jpg", "k.b.c"], taken) == (
            "u" * 32,
            ["u" * 32 + ".jpg", "u" * 32 + ".b.c"],
        )
        assert taken == {"k", "u" * 32}

    def test_a_key_that_is_another_samples_uid(self):
        uid = "f" * 32
        taken: set[str] = set()
        keys = [
            output_names(key, one, [f"{key}.jpg"], taken)[0] for key, one in [(uid, "0" * 32), ("k", uid), ("k", uid)]
        ]
        keys.append(output_names("k", uid, ["k.jpg"], taken)[0])
        assert keys == [uid, "k", uid + "-1", uid + "-2"]

    def test_names_that_do_not_fit(self):
        long = "k" * 120
        assert output_names(long, "e" * 32, [f"{long}.jpg"], set()) == ("e" * 32, ["e" * 32 + ".jpg"])
