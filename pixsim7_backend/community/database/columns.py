"""The types of open columns, by name: what a jail is told of them is text."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Double,
    Float,
    Integer,
    LargeBinary,
    Numeric,
    SmallInteger,
    String,
    Text,
    Time,
    Uuid,
)
from sqlalchemy.types import TypeEngine

from pixsim7_backend.db.types import JsonDict, JsonList, UtcDateTime

__all__ = ["describe_type", "read_type"]

#: name → type and the arguments it keeps.
_TYPES: dict[str, tuple[type[Any], tuple[str, ...]]] = {
    kind.__name__: (kind, arguments)
    for kind, arguments in (
        (Integer, ()),
        (SmallInteger, ()),
        (BigInteger, ()),
        (Boolean, ()),
        (Float, ()),
        (Double, ()),
        (Numeric, ("precision", "scale")),
        (String, ("length",)),
        (Text, ()),
        (LargeBinary, ()),
        (Date, ()),
        (Time, ()),
        (DateTime, ("timezone",)),
        (Uuid, ()),
        (JSON, ()),
        (UtcDateTime, ()),
        (JsonDict, ()),
        (JsonList, ()),
    )
}


def describe_type(kind: TypeEngine[Any]) -> list[Any]:
    """Return the name of the type and its arguments.

    Raises:
        ValueError: columns of this type cannot be opened.
    """
    name = type(kind).__name__
    if name not in _TYPES or type(kind) is not _TYPES[name][0]:
        raise ValueError(f"a column of type {kind!r} cannot be opened to community plugins; known: {', '.join(_TYPES)}")
    return [name, *(getattr(kind, argument) for argument in _TYPES[name][1])]


def read_type(described: list[Any]) -> TypeEngine[Any]:
    """Return the type that :func:`describe_type` was given."""
    name, *values = described
    kind, arguments = _TYPES[name]
    made: TypeEngine[Any] = kind(**dict(zip(arguments, values, strict=True)))
    return made
