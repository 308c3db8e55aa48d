"""The one JSON schema of an edge's ``conditions`` and ``effects``.

game-scenes validates and stores them; game-sessions evaluates them against a session's ``flags`` and
``relationships``. Paths are dotted (``arcs.main.step``); a subject is a key of ``relationships``
(``npc:3``). The lists of an edge mean: *all* conditions must hold; effects are applied *in order*.

Conditions::

    {"type": "flag", "path": "has_key"}  # flag is true
    {"type": "flag", "path": "arcs.main.step", "op": "gte", "value": 2}
    {"type": "relationship", "subject": "npc:3", "field": "affinity", "op": "gt", "value": 30}
    {"type": "any", "of": [{"type": "flag", "path": "a"}, {"type": "not", "of": {"type": "flag", "path": "b"}}]}

Effects::

    {"type": "set_flag", "path": "met.queen", "value": true}
    {"type": "increment_flag", "path": "coins", "by": -5}
    {"type": "clear_flag", "path": "disguise"}
    {"type": "change_relationship", "subject": "npc:3", "field": "affinity", "by": 10, "min": 0, "max": 100}
    {"type": "set_relationship", "subject": "npc:3", "field": "flags.owes_favour", "value": true}
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StrictFloat,
    StrictInt,
    model_validator,
)

from pixsim7_backend.storable import Text, find_json_problem

__all__ = [
    "AllOf",
    "AnyOf",
    "ChangeRelationship",
    "ClearFlag",
    "Comparison",
    "Condition",
    "Conditions",
    "Effect",
    "Effects",
    "FlagCondition",
    "IncrementFlag",
    "Not",
    "RelationshipCondition",
    "SetFlag",
    "SetRelationship",
]

MAX_CONDITIONS = 50
MAX_CONDITION_DEPTH = 6
MAX_EFFECTS = 50

#: Set at creation and by PATCH, where the world's owner is checked; no effect may move a session.
RESERVED_FLAGS = frozenset({"world"})


class Comparison(StrEnum):
    """How a stored value is compared with ``value``; an order holds only between two numbers or two texts."""

    EQ = "eq"
    NE = "ne"
    LT = "lt"
    LTE = "lte"
    GT = "gt"
    GTE = "gte"
    IN = "in"
    EXISTS = "exists"
    MISSING = "missing"


_ORDERS = frozenset({Comparison.LT, Comparison.LTE, Comparison.GT, Comparison.GTE})
_UNARY = frozenset({Comparison.EXISTS, Comparison.MISSING})


def _check_path(value: str) -> str:
    if not all(value.split(".")) or value.count(".") >= 12:
        raise ValueError(f"{value!r} is not a path; write names joined by single dots, like 'arcs.main.step'")
    return value


def _check_flag_target(value: str) -> str:
    if value.split(".", maxsplit=1)[0] in RESERVED_FLAGS:
        raise ValueError(f"{value!r} belongs to the session itself and cannot be changed by an effect")
    return value


def _check_value(value: Any) -> Any:
    problem = find_json_problem(value, max_bytes=4096, max_depth=6)
    if problem:
        raise ValueError(problem)
    return value


DottedPath = Annotated[Text, Field(min_length=1, max_length=200), AfterValidator(_check_path)]
FlagTarget = Annotated[DottedPath, AfterValidator(_check_flag_target)]
Subject = Annotated[Text, Field(min_length=1, max_length=100, examples=["npc:3"])]
Number = Annotated[StrictInt | StrictFloat, Field(ge=-1e15, le=1e15, allow_inf_nan=False)]
Value = Annotated[Any, AfterValidator(_check_value)]


class _Rule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Compared(_Rule):
    op: Comparison = Comparison.EQ
    value: Value = None
    """Left out (or null): ``true``, for the comparisons that need one."""

    @property
    def wanted(self) -> Any:
        """The value to compare with."""
        return True if self.value is None else self.value

    @model_validator(mode="after")
    def _value_suits_op(self) -> _Compared:
        if self.op in _UNARY and self.value is not None:
            raise ValueError(f"'{self.op}' takes no value")
        if self.op is Comparison.IN and not isinstance(self.value, list):
            raise ValueError("'in' needs a list as value")
        if self.op in _ORDERS and (isinstance(self.value, bool) or not isinstance(self.value, (int, float, str))):
            raise ValueError(f"'{self.op}' needs a number or a text as value")
        return self


class FlagCondition(_Compared):
    """Compares the flag at ``path``; without ``op`` and ``value`` it must be true."""

    type: Literal["flag"]
    path: DottedPath


class RelationshipCondition(_Compared):
    """Compares one field of the relationship with ``subject``."""

    type: Literal["relationship"]
    subject: Subject
    field: DottedPath = "affinity"


class AllOf(_Rule):
    """Holds when every one of ``of`` holds."""

    type: Literal["all"]
    of: tuple[Condition, ...] = Field(min_length=1, max_length=MAX_CONDITIONS)


class AnyOf(_Rule):
    """Holds when at least one of ``of`` holds."""

    type: Literal["any"]
    of: tuple[Condition, ...] = Field(min_length=1, max_length=MAX_CONDITIONS)


class Not(_Rule):
    """Holds when ``of`` does not hold."""

    type: Literal["not"]
    of: Condition


Condition = Annotated[FlagCondition | RelationshipCondition | AllOf | AnyOf | Not, Discriminator("type")]

AllOf.model_rebuild()
AnyOf.model_rebuild()
Not.model_rebuild()


def _check_conditions(conditions: Sequence[Condition]) -> Sequence[Condition]:
    counted = list(_walk(conditions, 1))
    if len(counted) > MAX_CONDITIONS:
        raise ValueError(f"an edge has at most {MAX_CONDITIONS} conditions, nested ones included")
    if any(depth > MAX_CONDITION_DEPTH for depth in counted):
        raise ValueError(f"conditions are nested at most {MAX_CONDITION_DEPTH} deep")
    return conditions


def _walk(conditions: Sequence[Condition], depth: int) -> Iterator[int]:
    for condition in conditions:
        yield depth
        if isinstance(condition, (AllOf, AnyOf)):
            yield from _walk(condition.of, depth + 1)
        elif isinstance(condition, Not):
            yield from _walk((condition.of,), depth + 1)


Conditions = Annotated[tuple[Condition, ...], AfterValidator(_check_conditions)]
"""What must hold, all of it, before an edge may be taken."""


class SetFlag(_Rule):
    """Sets the flag at ``path``, making the objects on the way."""

    type: Literal["set_flag"]
    path: FlagTarget
    value: Value = True

    @model_validator(mode="after")
    def _value_is_something(self) -> SetFlag:
        if self.value is None:
            raise ValueError("null is not a flag's value; remove a flag with 'clear_flag'")
        return self


class IncrementFlag(_Rule):
    """Adds ``by`` to the number at ``path``; a missing one counts as 0."""

    type: Literal["increment_flag"]
    path: FlagTarget
    by: Number = 1


class ClearFlag(_Rule):
    """Removes the flag at ``path``, if it is there."""

    type: Literal["clear_flag"]
    path: FlagTarget


class ChangeRelationship(_Rule):
    """Adds ``by`` to a number of the relationship with ``subject``, then keeps it within ``min`` and ``max``."""

    type: Literal["change_relationship"]
    subject: Subject
    field: DottedPath = "affinity"
    by: Number
    min: Number | None = None
    max: Number | None = None

    @model_validator(mode="after")
    def _bounds_in_order(self) -> ChangeRelationship:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min must not be greater than max")
        return self


class SetRelationship(_Rule):
    """Sets one field of the relationship with ``subject``, making the objects on the way."""

    type: Literal["set_relationship"]
    subject: Subject
    field: DottedPath
    value: Value

    @model_validator(mode="after")
    def _value_is_something(self) -> SetRelationship:
        if self.value is None:
            raise ValueError("null is not a value of a relationship")
        return self


Effect = Annotated[SetFlag | IncrementFlag | ClearFlag | ChangeRelationship | SetRelationship, Discriminator("type")]
Effects = Annotated[tuple[Effect, ...], Field(max_length=MAX_EFFECTS)]
"""What taking an edge does to the session, in order."""
