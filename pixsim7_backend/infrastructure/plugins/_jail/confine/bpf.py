"""A program for the kernel's packet filter machine that decides on system calls by their number. Pure.

The numbers are looked up in a binary tree: eight comparisons for any of them instead of one hundred.
https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

__all__ = ["ALLOW", "KILL", "Check", "Code", "assemble", "decide", "is_null", "refuse"]


class _Instruction(NamedTuple):
    code: int
    if_true: int
    if_false: int
    value: int


Code = tuple[_Instruction, ...]
"""Instructions that end in a decision on every path."""

_LOAD, _JUMP, _IF_EQUAL, _IF_AT_LEAST, _AND, _RETURN = 0x20, 0x05, 0x15, 0x35, 0x54, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_FARTHEST = 255


ALLOW: Code = (_Instruction(_RETURN, 0, 0, 0x7FFF0000),)
KILL: Code = (_Instruction(_RETURN, 0, 0, 0x80000000),)


def refuse(code: int) -> Code:
    """Return what lets a call fail with this error number."""
    return (_Instruction(_RETURN, 0, 0, 0x00050000 | code),)


class Check(NamedTuple):
    """Whether an argument of the call is one of some values, after ``mask`` where there is one.

    It looks at the lower half of the argument, which is all that the kernel reads of an ``int``, or at the upper one.
    """

    argument: int
    values: tuple[int, ...]
    mask: int | None = None
    is_upper: bool = False

    def compile(self, until_otherwise: int) -> Code:
        """Return what goes on behind itself where the check holds, and so many instructions further where not."""
        offset = _ARGUMENTS + 8 * self.argument + (4 if self.is_upper else 0)  # both machines are little-endian
        start = [_Instruction(_LOAD, 0, 0, offset)]
        if self.mask is not None:
            start.append(_Instruction(_AND, 0, 0, self.mask))
        *others, last = self.values
        matches = [_Instruction(_IF_EQUAL, len(others) - index, 0, value) for index, value in enumerate(others)]
        return (*start, *matches, _Instruction(_IF_EQUAL, 0, until_otherwise, last))


def is_null(argument: int) -> tuple[Check, Check]:
    """Return the checks that a pointer leads nowhere: both its halves are zero."""
    return Check(argument, (0,)), Check(argument, (0,), is_upper=True)


def decide(checks: Sequence[Check], *, then: Code, otherwise: Code) -> Code:
    """Return what decides by ``then`` where all checks hold, by ``otherwise`` where not."""
    code = then
    for check in reversed(checks):
        code = (*check.compile(len(code)), *code)
    return (*code, *otherwise)


def assemble(architecture: int, rules: Mapping[int, Code], *, foreign_from: int, unknown: Code, other: Code) -> bytes:
    """Return the program: kill on any other architecture, decide by ``rules``, refuse the rest.

    Args:
        architecture: the kernel's name for the one that may be used.
        rules: number to decision.
        foreign_from: numbers from here on are those of another ABI of the same architecture; they kill.
        unknown: decides on numbers that are newer than all in ``rules``.
        other: decides on those between.
    """
    newest = max(rules) + 1
    edges: dict[int, Code] = {0: other}
    for number in sorted(rules):
        edges[number] = rules[number]
        edges.setdefault(number + 1, other)
    edges[newest], edges[foreign_from] = unknown, KILL
    steps = sorted(edges.items())
    ranges = [steps[0], *(step for before, step in pairwise(steps) if before[1] != step[1])]
    program = (
        _Instruction(_LOAD, 0, 0, _ARCHITECTURE),
        _Instruction(_IF_EQUAL, 1, 0, architecture),
        *KILL,
        _Instruction(_LOAD, 0, 0, _NUMBER),
        *_tree(ranges),
    )
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


def _tree(ranges: Sequence[tuple[int, Code]]) -> Code:
    """Return what finds the range that holds the number; each reaches from its own start to the next one's."""
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    below, above = _tree(ranges[:middle]), _tree(ranges[middle:])
    start = ranges[middle][0]
    if len(below) <= _FARTHEST:
        return (_Instruction(_IF_AT_LEAST, len(below), 0, start), *below, *above)
    far = _Instruction(_JUMP, 0, 0, len(below))
    return (_Instruction(_IF_AT_LEAST, 0, 1, start), far, *below, *above)
