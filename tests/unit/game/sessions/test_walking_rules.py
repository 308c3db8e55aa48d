from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter

from pixsim7_backend.plugins.game_scenes import Condition, Effect, SceneEdge
from pixsim7_backend.plugins.game_sessions import SessionState
from pixsim7_backend.plugins.game_sessions.rules import (
    ConditionsFailedError,
    CoolingDownError,
    EdgeElsewhereError,
    EffectFailedError,
    apply_effects,
    cooldown_left,
    describe,
    holds,
    take_edge,
)

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
FLAGS = {"coins": 3, "ratio": 1.0, "name": "Ann", "open": True, "zero": 0, "arcs": {"main": {"step": 2}}, "list": [1]}
PEOPLE = {"npc:3": {"affinity": 40, "flags": {"met": True}}}

_condition = TypeAdapter[Any](Condition)
_effects = TypeAdapter[Any](list[Effect])


def _state(flags: dict[str, Any] | None = None, people: dict[str, Any] | None = None, at: str = "a") -> SessionState:
    return SessionState(current_node_id=at, world_time=0.0, flags=flags or {}, relationships=people or {})


def _holds(condition: dict[str, Any]) -> bool:
    return holds(_condition.validate_python(condition), _state(FLAGS, PEOPLE))


def _flag(path: str, op: str = "eq", *value: Any) -> dict[str, Any]:
    return {"type": "flag", "path": path, "op": op, **({"value": value[0]} if value else {})}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (_flag("open"), True),
        (_flag("coins"), False),
        (_flag("nothing"), False),
        (_flag("coins", "eq", 3), True),
        (_flag("coins", "eq", 3.0), True),
        (_flag("ratio", "eq", True), False),
        (_flag("zero", "eq", False), False),
        (_flag("coins", "ne", 3), False),
        (_flag("nothing", "ne", 3), True),
        (_flag("coins", "lt", 4), True),
        (_flag("coins", "lt", 3), False),
        (_flag("coins", "lte", 3), True),
        (_flag("coins", "gt", 3), False),
        (_flag("coins", "gte", 3), True),
        (_flag("nothing", "lt", 4), False),
        (_flag("name", "lt", 4), False),
        (_flag("open", "gte", 0), False),
        (_flag("name", "gt", "Abe"), True),
        (_flag("name", "in", ["Ann", "Bob"]), True),
        (_flag("open", "in", [1]), False),
        (_flag("nothing", "in", ["Ann"]), False),
        (_flag("coins", "exists"), True),
        (_flag("coins", "missing"), False),
        (_flag("coins.deep", "exists"), False),
        (_flag("arcs.main.step", "eq", 2), True),
        (_flag("arcs.main", "eq", {"step": 2}), True),
        ({"type": "relationship", "subject": "npc:3", "op": "gte", "value": 40}, True),
        ({"type": "relationship", "subject": "npc:3", "field": "flags.met"}, True),
        ({"type": "relationship", "subject": "npc:4", "op": "missing"}, True),
        ({"type": "not", "of": _flag("open")}, False),
        ({"type": "all", "of": [_flag("open"), _flag("coins")]}, False),
        ({"type": "any", "of": [_flag("open"), _flag("coins")]}, True),
    ],
)
def test_conditions_compare_as_documented(condition: dict[str, Any], expected: bool) -> None:
    """Numbers compare with numbers, texts with texts; true is not 1, and what is missing only differs."""
    assert _holds(condition) is expected


def test_a_condition_is_described_with_what_the_session_holds() -> None:
    """The words name the path, the comparison, the wanted value and the actual one."""
    state = _state(FLAGS, PEOPLE)
    both = {"type": "all", "of": [_flag("open"), _flag("coins", "gt", 5), _flag("key", "exists")]}
    assert describe(_condition.validate_python(both), state) == (
        "all of (flag 'coins' gt 5 (it is 3), flag 'key' exists (it is missing))"
    )
    shy = {"type": "not", "of": {"type": "relationship", "subject": "npc:3", "op": "gt", "value": 30}}
    assert describe(_condition.validate_python(shy), state) == (
        "not ('affinity' of relationship 'npc:3' gt 30 (it is 40))"
    )


def _apply(effects: Sequence[dict[str, Any]], state: SessionState) -> SessionState:
    return apply_effects(_effects.validate_python(effects), state)


def test_effects_are_applied_in_order() -> None:
    """Later effects see what earlier ones did; objects on the way are made."""
    after = _apply(
        [
            {"type": "set_flag", "path": "met.queen"},
            {"type": "set_flag", "path": "coins", "value": 10},
            {"type": "increment_flag", "path": "coins", "by": -2.5},
            {"type": "increment_flag", "path": "visits.castle"},
            {"type": "clear_flag", "path": "name"},
            {"type": "clear_flag", "path": "nothing.here"},
            {"type": "change_relationship", "subject": "npc:3", "by": 80, "max": 100},
            {"type": "change_relationship", "subject": "npc:9", "field": "trust", "by": -5, "min": 0},
            {"type": "set_relationship", "subject": "npc:3", "field": "flags.owes", "value": [1]},
        ],
        _state({"name": "Ann"}, PEOPLE),
    )
    assert after.flags == {"met": {"queen": True}, "coins": 7.5, "visits": {"castle": 1}}
    assert after.relationships == {
        "npc:3": {"affinity": 100, "flags": {"met": True, "owes": [1]}},
        "npc:9": {"trust": 0},
    }


