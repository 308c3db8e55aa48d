"""JSON merge patch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixsim7_backend.merge_patch import MAX_DEPTH, MergePatchDepthError, merge_patch

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=1), inner, max_size=3),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("target", "patch", "expected"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_examples_of_the_rfc(target: Any, patch: Any, expected: Any) -> None:
    """RFC 7386, appendix A."""
    assert merge_patch(target, patch) == expected


@given(JSON, JSON)
def test_neither_argument_is_modified(target: Any, patch: Any) -> None:
    """The result is a new value; what was given stays as it was."""
    before = copy.deepcopy((target, patch))
    merge_patch(target, patch)
    assert (target, patch) == before


@given(JSON, JSON)
def test_applying_a_patch_twice_changes_nothing_more(target: Any, patch: Any) -> None:
    """A merge patch is idempotent."""
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once


@given(JSON, JSON)
def test_the_result_is_what_the_rfc_defines(target: Any, patch: Any) -> None:
    """Every member of the patch is as it says, every other member is untouched."""
    result = merge_patch(target, patch)
    if not isinstance(patch, dict):
        assert result == patch
        return
    old = target if isinstance(target, dict) else {}
    assert {key: result[key] for key in result if key not in patch} == {k: old[k] for k in old if k not in patch}
    for key, change in patch.items():
        assert (key not in result) if change is None else (result[key] == merge_patch(old.get(key), change))


def test_a_patch_that_is_nested_too_deeply_is_refused() -> None:
    """Deep input is an error of its own, never a RecursionError; arrays in it do not count."""
    patch: Any = {}
    for _ in range(MAX_DEPTH - 1):
        patch = {"a": patch}
    assert merge_patch({}, patch) == patch
    with pytest.raises(MergePatchDepthError, match="at most 64 levels deep"):
        merge_patch({}, {"a": patch})
    for _ in range(100_000):
        patch = {"a": patch}
    with pytest.raises(MergePatchDepthError):
        merge_patch({}, patch)
    while patch:
        patch = patch.pop("a", None)
