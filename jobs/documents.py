"""YAML with a memory: values and the line each was written in, so that an error can say where it is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Place = tuple[str | int, ...]
"""Where a value stands: the keys and list positions that lead to it."""


class ConfigError(Exception):
    """The config or the command line is wrong; the message says where and what would be right."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `no` as false, which is a language; only true and false are booleans here."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool" or first in "tTfF"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True)
class Document:
    """A config as it was written.

    Attributes:
        name: the file's name.
        content: nested dictionaries, lists and values.
        lines: place -> line, from 1; for a key of a mapping the line of the key.
        overridden: places set on the command line.
    """

    name: str
    content: dict[str, Any]
    lines: dict[Place, int]
    overridden: dict[Place, str]

    def where(self, place: Place) -> str:
        """Names a place for a message: file and line, or the command line."""
        for length in range(len(place), 0, -1):
            part = place[:length]
            if part in self.overridden:
                return f"command line: {self.overridden[part]}"
            if part in self.lines:
                return f"{self.name}:{self.lines[part]}"
        return self.name

    def error(self, place: Place, problem: str) -> ConfigError:
        """An error at a place."""
        dotted = ".".join(map(str, place))
        return ConfigError(f"{self.where(place)}: {dotted}: {problem}" if dotted else f"{self.where(place)}: {problem}")


def read_document(path: str, overrides: list[str]) -> Document:
    """Reads a config file and applies `key=value` settings.

    Args:
        path: a YAML file.
        overrides: settings from the command line, dotted path = YAML value.

    Returns:
        The document.

    Raises:
        ConfigError: the file cannot be read, is no YAML mapping, repeats a key, or a setting has no `=`.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    lines: dict[Place, int] = {}
    content = _parse(text, path, lines)
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}:1: a config is a mapping of settings, not a {type(content).__name__}")
    document = Document(path, content, lines, {})
    for override in overrides:
        _apply(document, override)
    return document


def _parse(text: str, name: str, lines: dict[Place, int]) -> Any:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return None if node is None else _build(loader, node, (), name, lines)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        raise ConfigError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    finally:
        loader.dispose()


def _build(loader: _Loader, node: yaml.Node, place: Place, name: str, lines: dict[Place, int]) -> Any:
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        found: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str | int | float) or key in found:
                problem = "is written twice" if isinstance(key, str | int | float) else "is no name"
                raise ConfigError(f"{name}:{line}: {'.'.join(map(str, (*place, key)))}: {problem}")
            key = str(key)
            lines[(*place, key)] = line
            found[key] = _build(loader, value_node, (*place, key), name, lines)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_build(loader, child, (*place, index), name, lines) for index, child in enumerate(node.value)]
    return loader.construct_object(node, deep=True)


def _apply(document: Document, override: str) -> None:
    dotted, equals, value = override.partition("=")
    if not equals or not dotted:
        raise ConfigError(f"command line: {override!r} is no setting; write key=value, such as keep.fraction=0.2")
    parts = tuple(dotted.split("."))
    target: Any = document.content
    for part in parts[:-1]:
        if target.get(part) is None:
            target[part] = {}
        target = target[part]
        if not isinstance(target, dict):
            raise ConfigError(f"command line: {override}: {part} holds no settings of its own")
    target[parts[-1]] = _parse(value, "command line", {})
    document.overridden[parts] = override
