from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsim7_backend.merge_patch import merge_patch
from pixsim7_backend.plugins.game_sessions.state import SessionState, find_problems, list_paths, merge_diff, plain


def _state(**fields: Any) -> SessionState:
    return SessionState(**{"current_node_id": "a", "world_time": 0.0, "flags": {}, "relationships": {}, **fields})


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"flags": {"x": float("nan")}}, "flags: numbers must be finite"),
        ({"flags": {"x": "y" * 262_144}}, "flags: JSON must not be longer than 262144 bytes"),
        ({"relationships": {"npc:1": {"affinity": 10**30}}}, "relationships: whole numbers must fit into 64 bits"),
        ({"world_time": -1.0}, "world_time: must lie between 0 and 1000000000000 seconds"),
        ({"world_time": float("nan")}, "world_time: must lie between 0 and 1000000000000 seconds"),
        ({"flags": {"stealth": []}}, "flags.stealth: must be an object"),
        ({"flags": {"arcs": None}}, "flags.arcs: must be an object"),
        ({"flags": {"world": {"id": "3"}}}, "flags.world.id: must be the id of a world"),
        ({"flags": {"world": {"id": True}}}, "flags.world.id: must be the id of a world"),
        ({"flags": {"world": {"id": 0}}}, "flags.world.id: must be the id of a world"),
        ({"relationships": {"npc:1": 3}}, "relationships.npc:1: must be an object"),
        ({"relationships": {"npc:1": {"trust": "high"}}}, "relationships.npc:1.trust: must be a number"),
        ({"relationships": {"npc:1": {"score": False}}}, "relationships.npc:1.score: must be a number"),
        ({"relationships": {"npc:1": {"flags": []}}}, "relationships.npc:1.flags: must be an object"),
    ],
)
def test_what_breaks_a_session_is_named(fields: dict[str, Any], problem: str) -> None:
    """Size, range and the conventions other plugins compute with."""
    assert find_problems(_state(**fields)) == (problem,)


def test_a_state_in_the_conventions_has_no_problem() -> None:
    """Unknown flags and unknown members of a relationship are nobody's business."""
    people = {"npc:1": {"affinity": 1, "trust": 2.5, "score": 0, "flags": {"met": True}, "nickname": "Ann"}, "me": {}}
    flags: dict[str, Any] = {"stealth": {}, "arcs": {"main": 1}, "world": {"id": 5}, "anything": [None, {}]}
    assert find_problems(_state(flags=flags, relationships=people)) == ()


def test_a_copied_state_shares_nothing() -> None:
    """A rule may change what it was given in place without touching what is stored."""
    state = _state(flags={"a": {"b": [1]}})
    copied = state.copied()
    copied.flags["a"]["b"].append(2)
    assert state.flags == {"a": {"b": [1]}}
    assert state.world_id is None
    assert _state(flags={"world": {"id": 4}}).world_id == 4


def test_the_difference_tells_true_from_one() -> None:
    """Python thinks they are equal; JSON, and a player, do not."""
    assert merge_diff({"a": 1, "b": [1], "c": {"d": 0}}, {"a": True, "b": [True], "c": {"d": False}}) == {
        "a": True,
        "b": [True],
        "c": {"d": False},
    }
    assert merge_diff({"a": 1}, {"a": 1.0}) == {}


def test_paths_name_the_leaves_that_changed() -> None:
    """An emptied or replaced object is a leaf too."""
    assert list_paths({"flags": {"a": {"b": 1}, "c": None, "d": {}}, "world_time": 3}) == (
        "flags.a.b",
        "flags.c",
        "flags.d",
        "world_time",
    )


_scalars = st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=2)
_json = st.recursive(
    _scalars | st.lists(_scalars | st.none(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
_objects = st.dictionaries(st.sampled_from("abc"), _json, max_size=3)


@settings(max_examples=150, deadline=None)
@given(_objects, _objects)
def test_the_difference_is_a_merge_patch_from_one_to_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Whoever follows the changes of ``session:updated`` by RFC 7386 holds the same state."""
    kept = plain(before)
    patch = merge_diff(before, after)
    assert repr(merge_patch(before, patch)) == repr(after) or merge_patch(before, patch) == after
    assert before == kept
    assert merge_diff(after, after) == {}
    assert (patch == {}) == (merge_diff(after, before) == {})
