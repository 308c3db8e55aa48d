from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from pixsim7_backend.plugins.game_scenes.conditions import Conditions, Effects
from pixsim7_backend.plugins.game_scenes.schemas import SceneGraph

conditions = TypeAdapter[Any](Conditions)
effects = TypeAdapter[Any](Effects)


def _nested(depth: int) -> dict[str, Any]:
    condition: dict[str, Any] = {"type": "flag", "path": "a"}
    for _ in range(depth):
        condition = {"type": "not", "of": condition}
    return condition


@pytest.mark.parametrize(
    "condition",
    [
        {"type": "flag", "path": "met.queen"},
        {"type": "flag", "path": "coins", "op": "gte", "value": 3},
        {"type": "flag", "path": "mood", "op": "in", "value": ["glad", "calm"]},
        {"type": "flag", "path": "coins", "op": "missing"},
        {"type": "relationship", "subject": "npc:3", "op": "gt", "value": 30.5},
        {"type": "relationship", "subject": "npc:3", "field": "flags.owes", "op": "exists"},
        {"type": "any", "of": [{"type": "flag", "path": "a"}, {"type": "all", "of": [{"type": "flag", "path": "b"}]}]},
        _nested(5),
    ],
)
def test_a_condition_means_the_same_after_being_stored(condition: dict[str, Any]) -> None:
    """What is written is accepted, and reads back from its stored form as the same condition."""
    (parsed,) = conditions.validate_python([condition])
    assert conditions.validate_python([parsed.model_dump(mode="json")]) == (parsed,)


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        ({"type": "flags", "path": "a"}, "does not match any of the expected tags"),
        ({"path": "a"}, "Unable to extract tag"),
        ({"type": "flag", "path": "a..b"}, "is not a path; write names joined by single dots"),
        ({"type": "flag", "path": ""}, "at least 1 item"),
        ({"type": "flag", "path": ".".join("x" * 14)}, "is not a path"),
        ({"type": "flag", "path": "a\x00"}, "NUL"),
        ({"type": "flag", "path": "a", "op": "=="}, "Input should be 'eq'"),
        ({"type": "flag", "path": "a", "op": "in", "value": 3}, "'in' needs a list as value"),
        ({"type": "flag", "path": "a", "op": "lt", "value": True}, "'lt' needs a number or a text as value"),
        ({"type": "flag", "path": "a", "op": "lt"}, "'lt' needs a number or a text as value"),
        ({"type": "flag", "path": "a", "op": "exists", "value": 1}, "'exists' takes no value"),
        ({"type": "flag", "path": "a", "value": float("nan")}, "numbers must be finite"),
        ({"type": "flag", "path": "a", "valeu": 1}, "Extra inputs are not permitted"),
        ({"type": "any", "of": []}, "at least 1 item"),
        (_nested(6), "nested at most 6 deep"),
        ({"type": "any", "of": [{"type": "any", "of": [{"type": "flag", "path": "a"}] * 25}] * 2}, "at most 50"),
    ],
)
def test_a_wrong_condition_is_refused_with_its_reason(condition: dict[str, Any], text: str) -> None:
    """Unknown kinds, comparisons that make no sense and boundless nesting never reach a session."""
    with pytest.raises(ValidationError, match=text):
        conditions.validate_python([condition])


@pytest.mark.parametrize(
    ("effect", "text"),
    [
        ({"type": "set_flag", "path": "a", "value": None}, "remove a flag with 'clear_flag'"),
        ({"type": "set_flag", "path": "world.id", "value": 7}, "cannot be changed by an effect"),
        ({"type": "clear_flag", "path": "world"}, "cannot be changed by an effect"),
        ({"type": "increment_flag", "path": "a", "by": float("inf")}, "less than or equal"),
        ({"type": "increment_flag", "path": "a", "by": "3"}, "valid number"),
        ({"type": "increment_flag", "path": "a", "by": True}, "valid number"),
        ({"type": "change_relationship", "subject": "npc:1"}, "Field required"),
        ({"type": "change_relationship", "subject": "npc:1", "by": 1, "min": 5, "max": 1}, "must not be greater"),
        ({"type": "set_relationship", "subject": "npc:1", "field": "a", "value": None}, "null is not a value"),
        ({"type": "set_flag", "path": "a", "value": "x" * 5000}, "longer than 4096 bytes"),
    ],
)
def test_a_wrong_effect_is_refused_with_its_reason(effect: dict[str, Any], text: str) -> None:
    """Effects that could break a session, or move it to another world, never reach one."""
    with pytest.raises(ValidationError, match=text):
        effects.validate_python([effect])


def test_a_graph_may_be_sent_as_it_was_received() -> None:
    """What only the server sets is ignored, ``startNodeId`` is the entry, and edges get their names."""
    graph = SceneGraph.model_validate(
        {
            "id": "7",
            "version": 2,
            "title": "Gate",
            "startNodeId": "a",
            "nodes": [{"id": "a", "media": [{"id": "1"}], "asset_id": "12"}, {"id": 2}],
            "edges": [{"from": "a", "to": 2}],
        }
    )
    assert graph.entry_node_id == "a"
    assert [node.id for node in graph.nodes] == ["a", "2"]
    assert graph.nodes[0].asset_id == 12
    assert [edge.id for edge in graph.edges] == ["a--2"]
    assert graph.warnings() == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"entry_node_id": "x"}, "entry node 'x' is not a node of this scene"),
        ({"edges": [{"from": "a", "to": "x"}]}, "edge 'a--x' goes to 'x', which is not a node of this scene"),
        ({"nodes": [{"id": "a"}, {"id": "a"}]}, "node id 'a' is used more than once"),
        ({"nodes": [{"id": "a b"}]}, "String should match pattern"),
        ({"nodes": [{"id": "a\n"}]}, "String should match pattern"),
        ({"nodes": [{"id": "a", "asset_id": 2**63}]}, "less than or equal"),
        ({"nodes": [{"id": "a", "lable": "x"}]}, "Extra inputs are not permitted"),
        ({"nodes": [{"id": str(number)} for number in range(501)]}, "at most 500"),
        ({"edges": [{"from": "a", "to": "a", "weight": -1}]}, "greater than or equal to 0"),
        ({"edges": [{"from": "a", "to": "a", "cooldown_sec": float("inf")}]}, "finite number"),
        ({"title": ""}, "at least 1 item"),
        ({"title": "\ud800"}, "lone surrogates"),
        ({"colour": "red"}, "Extra inputs are not permitted"),
    ],
)
def test_an_unsound_graph_is_refused_with_its_reason(change: dict[str, Any], text: str) -> None:
    """Every way in which a graph may be wrong has a text that names the culprit."""
    with pytest.raises(ValidationError, match=text):
        SceneGraph.model_validate({"title": "Gate", "entry_node_id": "a", "nodes": [{"id": "a"}], **change})


def test_odd_graphs_are_accepted_with_warnings() -> None:
    """A draft without an entry and a node that nobody reaches are stored, and said."""
    draft = SceneGraph.model_validate({"title": "Gate"})
    assert [warning.kind for warning in draft.warnings()] == ["no-entry"]
    odd = SceneGraph.model_validate({"title": "Gate", "entry_node_id": "a", "nodes": [{"id": "a"}, {"id": "b"}]})
    assert [(warning.kind, warning.node_id) for warning in odd.warnings()] == [("unreachable", "b")]
