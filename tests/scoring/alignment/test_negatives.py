"""The bank: which pairs are drawn, from what, and what is no bank."""

import io
import json
import tarfile

import pytest
from PIL import Image

from chaffinch.scoring.alignment.negatives import caption_key, draw_negatives, find_negatives


@pytest.fixture
def pool(tmp_path, small_pool):
    return small_pool(tmp_path / "pool", shards=2, samples=6)


def drawn(paths, count=4, seed=0):
    return [(one.uid, one.caption, one.picture.size) for one in draw_negatives(paths, count, seed)]


def test_shards_are_found_by_folder_pattern_or_name(pool, tmp_path):
    first, second = sorted(pool.glob("*.tar"))
    (pool / "notes.txt").write_text("nothing")
    assert find_negatives([str(pool)]) == [first, second]
    assert find_negatives([str(tmp_path)]) == [first, second]  # deeper
    assert find_negatives([str(pool / "*1.tar"), str(first), str(first)]) == [first, second]
    assert find_negatives([str(second)]) == [second]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("s3://bucket/pool", "are not on the local disk: copy them there, and name the copy"),
        ("{}/nowhere", "is no .tar file and no folder of them: name shards of trusted pairs"),
        ("{}/empty", "is no .tar file and no folder of them"),
        ("{}/empty/*", "is no .tar file and no folder of them"),
        ("{}/notes.txt", "is no .tar file and no folder of them"),
    ],
)
def test_places_without_shards(tmp_path, place, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(ValueError, match=message) as told:
        find_negatives([place.format(tmp_path)])
    assert place.format(tmp_path) in str(told.value)
    with pytest.raises(ValueError, match="negatives is empty"):
        find_negatives([])


def test_who_is_drawn_follows_from_the_pairs_alone(pool, tmp_path, make_tar):
    paths = find_negatives([str(pool)])
    first = drawn(paths)
    assert len({uid for uid, _, _ in first}) == 4
    assert drawn(paths[::-1]) == first
    members = []
    for path in paths:
        with tarfile.open(path) as archive:
            members += [(f"deeper/{one.name}", archive.extractfile(one).read()) for one in archive]
    whole = tmp_path / "whole.tar"
    whole.write_bytes(make_tar([one for row in range(11, -1, -1) for one in members[3 * row : 3 * row + 3]]))
    assert drawn([whole]) == first
    assert drawn([whole, *paths]) == first  # nobody twice
    assert drawn(paths, seed=1) != first
    assert drawn(paths, count=12)[:4] == first
    assert len(drawn(paths, count=100)) == 12


def test_pairs_without_uids_are_told_apart_by_what_they_are(tmp_path, write_shard, sample):
    folders = [tmp_path / "a", tmp_path / "b"]
    for number, folder in enumerate(folders):  # shards and keys of one name, and others' pictures
        write_shard(
            folder / "00000000.tar", [member for row in range(3) for member in sample(f"{row}", 10 * number + row)[:2]]
        )
    both = find_negatives([str(one) for one in folders])
    assert len(drawn(both, 10)) == 6
    assert all(uid is None for uid, _, _ in drawn(both, 10))
    assert drawn(both[::-1], 10) == drawn(both, 10)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "9.tar").write_bytes(both[0].read_bytes())
    assert drawn([*both, tmp_path / "c" / "9.tar"], 10) == drawn(both, 10)


def test_uids_are_compared_in_lower_case(tmp_path, write_shard, sample):
    path = tmp_path / "0.tar"
    write_shard(path, [*sample("a", 0, uid="AB" * 16), *sample("b", 1)])
    assert {one.uid for one in draw_negatives([path], 2, 0)} >= {"ab" * 16}