def test_effects_leave_what_they_were_given_untouched() -> None:
    """Neither the state before nor the effect's own value is shared with the state after."""
    state = _state({"bag": {"rope": 1}})
    (effect,) = _effects.validate_python([{"type": "set_flag", "path": "kit", "value": {"n": 1}}])
    after = apply_effects([effect], state)
    after.flags["bag"]["rope"] = 2
    after.flags["kit"]["n"] = 2
    assert state.flags == {"bag": {"rope": 1}}
    assert effect.value == {"n": 1}


@pytest.mark.parametrize(
    ("effect", "text"),
    [
        ({"type": "increment_flag", "path": "name"}, "effect 1 (increment_flag): 'name' is 'Ann', not a number"),
        ({"type": "increment_flag", "path": "open"}, "effect 1 (increment_flag): 'open' is True, not a number"),
        ({"type": "set_flag", "path": "arcs.main.step.x"}, "'arcs.main.step' is 2, not an object"),
        ({"type": "set_relationship", "subject": "npc:3", "field": "affinity.x", "value": 1}, "not an object"),
    ],
)
def test_an_effect_that_does_not_fit_names_what_is_in_its_way(effect: dict[str, Any], text: str) -> None:
    """A player may have put anything into the flags; an effect that meets it is a refusal, not an accident."""
    with pytest.raises(EffectFailedError) as caught:
        _apply([effect], _state(FLAGS, PEOPLE))
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("cooldown", "ago", "left"),
    [(None, 0, 0), (0, 0, 0), (10, None, 0), (10, 0, 10), (10, 4, 6), (10, 10, 0), (10, 99, 0), (10, -5, 15)],
)
def test_cooldown_counts_wall_time_since_the_edge_was_taken(
    cooldown: float | None, ago: float | None, left: float
) -> None:
    """No cooldown, never taken, just taken, partly and fully cooled down."""
    taken = None if ago is None else NOW - timedelta(seconds=ago)
    assert cooldown_left(cooldown, taken, NOW) == left


def _edge(**fields: Any) -> SceneEdge:
    return SceneEdge.model_validate({"id": "e", "from": "a", "to": "b", **fields})


def test_taking_an_edge_moves_the_session_and_applies_its_effects() -> None:
    """The state after stands at the edge's end."""
    edge = _edge(conditions=[_flag("key")], effects=[{"type": "clear_flag", "path": "key"}])
    after = take_edge(_state({"key": True}), edge, last_taken=None, now=NOW)
    assert after == _state({}, at="b")


def test_an_edge_that_starts_elsewhere_is_refused_first() -> None:
    """The refusal names both places."""
    with pytest.raises(EdgeElsewhereError) as caught:
        take_edge(_state(at="z"), _edge(conditions=[_flag("key")]), last_taken=None, now=NOW)
    assert str(caught.value) == "edge 'e' starts at node 'a', but the session is at 'z'"


def test_all_conditions_that_fail_are_listed() -> None:
    """Those that hold are not."""
    edge = _edge(conditions=[_flag("key"), _flag("coins", "eq", 3), _flag("name", "eq", "Bob")])
    with pytest.raises(ConditionsFailedError) as caught:
        take_edge(_state(FLAGS), edge, last_taken=None, now=NOW)
    assert caught.value.failed == ("flag 'key' eq True (it is missing)", "flag 'name' eq 'Bob' (it is 'Ann')")


def test_an_edge_that_cools_down_is_refused_with_the_time_left() -> None:
    """The time left is exact for machines and rounded for people."""
    with pytest.raises(CoolingDownError) as caught:
        take_edge(_state(), _edge(cooldown_sec=60), last_taken=NOW - timedelta(seconds=59.5), now=NOW)
    assert caught.value.seconds_left == 0.5
    assert str(caught.value) == "edge 'e' is cooling down for another 0.5 s"


@pytest.mark.parametrize(
    ("flags", "effect"),
    [
        ({"n": 2**63 - 1}, {"type": "increment_flag", "path": "n", "by": 1}),
        ({}, {"type": "set_flag", "path": "stealth", "value": 1}),
        ({"text": "x" * 262_100}, {"type": "set_flag", "path": "more", "value": "x" * 100}),
    ],
    ids=["overflow", "convention", "size"],
)
def test_effects_cannot_make_a_state_that_cannot_be_stored(flags: dict[str, Any], effect: dict[str, Any]) -> None:
    """A number that runs over, a broken convention and a state that grows too large are refusals."""
    with pytest.raises(EffectFailedError, match="would leave the session broken"):
        take_edge(_state(flags), _edge(effects=[effect]), last_taken=None, now=NOW)
