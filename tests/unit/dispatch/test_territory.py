"""Whose paths are whose: confined plugins keep out of the middle of somebody else's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixsim7_backend.infrastructure.plugins._dispatch.claims import RouteClaim
from pixsim7_backend.infrastructure.plugins._dispatch.paths import shape_of
from pixsim7_backend.infrastructure.plugins._dispatch.territory import Territories, directories_of

PREFIX = "/api/v1"


def claim(path: str, method: str = "GET") -> RouteClaim:
    return RouteClaim(method, shape_of(path), path, "endpoint")


def territories(*paths: str, prefix: str = PREFIX) -> Territories:
    made = Territories()
    made.add("plugin 'other'", map(claim, paths), prefix=prefix)
    return made


@pytest.mark.parametrize(
    ("others", "path"),
    [
        ("/api/v1/auth/login", "/api/v1/auth/evil"),
        ("/api/v1/auth/login", "/api/v1/auth/x/y"),
        ("/api/v1/auth/login", "/api/v1/auth"),
        ("/api/v1/auth/login", "/api/v1/auth/"),
        ("/api/v1/auth/login", "/api/v1//auth/evil"),
        ("/api/v1/auth/login", "/api/v1/mine/../auth/evil"),
        ("/api/v1/auth/login", "/api/v1/auth/{anything}"),
        ("/api/v1/auth/login", "/api/v1/{anything:path}"),
        ("/api/v1/auth/login", "/api/v1/{part}/login"),
        ("/api/v1/auth/login", "/api/v1/au{th}/login"),
        ("/api/v1/auth/login", "/{anything:path}"),
        ("/api/v1/game/sessions/{id}", "/api/v1/game/sessions/evil"),
        ("/api/v1/game/sessions/{id}", "/api/v1/game/{part}"),
        ("/api/v1/assets", "/api/v1/assets"),
        ("/api/v1/assets", "/api/v1/assets/evil"),
        ("/api/v1/assets/{id}/pages/{page}", "/api/v1/assets/1/evil"),
    ],
)
def test_what_lies_in_the_middle_of_somebody_elses_is_refused(others: str, path: str) -> None:
    """Below a directory of another, or where a parameter could mean it."""
    found = territories(others).find(claim(path))
    assert found is not None
    owner, territory = found
    assert owner == "plugin 'other'"
    assert others.startswith(territory)


@pytest.mark.parametrize(
    ("others", "path"),
    [
        ("/api/v1/game/stealth/pickpocket", "/api/v1/game/quests/list"),
        ("/api/v1/game/stealth/pickpocket", "/api/v1/game/quests/{id}"),
        ("/api/v1/assets", "/api/v1/quest"),
        ("/api/v1/assets", "/api/v1/assets-of-mine"),
        ("/api/v1/assets/{id}", "/api/v1/asset"),
        ("/api/v1/auth/login", "/api/v1/authors/{id}"),
        ("/api/v1/auth/login", "/api/v1"),
        ("/api/v1/{anything:path}", "/api/v1/quest"),
        ("/{anything:path}", "/api/v1/quest"),
        ("/", "/api/v1/quest"),
    ],
)
def test_neighbours_are_free(others: str, path: str) -> None:
    """The prefix that all share, and what is beside a directory; whoever takes everything owns nothing."""
    assert territories(others).find(claim(path)) is None


@pytest.mark.parametrize("method", ["MOUNT", "FRONTEND"])
def test_a_mount_answers_for_all_below_it(method: str) -> None:
    """It may not hold a directory of somebody else, and makes its path its owner's."""
    assert territories("/api/v1/auth/login").find(claim("/api/v1", method)) is not None
    assert territories("/api/v1/auth/login").find(claim("/api/v1/files", method)) is None
    assert directories_of([claim("/static", method)]) == ("/static",)


def test_a_host_name_is_never_free() -> None:
    """Whoever answers for a host answers for every path of it."""
    assert territories("/api/v1/auth/login").find(claim("example.org", "HOST")) == ("plugin 'other'", "/")


def test_directories_are_the_routes_own_where_more_lies_below_them() -> None:
    """One route below a shared directory does not take that; a single one takes the path above it."""
    sessions = map(claim, ("/api/v1/game/sessions", "/api/v1/game/sessions/{id}", "/api/v1/game/sessions/{id}/turns"))
    assert directories_of(sessions, prefix=PREFIX) == ("/api/v1/game/sessions",)
    auth = map(claim, ("/api/v1/auth/login", "/api/v1/auth/me", "/api/v1/auth/keys/{id}"))
    assert directories_of(auth, prefix=PREFIX) == ("/api/v1/auth",)
    assert directories_of([claim("/health"), claim("/docs"), claim("/docs/oauth2-redirect")]) == ("/docs", "/health")


part = st.sampled_from(["auth", "game", "a", "{x}", "{x:path}"])
routes = st.lists(part, min_size=1, max_size=4).map(lambda parts: f"{PREFIX}/{'/'.join(parts)}")


@given(
    st.lists(routes, min_size=1, max_size=6), st.lists(st.sampled_from(["auth", "game", "a"]), min_size=1, max_size=3)
)
def test_nothing_is_free_below_what_is_taken(others: list[str], parts: list[str]) -> None:
    """What is refused stays so with more below it; where nobody serves anything, all is free."""
    made, path = territories(*others), f"{PREFIX}/{'/'.join(parts)}"
    if made.find(claim(path)) is not None:
        assert made.find(claim(f"{path}/evil")) is not None
        assert made.find(claim(f"{path}/{{x}}")) is not None
    assert Territories().find(claim(path)) is None


@given(st.lists(routes, min_size=1, max_size=6))
def test_everybody_is_refused_in_their_own_directories(paths: list[str]) -> None:
    """Whatever a route of another could answer in a directory, a confined plugin cannot serve."""
    made = territories(*paths)
    for directory in directories_of(map(claim, paths), prefix=PREFIX):
        assert directory.startswith(f"{PREFIX}/")
        for path in (directory, f"{directory}/evil", f"{directory}/{{x}}", "/{x:path}", f"{PREFIX}/{{x:path}}"):
            assert made.find(claim(path)) is not None
