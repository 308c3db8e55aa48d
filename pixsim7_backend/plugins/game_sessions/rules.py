"""The rules of walking a scene graph: conditions, effects, cooldown. Pure: no database, no clock, no HTTP."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from pixsim7_backend.plugins.game_scenes import (
    AllOf,
    AnyOf,
    ChangeRelationship,
    ClearFlag,
    Comparison,
    Condition,
    Effect,
    FlagCondition,
    IncrementFlag,
    Not,
    RelationshipCondition,
    SceneEdge,
    SetFlag,
    SetRelationship,
)

from .state import SessionState, find_problems, plain

__all__ = [
    "AdvanceRefusedError",
    "ConditionsFailedError",
    "CoolingDownError",
    "EdgeElsewhereError",
    "EffectFailedError",
    "apply_effects",
    "cooldown_left",
    "describe",
    "holds",
    "take_edge",
]


class AdvanceRefusedError(Exception):
    """The edge may not be taken now; ``reason`` names the kind of refusal for machines."""

    reason = "refused"


class EdgeElsewhereError(AdvanceRefusedError):
    """The edge starts at another node than the one the session is at."""

    reason = "edge-elsewhere"

    def __init__(self, *, edge_id: str, starts_at: str, session_at: str) -> None:
        super().__init__(f"edge {edge_id!r} starts at node {starts_at!r}, but the session is at {session_at!r}")
        self.starts_at = starts_at
        self.session_at = session_at


class ConditionsFailedError(AdvanceRefusedError):
    """Some conditions of the edge do not hold; ``failed`` describes each."""

    reason = "conditions"

    def __init__(self, *, edge_id: str, failed: Sequence[str]) -> None:
        super().__init__(f"conditions of edge {edge_id!r} do not hold: {'; '.join(failed)}")
        self.failed = tuple(failed)


class CoolingDownError(AdvanceRefusedError):
    """The edge was taken too recently; ``seconds_left`` of wall time remain."""

    reason = "cooldown"

    def __init__(self, *, edge_id: str, seconds_left: float) -> None:
        super().__init__(f"edge {edge_id!r} is cooling down for another {seconds_left:.1f} s")
        self.seconds_left = seconds_left


class EffectFailedError(AdvanceRefusedError):
    """An effect does not fit what the session holds, such as incrementing a text."""

    reason = "effect"


def take_edge(state: SessionState, edge: SceneEdge, *, last_taken: datetime | None, now: datetime) -> SessionState:
    """Return the state after taking ``edge``.

    Raises:
        AdvanceRefusedError: the subclass says why; nothing has changed.
    """
    if edge.from_node != state.current_node_id:
        raise EdgeElsewhereError(edge_id=edge.id, starts_at=edge.from_node, session_at=state.current_node_id)
    failed = [describe(condition, state) for condition in edge.conditions if not holds(condition, state)]
    if failed:
        raise ConditionsFailedError(edge_id=edge.id, failed=failed)
    left = cooldown_left(edge.cooldown_sec, last_taken, now)
    if left > 0:
        raise CoolingDownError(edge_id=edge.id, seconds_left=left)
    after = replace(apply_effects(edge.effects, state), current_node_id=edge.to_node)
    problems = find_problems(after)
    if problems:
        raise EffectFailedError(f"effects of edge {edge.id!r} would leave the session broken: {'; '.join(problems)}")
    return after


def cooldown_left(cooldown_sec: float | None, last_taken: datetime | None, now: datetime) -> float:
    """Return the seconds of wall time until the edge may be taken again, 0 when it may be taken now."""
    if not cooldown_sec or last_taken is None:
        return 0.0
    return max(0.0, cooldown_sec - (now - last_taken).total_seconds())


# --- conditions ---------------------------------------------------------------------------------


class _Missing:
    def __repr__(self) -> str:
        return "missing"


_MISSING = _Missing()


def holds(condition: Condition, state: SessionState) -> bool:
    """Tell whether ``condition`` holds in ``state``."""
    match condition:
        case AllOf(of=parts):
            return all(holds(part, state) for part in parts)
        case AnyOf(of=parts):
            return any(holds(part, state) for part in parts)
        case Not(of=part):
            return not holds(part, state)
        case FlagCondition() | RelationshipCondition():
            return _compare(condition.op, _actual(condition, state), condition.wanted)


def describe(condition: Condition, state: SessionState) -> str:
    """Put ``condition`` into words, with what the session holds instead."""
    match condition:
        case AllOf(of=parts):
            return f"all of ({', '.join(describe(part, state) for part in parts if not holds(part, state))})"
        case AnyOf(of=parts):
            return f"any of ({', '.join(describe(part, state) for part in parts)})"
        case Not(of=part):
            return f"not ({describe(part, state)})"
        case FlagCondition(path=path):
            name = f"flag {path!r}"
        case RelationshipCondition(subject=subject, field=field):
            name = f"{field!r} of relationship {subject!r}"
    wanted = "" if condition.op in _UNARY else f" {condition.wanted!r}"
    return f"{name} {condition.op}{wanted} (it is {_actual(condition, state)!r})"[:300]


_UNARY = (Comparison.EXISTS, Comparison.MISSING)


def _actual(condition: FlagCondition | RelationshipCondition, state: SessionState) -> object:
    if isinstance(condition, FlagCondition):
        return _look_up(state.flags, condition.path.split("."))
    return _look_up(state.relationships, [condition.subject, *condition.field.split(".")])


def _look_up(tree: object, names: Sequence[str]) -> object:
    for name in names:
        if not isinstance(tree, dict) or name not in tree:
            return _MISSING
        tree = tree[name]
    return tree


def _compare(op: Comparison, actual: object, value: object) -> bool:
    missing = actual is _MISSING
    match op:
        case Comparison.EXISTS:
            return not missing
        case Comparison.MISSING:
            return missing
        case Comparison.NE:
            return missing or not _equal(actual, value)
        case Comparison.EQ:
            return not missing and _equal(actual, value)
        case Comparison.IN:
            return isinstance(value, list) and any(_equal(actual, item) for item in value)
        case _:
            return _in_order(_ORDER[op], actual, value)


def _equal(one: object, other: object) -> bool:
    """Compare as JSON does: 1 equals 1.0, but not true."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


