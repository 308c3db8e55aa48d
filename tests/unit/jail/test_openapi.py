"""What a jail says of its interface, made harmless before it is part of the host's document."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixsim7_backend.infrastructure.plugins._jail.errors import JailProtocolError
from pixsim7_backend.infrastructure.plugins._jail.openapi import MAX_NODES, MAX_TEXT, harmless_document

PATH = "/api/v1/quest/open"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


def document(operation: Any, **more: Any) -> dict[str, Any]:
    """Return a document with one operation."""
    return {"paths": {PATH: {"get": operation}}, **more}


def shown(operation: Any, **more: Any) -> dict[str, Any]:
    """Return what is shown of one operation."""
    operations: dict[str, Any] = harmless_document(document(operation, **more), {PATH})["paths"][PATH]
    found: dict[str, Any] = operations["get"]
    return found


def test_what_is_in_order_is_shown_as_it_is() -> None:
    """Parameters, bodies, answers and schemas stay."""
    schemas = {"Item": {"type": "object", "properties": {"servers": {"type": "string", "pattern": "^<.*>$"}}}}
    answer = {"200": {"description": "ok", "content": {"x": {"schema": {"$ref": "#/components/schemas/Item"}}}}}
    operation = {"operationId": "read", "parameters": [{"name": "n", "in": "query"}], "responses": answer}
    given_ = document(operation, components={"schemas": schemas})
    assert harmless_document(given_, {PATH}) == given_


def test_only_what_is_served_is_shown() -> None:
    """Other paths, methods that are none, and what speaks for the whole document are left out."""
    told = {
        "paths": {PATH: {"get": {}, "steal": {}, "servers": [], "parameters": []}, "/api/v1/auth/login": {"post": {}}},
        "servers": [{"url": "https://evil.example"}],
        "info": {"title": "mine"},
        "security": [{}],
        "components": {"schemas": {"A": {}, "B c": {}}, "securitySchemes": {"none": {}}},
    }
    assert harmless_document(told, {PATH}) == {"paths": {PATH: {"get": {}}}, "components": {"schemas": {"A": {}}}}


def test_operations_lead_nowhere() -> None:
    """Servers, callbacks, links and security of an operation are the host's to say."""
    operation = {
        "servers": [{"url": "https://evil.example"}],
        "callbacks": {},
        "security": [],
        "externalDocs": {"url": "https://evil.example"},
        "responses": {"200": {"description": "", "links": {"next": {}}}},
    }
    assert shown(operation) == {"responses": {"200": {"description": ""}}}


def test_prose_has_no_markup() -> None:
    """Texts that pages show as Markdown cannot hold HTML; control characters are gone from all."""
    operation = {
        "summary": "a<script>b",
        "description": "<img src=x onerror=alert(1)>\u202e\x1b[31m\nline",
        "tags": ["<b>"],
    }
    assert shown(operation) == {
        "summary": "a&lt;script>b",
        "description": "&lt;img src=x onerror=alert(1)>[31m\nline",
        "tags": ["<b>"],
    }


@pytest.mark.parametrize(
    "reference",
    ["https://evil.example/x.json", "//evil.example", "file:x", "#/paths/~1api", "x.json", "",
     "#/components/schemas/a b"],
)  # fmt: skip
def test_references_elsewhere_are_refused(reference: str) -> None:
    """A page that follows them would fetch what the plugin likes."""
    with pytest.raises(JailProtocolError, match="leads elsewhere"):
        shown({"parameters": [{"$ref": reference}]})


@pytest.mark.parametrize("identifier", ["a b", "<x>", "", 7, ["x"]])
def test_ids_of_operations_are_names(identifier: Any) -> None:
    """Clients are made from them."""
    with pytest.raises(JailProtocolError, match="has an id that is none"):
        shown({"operationId": identifier})


@pytest.mark.parametrize(
    "told",
    [None, [], "text", {"paths": {PATH: {"get": {"summary": "x" * (MAX_TEXT + 1)}}}}, {"paths": {1: {}}},
     {"x": b"bytes"}, {"x": list(range(MAX_NODES))}],
)  # fmt: skip
def test_what_is_no_document_is_refused(told: Any) -> None:
    """Neither other types nor sizes without end reach the host's document."""
    with pytest.raises(JailProtocolError):
        harmless_document(told, {PATH})


def test_depth_is_bounded() -> None:
    """However deep it is, nothing follows it down."""
    deep: Any = {}
    for _ in range(10_000):
        deep = {"items": deep}
    with pytest.raises(JailProtocolError, match="too large"):
        shown(deep)


@given(st.dictionaries(st.text(max_size=10), JSON, max_size=4), JSON)
def test_whatever_is_told_what_is_shown_is_json_of_known_names(told: dict[str, Any], operation: Any) -> None:
    """It can be written, and holds nothing but paths and schemas."""
    try:
        found = harmless_document({**told, "paths": {PATH: {"get": operation}}}, {PATH})
    except JailProtocolError:
        return
    assert found.keys() == {"paths", "components"}
    assert json.loads(json.dumps(found)) == found
