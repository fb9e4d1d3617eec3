"""Archives: keys, groups, long names, and every way to damage a small tar."""

import errno
import io
import os
import random
import struct
import tarfile
import time
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from webdataset.tariterators import base_plus_ext

from chaffinch.pipeline.samples import index_shard
from chaffinch.pipeline.shards import Shard
from chaffinch.pipeline.storage.archive import Group, read_groups, split_name

BLOCK = 512


def groups_of(data: bytes) -> list[Group]:
    return list(read_groups(io.BytesIO(data), len(data)))


def content_of(data: bytes, group: Group) -> tuple[str, tuple[tuple[str, bytes], ...]]:
    return group.key, tuple((one.name, data[one.offset : one.offset + one.size]) for one in group.members)


@pytest.fixture(scope="module")
def five(make_tar, sample) -> bytes:
    """Five samples, the third with a member of no bytes, cut of all padding beyond the end-of-archive blocks."""
    members = [("a.txt", b"one"), ("a.json", b"{}"), ("b.txt", b"x" * 700), ("c.txt", b""), ("c.json", b"{}")]
    members += [("d/d.txt", b"four"), ("e.txt", b"y" * 512), ("e.json", b"{}")]
    whole = make_tar(members)
    assert len(whole) == 10240
    return whole


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a.jpg", ("a", "jpg")),
        ("a.v2.jpg", ("a", "v2.jpg")),
        ("A.JPG", ("A", "jpg")),
        ("x.y/a.b/c.Txt", ("x.y/a.b/c", "txt")),
        ("./a.jpg", ("./a", "jpg")),
        ("a.", ("a", "")),
        (".hidden", None),
        ("folder/.hidden.jpg", None),
        ("readme", None),
        ("dotted.folder/readme", None),
        ("", None),
        ("folder/", None),
    ],
)
def test_key_ends_at_first_dot_of_base_name(name, parts):
    assert split_name(name) == parts


@given(st.text(st.sampled_from("ab./X_"), max_size=12))
def test_split_agrees_with_webdataset(name):
    assume("/." not in f"/{name}")  # webdataset's pattern makes a sample "folder/" of "folder/.hidden"
    key, extension = base_plus_ext(name)
    assert split_name(name) == (None if key is None else (key, extension.lower()))


def test_groups_are_runs_of_one_key(make_tar):
    names = ["a.jpg", "a.TXT", "b.txt", "a.jpg", "c.jpg", "c.v2.jpg", "c.jpg", "c.txt", "s/c.txt", "c.JPG", "c.jpg"]
    found = [(group.key, [one.extension for one in group.members]) for group in groups_of(make_tar_of(make_tar, names))]
    assert found == [
        ("a", ["jpg", "txt"]),
        ("b", ["txt"]),
        ("a", ["jpg"]),
        ("c", ["jpg", "v2.jpg"]),
        ("c", ["jpg", "txt"]),
        ("s/c", ["txt"]),
        ("c", ["jpg"]),
        ("c", ["jpg"]),
    ]


def make_tar_of(make_tar, names) -> bytes:
    return make_tar([(name, name.encode()) for name in names])


def test_strangers_between_members_do_not_split_a_sample(make_tar):
    data = make_tar_of(make_tar, ["a.jpg", ".DS_Store", "readme", "._a.txt", "a.txt", "b.txt"])
    assert [group.key for group in groups_of(data)] == ["a", "b"]
    assert content_of(data, groups_of(data)[0]) == ("a", (("a.jpg", b"a.jpg"), ("a.txt", b"a.txt")))


def test_folders_and_links_are_skipped():
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, kind in [("d.dir", tarfile.DIRTYPE), ("l.jpg", tarfile.SYMTYPE), ("h.jpg", tarfile.LNKTYPE)]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "d/a.txt"
            archive.addfile(info)
        info = tarfile.TarInfo("d/a.txt")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    data = content.getvalue()
    assert [content_of(data, group) for group in groups_of(data)] == [("d/a", (("d/a.txt", b"abc"),))]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names_are_read(make_tar, form):
    long = "folder/" * 30 + "k" * 120
    members = [(f"{long}.jpg", b"1"), (f"{long}.txt", b"22"), ("späti/ключ.txt", b"333"), ("end.txt", b"4")]
    data = make_tar(members, form)
    assert [content_of(data, group) for group in groups_of(data)] == [
        (long, tuple(members[:2])),
        ("späti/ключ", (members[2],)),
        ("end", (members[3],)),
    ]


def test_many_members_of_one_key_take_no_ages(make_tar):
    """Names such as `image.00001.jpg` all have the key `image`."""
    data = make_tar([(f"image.{number:05d}.jpg", b"") for number in range(20000)])
    began = time.process_time()
    assert [len(group.members) for group in groups_of(data)] == [20000]
    assert time.process_time() - began < 6


def test_an_archive_without_members_is_whole(make_tar):
    assert groups_of(make_tar([])) == []


def test_sparse_members_are_not_taken_for_their_bytes():
    """Their bytes do not lie in the archive as they are; none may be handed to a decoder or copied."""
    info = tarfile.TarInfo("a.jpg")
    info.size = 5
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = b"S"
    header[386:410] = b"%011o\0%011o\0" % (1000, 5)
    header[483:495] = b"%011o\0" % 1005
    _sign(header)
    data = bytes(header) + b"hello".ljust(512, b"\0") + _member("a.txt", b"words") + bytes(1024)
    found = groups_of(data)
    assert all(one.name != "a.jpg" for group in found for one in group.members) or found[-1].damage


def _sign(header: bytearray) -> None:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)


