"""Deciding about some of what a plugin asks for, beside what was decided before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pixsim7_backend.infrastructure.plugins._grants.deciding import decided, decided_beside
from pixsim7_backend.infrastructure.plugins._grants.permissions import Grants, Permission
from pixsim7_backend.infrastructure.plugins.types import PluginManifest

TEXTS = (
    "db:read",
    "db:read:npcs",
    "db:read:npcs,worlds",
    "db:write:npcs",
    "user:read",
    "net:a.example",
    "net:b.example",
)
ASKED = st.lists(st.sampled_from(TEXTS), unique=True, min_size=1)


def asking(permissions: list[str]) -> PluginManifest:
    """Return the manifest of a plugin that asks for this."""
    return PluginManifest(id="quest", name="Q", version="1", description="Q", permissions=permissions)


def some(*texts: str) -> frozenset[Permission]:
    """Return permissions from their texts."""
    return frozenset(map(Permission.parse, texts))


@given(st.data())
def test_what_is_named_is_as_if_all_were_decided(data: st.DataObject) -> None:
    """Nothing is granted that a decision about everything would not grant, and nothing that is named stays open."""
    asked = data.draw(ASKED)
    named = data.draw(st.lists(st.sampled_from(asked), unique=True, min_size=1))
    manifest = asking(asked)
    beside = decided_beside("quest", manifest, named, Grants())
    assert beside.granted == decided("quest", manifest, named).granted
    assert not beside.undecided(some(*named))


@given(st.data())
def test_nothing_is_granted_that_nobody_granted(data: st.DataObject) -> None:
    """Whatever was decided before, what may be done afterwards was granted then or now."""
    asked = data.draw(ASKED)
    named = data.draw(st.lists(st.sampled_from(asked), unique=True, min_size=1))
    before = Grants(some(*data.draw(ASKED)), some(*data.draw(ASKED)))
    after = decided_beside("quest", asking(asked), named, before)
    assert after.granted <= before.granted | some(*named)


def test_less_than_before_takes_away() -> None:
    """What is named more narrowly than it was granted replaces that, also where it is asked for in parts."""
    before = Grants(some("db:read", "user:read"))
    for asked in ("db:read", "db:read:npcs,worlds"):
        after = decided_beside("quest", asking([asked, "user:read"]), ["db:read:npcs"], before)
        assert after.granted == some("db:read:npcs", "user:read")
    overlapping = Grants(some("db:read:npcs,scenes"))
    after = decided_beside("quest", asking(["db:read:npcs,worlds"]), ["db:read:worlds"], overlapping)
    assert (after.granted, after.declined) == (some("db:read:worlds"), some("db:read:npcs"))


def test_hosts_are_decided_one_by_one() -> None:
    """Granting one host says nothing of another."""
    manifest = asking(["net:a.example", "net:b.example"])
    after = decided_beside("quest", manifest, ["net:a.example"], Grants(some("net:c.example")))
    assert after == Grants(some("net:a.example", "net:c.example"))
    assert [str(each) for each in after.undecided(some(*manifest.permissions))] == ["net:b.example"]
    assert decided_beside("quest", manifest, ["none"], after) == Grants(declined=some(*manifest.permissions))
