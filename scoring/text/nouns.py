"""Lists of nouns: a file of words, or those words of WordNet whose first meaning is in a list of synsets."""

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ENDINGS = (
    ("s", ""),
    ("ses", "s"),
    ("ves", "f"),
    ("xes", "x"),
    ("zes", "z"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("men", "man"),
    ("ies", "y"),
)
"""What WordNet's morphology takes from English plurals, and puts in its place."""

# A list of synsets of another version of WordNet would find next to none of its numbers, or wrong ones.
_MOST_MISSING = 0.05


@dataclass(frozen=True)
class Nouns:
    """Which words count.

    Attributes:
        listed: nouns -> whether they count. Those that do not are here to stop the search: "glasses" are no glass.
        exceptions: irregular plurals -> their singulars.
    """

    listed: Mapping[str, bool]
    exceptions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def counts(self, word: str) -> bool:
        """Whether a word is a noun that counts: of itself and its singulars the first noun of all decides.

        Args:
            word: in lower case.
        """
        if word in self.listed:
            return self.listed[word]
        for singular in self.exceptions.get(word) or singulars(word):
            if singular in self.listed:
                return self.listed[singular]
        return False


def singulars(word: str) -> list[str]:
    """What a word may be the regular plural of, in WordNet's order; mostly no words at all."""
    return [word.removesuffix(old) + new for old, new in ENDINGS if word.endswith(old)]


def read_words(path: Path) -> Nouns:
    """Reads a list of words, one a line; what follows a # is a comment.

    Args:
        path: a text file, UTF-8.

    Returns:
        The nouns.

    Raises:
        ValueError: it cannot be read, holds nothing, or several words in a line; names file and line.
    """
    words = {}
    for number, line in _lines(path):
        if len(parts := line.split("#", 1)[0].lower().split()) > 1:
            raise ValueError(
                f"{str(path)!r}, line {number}: {line!r} is more than one word: give one a line, as captions are "
                "looked at word by word"
            )
        words.update(dict.fromkeys(parts, True))
    if not words:
        raise ValueError(f"{str(path)!r} holds no word: give one a line")
    return Nouns(words)


def read_wordnet(index: Path, irregular: Path, synsets: Path) -> Nouns:
    """Reads WordNet's nouns, of which those count whose first meaning is listed.

    Args:
        index: WordNet's index.noun.
        irregular: WordNet's noun.exc.
        synsets: a text file of noun synsets, one a line, such as n02084071.

    Returns:
        The nouns.

    Raises:
        ValueError: a file cannot be read, or the synsets are of another version of WordNet.
    """
    wanted = _read_synsets(synsets)
    listed, known = {}, set[int]()
    for number, line in _lines(index):
        if line.startswith(" "):  # the licence
            continue
        # lemma, n, count of synsets, count of pointers, pointers, count of senses, of tagged senses, synsets in order
        fields = line.split()
        try:
            meanings = [int(offset) for offset in fields[-int(fields[2]) :]]
            listed[fields[0]] = meanings[0] in wanted
        except (IndexError, ValueError):
            raise ValueError(f"{str(index)!r}, line {number} is not one of WordNet's index: {line[:60]!r}") from None
        known.update(meanings)
    if len(wanted - known) > _MOST_MISSING * len(wanted):
        raise ValueError(
            f"of the {len(wanted)} synsets in {str(synsets)!r}, {len(wanted - known)} are not in {str(index)!r}: "
            "they are of another version of WordNet; ImageNet's are of 3.0"
        )
    exceptions = {}
    for _, line in _lines(irregular):
        plural, *singular = line.split() or [""]
        exceptions[plural] = tuple(singular)
    return Nouns(listed, exceptions)


def packaged_synsets() -> Path:
    """The 21,841 synsets of ImageNet-21k, which the package timm carries.

    Raises:
        ValueError: timm is not installed, or has no such list.
    """
    package = importlib.util.find_spec("timm")
    path = Path(package.origin or "").parent / "data" / "_info" / "imagenet22k_synsets.txt" if package else None
    if path is None or not path.is_file():
        raise ValueError("there is no list of ImageNet-21k's synsets: name one in synsets, or pip install timm")
    return path


def _read_synsets(path: Path) -> set[int]:
    offsets = set()
    for number, line in _lines(path):
        if name := line.strip():
            if name[0] != "n" or not name[1:].isdecimal():
                raise ValueError(
                    f"{str(path)!r}, line {number}: {name[:40]!r} is no noun synset: give such as n02084071, one a line"
                )
            offsets.add(int(name[1:]))
    if not offsets:
        raise ValueError(f"{str(path)!r} holds no synset: give such as n02084071, one a line")
    return offsets


def _lines(path: Path) -> Iterable[tuple[int, str]]:
    try:
        return enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error}; name another file") from error
