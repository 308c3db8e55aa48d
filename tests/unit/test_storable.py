from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from pixsim7_backend.storable import MAX_ID, JsonObject, RowId, Text, find_json_problem


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", [{}, {"a": [1, 2.5, None, True, "ü😀"]}, [], "x", 0, -(2**63), 2**63 - 1, _nested(8)])
def test_plain_json_can_be_stored(value: Any) -> None:
    """Everything PostgreSQL and SQLite both give back unchanged is accepted."""
    assert find_json_problem(value, max_bytes=1000, max_depth=8) is None


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("a\x00b", "text must not contain NUL characters"),
        ({"\x00": 1}, "text must not contain NUL characters"),
        (["\ud800"], "text must not contain lone surrogates"),
        ({"\udfff": 1}, "text must not contain lone surrogates"),
        ({"a": float("nan")}, "numbers must be finite"),
        ([float("inf")], "numbers must be finite"),
        ({"a": -1e300}, "whole numbers must fit into 64 bits"),
        (2**63, "whole numbers must fit into 64 bits"),
        ([10**400], "whole numbers must fit into 64 bits"),
        (_nested(9), "JSON must not be nested deeper than 8 levels"),
        (_nested(50_000), "JSON must not be nested deeper than 8 levels"),
        ("x" * 1000, "JSON must not be longer than 1000 bytes"),
        ({1}, "set is not JSON"),
    ],
    ids=range(13),
)
def test_what_a_database_would_refuse_or_break_is_named(value: Any, problem: str) -> None:
    """Each kind of value that a database refuses, or gives back broken, has its own text."""
    assert find_json_problem(value, max_bytes=1000, max_depth=8) == problem


@pytest.mark.parametrize("value", [0, -1, MAX_ID + 1, 10**30, "abc", None])
def test_a_row_id_fits_its_column(value: Any) -> None:
    """An id beyond the column's type is invalid input, not an error of the database."""
    with pytest.raises(ValidationError):
        TypeAdapter(RowId).validate_python(value)


def test_text_and_objects_are_checked_in_models() -> None:
    """The annotated types refuse what the function finds."""
    assert TypeAdapter(Text).validate_python("Grüße") == "Grüße"
    with pytest.raises(ValidationError, match="NUL"):
        TypeAdapter(Text).validate_python("\x00")
    with pytest.raises(ValidationError, match="deeper than 16"):
        TypeAdapter(JsonObject).validate_python({"a": _nested(16)})
