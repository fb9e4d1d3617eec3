"""Samples tables and decoding over what real pools contain, made from bytes; and how shards are found and named."""

import io
import json
import os
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chaffinch.pipeline.measuring.batches import LoadedScorer
from chaffinch.pipeline.measuring.feeds import Wanted
from chaffinch.pipeline.measuring.measure import measure
from chaffinch.pipeline.samples import LONGEST_EXTENSION, SCHEMA, derived_uid, index_shard
from chaffinch.pipeline.shards import Shard, find_shards
from chaffinch.scoring.pictures import Pictures


@pytest.fixture
def rows_of(tmp_path, write_shard):
    """(members, form) -> the samples table's rows."""

    def rows(members, form=tarfile.USTAR_FORMAT):
        table = index_shard(write_shard(tmp_path / "p" / "s.tar", members, form))
        assert table.schema.equals(SCHEMA)
        return table.to_pylist()

    return rows


def only(rows):
    assert len(rows) == 1
    return rows[0]


def test_a_good_sample(rows_of, sample, uid_of):
    members = sample("folder/k")
    row = only(rows_of([*members, ("folder/k.npy", b"extra")]))
    assert row["uid"] == uid_of("folder/k")
    assert row["key"] == "folder/k"
    assert row["members"] == ["folder/k.jpg", "folder/k.txt", "folder/k.json", "folder/k.npy"]
    assert row["sizes"] == [*(len(data) for _, data in members), 5]
    assert (row["picture"], row["caption"], row["reject"]) == (0, 1, None)


def test_offsets_point_at_the_bytes(tmp_path, write_shard, sample):
    members = [*sample("a" * 120), *sample("b", 1), ("b.empty", b"")]
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        shard = write_shard(tmp_path / "s.tar", members, form)
        data = Path(shard.path).read_bytes()
        found = [
            (name, data[offset : offset + size])
            for row in index_shard(shard).to_pylist()
            for name, offset, size in zip(row["members"], row["offsets"], row["sizes"], strict=True)
        ]
        assert found == members


def test_upper_case_extensions_and_other_formats(rows_of, picture):
    members = [("a.TXT", b"words"), ("a.JPG", picture()), ("b.Png", picture(form="PNG")), ("b.txt", b"words")]
    members += [("c.webp", picture(form="WEBP")), ("c.txt", b"w"), ("d.jpeg", picture()), ("d.txt", b"w")]
    rows = rows_of(members)
    assert [(row["picture"], row["caption"], row["reject"]) for row in rows] == [
        (1, 0, None),
        (0, 1, None),
        (0, 1, None),
        (0, 1, None),
    ]


BAD_JSON = [
    (b"{", "json cannot be read"),
    (b"", "json cannot be read"),
    (b"[1, 2]", "json is no object"),
    (b'"text"', "json is no object"),
    (b"null", "json is no object"),
    (b"[" * 100_000 + b"]" * 100_000, "json cannot be read"),
    (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "json cannot be read"),
    (b'{"a": "\xff"}', "json cannot be read"),
    (b'{"a": ' + b"9" * 10_000 + b"}", "json cannot be read"),
    (b"\x00" * 600, "json cannot be read"),
]


@pytest.mark.parametrize(("data", "reason"), BAD_JSON, ids=[str(number) for number in range(len(BAD_JSON))])
def test_broken_json(rows_of, sample, data, reason):
    members = [*sample("a")[:2], ("a.json", data), *sample("b")]
    rows = rows_of(members)
    assert [row["reject"] for row in rows] == [reason, None]
    assert rows[0]["uid"] == derived_uid("s", "a")


def test_missing_json_is_a_sample(rows_of, sample):
    row = only(rows_of(sample("0001")[:2]))
    assert row["reject"] is None
    assert row["uid"] == derived_uid("s", "0001")
    assert len(row["uid"]) == 32


