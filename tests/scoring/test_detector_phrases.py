import itertools
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaffinch.scoring.detecting.phrases import MAX_CHARACTERS, MAX_PHRASES, find_phrases, normalise


def phrases(caption):
    return [phrase.text for phrase in find_phrases(normalise(caption))]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A brown dog runs along the beach with a ball in its mouth", ["brown dog", "beach", "ball", "mouth"]),
        ("Two young guys with shaggy hair look at their hands .", ["young guys", "shaggy hair", "hands"]),
        # -ing and -ed: a verb after a noun or a form of be, an adjective before a noun
        ("A man riding a horse next to a parked car", ["man", "horse", "parked car"]),
        ("running dog", ["running dog"]),
        ("A dog is shaking water off of itself", ["dog", "water"]),
        ("a man dressed in black", ["man"]),
        ("the building near a wedding ring", ["building", "wedding ring"]),
        ("a woman is crossing a street", ["woman", "street"]),
        ("a red crossing", ["red crossing"]),
        # -s: a verb between a noun and an article
        ("The boy kicks a ball over dogs", ["boy", "ball", "dogs"]),
        # colours
        ("a black and white dog and a cat", ["black and white dog", "cat"]),
        ("red and yellow flowers", ["red and yellow flowers"]),
        ("a bird in yellow", ["bird"]),
        ("a dog and white cat", ["dog", "white cat"]),
        ("black rimmed glasses", ["black rimmed glasses"]),
        # what is about the picture
        ("a photo of a swimming pool, close-up", ["swimming pool"]),
        ("Stock Photo: red wedding dress 2014 - $45.99", ["red wedding dress"]),
        ("IMG_0031.JPG", []),
        ("", []),
        ("... 12, !", []),
        # words with marks inside, and the same phrase again
        ("the dog's ball and the Dog's  ball", ["dog's ball"]),
        ("the dog\u2019s ball", ["dog\u2019s ball"]),
        ("t-shirt with a pattern", ["t-shirt", "pattern"]),
        # punctuation and numbers break everywhere
        ("一只狗, 在海滩上奔跑", ["一只狗", "在海滩上奔跑"]),
        ("a Nikon 700 lens", ["nikon", "lens"]),
        ("a 1-1 match on a ½ pitch", ["match", "pitch"]),
        # long runs keep their end
        ("one two big old small new short wooden blue tables", ["small new short wooden blue tables"]),
    ],
)
def test_noun_phrases_are_told_by_rules_of_thumb(caption, expected):
    assert phrases(caption) == expected


def test_only_the_first_phrases_count():
    caption = ", ".join(f"thing{letter}" for letter in string.ascii_lowercase)
    assert phrases(caption) == [f"thing{letter}" for letter in string.ascii_lowercase[:MAX_PHRASES]]


def test_only_the_beginning_of_a_long_caption_is_read():
    assert len(normalise("a brown dog, " * 100_000)) <= MAX_CHARACTERS
    assert phrases("a brown dog, " * 100_000) == ["brown dog"]
    assert phrases(" " * 100_000 + "a cat") == ["cat"]
    assert phrases("x" * 1_000_000) == ["x" * MAX_CHARACTERS]


@given(st.lists(st.sampled_from([*"ab .,-_'1\u2019é狗İ\n", "ing ", "ed ", "the ", "red ", "and "])))
def test_phrases_stand_where_their_spans_say(pieces):
    text = normalise("".join(pieces))
    found = find_phrases(text)
    assert len({phrase.text for phrase in found}) == len(found) <= MAX_PHRASES
    taken = []
    for phrase in found:
        assert 1 <= len(phrase.text.split()) <= 6
        assert any(map(str.isalpha, phrase.text))
        for start, end in phrase.spans:
            assert text[start:end] == phrase.text
            taken.append((start, end))
    taken.sort()
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(taken))
