"""File names, stock phrases, addresses, dates: what a caption says that is not about the picture."""

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from chaffinch.filters.filter import Bounds, Filter

PACKAGED = Path(__file__).with_name("boilerplate.yaml")
REMEDY = f"write it like the packaged list, {PACKAGED.name} beside the filter, or leave `phrases` out to use that one"
PATTERNS_PER_PASS = 10
PHRASES_PER_PASS = 1000
"""Alternatives in one regular expression. Patterns multiply an automaton's states, so that few at a time are faster (40
in one pass took twice as long as four times ten); phrases share theirs, up to what RE2 allows one expression."""
SEPARATORS = r"[\x00-/:-@\[-`{-\x{BF}\x{2000}-\x{206F}\x{3000}-\x{303F}]"
"""What stands between words; a plain range, because RE2 takes ten times as long to prepare the Unicode classes."""


@dataclass(frozen=True, kw_only=True)
class Boilerplate(Filter):
    """Score: share of the caption's letters and digits that is boilerplate, in [0, 1]; lower is better.

    0 is a clean caption, 1 one that holds nothing else. What boilerplate is stands in a list, not in code: named groups
    of phrases, patterns, and words that count only where nothing else is left. Of "Two dogs - stock photo" 10 of 17
    letters are boilerplate.

    Attributes:
        phrases: path of a list to use instead of the packaged boilerplate.yaml, of the same form.
        drop: as of every filter; from 0.5 where nothing is said, since from there on more of the text is about
            something else than about the picture. Below, the rest still describes it, as in most stock captions.
    """

    phrases: str | None = None
    drop: Bounds | None = (0.5, None)

    @property
    def reads(self) -> tuple[str, ...]:
        """The captions' text."""
        return ("captions.text",)

    def identity(self) -> dict[str, Any]:
        """The settings, with the digest of the list in the place of its path: a moved list is no other, a changed is.

        Raises:
            ValueError: the list cannot be used.
        """
        return super().identity() | {"phrases": load_list(self.phrases).digest}

    def check(self) -> None:
        """Reads the list.

        Raises:
            ValueError: the list cannot be used; names file, entry and remedy.
        """
        load_list(self.phrases)

    def score(self, columns: Mapping[str, pa.Array]) -> np.ndarray:
        """Takes the boilerplate away and counts what is left.

        Args:
            columns: captions.text, n strings, null for rejected samples.

        Returns:
            (n,) float32 in [0, 1]; NaN for null and for texts with neither letter nor digit.

        Raises:
            ValueError: the list cannot be used.
        """
        entries = load_list(self.phrases)
        texts = columns["captions.text"]
        if pa.types.is_null(texts.type):
            return np.full(len(texts), np.nan, dtype=np.float32)
        texts = texts.fill_null("")
        remaining = texts
        for pattern in entries.patterns:
            remaining = pc.replace_substring_regex(remaining, pattern=pattern, replacement=" ")
        remaining = pc.utf8_lower(remaining)  # letter by letter, so that counts stay
        for phrases in entries.phrases:
            remaining = pc.replace_substring_regex(remaining, pattern=phrases, replacement=" ")
        before, after = count_characters(texts), count_characters(remaining)
        with np.errstate(invalid="ignore"):
            share: np.ndarray = (before - after) / before
        return share.astype(np.float32)


@dataclass(frozen=True)
class Entries:
    """A list, ready to use.

    Attributes:
        patterns: RE2 regular expressions, to be taken away one after the other.
        phrases: the same for what is left of the text, in lower case.
        digest: 16 hex digits of the list's entries, not of its comments.
    """

    patterns: tuple[str, ...]
    phrases: tuple[str, ...]
    digest: str


def load_list(path: str | None) -> Entries:
    """Reads a list of boilerplate, or recalls it, unless the file has changed since.

    Args:
        path: a YAML file; None for the packaged one.

    Returns:
        The list.

    Raises:
        ValueError: the list cannot be used; names file, entry and remedy.
    """
    file = Path(path) if path is not None else PACKAGED
    try:
        written = file.stat()
    except OSError as error:
        raise ValueError(f"boilerplate list {file}: {error.strerror}; give the path of a file, or {REMEDY}") from error
    return _read(file, written.st_mtime_ns, written.st_size)