@pytest.mark.parametrize(
    ("uid", "kept"),
    [
        ("0123456789abcdef" * 2, True),
        ("0123456789ABCDEF" * 2, True),
        ("0123456789abcdeg" * 2, False),
        ("0123456789abcdef", False),
        ("0123456789abcdef" * 2 + "0", False),
        ("0123456789abcdef" * 2 + "\n", False),
        ("٠١٢٣٤٥٦٧" * 4, False),
        (12345678901234567890123456789012, False),
        (None, False),
        (["0123456789abcdef" * 2], False),
        ("\ud800" * 32, False),
    ],
)
def test_uids(rows_of, sample, uid, kept):
    members = [*sample("a")[:2], ("a.json", json.dumps({"uid": uid}).encode())]
    row = only(rows_of(members))
    assert row["uid"] == (uid.lower() if kept else derived_uid("s", "a"))
    assert row["reject"] is None


def test_derived_uids_differ_by_shard_and_key():
    assert len({derived_uid(shard, key) for shard in "ab" for key in "xy"}) == 4


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        (b"", "caption is empty"),
        (b" \n\t\r\n", "caption is empty"),
        ("\u3000\u2003".encode(), "caption is empty"),
        ("caf\xe9".encode("latin-1"), "caption is not UTF-8"),
        ("words".encode("utf-16"), "caption is not UTF-8"),
        (b"\xed\xa0\x80", "caption is not UTF-8"),
        ("ein Wörtchen 猫 \x00".encode(), None),
    ],
)
def test_captions(rows_of, sample, caption, reason):
    members = sample("a")
    members[1] = ("a.txt", caption)
    assert only(rows_of(members))["reject"] == reason


def test_missing_and_oversized_parts(rows_of, sample):
    picture, text, described = sample("a")
    huge = b"x" * ((1 << 24) + 1)
    cases = [
        ([text, described], "no picture"),
        ([picture, described], "no caption"),
        ([described], "no picture"),
        ([picture, text, described, ("a.png", picture[1])], "more than one picture"),
        ([picture, ("a.txt", huge), described], f"caption is {len(huge)} bytes long"),
        ([picture, text, ("a.json", huge)], f"json is {len(huge)} bytes long"),
        ([("a.jpg", b""), text, described], "picture is empty"),
        (
            [("a.jpg", b"<!DOCTYPE html><html>"), text, described],
            "picture is not an image (starts with '<!DOCTYPE html>",
        ),
        ([("a.jpg", b"\x00\x01\x02\xff"), text, described], "picture is not an image (starts with bytes 00 01 02 ff)"),
    ]
    for members, reason in cases:
        row = only(rows_of(members))
        assert row["reject"] is not None
        assert row["reject"].startswith(reason), (row["reject"], reason)


def test_repeated_extension_starts_a_sample(rows_of, sample):
    rows = rows_of([*sample("a", 0), *sample("a", 1, uid="f" * 32)])
    assert [(row["key"], row["reject"]) for row in rows] == [("a", None), ("a", None)]
    assert rows[1]["uid"] == "f" * 32


def test_names_that_are_no_text(tmp_path, shard_of, make_tar, sample):
    """A name in Latin-1 cannot be stored as text: its sample is rejected and the others are read."""
    data = make_tar([*sample("\udce9t\udce9", caption="x", uid="e" * 32), *sample("b")])
    rows = index_shard(shard_of(tmp_path / "s.tar", data)).to_pylist()
    assert [row["reject"] for row in rows] == ["member name is not UTF-8", None]
    assert rows[0]["key"] == "\\xe9t\\xe9"


def test_names_that_could_not_be_written(rows_of, sample):
    rest = "y" * LONGEST_EXTENSION
    rows = rows_of([*sample("a"), (f"a.{rest}", b"1"), *sample("b"), (f"b.{rest}y", b"1")], tarfile.GNU_FORMAT)
    assert [row["reject"] for row in rows] == [None, "member name is too long after its first dot"]


