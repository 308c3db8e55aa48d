"""The table may name too many routes, never too few, and keeps their order."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product

from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import Scope

from pixsim7_backend.infrastructure.plugins._dispatch.paths import path_of, shortest, static_prefix
from pixsim7_backend.infrastructure.plugins._dispatch.table import RouteTable, Target

_segments = st.sampled_from(["a", "b", "", "{x}", "{y:int}", "{z:uuid}", "p-{q}", "{f:float}", "{r:path}"])


@st.composite
def some_routes(draw: st.DrawFn) -> list[Route | Mount]:
    routes: list[Route | Mount] = []
    for segments in draw(st.lists(st.lists(_segments, min_size=1, max_size=3, unique=True), max_size=6)):
        path = "/" + "/".join(segments)
        is_mount = draw(st.booleans()) and "path}" not in path
        routes.append(Mount(path, routes=[]) if is_mount else Route(path, lambda _: None))
    return routes


def table_of(routes: list[Route | Mount]) -> RouteTable:
    return RouteTable(
        Target(
            order, it.matches, it.handle, it.url_path_for, it.name, path_of(it), it.param_convertors,
            isinstance(it, Mount), it, None,
        )
        for order, it in enumerate(routes)
    )  # fmt: skip


PARTS = ["a", "b", "", "1", "1.5", "p-1", "6f0b39a0-4f5f-4f0e-8d0a-1d5e0a4b2c11", "1\n", "a\n"]
PATHS = ["", *("/" + "/".join(parts) for length in (1, 2, 3) for parts in product(PARTS, repeat=length))]


def matching(routes: list[Route | Mount], path: str) -> list[BaseRoute]:
    scope: Scope = {"type": "http", "path": path, "root_path": "", "method": "GET"}
    return [route for route in routes if route.matches(scope)[0] is not Match.NONE]


@given(some_routes(), st.lists(st.sampled_from(PATHS), min_size=5, max_size=20))
def test_never_too_few(routes: list[Route | Mount], paths: list[str]) -> None:
    """Every route that matches a path is named for it, in registration order."""
    table = table_of(routes)
    for path in paths:
        named = [target.route for target in table.find(path)]
        wanted = matching(routes, path)
        assert [route for route in named if any(route is one for one in wanted)] == wanted
        assert [id(route) for route in named] == sorted((id(route) for route in named), key=_order_in(routes))


@given(some_routes(), st.lists(st.sampled_from(PATHS), min_size=5, max_size=20))
def test_prefixes_are_never_too_few(routes: list[Route | Mount], paths: list[str]) -> None:
    """Every route that matches a path has one of its prefixes among the growing prefixes of the path."""
    for route in routes:
        (prefix,) = shortest([static_prefix(path_of(route) or "")])
        for path in paths:
            if matching([route], path):
                assert prefix in {path[: cut.start()] for cut in re.finditer(r"/|$|\n", path)} | {path, ""}


def _order_in(routes: list[Route | Mount]) -> Callable[[int], int]:
    return {id(route): number for number, route in enumerate(routes)}.__getitem__
