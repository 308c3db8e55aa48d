"""What a session remembers, as a value: rules take one and return another; nothing here knows a database."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from pixsim7_backend.storable import MAX_ID, find_json_problem

__all__ = ["MAX_STATE_BYTES", "SessionState", "find_problems", "list_paths", "merge_diff", "plain"]

MAX_STATE_BYTES = 262_144
MAX_STATE_DEPTH = 24
MAX_WORLD_TIME = 1e12

#: Numbers by convention in ``relationships["npc:<id>"]``; dialogue and stealth compute with them.
RELATIONSHIP_NUMBERS = ("affinity", "trust", "chemistry", "tension", "score")
#: Objects by convention in ``flags``.
FLAG_OBJECTS = ("stealth", "world", "arcs")

_Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionState:
    """One moment of a play-through.

    ``flags`` and ``relationships`` belong to this value alone: a rule may change what :meth:`copied`
    gave it, and returns it; only what is returned is stored.
    """

    current_node_id: str
    world_time: float
    flags: _Json
    relationships: _Json

    def copied(self) -> SessionState:
        """Return an equal state that shares no container with this one."""
        return replace(self, flags=plain(self.flags), relationships=plain(self.relationships))

    def to_json(self) -> _Json:
        """Return the state as one JSON object."""
        return asdict(self)

    @property
    def world_id(self) -> int | None:
        """``flags.world.id``, or None."""
        world = self.flags.get("world")
        return world.get("id") if isinstance(world, dict) else None


def plain(value: Any) -> Any:
    """Return a deep copy of a JSON value, made of plain dicts and lists."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def find_problems(state: SessionState) -> tuple[str, ...]:
    """Say everything that keeps ``state`` from being stored: size, depth, and the conventions of the game."""
    problems = [
        f"{name}: {problem}"
        for name, value in (("flags", state.flags), ("relationships", state.relationships))
        if (problem := find_json_problem(value, max_bytes=MAX_STATE_BYTES, max_depth=MAX_STATE_DEPTH))
    ]
    if not 0 <= state.world_time <= MAX_WORLD_TIME:
        problems.append(f"world_time: must lie between 0 and {MAX_WORLD_TIME:.0f} seconds")
    return (*problems, *_flag_problems(state.flags), *_relationship_problems(state.relationships))


def _flag_problems(flags: _Json) -> Iterator[str]:
    for name in FLAG_OBJECTS:
        if not isinstance(flags.get(name, {}), dict):
            yield f"flags.{name}: must be an object"
    world = flags.get("world")
    if isinstance(world, dict) and "id" in world and not _is_id(world["id"]):
        yield "flags.world.id: must be the id of a world"


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_ID


def _relationship_problems(relationships: _Json) -> Iterator[str]:
    for subject, relationship in relationships.items():
        if not isinstance(relationship, dict):
            yield f"relationships.{subject}: must be an object"
            continue
        for field in RELATIONSHIP_NUMBERS:
            if field in relationship and not _is_number(relationship[field]):
                yield f"relationships.{subject}.{field}: must be a number"
        if not isinstance(relationship.get("flags", {}), dict):
            yield f"relationships.{subject}.flags: must be an object"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def merge_diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> _Json:
    """Return the RFC 7386 merge patch that turns ``before`` into ``after`` (neither holding null members)."""
    patch: _Json = {name: None for name in before if name not in after}
    for name, value in after.items():
        old = before.get(name)
        if isinstance(old, dict) and isinstance(value, dict):
            inner = merge_diff(old, value)
            if inner:
                patch[name] = inner
        elif name not in before or not _same(old, value):
            patch[name] = value
    return patch


def _same(one: object, other: object) -> bool:
    """Compare as JSON does: true is not 1, not inside lists either."""
    if isinstance(one, list) and isinstance(other, list):
        return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def list_paths(patch: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the dotted paths of what a merge patch touches, in order."""

    def walk(prefix: str, value: Mapping[str, Any]) -> Iterator[str]:
        for name, child in value.items():
            if isinstance(child, dict) and child:
                yield from walk(f"{prefix}{name}.", child)
            else:
                yield f"{prefix}{name}"

    return tuple(walk("", patch))