def test_content_digest_covers_every_byte(tmp_path, shard_of, make_tar, sample):
    data = bytearray(make_tar([*sample("a"), *sample("b", 1)]))
    place = data.index(b"\xff\xd8\xff") + 300

    def content(changed):
        return index_shard(shard_of(tmp_path / "s.tar", bytes(changed))).schema.metadata[b"content"]

    first = content(data)
    assert content(data) == first
    data[place] ^= 1
    assert content(data) != first


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_shard_without_permission_has_one_row(tmp_path, shard_of, make_tar, sample):
    shard = shard_of(tmp_path / "s.tar", make_tar(sample("a")))
    os.chmod(shard.path, 0)
    assert only(index_shard(shard).to_pylist())["reject"].startswith("shard cannot be read")


def test_a_shard_that_vanished_has_one_row(tmp_path):
    rows = index_shard(Shard("gone", str(tmp_path / "gone.tar"), 10, 0.0)).to_pylist()
    assert only(rows)["reject"] == "shard cannot be read: No such file or directory"
    assert rows[0]["uid"] == derived_uid("gone", "")


def test_an_empty_file_and_one_that_is_no_tar(tmp_path, shard_of):
    for data in (b"", b"\x1f\x8b" * 2000, b"<html>" * 1000, bytes(511)):
        row = only(index_shard(shard_of(tmp_path / "s.tar", data)).to_pylist())
        assert "damaged" in row["reject"]
    assert index_shard(shard_of(tmp_path / "s.tar", bytes(10240))).num_rows == 0


def _bytes_of(image: Image.Image, form: str, **options) -> bytes:
    content = io.BytesIO()
    image.save(content, form, **options)
    return content.getvalue()


