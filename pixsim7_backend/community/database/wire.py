"""Values of statements and rows as frames can say them, both ways. Pure.

What MessagePack lacks goes as a map of one entry, whose key is a letter for the type. A list is an array of the
database. Nothing else is taken: what comes from a jail was written by a stranger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

__all__ = ["WireError", "from_wire", "size_of", "to_wire"]

_DEEPEST = 8
_LONGEST_NUMBER = 2000
_PLAIN = frozenset({type(None), bool, float, str, bytes})
_INT64 = range(-(1 << 63), 1 << 63)


class WireError(ValueError):
    """A value cannot be sent, or what came is none."""


def to_wire(value: Any) -> Any:
    """Return the value as a frame can say it.

    Raises:
        WireError: it is of a type that no column here has.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is int:
        return value if value in _INT64 else {"n": str(value)}
    if (write := _WRITERS.get(kind)) is not None:
        return write(value)
    if isinstance(value, (list, tuple)):
        return [to_wire(each) for each in value]
    for base, write in _OF_SUBCLASSES:  # a text that knows more, say
        if isinstance(value, base):
            return write(value)
    raise WireError(f"a value of type {kind.__name__} cannot be sent to the database, or come from it; convert it")


def from_wire(value: Any, _depth: int = 0) -> Any:
    """Return what :func:`to_wire` was given.

    Raises:
        WireError: it is nothing that it makes.
    """
    kind = type(value)
    if kind in _PLAIN or kind is int:
        return value
    if kind is list and _depth < _DEEPEST:
        return [from_wire(each, _depth + 1) for each in value]
    if kind is dict and len(value) == 1:
        ((tag, content),) = value.items()
        read = _READERS.get(tag) if type(tag) is str else None
        if read is not None:
            try:
                return read(content)
            except (ValueError, TypeError, OverflowError, ArithmeticError) as error:
                raise WireError(f"a value tagged {tag!r} is none") from error
    raise WireError("a value is of no known type")


def size_of(row: list[Any]) -> int:
    """Return at most how many bytes of a frame a row of :func:`to_wire` values takes."""
    size = 5
    for value in row:
        kind = type(value)
        if kind is str:
            size += 5 + (len(value) if value.isascii() else 4 * len(value))
        elif kind is bytes:
            size += 5 + len(value)
        elif kind is list:
            size += size_of(value)
        elif kind is dict:
            size += 8 + size_of(list(value.values()))
        else:
            size += 9
    return size


def _text(value: object) -> str:
    if type(value) is not str or len(value) > _LONGEST_NUMBER:
        raise ValueError("no text, or too long")
    return value


def _duration(value: object) -> timedelta:
    if type(value) is not list or len(value) != 3 or any(type(each) is not int for each in value):
        raise ValueError("no duration")
    days, seconds, microseconds = value
    return timedelta(days, seconds, microseconds)


def _uuid(value: object) -> UUID:
    if type(value) is not bytes:
        raise ValueError("no bytes")
    return UUID(bytes=value)


def _whole(value: object) -> int:
    text = _text(value)
    if len(text) > 400 or not text.lstrip("-").isdecimal():
        raise ValueError("no whole number")
    return int(text)


def _moment(value: datetime) -> dict[str, str]:
    """Write it with the offset only: the name of a zone may mean something else elsewhere."""
    return {"t": value.isoformat()}


_WRITERS: Mapping[type, Callable[[Any], dict[str, Any]]] = {
    datetime: _moment,  # before date, which it is too
    date: lambda value: {"d": value.isoformat()},
    time: lambda value: {"c": value.isoformat()},
    timedelta: lambda value: {"e": [value.days, value.seconds, value.microseconds]},
    Decimal: lambda value: {"m": str(value)},
    UUID: lambda value: {"u": value.bytes},
}


def _read_moment(value: object) -> datetime:
    moment = datetime.fromisoformat(_text(value))
    return moment.astimezone(UTC) if moment.tzinfo is not None else moment


_OF_SUBCLASSES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (int, lambda value: to_wire(int(value))),
    (float, float),
    (str, str),
    (bytearray, bytes),
    (memoryview, bytes),
    (bytes, bytes),
    *_WRITERS.items(),
)
_READERS: Mapping[str, Callable[[Any], Any]] = {
    "t": _read_moment,
    "d": lambda value: date.fromisoformat(_text(value)),
    "c": lambda value: time.fromisoformat(_text(value)),
    "e": _duration,
    "m": lambda value: Decimal(_text(value)),
    "n": _whole,
    "u": _uuid,
}
