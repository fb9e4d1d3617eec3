"""Which of the objects that a detector knows a caption mentions, by name or by synonym."""

import functools
import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

PACKAGED = Path(__file__).with_name("object_names.yaml")
REMEDY = f"write it like the packaged list, {PACKAGED.name} beside the scorers, or leave `names` out to use that one"

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
_POSSESSIVE = re.compile(r"['\u2019]s$")


@dataclass(frozen=True)
class Names:
    """Phrases to look for.

    Attributes:
        classes: phrase, words in lower case with single blanks -> the class it means; None where it means none of
            the detector's, and only keeps shorter phrases from being found inside.
        longest: words of the longest phrase.
        digest: 16 hex digits of all phrases.
    """

    classes: Mapping[str, str | None]
    longest: int
    digest: str

    def find(self, caption: str) -> list[str]:
        """Finds the classes that a caption mentions; takes time in proportion to its length.

        Args:
            caption: any text.

        Returns:
            Different classes in the order in which they are mentioned first; none where it mentions none.
        """
        words = _words(caption)
        found: dict[str, None] = {}
        place = 0
        while place < len(words):
            for length in range(min(self.longest, len(words) - place), 0, -1):
                phrase = " ".join(words[place : place + length])
                if phrase in self.classes:
                    name = self.classes[phrase]
                    if name is not None:
                        found[name] = None
                    place += length - 1
                    break
            place += 1
        return list(found)


def load_names(path: str | None, classes: Sequence[str]) -> Names:
    """Reads a list of names and synonyms, or recalls it, unless the file has changed since.

    Args:
        path: a YAML file; None for the packaged one.
        classes: what the detector tells apart. One that the list does not have goes by its own name and its plural.

    Returns:
        The phrases to look for.

    Raises:
        ValueError: the list cannot be used; names file, entry and remedy.
    """
    file = PACKAGED if path is None else Path(path).expanduser()
    try:
        written = file.stat()
    except OSError as error:
        raise ValueError(f"list of names {file}: {error.strerror}; give the path of a file, or {REMEDY}") from error
    return _names(file, tuple(classes), written.st_mtime_ns, written.st_size)


@functools.lru_cache(maxsize=32)
def _names(file: Path, classes: tuple[str, ...], modified: int, size: int) -> Names:
    """The phrases as they were when the file was last modified; the last two arguments only tell its versions apart."""
    groups = _read(file)
    owners: dict[str, str | None] = {}
    for name, phrases in groups.items():
        for phrase in phrases:
            if owners.setdefault(phrase, name) != name:
                raise ValueError(f"list of names {file}: {phrase!r} stands in two places; leave it in one of them")
    meanings = {phrase: name if name in classes else None for phrase, name in owners.items()}
    for name in classes:
        if name not in groups:
            meanings |= dict.fromkeys(_forms(name), name)
    digest = hashlib.sha256(json.dumps(meanings, ensure_ascii=False, sort_keys=True).encode()).hexdigest()[:16]
    return Names(meanings, max(len(phrase.split()) for phrase in meanings), digest)


def _read(file: Path) -> dict[str | None, list[str]]:
    """Class -> its phrases in every form that counts; None -> those that mean none."""
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"list of names {file} cannot be read: {' '.join(str(error).split())}; {REMEDY}") from error
    if not isinstance(content, dict) or not content.keys() <= {"classes", "other"}:
        raise ValueError(f"list of names {file}: give `classes`, and `other` if need be; {REMEDY}")
    classes = content.get("classes")
    if not isinstance(classes, dict) or not classes:
        raise ValueError(f"list of names {file}, classes: give at least one; {REMEDY}")
    groups: dict[str | None, object] = {None: content.get("other", {})}
    for name, group in classes.items():
        if not isinstance(name, str):
            raise ValueError(f"list of names {file}, classes: {name!r} is no text; put it into quotes")
        groups[name] = group
    return {name: _phrases(group, f"list of names {file}, {name or 'other'}") for name, group in groups.items()}


def _phrases(group: object, where: str) -> list[str]:
    if not isinstance(group, dict) or not group.keys() <= {"nouns", "as_written"}:
        raise ValueError(f"{where}: give nouns or as_written; {REMEDY}")
    phrases = []
    for form, entries in group.items():
        if not isinstance(entries, list):
            raise ValueError(f"{where}, {form}: give a list of texts; {REMEDY}")
        for number, entry in enumerate(entries, start=1):
            if not isinstance(entry, str) or not _words(entry):
                raise ValueError(f"{where}, {form}, entry {number}: {entry!r} is no word; put it into quotes, or out")
            phrases += _forms(entry) if form == "nouns" else [" ".join(_words(entry))]
    return phrases


def _forms(noun: str) -> list[str]:
    """A noun in the singular and in the regular plural, as captions are read."""
    singular = " ".join(_words(noun))
    if re.search(r"(?:s|x|z|ch|sh)$", singular):
        return [singular, singular + "es"]
    if re.search(r"[^aeiou]y$", singular):
        return [singular, singular[:-1] + "ies"]
    return [singular, singular + "s"]


def _words(text: str) -> list[str]:
    """Words in lower case without a final 's; hyphens part them."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).lower())
    return [_POSSESSIVE.sub("", word) for word in words]