def test_what_no_model_could_be_shown_is_passed_over(tmp_path, write_shard, sample, picture):
    strip = io.BytesIO()
    Image.new("RGB", (600, 2)).save(strip, "PNG")
    members = [
        *sample("good", 0),
        *sample("also", 1),
        *[("broken.jpg", b"\xff\xd8\xff no picture"), ("broken.txt", b"a caption")],
        *[("blank.jpg", picture(3)), ("blank.txt", b"  \n")],
        *[("latin.jpg", picture(4)), ("latin.txt", "caf\xe9".encode("latin-1"))],
        *[("strip.png", strip.getvalue()), ("strip.txt", b"a strip")],
        ("lonely.jpg", picture(5)),
        *[("silent.txt", b"no picture"), ("silent.json", b"{")],
        *[(".hidden.jpg", picture(6)), (".hidden.txt", b"hidden")],
        *[("deep.jpg", picture(7)), ("deep.txt", b"deep"), ("deep.json", b"[" * 100_000)],
        *[("odd.jpg", picture(8)), ("odd.txt", b"odd"), ("odd.json", json.dumps({"uid": 7}).encode())],
    ]
    write_shard(tmp_path / "0.tar", members)
    found = draw_negatives([tmp_path / "0.tar"], 100, 0)
    assert {one.caption for one in found} == {
        "a picture of number 0 for good",
        "a picture of number 1 for also",
        "deep",
        "odd",
    }
    assert {one.caption for one in found if one.uid is None} == {"deep", "odd"}
    assert {one.picture.mode for one in found} == {"RGB"}


def test_a_run_of_members_is_a_sample(tmp_path, write_shard, picture):
    """As in WebDataset: where a key comes again later, or an extension twice, there is another sample."""
    members = [
        *[("a.JPG", picture(0)), ("a.txt", b"first")],
        *[("b.jpg", picture(1)), ("b.txt", b"second")],
        *[("a.jpg", picture(2)), ("a.txt", b"third"), ("a.jpg", picture(3)), ("a.txt", b"fourth")],
    ]
    write_shard(tmp_path / "0.tar", members)
    assert {one.caption for one in draw_negatives([tmp_path / "0.tar"], 9, 0)} == {"first", "second", "third", "fourth"}


def test_a_bank_of_one_is_none(tmp_path, write_shard, sample):
    path = tmp_path / "0.tar"
    for members, told in (
        ([], "0 pairs that can be used"),
        (sample("a", 0), "1 pairs that can be used"),
        ([*sample("a", 0, "One  Caption"), *sample("b", 1, "one caption")], "2 pairs of one caption"),
    ):
        write_shard(path, members) if members else path.write_bytes(bytes(10_240))
        with pytest.raises(ValueError, match=f"there are {told}, and 2 with different captions are the least: name"):
            draw_negatives([path], 8, 0)


@pytest.mark.parametrize("harm", ["cut", "header", "nothing", "html", "cut in a header"])
def test_damaged_archives_are_named(pool, harm):
    path = find_negatives([str(pool)])[1]
    data = path.read_bytes()
    with tarfile.open(path) as archive:
        third = archive.getmembers()[3].offset
    broken = {
        "cut": data[: third + 600],
        "header": data[:third] + b"X" * 512 + data[third + 512 :],
        "nothing": b"",
        "html": b"<html>not found</html>" * 100,
        "cut in a header": data[: third + 100],
    }
    path.write_bytes(broken[harm])
    with pytest.raises(ValueError, match=r"00000001.tar cannot be read to its end \(.+\): repair it, or leave it out"):
        draw_negatives(find_negatives([str(pool)]), 4, 0)


def test_archives_cut_between_members_are_named_too(pool):
    path = find_negatives([str(pool)])[1]
    with tarfile.open(path) as archive:
        third = archive.getmembers()[3].offset
    path.write_bytes(path.read_bytes()[:third])
    with pytest.raises(ValueError, match="cannot be read to its end"):
        draw_negatives([path], 4, 0)


def test_captions_that_say_the_same_have_one_key():
    assert caption_key(" A  Dog\n") == caption_key("a dog") == "a dog"
    assert caption_key("a dog") != caption_key("a dog.")