def test_strange_pictures_through_scoring(tmp_path, write_shard, sample, picture):
    """CMYK, 16 bits, transparency, palettes and animation are measured; huge and broken pictures are rejected."""
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue")]
    grey16 = Image.fromarray(np.full((10, 20), 40000, np.uint16))
    huge = bytearray(_bytes_of(Image.new("L", (8, 8)), "PNG"))
    huge[16:24] = (20_000).to_bytes(4, "big") * 2
    huge[29:33] = zlib.crc32(huge[12:29]).to_bytes(4, "big")
    good = picture()
    cases = {
        "cmyk.jpg": (_bytes_of(Image.new("CMYK", (20, 10), (0, 255, 255, 0)), "JPEG"), None),
        "deep.png": (_bytes_of(grey16, "PNG"), None),
        "animated.webp": (_bytes_of(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True), None),
        "clear.png": (_bytes_of(Image.new("RGBA", (20, 10), (255, 0, 0, 0)), "PNG"), None),
        "palette.png": (_bytes_of(frames[0].convert("P"), "PNG"), None),
        "disguised.jpg": (_bytes_of(frames[0], "PNG"), None),
        "huge.png": (bytes(huge), "picture is too large"),
        "half.jpg": (good[: len(good) // 2], "picture cannot be decoded"),
        "head.jpg": (good[:3], "picture cannot be decoded"),
    }
    members = []
    for number, (name, (data, _)) in enumerate(cases.items()):
        key, _, extension = name.partition(".")
        members += [(f"{key}.{extension}", data), *sample(key, number)[1:]]
    shard = write_shard(tmp_path / "s.tar", members)
    samples = index_shard(shard)
    assert samples["reject"].null_count == len(cases)
    loaded = LoadedScorer(Wanted("pictures", "pictures", Pictures()), Pictures().load("cpu"))
    table = measure(shard.path, samples, [loaded], 4)["pictures"]
    for row, (name, (_, reason)) in zip(table.to_pylist(), cases.items(), strict=True):
        if reason is None:
            assert row["reject"] is None, (name, row)
            assert (row["width"], row["height"]) == (20, 10)
        else:
            assert row["reject"].startswith(reason), (name, row)
            assert all(value is None for column, value in row.items() if column != "reject")
    brightness = dict(zip(cases, table["brightness"].to_pylist(), strict=True))
    assert brightness["deep.png"] == pytest.approx(40000 / 65535, abs=0.01)


class TestFindingShards:
    """Names are paths below the common root of what was asked for."""

    @pytest.fixture
    def pools(self, tmp_path, shard_of) -> Path:
        for name in ("a/0.tar", "a/1.tar", "b/0.tar", "b/deep/er/0.tar", "a/0.parquet", "a/0.tar.part", "c.tar"):
            path = tmp_path / "pools" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shard_of(path, b"x" * len(name))
        return tmp_path / "pools"

    @staticmethod
    def names(inputs) -> list[str]:
        return [shard.name for shard in find_shards(inputs)]

    def test_a_folder_with_folders(self, pools):
        assert self.names(str(pools)) == ["a/0", "a/1", "b/0", "b/deep/er/0", "c"]
        assert self.names(f"{pools}/") == self.names(str(pools))
        first = find_shards(str(pools))[0]
        assert (first.path, first.size) == (f"{pools}/a/0.tar", 7)
        assert first.modified == os.path.getmtime(first.path)

    def test_one_shard(self, pools):
        assert self.names(f"{pools}/a/1.tar") == ["1"]

    def test_globs(self, pools):
        assert self.names(f"{pools}/a/*.tar") == ["0", "1"]
        assert self.names(f"{pools}/a/[1-9].tar") == ["1"]
        assert self.names(f"{pools}/*/0.tar") == ["a/0", "b/0"]
        assert self.names(f"{pools}/[ab]") == ["a/0", "a/1", "b/0", "b/deep/er/0"]
        assert self.names(f"{pools}/*") == ["a/0", "a/1", "b/0", "b/deep/er/0", "c"]

    def test_lists(self, pools):
        assert self.names([f"{pools}/a", f"{pools}/b/deep"]) == ["a/0", "a/1", "b/deep/er/0"]
        assert self.names([f"{pools}/b", f"{pools}/b/0.tar"]) == ["0", "deep/er/0"]

    def test_relative_paths(self, pools, monkeypatch):
        monkeypatch.chdir(pools / "a")
        assert self.names(".") == ["0", "1"]
        assert self.names("../a/../b") == ["0", "deep/er/0"]
        assert self.names("*.tar") == ["0", "1"]

    def test_names_stay_when_the_pool_grows(self, tmp_path, shard_of):
        folder = tmp_path / "pool"
        (folder / "x").mkdir(parents=True)
        (folder / "y").mkdir()
        shard_of(folder / "x" / "0.tar", b"1")
        before = self.names(str(folder)), self.names(f"{folder}/*/*.tar"), self.names([f"{folder}/x", f"{folder}/y"])
        shard_of(folder / "y" / "0.tar", b"1")
        shard_of(folder / "x" / "1.tar", b"1")
        after = self.names(str(folder)), self.names(f"{folder}/*/*.tar"), self.names([f"{folder}/x", f"{folder}/y"])
        assert before == (["x/0"],) * 3
        assert after == (["x/0", "x/1", "y/0"],) * 3

    def test_linked_folders_are_part_of_a_pool(self, pools, tmp_path):
        (tmp_path / "view").mkdir()
        (tmp_path / "view" / "part").symlink_to(pools / "a")
        assert self.names(str(tmp_path / "view")) == ["part/0", "part/1"]

    def test_folders_with_characters_of_globs(self, tmp_path, shard_of):
        folder = tmp_path / "pool [1]"
        folder.mkdir()
        shard_of(folder / "0.tar", b"1")
        assert self.names(str(folder)) == ["0"]

    def test_nothing(self, tmp_path):
        assert self.names(str(tmp_path / "nowhere")) == []
        assert self.names(str(tmp_path)) == []

    def test_stamps_change_with_size_and_time_either_way(self):
        first = Shard("0", "0.tar", 10, 1000.0)
        others = [Shard("0", "0.tar", 11, 1000.0), Shard("0", "0.tar", 10, 999.0), Shard("0", "0.tar", 10, 1000.5)]
        assert len({one.stamp for one in [first, *others]}) == 4
        assert Shard("1", "elsewhere.tar", 10, 1000.0).stamp == first.stamp
