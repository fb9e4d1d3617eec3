"""Kinds: the scorers, filters and label models there are; a kind is the name of the file that defines it."""

import dataclasses
import difflib
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any, TypeVar

import chaffinch.filters
import chaffinch.filters.label_models
import chaffinch.scoring
from chaffinch.filters.filter import Filter
from chaffinch.filters.label_models.label_model import LabelModel
from chaffinch.scoring.scorer import Scorer

Kind = TypeVar("Kind")

BUILT_IN = ("captions", "pictures")
"""Scorers that need no entry under `scorers:`."""


@functools.cache
def _classes(package: ModuleType, base: type[Any]) -> dict[str, type[Any]]:
    found = {}
    for entry in pkgutil.iter_modules(package.__path__):
        if entry.ispkg:
            continue
        module = importlib.import_module(f"{package.__name__}.{entry.name}")
        for value in vars(module).values():
            own = inspect.isclass(value) and value.__module__ == module.__name__
            if own and issubclass(value, base) and value is not base and not inspect.isabstract(value):
                found[entry.name] = value
    return found


def scorers() -> dict[str, type[Scorer]]:
    """Every scorer kind and its class."""
    return _classes(chaffinch.scoring, Scorer)


def filters() -> dict[str, type[Filter]]:
    """Every filter kind and its class."""
    return _classes(chaffinch.filters, Filter)


def label_models() -> dict[str, type[LabelModel]]:
    """Every label model kind and its class."""
    return _classes(chaffinch.filters.label_models, LabelModel)


def nearest(name: str, known: list[str]) -> str:
    """A remedy for a name that does not exist.

    Args:
        name: what was written.
        known: what could have been meant.

    Returns:
        "did you mean 'x'? known: ..." as far as there is anything to say.
    """
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return f"{meant}known: {', '.join(sorted(known)) or 'none'}"


def describe(kind: str | None) -> str:
    """What `chaffinch kinds` prints.

    Args:
        kind: one kind in detail, or None for a line about each.

    Returns:
        Text.

    Raises:
        KeyError: there is no such kind; the message names the nearest.
    """
    families = _families()
    if kind is None:
        parts = []
        for title, classes in families.items():
            lines = [f"  {name:<16} {_summary(cls)}" for name, cls in sorted(classes.items())]
            parts.append("\n".join([title, *lines]))
        return "\n\n".join(parts) + "\n\nchaffinch kinds KIND describes one of them."
    found = [(title, classes[kind]) for title, classes in families.items() if kind in classes]
    if not found:
        raise KeyError(
            f"no kind {kind!r}; {nearest(kind, [name for classes in families.values() for name in classes])}"
        )
    return "\n\n".join(_detail(title, kind, cls) for title, cls in found)


def page() -> str:
    """docs/kinds.md: every kind with its docstring, columns and settings.

    Returns:
        Markdown.
    """
    parts = [
        "# Kinds",
        "Made by `chaffinch kinds --page`; a test keeps it true. A kind is the name of the file that defines it, and "
        "the name of an entry in a config unless `kind:` says otherwise.",
    ]
    for title, classes in _families().items():
        parts.append(f"## {title}")
        for name, cls in sorted(classes.items()):
            parts += [f"### {name}", f"```text\n{_detail(title, name, cls)}\n```"]
    return "\n\n".join(parts) + "\n"


def _families() -> dict[str, Mapping[str, type[Any]]]:
    return {"Scorers": scorers(), "Filters": filters(), "Label models": label_models()}


def _summary(cls: type[Any]) -> str:
    text = " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())
    return text if len(text) <= 100 else text[:97] + "..."


def _detail(title: str, kind: str, cls: type[Any]) -> str:
    lines = [f"{kind} ({title.lower().removesuffix('s')})", "", inspect.getdoc(cls) or "", "", "Settings:"]
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        kind_of = field.type if isinstance(field.type, str) else inspect.formatannotation(field.type)
        default = "required" if field.default is dataclasses.MISSING else f"default {field.default!r}"
        lines.append(f"  {field.name}: {kind_of} ({default})")
    if issubclass(cls, Scorer) and cls in {scorers()[name] for name in BUILT_IN}:
        lines += ["", "Column types:", *(f"  {name}: {kind}" for name, kind in cls().columns.items())]
    return "\n".join(lines)
