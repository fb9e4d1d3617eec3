"""Captions mention the objects they mention, and no others."""

import string
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from chaffinch.scoring.object_names import PACKAGED, load_names

COCO = tuple((PACKAGED.parent / "coco.txt").read_text().split("\n")[:-1])


@pytest.fixture
def names():
    return load_names(None, COCO)


def test_the_packaged_list_knows_every_class_of_coco():
    assert len(COCO) == 80
    assert set(yaml.safe_load(PACKAGED.read_text())["classes"]) == set(COCO)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A man and two women ride bicycles.", ["person", "bicycle"]),
        ("Puppies on the couches", ["dog", "couch"]),
        ("BUSES, knives and a Bench", ["bus", "knife", "bench"]),
        ("the dog's ball", ["dog", "sports ball"]),
        ("the dog\u2019s bowl", ["dog", "bowl"]),
        ("a hot dog", ["hot dog"]),
        ("a hot-dog for the dog", ["hot dog", "dog"]),
        ("a teddy bear next to a bear", ["teddy bear", "bear"]),
        ("a woman in an orange shirt peels oranges", ["person", "orange"]),
        ("a couple of sheep", ["sheep"]),
        ("a couple at the table", ["person", "dining table"]),
        ("the train station has a bus stop", []),
        ("train tracks", []),
        ("a dog, a cat, a dog", ["dog", "cat"]),
        ("doghouse caterpillar carpet", []),
        ("Ein Hund am Strand", []),
        ("IMG_0031.JPG", []),
        ("", []),
        ("\ud83d\ude00 !!", []),
    ],
)
def test_mentions(names, caption, expected):
    assert names.find(caption) == expected


def test_ten_thousand_words_are_read_to_the_end(names):
    assert names.find("word " * 10_000 + "dog") == ["dog"]
    assert names.find("x" * 1_000_000) == []
    assert names.find("a couple of " * 10_000) == []


def slow(text, phrases, longest):
    """The rule in other words: at every place the longest phrase wins, and the search goes on behind it."""
    words, found = text.split(), []
    while words:
        fits = [n for n in range(1, longest + 1) if " ".join(words[:n]) in phrases and n <= len(words)]
        if fits and phrases[" ".join(words[: max(fits)])]:
            found.append(phrases[" ".join(words[: max(fits)])])
        words = words[max(fits, default=1) :]
    return list(dict.fromkeys(found))


WORDS = ["hot", "dog", "dogs", "a", "couple", "of", "the", "fire", "truck", "trucks", "bear", "teddy", "big", "table"]


@given(st.lists(st.sampled_from(WORDS), max_size=12))
def test_the_longest_phrase_wins_everywhere(words):
    names = load_names(None, COCO)
    assert names.find(" ".join(words)) == slow(" ".join(words), names.classes, names.longest)


@given(st.text(max_size=60))
def test_any_text_is_read(text):
    assert set(load_names(None, COCO).find(text)) <= set(COCO)


@given(st.lists(st.sampled_from(["dog", "cat", "red ball", "hot dog"]), max_size=5), st.sampled_from(" \n,-.!"))
def test_case_and_punctuation_do_not_matter(words, mark):
    names = load_names(None, (*COCO, "red ball"))
    text = ". ".join(words)
    assert names.find(text.upper() + mark) == names.find(text) == names.find(text.replace(" ", "  "))


def test_a_class_that_the_list_does_not_have_goes_by_its_own_name():
    names = load_names(None, ("Red box", "daisy", "dog"))
    assert names.find("Two red boxes, daisies, a hot dog and a dog") == ["Red box", "daisy", "dog"]


def test_the_digest_follows_what_is_looked_for(tmp_path):
    copy = tmp_path / "copy.yaml"
    copy.write_text("# moved, with another comment\n" + PACKAGED.read_text())
    assert load_names(str(copy), COCO).digest == load_names(None, COCO).digest
    assert load_names(None, COCO[1:]).digest != load_names(None, COCO).digest
    copy.write_text("classes: {dog: {nouns: [dog, hound]}}")
    before = load_names(str(copy), ("dog",))
    copy.write_text("classes: {dog: {nouns: [dog, hound, mutt]}}")
    assert before.find("a mutt") == []
    assert load_names(str(copy), ("dog",)).find("a mutt") == ["dog"]
    assert load_names(str(copy), ("dog",)).digest != before.digest


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("classes: [", "cannot be read"),
        ("- dog", "give `classes`"),
        ("dog: {nouns: [dog]}", "give `classes`"),
        ("classes: {}", "give at least one"),
        ("classes: {dog: [dog]}", "dog: give nouns or as_written"),
        ("classes: {dog: {noun: [dog]}}", "dog: give nouns or as_written"),
        ("classes: {dog: {nouns: dog}}", "nouns: give a list"),
        ("classes: {dog: {nouns: [dog, 3]}}", "entry 2: 3 is no word"),
        ("classes: {dog: {nouns: ['!']}}", "entry 1: '!' is no word"),
        ("classes: {no: {nouns: [dog]}}", "False is no text"),
        ("classes: {dog: {nouns: [pet]}, cat: {nouns: [pet]}}", "'pet' stands in two places"),
        ("classes: {dog: {nouns: [dog]}}\nother: [dogs]", "other: give nouns or as_written"),
    ],
)
def test_a_list_that_cannot_be_used_is_named_with_the_place(tmp_path, content, problem):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"mine\.yaml") as caught:
        load_names(str(path), ("dog",))
    assert problem in str(caught.value)


def test_a_missing_list_is_named():
    with pytest.raises(ValueError, match=r"list of names nowhere\.yaml: No such file"):
        load_names("nowhere.yaml", ("dog",))


def test_phrases_of_the_packaged_list_are_plain_words():
    letters = set(string.ascii_lowercase + string.digits + " '")
    assert all(set(phrase) <= letters for phrase in load_names(None, COCO).classes)
    assert Path(PACKAGED).name == "object_names.yaml"
