import csv
import os
import re
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from chaffinch.filters import boilerplate
from chaffinch.filters.boilerplate import Boilerplate

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def score(*captions, phrases=None):
    return Boilerplate(phrases=phrases).score({"captions.text": pa.array(captions, type=pa.string())})


def write(folder, text):
    path = folder / "own.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


BOILERPLATE_ONLY = [
    "IMG_1234.JPG",
    "DSC00012",
    "dsc_0043 2.jpg",
    "P1010023",
    "summer_trip_2013_043",
    "https://example.com/a/b?c=d",
    "www.example.org",
    "someone@example.com",
    "2014-03-05",
    "5 March 2014, 10:30 am",
    "$19.99",
    "+49 30 1234567",
    "1280x800",
    "stock photo",
    "Royalty-Free Stock Photos",
    "royalty free stock",
    "click to enlarge",
    "Image Not Found",
    "ADD TO CART",
    "free shipping!",
    "© 2012 All rights reserved",
    "SKU: 4711-B",
    "untitled",
    "Thumbnail",
    "share on facebook",
    "Home | About us | Contact",
    "image 3",
    "Photo",
    "logo",
    "404",
    "ストック写真",
]

CLEAN = [
    "A dog with a log in its mouth runs home.",
    "A man in front of a sign in the street",
    "Two women pose for a photo by the lake",
    "A girl holding a picture of her family",
    "A boy searches the menu of a cafe",
    "People shop on a busy street",
    "Black-and-white photograph of a jack-in-the-box",
    "Three-year-old twins on a red-and-yellow slide",
    "The back cover of an old book",
    "a stock car race",
    "kids play video games",
    "5 players in red and 6 in blue",
    "Ein Hund läuft über die Wiese",
    "一只狗在草地上奔跑",
]


@pytest.mark.parametrize("caption", BOILERPLATE_ONLY)
def test_captions_that_hold_nothing_else_score_1(caption):
    assert score(caption)[0] == 1.0


@pytest.mark.parametrize("caption", CLEAN)
def test_descriptions_score_0(caption):
    assert score(caption)[0] == 0.0


@pytest.mark.parametrize(
    ("caption", "share"),
    [
        ("Two dogs - stock photo", 10 / 17),
        ("A red barn IMG_0042.jpg", 10 / 18),  # the underscore and the dot are neither letter nor digit
        ("grüne Äpfel, free shipping", 12 / 22),
        ("Sunset 2014-03-05", 8 / 14),
    ],
)
def test_the_share_is_of_letters_and_digits(caption, share):
    assert score(caption)[0] == pytest.approx(share, abs=1e-6)


def test_null_and_texts_without_letters_cannot_be_judged():
    scores = score("a dog", None, "", " ... !", "★★★")
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(scores), [False, True, True, True, True])
    assert np.isnan(Boilerplate().score({"captions.text": pa.nulls(2)})).all()


def test_slices_and_large_strings_and_no_rows():
    texts = ["a dog", None, "stock photo of ä dog", "IMG_1234"]
    whole = score(*texts)
    for kind in (pa.string(), pa.large_string()):
        part = pa.array(texts, type=kind).slice(1, 2)
        np.testing.assert_array_equal(Boilerplate().score({"captions.text": part}), whole[1:3])
        part = pa.array(["IMG_1234", "stock photo of ä dog", "a dog"], type=kind).slice(1, 2)  # nothing null to fill
        np.testing.assert_array_equal(Boilerplate().score({"captions.text": part}), whole[[2, 0]])
    assert score().shape == (0,)


PIECES = [
    *["a brown dog", "on the grass", "©", "|", ",", "ä", "Größe", "7", "home", "logo", "Stock Photo", "free  shipping"],
    *["IMG_1234.jpg", "2014-03-05", "http://a.org/b", "view larger", "$5", "WB31K10026", "royalty-free stock photos"],
]


def slow(caption):
    """One entry after the other with Python's own regular expressions, character by character."""
    groups = yaml.safe_load(boilerplate.PACKAGED.read_text(encoding="utf-8"))
    patterns = [entry for group in groups.values() for entry in group.get("patterns", [])]
    phrases = sorted((entry for group in groups.values() for entry in group.get("phrases", [])), key=len, reverse=True)
    alone = {entry.lower() for group in groups.values() for entry in group.get("alone", [])}
    left = caption
    for start in range(0, len(patterns), boilerplate.PATTERNS_PER_PASS):
        together = "|".join(f"(?:{entry})" for entry in patterns[start : start + boilerplate.PATTERNS_PER_PASS])
        left = re.sub(together, " ", left, flags=re.IGNORECASE | re.ASCII)
    for phrase in phrases:
        words = "[ _-]".join(re.escape(word) for word in phrase.split())
        left = re.sub(rf"(?<![A-Za-z0-9_]){words}(?![A-Za-z0-9_])", " ", left, flags=re.IGNORECASE)
    words = re.findall(r"[^\W_]+", left.lower())
    if all(word in alone or word.isdigit() for word in words):
        words = []
    total = sum(character.isalnum() for character in caption)
    return 1 - sum(map(len, words)) / total if total else np.nan