_ORDER: Mapping[Comparison, Callable[[Any, Any], bool]] = {
    Comparison.LT: operator.lt,
    Comparison.LTE: operator.le,
    Comparison.GT: operator.gt,
    Comparison.GTE: operator.ge,
}


def _in_order(order: Callable[[Any, Any], bool], actual: object, value: object) -> bool:
    numbers = _is_number(actual) and _is_number(value)
    texts = isinstance(actual, str) and isinstance(value, str)
    return (numbers or texts) and order(actual, value)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# --- effects ------------------------------------------------------------------------------------


def apply_effects(effects: Sequence[Effect], state: SessionState) -> SessionState:
    """Return ``state`` with ``effects`` applied in order.

    Raises:
        EffectFailedError: an effect does not fit; names which, and what stood in its way.
    """
    after = state.copied()
    for number, effect in enumerate(effects, start=1):
        try:
            _apply(effect, after)
        except _UnfitError as problem:
            raise EffectFailedError(f"effect {number} ({effect.type}): {problem}") from None
    return after


class _UnfitError(Exception):
    pass


def _apply(effect: Effect, state: SessionState) -> None:
    match effect:
        case SetFlag(path=path, value=value):
            *way, last = path.split(".")
            _enter(state.flags, way)[last] = plain(value)
        case ClearFlag(path=path):
            _clear(state.flags, path.split("."))
        case IncrementFlag(path=path, by=by):
            *way, last = path.split(".")
            _add(_enter(state.flags, way), last, by)
        case SetRelationship(subject=subject, field=field, value=value):
            *way, last = [subject, *field.split(".")]
            _enter(state.relationships, way)[last] = plain(value)
        case ChangeRelationship(subject=subject, field=field, by=by):
            *way, last = [subject, *field.split(".")]
            place = _enter(state.relationships, way)
            _add(place, last, by)
            place[last] = _keep_within(place[last], effect.min, effect.max)


def _enter(tree: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the object at ``names``, making what is missing."""
    for step in _steps(names):
        child = tree.setdefault(step[-1], {})
        if not isinstance(child, dict):
            raise _UnfitError(f"{'.'.join(step)!r} is {child!r:.80}, not an object")
        tree = child
    return tree


def _steps(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[: length + 1] for length in range(len(names)))


def _clear(tree: dict[str, Any], names: Sequence[str]) -> None:
    *way, last = names
    place = _look_up(tree, way)
    if isinstance(place, dict):
        place.pop(last, None)


def _add(place: dict[str, Any], name: str, by: float) -> None:
    current = place.get(name, 0)
    if not _is_number(current):
        raise _UnfitError(f"{name!r} is {current!r:.80}, not a number")
    place[name] = current + by


def _keep_within(value: float, low: float | None, high: float | None) -> float:
    if low is not None and value < low:
        return low
    if high is not None and value > high:
        return high
    return value
