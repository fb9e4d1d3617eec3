"""Block lists: what is on one, what is near it, and what is not to be told."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chaffinch.filters.block_list import BlockList
from chaffinch.filters.ranges import FittedRanges, check_ranges, parse_bounds

UIDS = [f"{number:032x}" for number in range(1, 6)]


@pytest.fixture
def listed(tmp_path):
    """Writes a list and makes the filter."""

    def make(content: str, **settings) -> BlockList:
        path = tmp_path / f"list{len(list(tmp_path.iterdir()))}.txt"
        path.write_text(content)
        filter_ = BlockList(file=str(path), **settings)
        filter_.check()
        return filter_

    return make


def scores(filter_, values, kind=None):
    return filter_.score({filter_.reads[0]: pa.array(values, kind)}).tolist()


def same(found, expected):
    return np.array_equal(found, expected, equal_nan=True)


def test_by_uid(listed):
    filter_ = listed(f"# removed on request\n{UIDS[1].upper()}\n{UIDS[3]}\n{UIDS[3]}\n", by="uid")
    assert filter_.reads == ("samples.uid",)
    assert scores(filter_, UIDS) == [0, 1, 0, 1, 0]


def test_it_vetoes_what_is_listed(listed):
    filter_ = listed(UIDS[0], by="uid")
    check_ranges(filter_.keep, filter_.drop)
    votes = FittedRanges(None, parse_bounds(filter_.drop)).vote(np.array([0, 1, np.nan], np.float32))
    assert votes.tolist() == [1, -1, 0]
    assert filter_.require
    assert filter_.takes_down
    assert not dataclasses.replace(filter_, refill=True).takes_down
    assert not dataclasses.replace(filter_, require=False).takes_down


def test_by_url(listed):
    filter_ = listed("https://Example.org/a.jpg#x\nexample.org:8080/b%7e\n", by="url")
    assert filter_.reads == ("metadata.url",)
    asked = [
        "http://example.org/a.jpg",
        "http://example.org/A.jpg",
        "http://example.org:8080/b~",
        "http://example.org/b~",
    ]
    assert scores(filter_, asked) == [1, 0, 1, 0]


def test_by_domain(listed):
    content = "example.org\n*.wild.example\n.dot.example\nhttps://whole.example/\nbücher.example\nxn--fa-hia.example\n"
    filter_ = listed(content, by="domain")
    blocked = [
        "http://example.org/a",
        "http://EXAMPLE.org:8080",
        "http://me@www.example.org./a",
        "http://a.b.c.example.org/",
        "http://wild.example/",
        "http://a.wild.example/",
        "http://a.dot.example/",
        "https://whole.example/a?b",
        "http://www.xn--bcher-kva.example/",
        "http://www.BÜCHER.example/",
        "http://faß.example/",
    ]
    passing = [
        "http://badexample.org/",
        "http://example.org.evil.example/",
        "http://example.com/example.org",
        "http://org/",
        "http://fass.example/",
        "http://example.org@other.example/",
    ]
    assert scores(filter_, blocked * 3) == [1] * len(blocked) * 3
    assert scores(filter_, passing) == [0] * len(passing)


def test_by_domain_is_what_a_loop_over_labels_says(listed):
    rng = np.random.default_rng(0)
    names = [".".join(rng.choice(list("abcd"), rng.integers(1, 5))) for _ in range(400)]
    entries = names[:12]
    filter_ = listed("\n".join(entries), by="domain")
    labels = [name.split(".") for name in names]
    expected = [any(".".join(parts[start:]) in entries for start in range(len(parts))) for parts in labels]
    assert 0 < sum(expected) < len(expected)
    assert scores(filter_, [f"http://{name}/" for name in names]) == expected


def test_by_digest_of_the_picture(listed):
    digest = "ab" * 32
    filter_ = listed(digest.upper(), by="sha256")
    assert filter_.reads == ("metadata.sha256",)
    assert scores(filter_, [digest, digest[:-1] + "c"]) == [1, 0]


def test_by_hash(listed, tmp_path):
    value = 0xF0F0F0F0F0F0F0F0
    asked = [value, value ^ 1, value ^ 0b111, value ^ 0b1111, 0]
    for distance, expected in ((0, [1, 0, 0, 0, 0]), (1, [1, 1, 0, 0, 0]), (3, [1, 1, 1, 0, 0])):
        filter_ = listed(f"{value:016x}\n", by="hash", distance=distance)
        assert filter_.reads == ("pictures.hash",)
        assert scores(filter_, asked, pa.uint64()) == expected
        assert scores(listed(f"0x{value:016X}\n", by="hash", distance=distance), asked, pa.uint64()) == expected
    signed = tmp_path / "signed.parquet"
    pq.write_table(pa.table({"hash": pa.array([value - 2**64], pa.int64())}), signed)
    assert scores(BlockList(file=str(signed), by="hash"), asked, pa.uint64()) == [1, 0, 0, 0, 0]


def test_by_any_text(listed):
    filter_ = listed("all rights reserved\n7\n", by="text", column="metadata.licence")
    assert scores(filter_, ["all rights reserved ", "All rights reserved", "cc-by"]) == [1, 0, 0]
    assert scores(filter_, [7, 8]) == [1, 0]


def test_another_column(listed):
    filter_ = listed("example.org", by="domain", column="metadata.URL")
    assert filter_.reads == ("metadata.URL",)
    assert scores(filter_, ["http://example.org"]) == [1]


@pytest.mark.parametrize(("missing", "score"), [("drop", 1), ("keep", np.nan)])
def test_what_is_missing_does_not_pass_unless_it_is_told_to(listed, missing, score):
    by_url = listed("example.org/a", by="url", missing=missing)
    assert same(scores(by_url, ["http://example.org/a", None, "", " "]), [1, score, score, score])
    assert same(scores(by_url, [None, None]), [score, score])  # a shard without metadata has a column of nulls
    by_domain = listed("example.org", by="domain", missing=missing)
    assert same(scores(by_domain, ["http://example.com/", "data:image/png;base64,AA", None]), [0, score, score])


def test_measured_columns_have_none_only_where_samples_were_rejected(listed):
    assert same(scores(listed("0" * 16, by="hash"), [0, None], pa.uint64()), [1, np.nan])


def test_an_empty_list_blocks_nothing(listed):
    assert scores(listed("# none yet\n", by="uid"), UIDS) == [0] * 5
    assert scores(listed("", by="domain"), ["http://example.org"]) == [0]
    assert scores(listed("", by="hash", distance=3), [0], pa.uint64()) == [0]


def test_slices_and_large_strings(listed):
    filter_ = listed(UIDS[1], by="uid")
    array = pa.array(UIDS, pa.large_string())
    assert filter_.score({"samples.uid": array[1:3]}).tolist() == [1, 0]


class TestIdentity:
    """It follows the entries, and nothing else of the file."""

    def test_order_comments_and_place_do_not_matter(self, listed):
        one = listed(f"{UIDS[0]}\n{UIDS[1]}\n", by="uid")
        other = listed(f"# twice\n{UIDS[1]}\n\n{UIDS[0].upper()}\n{UIDS[0]}", by="uid")
        assert one.file != other.file
        assert one.identity() == other.identity()

    def test_an_entry_more_does(self, listed):
        one = listed(UIDS[0], by="uid")
        before = one.identity()
        with open(one.file, "a") as file:
            file.write(f"\n{UIDS[1]}")
        assert one.identity() != before
        assert scores(one, UIDS[:2]) == [1, 1]

    def test_settings_do(self, listed):
        one = listed("0" * 16, by="hash")
        for changes in ({"distance": 1}, {"refill": True}, {"missing": "keep"}, {"require": False}):
            assert dataclasses.replace(one, **changes).identity() != one.identity()


@pytest.mark.parametrize(
    ("content", "settings", "problem"),
    [
        ("0" * 32 + "\nabc", {"by": "uid"}, r"list0\.txt:2: 'abc' is no uid: give 32 hex digits"),
        ("0" * 31 + "g", {"by": "uid"}, "is no uid"),
        ("0" * 32, {"by": "sha256"}, "is no sha256: give 64 hex digits"),
        ("12345", {"by": "hash"}, "is no hash: give 16 hex digits"),
        ("\n\nexample.org/gallery", {"by": "domain"}, r":3: 'example\.org/gallery' is no domain: .*without a path"),
        ("not a host", {"by": "domain"}, "is no domain"),
        ("*.", {"by": "domain"}, "is no domain"),
        ("data:image/png;base64,AA", {"by": "url"}, "is no address"),
        ("a", {"by": "words"}, "by 'words' is unknown: use one of uid, url"),
        ("0" * 16, {"by": "hash", "distance": 17}, "distance is 17"),
        ("0" * 32, {"by": "uid", "distance": 1}, "distance counts the bits of hashes"),
        ("a", {"by": "text"}, "needs column"),
        ("a", {"by": "url", "column": "url"}, "column 'url' is not of the form"),
    ],
)
def test_what_is_wrong_is_named(listed, content, settings, problem):
    with pytest.raises(ValueError, match=problem):
        listed(content, **settings)


def test_a_list_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.txt: No such file or directory; give the path"):
        BlockList(file=str(tmp_path / "gone.txt"), by="uid").check()


def test_columns_of_another_type(listed):
    with pytest.raises(ValueError, match=r"'metadata\.url' holds int64, nothing that can be listed by url"):
        scores(listed("example.org", by="url"), [1])
    with pytest.raises(ValueError, match="holds string, not hashes"):
        scores(listed("0" * 16, by="hash"), ["a"])
