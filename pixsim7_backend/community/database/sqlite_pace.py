"""How large values may be in a statement, and how often the clock is looked at, by what it was compiled to. Pure.

SQLite can be interrupted between operations of its machine, not within one, and where there is no loop not even
between them. Some operations take a time that grows with their values, a few with the square of that. So values are
bounded by what the operations of the whole statement could take, and the clock is looked at the more often the longer
one of them could.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["LONGEST_PATTERN", "Pace", "pace_of"]

LONGEST_PATTERN = 200
"""Bytes of a pattern of LIKE and GLOB, which is compared with each place of a text."""
_UNSEEN = 1e9
"""Nanoseconds, roughly, for which nobody may look at the clock."""
_OPERATIONS = 2000
_FEWEST_OPERATIONS = 10
_SHORTEST = 1000
_FREE = frozenset({"Variable", "String8", "Integer", "Int64", "Real", "Null", "SCopy", "Goto", "Init", "Halt", "Noop"})
_CALLS = frozenset({"Function", "PureFunc", "AggStep", "AggStep1", "AggInverse", "AggValue", "AggFinal"})
_OPERATION, _CALL = 1.0, 4.0
"""Nanoseconds for a byte of a value, as measured and rounded up."""
_SLOW = {
    **dict.fromkeys(("like", "glob"), 3.0 * LONGEST_PATTERN),
    **dict.fromkeys(("quote", "hex", "unhex"), 10.0),
    **dict.fromkeys(("strftime", "date", "time", "datetime", "julianday", "unixepoch", "timediff"), 20.0),
    **dict.fromkeys(("trim", "ltrim", "rtrim"), 100.0),
}
_JSON = 30.0
_SQUARE = {"instr": 0.012, "replace": 0.012, "json_patch": 0.15}
"""Nanoseconds for the square of a byte: each place with the whole of the other text, each key with each other key."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What one statement gets."""

    longest: int
    """Bytes of one text, blob or row."""
    operations: int
    """Between two looks at the clock."""


def pace_of(program: Iterable[tuple[str, str]], longest: int) -> Pace:
    """Return the pace of a program, given as operations, each with its fourth operand; values never get ``longer``."""
    costs = [_cost(operation, operand) for operation, operand in program if operation not in _FREE]
    linear, square = (math.fsum(column) for column in zip(*costs, strict=True)) if costs else (0.0, 0.0)
    length = min([longest, _length(linear, square, _UNSEEN), *(_length(*each, _UNSEEN / 2) for each in set(costs))])
    bound = max(int(length), _SHORTEST)
    slowest = max((a * bound + b * bound**2 for a, b in costs), default=0.0)
    operations = int(min(_UNSEEN / slowest, _OPERATIONS)) if slowest else _OPERATIONS
    return Pace(longest=bound, operations=max(operations, _FEWEST_OPERATIONS))


def _cost(operation: str, operand: str) -> tuple[float, float]:
    """Return what an operation takes for a byte of its values, and for the square of one."""
    if operation in {"VFilter", "VColumn", "VNext"}:
        return _JSON, 0.0
    if operation not in _CALLS:
        return _OPERATION, 0.0
    name = operand.partition("(")[0].lower()
    if name.startswith(("json", "->")):
        return _JSON, _SQUARE.get(name, 0.0)
    return _SLOW.get(name, _CALL), _SQUARE.get(name, 0.0)


def _length(linear: float, square: float, time: float) -> float:
    """Return the length with which operations of these costs take this time."""
    if not square:
        return time / linear if linear else math.inf
    return (math.sqrt(linear**2 + 4 * square * time) - linear) / (2 * square)