@functools.lru_cache(maxsize=32)
def _read(file: Path, modified: int, size: int) -> Entries:
    """A list as it was when last modified; the last two arguments only tell versions of the file apart."""
    try:
        # libyaml, where PyYAML has it, reads the list ten times as fast and the same.
        groups = yaml.load(file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"boilerplate list {file} cannot be read: {error}; {REMEDY}") from error
    if not isinstance(groups, dict) or not groups:
        raise ValueError(f"boilerplate list {file} has no named groups; {REMEDY}")
    lists: dict[str, list[str]] = {"phrases": [], "patterns": [], "alone": []}
    for name, group in groups.items():
        if not isinstance(group, dict) or not group.keys() <= lists.keys() or not group:
            raise ValueError(f"boilerplate list {file}, group {name!r}: give phrases, patterns or alone; {REMEDY}")
        for form, entries in group.items():
            lists[form] += _checked(entries, form, f"boilerplate list {file}, group {name!r}, {form}")
    patterns = tuple(
        "(?i)" + "|".join(f"(?:{entry})" for entry in part) for part in _parts(lists["patterns"], PATTERNS_PER_PASS)
    )
    phrases = tuple(_any_of(part) for part in _parts(_lower(lists["phrases"]), PHRASES_PER_PASS))
    if lists["alone"]:
        words = _any_of(_lower(lists["alone"]))
        phrases += (rf"^{SEPARATORS}*(?:(?:{words}|[0-9]+)(?:{SEPARATORS}+|$))+$",)
    for expression in patterns + phrases:
        if problem := _problem(expression):
            raise ValueError(f"boilerplate list {file} is too much for RE2 ({problem}): shorten it")
    digest = hashlib.sha256(json.dumps(lists, ensure_ascii=False).encode()).hexdigest()[:16]
    return Entries(patterns, phrases, digest)


def _checked(entries: object, form: str, where: str) -> list[str]:
    """The entries of one group, or a ValueError that says which one is wrong."""
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{where}: give a list of texts; {REMEDY}")
    texts = []
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, str) or not entry.strip():
            raise ValueError(f"{where}, entry {number}: {entry!r} is no text; put it into quotes, or take it out")
        if form == "patterns":
            if problem := _problem(entry):
                raise ValueError(f"{where}, entry {number}: {entry!r} is no RE2 pattern ({problem}); correct it")
            if pc.match_substring_regex(pa.array([""]), entry)[0].as_py():
                raise ValueError(
                    f"{where}, entry {number}: {entry!r} also matches nothing at all; make it match a text"
                )
        elif not any(character.isalnum() for character in entry):
            raise ValueError(f"{where}, entry {number}: {entry!r} has neither letter nor digit to count; take it out")
        texts.append(entry)
    return texts


def _problem(pattern: str) -> str:
    """What RE2 has against a pattern; empty where nothing."""
    try:
        pc.match_substring_regex(pa.array([""]), pattern)
    except pa.ArrowInvalid as error:
        return str(error)
    return ""


def _lower(texts: list[str]) -> list[str]:
    """Phrases in the order RE2 needs, which takes the first that fits: a longer one before one that it begins with."""
    return sorted({" ".join(text.lower().split()) for text in texts}, reverse=True)


def _parts(entries: list[str], length: int) -> list[list[str]]:
    """The entries, so many at a time."""
    return [entries[start : start + length] for start in range(0, len(entries), length)]


def _any_of(phrases: list[str]) -> str:
    """One RE2 pattern for phrases.

    RE2 knows a word's boundary only next to an ASCII letter, so that is where one is asked for; scripts that write no
    spaces need none. The boundary at the start is asked for once, which halves the time.
    """
    bounded: list[str] = []
    free: list[str] = []
    for phrase in phrases:
        end = r"\b" if re.search(r"\w$", phrase, re.ASCII) else ""
        pattern = "[ _-]".join(re.escape(word) for word in phrase.split()) + end
        (bounded if re.match(r"\w", phrase, re.ASCII) else free).append(pattern)
    starts = [rf"\b(?:{'|'.join(bounded)})"] if bounded else []
    return "|".join(starts + free)


@functools.cache
def _countable() -> np.ndarray:
    """(0x110000,) uint8: 1 for code points that are letters or digits."""
    return np.strings.isalnum(np.arange(0x110000, dtype=np.uint32).view("U1")).astype(np.uint8)


def count_characters(texts: pa.Array) -> np.ndarray:
    """Counts the letters and digits, of any script, of each text.

    Args:
        texts: n strings, none null.

    Returns:
        (n,) float64 counts.
    """
    texts = texts.cast(pa.large_string())
    _, offsets, data = texts.buffers()
    limits = np.frombuffer(offsets, dtype=np.int64)[texts.offset :][: len(texts) + 1] if len(texts) else [0, 0]
    joined = data.to_pybytes()[limits[0] : limits[-1]].decode() if data is not None else ""
    characters = np.frombuffer(joined.encode("utf-32-le"), dtype=np.uint32)
    ends = np.cumsum(pc.utf8_length(texts).to_numpy(zero_copy_only=False))
    seen = np.concatenate([[0], np.cumsum(_countable()[characters], dtype=np.int64)])  # whole numbers: exact
    counts: np.ndarray = np.diff(seen[np.concatenate([[0], ends])])
    return counts.astype(np.float64)
