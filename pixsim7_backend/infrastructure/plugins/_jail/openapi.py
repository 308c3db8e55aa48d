"""The OpenAPI document of a jailed plugin, made harmless before it becomes part of the host's. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from .errors import JailProtocolError
from .plain import PlainCopier

__all__ = ["harmless_document"]

MAX_NODES = 50_000
"""Objects, lists and values that a document may have."""
MAX_TEXT = 20_000
"""Characters of one text."""
_METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})
#: What a path operation may say. Servers, callbacks and links would lead elsewhere; security is the host's to say.
_OPERATION = frozenset(
    {"tags", "summary", "description", "operationId", "parameters", "requestBody", "responses", "deprecated"}
)
_LOCAL = re.compile(r"#/components/schemas/[A-Za-z0-9._-]{1,200}")
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
    copier = PlainCopier("its OpenAPI document", nodes=MAX_NODES, text=MAX_TEXT, references=_LOCAL)
    copy = copier.copy(document)
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
