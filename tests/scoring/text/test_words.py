import re
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaffinch.scoring.text import words
from chaffinch.scoring.text.words import normalise, split


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A dog's ball, thrown!", ["a", "dog's", "ball", ",", "thrown", "!"]),
        ("L\u2019homme\u00a0d'à côté", ["l\u2019homme", "d'à", "côté"]),
        ("IMG_0031.JPG", ["img_0031", ".", "jpg"]),
        ("कुत्ता दौड़ता है", ["कुत्ता", "दौड़ता", "है"]),
        ("一只狗。", ["一只狗", "。"]),
        ("\uff21\uff22\uff23 \ufb01sh", ["abc", "fish"]),
        ("'quoted' -- 3,5", ["'", "quoted", "'", "-", "-", "3", ",", "5"]),
        (" \t\n", []),
    ],
)
def test_words(caption, expected):
    assert split(normalise(caption)) == expected


@given(st.text(max_size=60))
def test_nothing_but_blanks_is_lost(caption):
    text = normalise(caption)
    assert "".join(split(text)) == re.sub(r"\s", "", text)
    assert normalise(text) == text or not unicodedata.is_normalized("NFKC", text)


@settings(max_examples=300)
@given(st.text(st.characters(max_codepoint=127), max_size=40))
def test_the_shorter_pattern_finds_the_same(caption):
    text = normalise(caption)
    assert split(text) == words._word().findall(text)


def test_marks_of_every_script_belong_to_their_letters():
    marks = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in ("Mn", "Mc", "Me")]
    assert len(marks) > 2000
    assert all(words._word().findall("a" + mark) == ["a" + mark] for mark in marks)
