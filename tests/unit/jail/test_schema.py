"""What a jail says can be set, made harmless before the host reads it; and what it says of values."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretStr

from pixsim7_backend.infrastructure.plugins._jail.errors import JailProtocolError
from pixsim7_backend.infrastructure.plugins._jail.schema import MAX_NODES, MAX_TEXT, harmless_schema
from pixsim7_backend.infrastructure.plugins._jail.settings import MAX_FAULTS, JailedSettings, parse_verdict, sendable
from pixsim7_backend.infrastructure.plugins._settings.form import RefusedSettingsError
from pixsim7_backend.infrastructure.plugins._settings.schema import SettingsSchema

WORDS = ("properties", "$defs", "anyOf", "items", "additionalProperties", "prefixItems", "type", "enum", "minimum",
         "exclusiveMinimum", "writeOnly", "default", "examples", "title", "a")  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=20,
)


class Node(BaseModel):
    """A setting that holds more of its kind."""

    name: str = Field("x", min_length=1, description="Its name")
    key: SecretStr | None = None
    more: list[Node] = []
    by_name: dict[str, Node] = {}


def test_schemas_of_models_are_shown_as_they_are() -> None:
    """Definitions, references, constraints and secrets stay."""
    schema = Node.model_json_schema()
    assert harmless_schema(schema) == schema


@pytest.mark.parametrize(
    "told",
    [None, [], "text", {"properties": 7}, {"properties": {"a": 7}}, {"anyOf": {}}, {"anyOf": [7]}, {"items": 7},
     {"$defs": []}, {"type": 7}, {"type": [7]}, {"enum": 7}, {"examples": {}}, {"minimum": "1"},
     {"exclusiveMinimum": True}, {"writeOnly": "yes"}, {"$ref": 7}, {"$ref": "#/$defs/none"}, {"prefixItems": 7},
     {"properties": {"a": {"additionalProperties": {"patternProperties": 7}}}}, {1: {}}, {"x": b"bytes"},
     {"$ref": "https://evil.example"}, {"title": "x" * (MAX_TEXT + 1)}, {"x": list(range(MAX_NODES))}],
)  # fmt: skip
def test_what_is_no_schema_is_refused(told: Any) -> None:
    """Whatever the host would look into is as it expects."""
    with pytest.raises(JailProtocolError):
        harmless_schema(told)


def test_prose_has_no_markup_and_no_control_characters() -> None:
    """Pages show descriptions as Markdown, terminals whatever they are sent."""
    shown = harmless_schema(
        {"description": "<script>\x1b[2J\u202e", "properties": {"a\x07": {"default": "\x1b[31m<b>"}}}
    )
    assert shown == {"description": "&lt;script>[2J", "properties": {"a": {"default": "[31m<b>"}}}


@settings(max_examples=40)
@given(TREES, TREES)
def test_what_is_let_through_can_be_asked_anything(told: Any, values: Any) -> None:
    """No schema makes the host stumble, whatever the values."""
    try:
        schema = SettingsSchema(harmless_schema(told))
    except JailProtocolError:
        return
    document = values if isinstance(values, dict) else {"a": values}
    schema.spell_all(document)
    schema.change_secrets(document, lambda _, secret: secret)
    for path in schema.unknown(document):
        schema.names_at(path[:-1])
    json.dumps(schema.example(schema.at(("a",))))
    schema.set_text({}, ["a", "b"], "1")


def test_definitions_that_all_refer_to_all_take_no_time_to_follow() -> None:
    """Each is looked at once for a place, not once for each way that leads to it."""
    names = [f"d{number}" for number in range(40)]
    everywhere = [{"$ref": f"#/$defs/{name}"} for name in names]
    schema = {"$defs": {name: {"anyOf": everywhere} for name in names}, "anyOf": everywhere}
    asked = SettingsSchema(harmless_schema(schema))
    assert len(asked.root) <= len(names) * (len(names) + 2) + 1
    assert asked.item(asked.root, 7) is asked.item(asked.root, 8)
    assert asked.member(asked.root, "a") is asked.member(asked.root, "a")


@pytest.mark.parametrize(
    "answer",
    [None, 7, {}, {"values": {}, "refused": []}, {"values": 7}, {"values": [1]}, {"values": {"a": b"x"}},
     {"refused": {}}, {"refused": []}, {"refused": [["x", [], "y"]] * (MAX_FAULTS + 1)}, {"refused": [7]},
     {"refused": [["x", [], 7]]}, {"refused": [["x", [True], "y"]]}, {"refused": [["x", [1.5], "y"]]},
     {"refused": [["x", ["a"] * 41, "y"]]}],
)  # fmt: skip
def test_what_is_no_verdict_is_refused(answer: Any) -> None:
    """Values will do, or there are reasons why not."""
    with pytest.raises(JailProtocolError):
        parse_verdict({}, answer)


def test_verdicts_are_plain() -> None:
    """What a jail says is on one line and not long; secrets are in no text of what it accepted."""
    refused = parse_verdict({}, {"refused": [["kind\n", ["a\x1b", 3], "no\x00\u202e" + "x" * 10_000]]})
    assert isinstance(refused, RefusedSettingsError)
    [fault] = refused.faults
    assert (fault.kind, fault.place, fault.text[:5], len(fault.text)) == ("kind ", ("a ", 3), "no  x", 2000)
    accepted = parse_verdict({"key": "secret"}, {"values": {"key": "***\x1b"}})
    assert isinstance(accepted, JailedSettings)
    assert accepted.shown == {"key": "***"}
    assert "secret" not in repr(accepted)


def test_what_cannot_be_said_in_a_frame_is_a_text_or_refused() -> None:
    """YAML has dates and infinity; what is too deep or too large for a jail is the operator's to correct."""
    assert sendable({"on": date(2026, 7, 1), "most": float("inf"), "id": 1 << 70, "names": ("a",)}) == {
        "on": "2026-07-01",
        "most": "inf",
        "id": str(1 << 70),
        "names": ["a"],
    }
    deep: Any = 1
    for _ in range(60):
        deep = [deep]
    for values in ({"deep": deep}, {"long": "x" * (1 << 21)}):
        with pytest.raises(RefusedSettingsError, match="a jail cannot be told them"):
            sendable(values)
