"""The OpenAPI document of a jailed plugin, made harmless before it becomes part of the host's. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from .errors import JailProtocolError

__all__ = ["harmless_document"]

MAX_NODES = 50_000
"""Objects, lists and values that a document may have."""
MAX_TEXT = 20_000
"""Characters of one text."""
MAX_DEPTH = 48
_METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})
#: What a path operation may say. Servers, callbacks and links would lead elsewhere; security is the host's to say.
_OPERATION = frozenset(
    {"tags", "summary", "description", "operationId", "parameters", "requestBody", "responses", "deprecated"}
)
#: Texts that pages show as Markdown, in which HTML would be HTML.
_PROSE = frozenset({"description", "summary", "title"})
_LOCAL = re.compile(r"#/components/schemas/[A-Za-z0-9._-]{1,200}")
_REFERENCES = frozenset({"$ref", "$dynamicRef", "$recursiveRef", "$id", "$schema"})
_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")


def harmless_document(document: Any, paths: Collection[str]) -> dict[str, Any]:
    """Return what of a jail's document may be shown: the operations of ``paths`` and the schemas that they use.

    Texts keep what they say, but no markup: they are shown on pages of the host. References lead nowhere but to
    the document's own schemas.

    Raises:
        JailProtocolError: it is no such document, or too large.
    """
    if not isinstance(document, dict):
        raise JailProtocolError("its OpenAPI document is none")
    copy = _Copier().copy(document, 0)
    schemas = _mapping(_mapping(copy.get("components")).get("schemas"))
    return {
        "paths": {path: _operations(item, path) for path, item in _mapping(copy.get("paths")).items() if path in paths},
        "components": {"schemas": {name: schema for name, schema in schemas.items() if _NAME.fullmatch(name)}},
    }


def _operations(item: Any, path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for method, operation in _mapping(item).items():
        if method in _METHODS and isinstance(operation, dict):
            found[method] = {key: value for key, value in operation.items() if key in _OPERATION}
            for response in _mapping(found[method].get("responses")).values():
                if isinstance(response, dict):
                    response.pop("links", None)
            identifier = found[method].get("operationId")
            if identifier is not None and not (isinstance(identifier, str) and _NAME.fullmatch(identifier)):
                raise JailProtocolError(f"an operation of {path} in its OpenAPI document has an id that is none")
    return found


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


class _Copier:
    """Copies a tree, and counts."""

    def __init__(self) -> None:
        self._nodes = 0

    def copy(self, value: Any, depth: int) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            raise JailProtocolError("its OpenAPI document is too large")
        for kind, change in _CHANGES.items():
            if isinstance(value, kind):
                return change(self, value, depth + 1)
        if value is None or isinstance(value, (bool, int, float)):
            return value
        raise JailProtocolError("its OpenAPI document holds what JSON cannot say")

    def text(self, value: str, _depth: int) -> str:
        if len(value) > MAX_TEXT:
            raise JailProtocolError("a text of its OpenAPI document is too long")
        return "".join(each for each in value if each.isprintable() or each in "\n\t")

    def list(self, values: list[Any], depth: int) -> list[Any]:
        return [self.copy(value, depth) for value in values]

    def object(self, values: dict[Any, Any], depth: int) -> dict[str, Any]:
        copied: dict[str, Any] = {}
        for key, value in values.items():
            if not isinstance(key, str):
                raise JailProtocolError("its OpenAPI document has a name that is no text")
            if key in _REFERENCES and isinstance(value, str) and not _LOCAL.fullmatch(value):
                raise JailProtocolError("a reference of its OpenAPI document leads elsewhere")
            copied[self.text(key, depth)] = self.copy(value, depth)
            if key in _PROSE and isinstance(value, str):
                copied[key] = copied[key].replace("<", "&lt;")
        return copied


_CHANGES: Mapping[type, Callable[[_Copier, Any, int], Any]] = {
    str: _Copier.text,
    list: _Copier.list,
    dict: _Copier.object,
}
