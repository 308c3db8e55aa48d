"""What permissions cover, and what the operator decided of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixsim7_backend.infrastructure.plugins._grants.permissions import (
    Grants,
    Permission,
    PermissionNotRequestedError,
    decide,
)

ITEMS = st.frozensets(st.sampled_from(["npcs", "locations", "worlds", "scenes"]))
PERMISSIONS = st.builds(Permission, st.sampled_from(["db:read", "db:write", "redis:read"]), ITEMS)


def some(*texts: str) -> frozenset[Permission]:
    """Return permissions from their texts."""
    return frozenset(map(Permission.parse, texts))


@given(PERMISSIONS)
def test_a_permission_reads_as_it_is_written(permission: Permission) -> None:
    """Its text says everything, and the order of items says nothing."""
    assert Permission.parse(str(permission)) == permission


@given(PERMISSIONS, PERMISSIONS, st.sampled_from(["npcs", "locations", "worlds", "scenes", "others"]))
def test_what_covers_allows_at_least_as_much(one: Permission, other: Permission, item: str) -> None:
    """Covering is an order that agrees with what is allowed item by item."""
    assert one.covers(one)
    if one.covers(other) and Grants(frozenset({other})).allows(other.name, item):
        assert Grants(frozenset({one})).allows(other.name, item)


@given(st.frozensets(PERMISSIONS, max_size=4))
def test_after_a_decision_nothing_is_undecided(requested: frozenset[Permission]) -> None:
    """Whether all or nothing is granted, all that was asked for is decided."""
    for choice in (["all"], []):
        grants = decide(requested, choice)
        assert grants.undecided(requested) == ()
        assert Grants.from_json(grants.to_json()) == grants


@given(st.frozensets(PERMISSIONS, max_size=4), st.data())
def test_whatever_is_granted_of_a_request_decides_it(requested: frozenset[Permission], data: st.DataObject) -> None:
    """A part of it, or a narrower one, too; and nothing beyond it becomes allowed."""
    chosen = data.draw(st.lists(st.sampled_from(sorted(requested)) if requested else st.nothing()))
    grants = decide(requested, [str(each) for each in chosen])
    assert grants.undecided(requested) == ()
    assert all(any(each.covers(granted) for each in requested) for granted in grants.granted)


def test_a_narrower_grant_declines_the_rest() -> None:
    """What is not granted of a list is declined, item by item where that can be said."""
    grants = decide(some("db:read:npcs,worlds", "user:read"), ["db:read:npcs"])
    assert grants.to_json() == {"granted": ["db:read:npcs"], "declined": ["db:read:worlds", "user:read"]}
    assert grants.allows("db:read", "npcs")
    assert not grants.allows("db:read", "worlds")
    assert not grants.has("user:read")
    assert decide(some("db:read"), ["db:read:npcs"]).to_json() == {"granted": ["db:read:npcs"], "declined": ["db:read"]}


def test_a_family_grants_what_is_requested_of_it() -> None:
    """And not more than that."""
    grants = decide(some("db:read:npcs", "db:own", "redis:read"), ["db"])
    assert grants.to_json() == {"granted": ["db:own", "db:read:npcs"], "declined": ["redis:read"]}


def test_a_new_version_that_asks_for_more_is_undecided() -> None:
    """Other items and other permissions are; what was decided stays so, also when less is asked for."""
    grants = decide(some("db:read:npcs,worlds"), ["all"])
    assert grants.undecided(some("db:read:npcs")) == ()
    assert grants.undecided(some("db:read:npcs,scenes", "net:api.example.org")) == (
        Permission.parse("db:read:npcs,scenes"),
        Permission.parse("net:api.example.org"),
    )
    assert grants.undecided(some("db:read")) == (Permission.parse("db:read"),)


def test_what_was_not_asked_for_cannot_be_granted() -> None:
    """The error says what it asks for; a text that is no permission says how one is written."""
    with pytest.raises(PermissionNotRequestedError, match="does not ask for 'db:write'; it asks for: db:read:npcs"):
        decide(some("db:read:npcs"), ["db:write"])
    with pytest.raises(PermissionNotRequestedError, match="does not ask for 'db:read'"):
        decide(some("db:read:npcs"), ["db:read"])
    with pytest.raises(ValueError, match="unknown permission 'db:raed'; did you mean 'db:read'"):
        decide(some("db:read:npcs"), ["db:raed"])


def test_hosts_are_items() -> None:
    """One host is one permission, and covers no other one."""
    api = Permission.parse("net:api.example.org:8443")
    assert str(api) == "net:api.example.org:8443"
    assert Grants(frozenset({api})).allows("net", "api.example.org:8443")
    assert not Grants(frozenset({api})).allows("net", "api.example.org")


@pytest.mark.parametrize(
    ("granted", "item", "is_allowed"),
    [
        ("events:subscribe:session:*", "session:created", True),
        ("events:subscribe:session:*", "session", False),
        ("events:subscribe:session:*", "my-session:created", False),
        ("events:subscribe:n*:created", "npc:created", True),
        ("redis:read:cache:*:hits", "cache:npcs:hits", True),
        ("redis:read:cache:*:hits", "cache:hits", False),
        ("redis:read:a*ab", "ab", False),
        ("redis:read:cache:npcs", "cache:npcs", True),
        ("redis:read:cache:npcs", "cache:npcs:1", False),
    ],
)
def test_a_star_stands_for_any_text(granted: str, item: str, is_allowed: bool) -> None:
    """In events and keys, and nothing else does."""
    permission = Permission.parse(granted)
    assert Grants(frozenset({permission})).allows(permission.name, item) is is_allowed


def test_a_pattern_covers_what_is_narrower() -> None:
    """An operator may grant one event of those that a pattern asks for, and nothing wider."""
    assert decide(some("events:subscribe:session:*"), ["events:subscribe:session:created"]).allows(
        "events:subscribe", "session:created"
    )
    with pytest.raises(PermissionNotRequestedError):
        decide(some("events:subscribe:session:created"), ["events:subscribe:session:*"])
