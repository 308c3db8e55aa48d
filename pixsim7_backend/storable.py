"""Input types that every database of ours can store: bounded, finite, without NUL and lone surrogates.

PostgreSQL refuses NUL and lone surrogates in text and JSON and ids beyond an integer; SQLite takes some of
them and gives them back broken. A request model made of these types answers 422 instead.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from fastapi import Path
from pydantic import AfterValidator, Field, WithJsonSchema

__all__ = ["MAX_ID", "JsonObject", "PathId", "RowId", "Text", "find_json_problem", "json_object"]

MAX_ID = 2**31 - 1
"""The largest value of an INTEGER column, which all ids and references are, in PostgreSQL."""

_MAX_NUMBER = 2**63


def _check_text(value: str) -> str:
    problem = _text_problem(value)
    if problem:
        raise ValueError(problem)
    return value


def _text_problem(value: str) -> str | None:
    if "\x00" in value:
        return "text must not contain NUL characters"
    if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        return "text must not contain lone surrogates"
    return None


RowId = Annotated[int, Field(ge=1, le=MAX_ID)]
"""The id of a row, in a body or a query."""

PathId = Annotated[int, Path(ge=1, le=MAX_ID)]
"""The id of a row, in a path."""

Text = Annotated[str, AfterValidator(_check_text)]
"""Text that can be stored; combine it with ``Field(max_length=...)``."""


def find_json_problem(value: object, *, max_bytes: int, max_depth: int) -> str | None:
    """Say why ``value`` cannot be stored as JSON, or return None.

    Numbers must be finite and within 64 bits, texts and keys storable, containers nested at most
    ``max_depth`` deep, and the whole at most ``max_bytes`` long as compact UTF-8 JSON.
    """
    for item, depth in _walk(value):
        if depth > max_depth:
            return f"JSON must not be nested deeper than {max_depth} levels"
        problem = _scalar_problem(item)
        if problem:
            return problem
    if len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()) > max_bytes:
        return f"JSON must not be longer than {max_bytes} bytes"
    return None


def _walk(value: object) -> Iterator[tuple[object, int]]:
    """Yield every value and key inside ``value`` with its depth; a loop, since input may be deep."""
    pending: list[tuple[object, int]] = [(value, 0)]
    while pending:
        item, depth = pending.pop()
        if isinstance(item, dict):
            yield from ((key, depth) for key in item)
            pending.extend((child, depth + 1) for child in item.values())
        elif isinstance(item, list):
            pending.extend((child, depth + 1) for child in item)
        yield item, depth


def _scalar_problem(item: object) -> str | None:
    if isinstance(item, str):
        return _text_problem(item)
    if isinstance(item, float) and not math.isfinite(item):
        return "numbers must be finite"
    if isinstance(item, (int, float)) and not -_MAX_NUMBER <= item < _MAX_NUMBER:  # JSONB gives 1e300 back as an int
        return "whole numbers must fit into 64 bits"
    if item is None or isinstance(item, (int, float, dict, list)):
        return None
    return f"{type(item).__name__} is not JSON"


def json_object(*, max_bytes: int, max_depth: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a validator for ``AfterValidator`` that refuses what :func:`find_json_problem` finds."""

    def check(value: dict[str, Any]) -> dict[str, Any]:
        problem = find_json_problem(value, max_bytes=max_bytes, max_depth=max_depth)
        if problem:
            raise ValueError(problem)
        return value

    return check


JsonObject = Annotated[
    dict[str, Any],
    AfterValidator(json_object(max_bytes=65_536, max_depth=16)),
    WithJsonSchema({"type": "object", "additionalProperties": True, "description": "at most 64 KiB, 16 levels"}),
]
"""A JSON object of at most 64 KiB and 16 levels, for ``meta`` and the like."""
