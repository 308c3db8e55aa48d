"""Shapes, static prefixes and the part of the path that routes look at."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette._utils import get_route_path as starlettes
from starlette.routing import Route

from pixsim7_backend.infrastructure.plugins._dispatch.paths import (
    path_of,
    route_path,
    shape_of,
    shortest,
    static_prefix,
)


@pytest.mark.parametrize(
    ("path", "shape", "prefix"),
    [
        ("/a/b", "/a/b", "/a/b"),
        ("/a/{x}/b", "/a/{str}/b", "/a"),
        ("/a/{x:int}/{y:path}", "/a/{int}/{path}", "/a"),
        ("/a/b-{x}", "/a/b-{str}", "/a"),
        ("/{x}", "/{str}", ""),
        ("/", "/", "/"),
        ("/a/", "/a/", "/a/"),
        ("", "", ""),
    ],
)
def test_shape_and_prefix(path: str, shape: str, prefix: str) -> None:
    """Names of parameters are ignored, their convertors are not; the prefix ends before the first one."""
    assert shape_of(path) == shape
    assert static_prefix(path) == prefix


def test_shortest() -> None:
    """Prefixes below another one are dropped, by whole segments."""
    assert shortest(["/a/b", "/a", "/ab", "/c/d", "/a/b/c"]) == ("/a", "/ab", "/c/d")
    assert shortest(["", "/a"]) == ("",)
    assert shortest([]) == ()


def test_paths_that_do_not_decide() -> None:
    """A route with a match of its own has no path to be found by."""

    class Odd(Route):
        def matches(self, scope: Any) -> Any:
            return super().matches(scope)

    assert path_of(Route("/a", lambda _: None), "/p") == "/p/a"
    assert path_of(Odd("/a", lambda _: None)) is None


_part = st.sampled_from(["", "/", "/a", "/ab", "a", "/a/", "/b"])


@given(st.lists(_part).map("".join), st.lists(_part).map("".join))
def test_route_path_is_starlettes(path: str, root_path: str) -> None:
    """The root path is cut off exactly as Starlette cuts it."""
    scope = {"type": "http", "path": path, "root_path": root_path}
    assert route_path(scope) == starlettes(scope)
