"""What an event may carry between processes: plain values, as JSON knows them, and not many. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["MAX_PAYLOAD", "PayloadError", "plain_payload"]

MAX_PAYLOAD = 64 << 10
"""Of all values of one event together, about what they would have as JSON."""
_DEPTH = 16
_LARGEST = (1 << 63) - 1
_COST = 8


class PayloadError(ValueError):
    """A payload cannot go to another process; the text says why."""


def plain_payload(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any], int]:
    """Return a copy of what an event is emitted with, of plain values only, and its size.

    Raises:
        PayloadError: it holds something else, is nested too deep, or too large.
    """
    copier = _Copier()
    plain_args = [copier.copy(value, 1) for value in args]
    plain_kwargs = {copier.key(name): copier.copy(value, 1) for name, value in kwargs.items()}
    return plain_args, plain_kwargs, copier.size


class _Copier:
    def __init__(self) -> None:
        self.size = 0

    def copy(self, value: Any, depth: int) -> Any:
        if depth > _DEPTH:
            raise PayloadError(f"its values lie more than {_DEPTH} deep in one another")
        if isinstance(value, str):
            return self._text(value)
        self._count(_COST)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return self._whole(value)
        if isinstance(value, float):
            return self._number(value)
        if isinstance(value, (list, tuple)):
            return [self.copy(each, depth + 1) for each in value]
        if isinstance(value, dict):
            return {self.key(name): self.copy(each, depth + 1) for name, each in value.items()}
        raise PayloadError(f"it holds a {type(value).__name__}, which JSON does not know")

    def key(self, name: Any) -> str:
        if not isinstance(name, str):
            raise PayloadError(f"it has a {type(name).__name__} as a key; JSON knows only texts there")
        return self._text(name)

    def _text(self, value: str) -> str:
        try:
            self._count(len(value.encode()) + _COST)
        except UnicodeEncodeError:
            raise PayloadError("it holds a text with half a character") from None
        return str(value)

    def _whole(self, value: int) -> int:
        if not -_LARGEST <= value <= _LARGEST:
            raise PayloadError("it holds a whole number of more than 64 bits")
        return int(value)

    def _number(self, value: float) -> float:
        if not math.isfinite(value):
            raise PayloadError(f"it holds {value}, which JSON does not know")
        return float(value)

    def _count(self, size: int) -> None:
        self.size += size
        if self.size > MAX_PAYLOAD:
            raise PayloadError(f"it is larger than {MAX_PAYLOAD:,} bytes")
