import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chaffinch.scoring.text.corpus import digest, read_captions

CAPTIONS = ["A dog runs.", 'A "cat", asleep', "Zwei Kinder spielen, \u00fcberall", "一只狗"]


def read(corpus, key=None):
    return list(read_captions(str(corpus), key))


@pytest.fixture
def shards(tmp_path, make_tar):
    """Two shards of four samples; each json has the caption and another one."""
    for number in range(2):
        members = []
        for row, caption in enumerate(CAPTIONS[2 * number : 2 * number + 2]):
            described = {"caption": caption, "captions": [caption, f"number {row}"]}
            members += [
                (f"{number}{row}.jpg", b"no picture"),
                (f"{number}{row}.txt", caption.encode()),
                (f"{number}{row}.json", json.dumps(described).encode()),
            ]
        path = tmp_path / "shards" / f"deep/{number:08d}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_tar(members))
    return tmp_path / "shards"


@pytest.fixture
def forms(tmp_path, shards):
    """The same captions in every form: path and key."""
    folder = tmp_path / "forms"
    folder.mkdir()
    (folder / "a.txt").write_text("\n".join(CAPTIONS) + "\n\n  \n", encoding="utf-8")
    quoted = "".join('1,"{}"\n'.format(caption.replace('"', '""')) for caption in CAPTIONS)
    (folder / "a.csv").write_text("number,text\n" + quoted, encoding="utf-8")
    (folder / "a.tsv").write_text("text\tn\n" + "".join(f"{one}\t1\n" for one in CAPTIONS), encoding="utf-8")
    pq.write_table(pa.table({"text": [*CAPTIONS, None, ""]}), folder / "a.parquet")
    pq.write_table(pa.table({"all": [CAPTIONS[:2], None, CAPTIONS[2:]]}), folder / "lists.parquet")
    return [
        (folder / "a.txt", None),
        (folder / "a.csv", "text"),
        (folder / "a.tsv", "text"),
        (folder / "a.parquet", "text"),
        (folder / "lists.parquet", "all"),
        (shards, None),
        (shards, "caption"),
        (shards / "deep" / "*.tar", None),
    ]


def test_every_form_gives_the_same_captions_and_the_same_digest(forms):
    for path, key in forms:
        assert read(path, key) == CAPTIONS, path
    assert len({digest(str(path), key) for path, key in forms}) == 1


def test_shards_may_have_several_captions_in_their_json(shards):
    assert read(shards, "captions") == [
        text for row in (0, 2) for k in (0, 1) for text in (CAPTIONS[row + k], f"number {k}")
    ]
    assert digest(str(shards), "captions") != digest(str(shards), None)


def test_several_places_are_one_corpus(forms):
    text, table = forms[0][0], forms[3][0]
    assert list(read_captions((str(table), str(forms[1][0])), "text")) == CAPTIONS * 2
    assert digest((str(text), str(text)), None) == digest(str(text), None)


def test_blanks_within_captions_are_made_one(tmp_path):
    (tmp_path / "a.txt").write_text("  two \t words\u00a0here \n", encoding="utf-8")
    assert read(tmp_path / "a.txt") == ["two words here"]


def test_broken_samples_of_shards_are_passed_over(tmp_path, make_tar):
    members = [
        ("a.json", b"{"),
        ("b.json", b"[1]"),
        ("c.json", b'{"caption": 3}'),
        ("d.json", b'{"other": "x"}'),
        ("e.json", b'{"caption": "good"}'),
        ("f.txt", b"\xff"),
        ("g.v2.txt", b"not a caption: its ending is v2.txt"),
        ("h.TXT", b"loud"),
    ]
    (tmp_path / "a.tar").write_bytes(make_tar(members))
    assert read(tmp_path, "caption") == ["good"]
    assert read(tmp_path) == ["loud"]


def test_a_digest_is_of_the_captions_as_they_are_now(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n")
    before = digest(str(path), None)
    path.write_text("one\ntwo\nthree\n")
    assert digest(str(path), None) != before
    path.write_text("one\n two\n")
    assert digest(str(path), None) == before


@pytest.mark.parametrize(
    ("name", "content", "key", "message"),
    [
        ("none.txt", None, None, r"none\.txt' is nothing that is there: name a file"),
        ("a.doc", b"text", None, r"a\.doc' does not end in one of \.txt, .*convert it"),
        ("a.txt", b"text", "caption", "holds a caption a line and no 'caption': leave captions_key out"),
        ("a.txt", b"\xff\xfe", None, r"a\.txt' cannot be read: .*utf-8.*repair it"),
        ("a.txt", b"\n \n", None, "holds no caption: name another"),
        ("a.csv", b"text,n\na,1\n", "caption", r"no column 'caption': set captions_key to one of text, n"),
        ("a.csv", b"text,n\na,1\n", None, "no column None: set captions_key to one of text, n"),
        ("a.csv", b"text,n\na,1\nb,c,d\n", "text", r"a\.csv' cannot be read: .*Expected 2 columns"),
        ("a.parquet", b"PAR", "text", r"a\.parquet' cannot be read"),
        ("a.tar", b"not a tar at all" * 100, None, r"a\.tar' cannot be read"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(tmp_path, name, content, key, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        digest(str(path), key)


def test_a_key_that_no_sample_has_is_refused(shards):
    with pytest.raises(ValueError, match="no caption under 'alt': name another place or key"):
        digest(str(shards), "alt")


def test_places_that_are_not_local_and_no_places_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'s3://bucket/a\.txt' is not on the local disk: copy it"):
        digest("s3://bucket/a.txt", None)
    with pytest.raises(ValueError, match="corpus is empty: name a file"):
        digest((), None)
    with pytest.raises(ValueError, match="nothing that is there"):
        digest(str(tmp_path), None)
