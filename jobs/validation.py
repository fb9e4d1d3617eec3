"""Checking parts of a config: what pydantic finds, in the words of the config and with its places."""

from typing import Any

from pydantic import TypeAdapter, ValidationError

from chaffinch.jobs import kinds
from chaffinch.jobs.documents import ConfigError, Document, Place


def validate(document: Document, place: Place, adapter: TypeAdapter[Any], content: Any) -> Any:
    """Checks a part of a config; ConfigError names the place in the file of all that is wrong."""
    try:
        return adapter.validate_python(content)
    except ValidationError as errors:
        raise _explain(document, place, adapter, errors) from None


def _explain(document: Document, place: Place, adapter: TypeAdapter[Any], errors: ValidationError) -> ConfigError:
    """All that pydantic found, a line each, in the words of the config."""
    messages = []
    for error in errors.errors():
        # Branches of a union and the [key] mark of mappings are pydantic's own, not places in the file.
        inner = tuple(part for part in error["loc"] if part in _parts(document, place) or isinstance(part, int))
        spot = _spot(document, place, error["loc"], inner)
        if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            known = _known(adapter, error["loc"][:-1])
            problem = f"unknown setting; {kinds.nearest(str(error['loc'][-1]), known)}"
            spot = (*place, *error["loc"])
        elif error["type"] in ("missing", "missing_argument"):
            problem = "is missing"
            spot = (*place, *error["loc"])
        elif error["type"] == "value_error":
            problem = str(error["ctx"]["error"])
        else:
            problem = f"{error['msg'].lower()}, not {error['input']!r}"
        message = str(document.error(spot, problem))
        if message not in messages:
            messages.append(message)
    return ConfigError("\n".join(messages))


def _parts(document: Document, place: Place) -> set[str | int]:
    return {part for known in [*document.lines, *document.overridden] for part in known[len(place) :]}


def _spot(document: Document, place: Place, loc: tuple[int | str, ...], inner: Place) -> Place:
    del loc
    spot = (*place, *inner)
    while len(spot) > len(place) and spot not in document.lines and spot not in document.overridden:
        spot = spot[:-1]
    return spot


def _known(adapter: TypeAdapter[Any], loc: tuple[int | str, ...]) -> list[str]:
    """The settings that could stand beside an unknown one."""
    schema = adapter.json_schema()
    node = _resolved(schema, schema)
    for part in loc:
        node = _resolved(node.get("properties", {}).get(part, {}), schema)
    return list(node.get("properties", {}))


def _resolved(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """What a node of a schema refers to; of alternatives, such as null, the one that does."""
    while True:
        branch = next((one for one in node.get("anyOf", []) if "$ref" in one), node)
        if "$ref" not in branch:
            return branch
        node = schema["$defs"][branch["$ref"].rpartition("/")[2]]


def make(document: Document, place: Place, cls: type[Any], settings: dict[str, Any]) -> Any:
    """Makes a kind of its settings and lets it check itself; ConfigError where that fails."""
    made = validate(document, place, TypeAdapter(cls), settings)
    try:
        if hasattr(made, "check"):
            made.check()
    except ValueError as error:
        raise document.error(place, str(error)) from error
    return made