def _member(name: str, data: bytes, size: bytes | None = None, kind: bytes = b"0") -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    header[156:157] = kind
    if size is not None:
        header[124:136] = size
    _sign(header)
    return bytes(header) + data + bytes(-len(data) % BLOCK)


def test_every_cut_is_noticed_and_costs_only_the_last_sample(five):
    ending = five.rstrip(b"\0")
    last_data = len(ending) + -len(ending) % BLOCK
    whole = [content_of(five, group) for group in groups_of(five)]
    assert len(whole) == 5
    ends = [group.members[-1].offset + group.members[-1].size for group in groups_of(five)]
    for length in range(len(five)):
        cut = five[:length]
        found = groups_of(cut)
        if length >= last_data + 2 * BLOCK:
            assert [content_of(cut, group) for group in found] == whole, length
            assert all(group.damage is None for group in found), length
            continue
        assert found[-1].damage, length
        assert found[-1].damage.startswith("shard is damaged: "), length
        assert all(group.damage is None for group in found[:-1]), length
        assert [content_of(cut, group) for group in found[:-1]] == whole[: len(found) - 1], length
        # Only the last sample found is lost: all that lie wholly before the one cut into are there.
        assert len(found) >= sum(end <= length for end in ends), length


def test_every_cut_of_a_shard_becomes_rows(tmp_path, make_tar, sample, shard_of):
    data = make_tar([*sample("00", 0), *sample("01", 1)])
    end = len(data.rstrip(b"\0"))
    whole = index_shard(shard_of(tmp_path / "0.tar", data)).to_pylist()
    assert [row["reject"] for row in whole] == [None, None]
    for length in sorted({place + step for place in range(0, end + 2048, BLOCK) for step in (-1, 0, 1, 200)} - {-1}):
        rows = index_shard(shard_of(tmp_path / "0.tar", data[:length])).to_pylist()
        if length < end + -end % BLOCK + 1024:
            assert "damaged" in rows[-1]["reject"], length
            assert rows[:-1] == whole[: len(rows) - 1], length
        else:
            assert rows == whole, length


def header_places(data: bytes) -> list[int]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return [info.offset for info in archive]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_headers_never_hide_a_sample(five, data):
    places = header_places(five)
    broken = bytearray(five)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(places)) + data.draw(st.integers(0, BLOCK - 1))
        broken[place] = data.draw(st.integers(0, 255))
    found = groups_of(bytes(broken))
    assert found[-1].damage or len(found) >= 5


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_random_damage_of_long_names_never_crashes(tmp_path_factory, make_tar, seed):
    rng = random.Random(seed)
    form = rng.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    data = bytearray(make_tar([("n" * 150 + ".txt", b"one"), ("ключ.txt", b"two"), ("o" * 200 + ".txt", b"3")], form))
    for _ in range(rng.randrange(1, 8)):
        data[rng.randrange(len(data) // 2)] = rng.randrange(256)
    path = Path(tmp_path_factory.getbasetemp()) / "damaged.tar"
    path.write_bytes(data)
    assert index_shard(Shard("damaged", str(path), len(data), 0.0)).num_rows >= 1


@pytest.mark.parametrize("start", [0, 1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_zeroed_blocks_are_no_quiet_end(five, start, blocks):
    """What a file system leaves of blocks that it lost: zeros, which look like the end of an archive."""
    place = header_places(five)[start]
    broken = five[:place] + bytes(blocks * BLOCK) + five[place + blocks * BLOCK :]
    found = groups_of(broken)
    rest = five[place + blocks * BLOCK :]
    assert found[-1].damage or not rest.strip(b"\0"), (start, blocks)


def test_joined_archives_are_noticed(make_tar):
    both = make_tar([("a.txt", b"1"), ("b.txt", b"2")]) + make_tar([("c.txt", b"3")])
    found = groups_of(both)
    assert [group.key for group in found] == ["a", "b"]
    assert "end" in found[-1].damage


@pytest.mark.parametrize(
    "size",
    [
        b"\xff" * 8 + struct.pack(">i", -1024),  # base 256, negative: points back at itself
        b"\xff" * 8 + struct.pack(">i", -1),
        b"\x80\0\0\0" + struct.pack(">q", 2**62),
        b"\x80" + b"\xff" * 11,
        b"77777777777\0",
        b"-0000001000\0",
        b"not octal \0\0",
    ],
)
@pytest.mark.parametrize("kind", [b"0", b"L", b"x", b"g", b"S", b"5", b"1"])
def test_lying_sizes_end_as_damage(size, kind):
    first = _member("a.txt", b"fine")
    data = first + _member("b.txt", b"bytes", size, kind) + _member("c.txt", b"more") + bytes(1024)
    found = groups_of(data)
    assert found[-1].damage
    assert len(found) <= 2


def test_sparse_map_without_end_does_not_hang():
    """A sparse map that promises more entries than the file holds: tarfile reads on at the end of the file for ever."""
    record = b"23 GNU.sparse.major=1\n" + b"23 GNU.sparse.minor=0\n"
    assert len(record) == 44
    record = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"
    data = _member("pax", record, kind=b"x") + _member("a.txt", b"9999999\n") + bytes(1024)
    assert groups_of(data)[-1].damage


def test_failing_disk_is_not_taken_for_damage(five):
    """Damage is for ever; a disk that fails is tried again."""

    class Failing(io.BytesIO):
        def read(self, size=-1, /):
            if self.tell() >= 1024:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().read(size)

    with pytest.raises(OSError, match="Input/output"):
        list(read_groups(Failing(five), len(five)))
