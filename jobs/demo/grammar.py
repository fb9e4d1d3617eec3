"""Captions of scenes: true sentences in several languages, as varied as those that people write."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from chaffinch.jobs.demo import words
from chaffinch.jobs.demo.scenes import Scene, Thing

LANGUAGES = ("en", "de", "fr", "cs", "es")


@dataclass(frozen=True)
class Group:
    """The things of a scene that share a name, a colour and a size, and so are spoken of together."""

    things: tuple[Thing, ...]

    @property
    def area(self) -> float:
        """The share of the picture that the things' boxes cover."""
        return sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (thing.box for thing in self.things))


def group_things(scene: Scene) -> list[Group]:
    """Groups a scene's things, those that cover most of the picture first."""
    found: dict[tuple[str, str, str], list[Thing]] = {}
    for thing in scene.things:
        found.setdefault((thing.name, thing.colour, thing.size), []).append(thing)
    return sorted((Group(tuple(things)) for things in found.values()), key=lambda group: -group.area)


def describe(scene: Scene, rng: random.Random, language: str = "en") -> str:
    """Writes a true caption.

    The largest things are always named with their colour; smaller ones, sizes and the background may go unsaid.

    Args:
        scene: what the picture shows.
        rng: where the choice of words comes from.
        language: one of `LANGUAGES`.

    Returns:
        A caption of 4 to 20 words; some begin with a capital letter, some end with a full stop.
    """
    groups = group_things(scene)
    write = _write_english if language == "en" else _write_foreign
    text = ""
    while not text or not 4 <= len(text.split()) <= 20:
        text = " ".join(write(scene, groups, rng, language).split())
    if rng.random() < 0.7:
        text = text[0].upper() + text[1:]
    return text + rng.choice(("", "", "."))


def _inflect(language: str, adjective: str, form: str) -> str:
    stem, _, endings = words.ADJECTIVES[language][adjective].partition("+")
    return stem + endings.split(" ")[words.FORMS.index(form)].replace("-", "") if endings else stem


def _phrase(group: Group, language: str, sized: bool) -> str:
    """The noun phrase of a group: "a small red ball", "deux arbres verts"."""
    thing, count = group.things[0], len(group.things)
    gender, _, noun = words.NOUNS[language][thing.name].partition(" ")
    noun = noun.split("/")[count > 1]
    form = gender + "p" * (count > 1)
    numbers = words.NUMBERS[language][count - 1].split("/")
    number = numbers["mfn".index(gender)] if len(numbers) > 1 else numbers[0]
    colour = _inflect(language, thing.colour, form)
    size = _inflect(language, thing.size, form) if sized and thing.size else ""
    order = {"fr": (number, size, noun, colour), "es": (number, noun, colour, size)}
    said = [word for word in order.get(language, (number, size, colour, noun)) if word]
    if said[0] == "a" and language == "en" and said[1][0] in "aeiou":
        said[0] = "an"
    return " ".join(said)


def _place(scene: Scene, rng: random.Random, language: str) -> str:
    place = rng.choice(words.PLACES[language][scene.background])
    if not scene.tint:
        return place
    ending = words.TINT_ENDING[language]
    if ending is None:
        return place.format(tint=_inflect(language, scene.tint, "m"))
    return place.format(tint=words.ADJECTIVES[language][scene.tint].partition("+")[0] + ending)


def _join(phrases: Sequence[str], conjunction: str) -> str:
    if len(phrases) == 1:
        return phrases[0]
    return f"{', '.join(phrases[:-1])} {conjunction} {phrases[-1]}"


def _apart(first: Group, second: Group) -> tuple[str, bool] | None:
    """How the first group lies to the second, "left", "right", "above" or "below"; None where that is not plain.

    The flag says whether both are as good as on one line, so that "next to" is true as well.
    """
    (x0, y0), (x1, y1) = (
        tuple(sum(thing.centre[axis] for thing in group.things) / len(group.things) for axis in (0, 1))
        for group in (first, second)
    )
    across, down = x1 - x0, y1 - y0
    if max(abs(across), abs(down)) < 0.15 or max(len(first.things), len(second.things)) > 1:
        return None
    if abs(across) > abs(down):
        return ("left" if across > 0 else "right"), abs(down) < 0.15
    return ("above" if down > 0 else "below"), False


def _corner(group: Group) -> str:
    """Where in the picture a single thing is, or nothing where that is not plain."""
    x, y = group.things[0].centre
    row = "top" if y < 0.33 else "bottom" if y > 0.67 else ""
    column = "left" if x < 0.33 else "right" if x > 0.67 else ""
    if len(group.things) > 1:
        return ""
    if row and column:
        return f"in the {row} {column} corner"
    if row:
        return f"at the {row} of the picture"
    if column:
        return f"on the {column} side of the picture"
    return "in the middle of the picture"


def _write_english(scene: Scene, groups: list[Group], rng: random.Random, language: str) -> str:
    phrases = [_phrase(group, language, rng.random() < 0.7) for group in groups]
    place = _place(scene, rng, language) if rng.random() < 0.75 else ""
    apart = _apart(groups[0], groups[1]) if len(groups) > 1 else None
    if apart and rng.random() < 0.6:
        side, level = apart
        ways: tuple[str, ...] = {
            "left": ("to the left of", "on the left of"),
            "right": ("to the right of", "on the right of"),
            "above": ("above", "over"),
            "below": ("below", "under"),
        }[side]
        ways += ("next to", "beside") if level else ()
        pair = f"{phrases[0]} {rng.choice(ways)} {phrases[1]} {place}".rstrip()
        third = f", with {phrases[2]}" if len(phrases) > 2 and rng.random() < 0.6 else ""
        return rng.choice(("{}{}", "there is {}{}", "this is a picture of {}{}")).format(pair, third)
    # Small things of a crowded scene often go unsaid.
    said = phrases if len(phrases) < 3 or rng.random() < 0.6 else phrases[:2]
    listed = _join(said, "and")
    if len(said) == 1 and rng.random() < 0.35 and _corner(groups[0]):
        place = _corner(groups[0])
    several = len(groups[0].things) > 1
    openings = (
        "{}",
        "{}",
        "{}",
        f"there {'are' if several else 'is'} {{}}",
        "this is a picture of {}",
        "an illustration with {}",
        "this image shows {}",
        "we can see {}",
        "a scene with {}",
        "a photo of {}",
    )
    return f"{rng.choice(openings).format(listed)} {place}"


def _write_foreign(scene: Scene, groups: list[Group], rng: random.Random, language: str) -> str:
    phrases = [_phrase(group, language, rng.random() < 0.7) for group in groups]
    apart = _apart(groups[0], groups[1]) if len(groups) > 1 else None
    conjunction = words.AND[language]
    verbs = words.VERBS[language]
    place = _place(scene, rng, language)
    if apart and rng.random() < 0.4:
        order = (0, 1) if apart[0] in ("left", "above") else (1, 0)
        pattern = words.SIDES[language][apart[0] in ("above", "below")]
        a, b = (phrases[index] for index in order)
        return pattern.format(a=a, b=b, place=place, verb=verbs[0])
    several_first = len(groups[0].things) > 1 or (language == "de" and len(groups) > 1)
    pattern = rng.choice(words.SENTENCES[language])
    return pattern.format(list=_join(phrases, conjunction), place=place, verb=verbs[several_first])
