"""Noun phrases of a caption, by rules of thumb: no model, the same on every machine.

A phrase is a run of words that nothing breaks: no punctuation, no word that cannot stand inside an English noun phrase
(prepositions, conjunctions, pronouns, adverbs, common verbs). Articles, possessives and numbers open a phrase and are
left out of it. Words in -ing and -ed are adjectives at the start of a phrase ("a parked car") and verbs after a noun or
a form of be ("a man riding a horse"), words in -s are verbs between a noun and an article ("a boy kicks a ball").
"And" joins two colours ("a black and white dog"), and colours alone are no phrase. Of a long run the last six words are
kept, since English puts the noun last. What describes the picture instead of something in it ("photo", "view") is left
out too.

The words lie in phrases.yaml. On captions in other languages only punctuation and numbers break, so that phrases are
longer and rougher.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

MAX_CHARACTERS = 2_000
"""Of a caption so many characters are read, after blanks were joined; it bounds the time that a caption can take."""

MAX_PHRASES = 16
"""Of a caption so many phrases are taken, the first ones."""

_MAX_WORDS = 6
_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")

_LISTS = {
    name: frozenset(words.split())
    for name, words in yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")).items()
}
_ARTICLES, _BE, _COLOURS = _LISTS["articles"], _LISTS["be"], _LISTS["colours"]
_OUTSIDE = _ARTICLES | _LISTS["quantities"] | _BE | _LISTS["breaks"]
_OF_THE_PICTURE, _NOUNS_IN_ING, _WORDS_IN_ED = (
    _LISTS[name] for name in ("of_the_picture", "nouns_in_ing", "words_in_ed")
)


@dataclass(frozen=True)
class Phrase:
    """A noun phrase.

    Attributes:
        text: its words as they stand in the caption, in lower case.
        spans: (start, end) of every place where it stands, in characters of the text that `normalise` made.
    """

    text: str
    spans: tuple[tuple[int, int], ...]


def normalise(caption: str) -> str:
    """The caption as detectors read it: lower case, single blanks, at most 2,000 characters."""
    return " ".join(caption.lower().split())[:MAX_CHARACTERS].rstrip()


def find_phrases(text: str) -> list[Phrase]:
    """Finds the noun phrases of a caption.

    Args:
        text: what `normalise` made of the caption.

    Returns:
        At most 16 different phrases in the order in which they first stand there; none where nothing is left.
    """
    found: dict[str, list[tuple[int, int]]] = {}
    for start, end in _runs(text):
        phrase = text[start:end]
        if phrase in found:
            found[phrase].append((start, end))
        elif len(found) < MAX_PHRASES:
            found[phrase] = [(start, end)]
    return [Phrase(phrase, tuple(spans)) for phrase, spans in found.items()]


def _runs(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of every run of words that makes a phrase."""
    words = [(match[0], match.start(), match.end()) for match in _WORD.finditer(text)]
    names = ["", *(word for word, _, _ in words), ""]  # the word before and the word after always exist
    run: list[tuple[str, int, int]] = []
    for index, (word, start, end) in enumerate(words):
        before, after = names[index], names[index + 2]
        if index and text[words[index - 1][2] : start] != " ":
            yield from _close(run)
        joins = word == "and" and bool(run) and before in _COLOURS and after in _COLOURS
        has_noun = any(one not in _COLOURS for one, _, _ in run)
        if joins or not (_cannot_stand_inside(word) or _is_verb(word, before, after, has_noun)):
            run.append((word, start, end))
        else:
            yield from _close(run)
    yield from _close(run)


def _cannot_stand_inside(word: str) -> bool:
    """Whether a word opens a phrase or breaks it, and belongs to none; so does a number, "1-1" too."""
    return word in _OUTSIDE or not any(map(str.isalpha, word))


def _close(run: list[tuple[str, int, int]]) -> Iterator[tuple[int, int]]:
    """Ends a run: its last words as a span, unless they say nothing; the run is empty afterwards."""
    kept = run[-_MAX_WORDS:]
    run.clear()
    while kept and kept[0][0] in _OF_THE_PICTURE:
        kept.pop(0)
    while kept and kept[-1][0] in _OF_THE_PICTURE:
        kept.pop()
    if any((len(word) > 1 or not word.isascii()) and word not in _COLOURS and word != "and" for word, _, _ in kept):
        yield kept[0][1], kept[-1][2]


def _is_verb(word: str, before: str, after: str, has_noun: bool) -> bool:
    """Whether a word is used as a verb here, as far as its ending and its neighbours tell."""
    if word.endswith("s"):
        return has_noun and after in _ARTICLES
    in_ing = len(word) > 4 and word.endswith("ing") and (before in _BE or word not in _NOUNS_IN_ING)
    in_ed = len(word) > 3 and word.endswith("ed") and word not in _WORDS_IN_ED
    ends = not after or _cannot_stand_inside(after)
    return (in_ing or in_ed) and (has_noun or before in _BE or ends)