@given(st.lists(st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map(" ".join), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_agrees_with_pythons_regular_expressions(captions):
    expected = np.array([slow(caption) for caption in captions], dtype=np.float32)
    np.testing.assert_allclose(score(*captions), expected, atol=1e-6)


def test_drops_from_one_half_unless_told_otherwise():
    assert Boilerplate().drop == (0.5, None)
    assert Boilerplate().keep is None


def test_an_own_list_takes_the_place_of_the_packaged_one(tmp_path):
    own = write(tmp_path, "shop:\n  phrases: [our finest quality]\n  patterns: ['\\bno\\. \\d+']\n  alone: [bag]\n")
    scores = score("Our finest-quality bag no. 12", "our finest quality leather", "stock photo", phrases=own)
    np.testing.assert_allclose(scores, [1, 16 / 23, 0], atol=1e-6)


def test_a_list_that_has_changed_is_read_again_and_noticed(tmp_path):
    own = write(tmp_path, "a: {phrases: [dog]}\n")
    filter_ = Boilerplate(phrases=own)
    assert score("dog", "cat", phrases=own).tolist() == [1, 0]
    before = filter_.identity()
    write(tmp_path, "a: {phrases: [cat]}\n")
    os.utime(own, ns=(1, 1))  # the same size, and on coarse clocks the same time
    assert score("dog", "cat", phrases=own).tolist() == [0, 1]
    assert filter_.identity() != before


def test_the_identity_is_of_the_entries_not_of_the_place_or_the_comments(tmp_path):
    own = write(tmp_path, "a: {phrases: [dog]}\n")
    (tmp_path / "elsewhere").mkdir()
    moved = write(tmp_path / "elsewhere", "# what we found\na:\n  phrases:\n    - dog\n")
    assert Boilerplate(phrases=own).identity() == Boilerplate(phrases=moved).identity()
    assert Boilerplate(phrases=own).identity() != Boilerplate().identity()
    assert Boilerplate(phrases=own).identity() != Boilerplate(phrases=own, drop=(0.6, None)).identity()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "cannot be read"),
        ("", "no named groups"),
        ("- dog\n", "no named groups"),
        ("a: [dog]\n", "group 'a': give phrases, patterns or alone"),
        ("a: {words: [dog]}\n", "group 'a': give phrases, patterns or alone"),
        ("a: {phrases: dog}\n", "group 'a', phrases: give a list"),
        ("a: {phrases: [dog, no]}\n", "group 'a', phrases, entry 2: False is no text; put it into quotes"),
        ("a: {phrases: ['***']}\n", "group 'a', phrases, entry 1: .* neither letter nor digit"),
        ("a: {patterns: ['fine', 'b(c']}\n", r"group 'a', patterns, entry 2: 'b\(c' is no RE2 pattern .*correct it"),
        ("a: {patterns: ['(?=c)d']}\n", "group 'a', patterns, entry 1: .* is no RE2 pattern"),
        ("a: {patterns: ['x*']}\n", "group 'a', patterns, entry 1: .* matches nothing at all"),
    ],
)
def test_a_broken_list_is_refused_with_its_place(tmp_path, text, message):
    own = write(tmp_path, text)
    with pytest.raises(ValueError, match=message) as refusal:
        Boilerplate(phrases=own).check()
    assert own in str(refusal.value)


def test_a_list_that_is_missing_or_no_text_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"none\.yaml.*No such file.*give the path"):
        Boilerplate(phrases=str(tmp_path / "none.yaml")).check()
    (tmp_path / "own.yaml").write_bytes(b"a: {phrases: ['\xff']}")
    with pytest.raises(ValueError, match="cannot be read"):
        Boilerplate(phrases=str(tmp_path / "own.yaml")).check()


def test_a_long_list_takes_several_passes(tmp_path):
    entries = [f"phrase number {number}" for number in range(2 * boilerplate.PHRASES_PER_PASS)]
    own = write(tmp_path, yaml.safe_dump({"a": {"phrases": entries}}))
    assert len(boilerplate.load_list(own).phrases) == 2
    assert score("phrase number 3", "phrase number 1999", "phrase number", phrases=own).tolist() == [1, 1, 0]


def test_the_packaged_list_is_in_order():
    boilerplate.load_list(None)
    groups = yaml.safe_load(boilerplate.PACKAGED.read_text(encoding="utf-8"))
    for form in ("phrases", "patterns", "alone"):
        entries = [entry for group in groups.values() for entry in group.get(form, [])]
        assert len(entries) == len(set(entries))


@pytest.mark.real
@pytest.mark.skipif(not (DATA / "flickr8k-reference").is_dir(), reason="needs ../shared/data/flickr8k-reference")
def test_people_describing_photographs_write_no_boilerplate():
    captions = []
    for shard in sorted((DATA / "flickr8k-reference").glob("*.tar")):
        with tarfile.open(shard) as tar:
            captions += [tar.extractfile(member).read().decode() for member in tar if member.name.endswith(".txt")]
    scores = score(*captions)
    assert len(scores) == 2000
    assert (scores > 0).mean() <= 0.001
    assert scores.max() < 0.5


@pytest.mark.real
@pytest.mark.skipif(not (DATA / "web-alt-text").is_dir(), reason="needs ../shared/data/web-alt-text")
def test_raw_alt_text_has_more_of_it_than_cleaned_captions():
    import pyarrow.parquet as pq

    raw = Boilerplate().score(
        {"captions.text": pq.read_table(DATA / "web-alt-text" / "laion_10000.parquet")["TEXT"].combine_chunks()}
    )
    with (DATA / "web-alt-text" / "cc3m_validation.tsv").open(encoding="utf-8") as lines:
        cleaned = score(*[row[0] for row in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)])
    assert 0.01 < (raw >= 0.5).mean() < 0.10
    assert (cleaned >= 0.5).mean() < 0.002
