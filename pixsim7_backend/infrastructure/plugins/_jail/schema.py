"""The JSON schema of a jailed plugin's settings, made harmless before the host reads and shows it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .errors import JailProtocolError
from .plain import PlainCopier

__all__ = ["harmless_schema"]

MAX_NODES = 5_000
MAX_TEXT = 20_000
_WHAT = "the schema of its settings"
_DEFINITION = re.compile(r"#/\$defs/([A-Za-z0-9._-]{1,200})")


def harmless_schema(told: Any) -> dict[str, Any]:
    """Return what a jail says can be set, as a schema whose keywords hold what the host expects of them.

    Raises:
        JailProtocolError: it is no such schema, or too large.
    """
    if not isinstance(told, dict):
        raise JailProtocolError(f"{_WHAT} is none")
    schema: dict[str, Any] = PlainCopier(_WHAT, nodes=MAX_NODES, text=MAX_TEXT, references=_DEFINITION).copy(told)
    definitions = schema.get("$defs", {})
    for each in _iter_schemas(schema):
        for word, fits in _KEYWORDS.items():
            if word in each and not fits(each[word]):
                raise JailProtocolError(f"{_WHAT} has {word!r} where that cannot be")
        reference = each.get("$ref")
        if reference is not None and _DEFINITION.fullmatch(reference)[1] not in definitions:  # type: ignore[index]
            raise JailProtocolError(f"{_WHAT} refers to what it does not hold")
    return schema


def _iter_schemas(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the schema and all schemas in it that the host may look into, each before those in it."""
    yield schema
    for word in _OF_NAMES:
        for each in schema.get(word, {}).values():
            yield from _iter_schemas(each)
    for word in _LISTED:
        for each in schema.get(word, ()):
            yield from _iter_schemas(each)
    for word in _SINGLE:
        if isinstance(schema.get(word), dict):
            yield from _iter_schemas(schema[word])


def _is_schemas_by_name(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(each, dict) for each in value.values())


def _is_schemas(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _is_schema_or_bool(value: Any) -> bool:
    return isinstance(value, (dict, bool))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_type(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(each, str) for each in value))


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


_OF_NAMES = ("properties", "patternProperties", "$defs")
_LISTED = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties")
_KEYWORDS: Mapping[str, Callable[[Any], bool]] = {
    **dict.fromkeys(_OF_NAMES, _is_schemas_by_name),
    **dict.fromkeys(_LISTED, _is_schemas),
    **dict.fromkeys(_SINGLE, _is_schema_or_bool),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _is_number),
    **dict.fromkeys(("enum", "examples"), _is(list)),
    "type": _is_type,
    "writeOnly": _is(bool),
    "$ref": _is(str),
}
