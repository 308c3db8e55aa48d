"""What owners open, what of it is granted, and what the game's own plugins open."""

from __future__ import annotations

import importlib
import re

import pytest
from sqlalchemy import Interval
from sqlalchemy.orm import Mapped, mapped_column

from pixsim7_backend.community.database.openness import access_of, openness_of, present_openness
from pixsim7_backend.community.tables import describe_tables, open_table, use_described
from pixsim7_backend.db.models import dispose_plugin_base, plugin_base
from tests.integration.community.game import MODELS
from tests.integration.community.halves import grants_of

OPEN = openness_of(MODELS)


def test_only_what_is_named_is_open() -> None:
    """A table without named columns is not open; of others the named columns are."""
    assert set(OPEN) == {"heroes"}
    assert OPEN["heroes"].readable == {"id", "name", "state", "created_at"}
    assert OPEN["heroes"].writable == {"state"}


@pytest.mark.parametrize(
    ("granted", "read", "write", "own"),
    [
        (("db:read",), {"heroes"}, set(), False),
        (("db:read:heroes",), {"heroes"}, set(), False),
        (("db:read:secrets",), set(), set(), False),
        (("db:write",), {"heroes"}, {"heroes"}, False),
        (("db:own",), set(), set(), True),
        (("redis:read",), set(), set(), False),
    ],
)
def test_grants_reach_open_tables_only(granted: tuple[str, ...], read: set[str], write: set[str], own: bool) -> None:
    """A grant opens what is both granted and open; what may be written may be read."""
    access = access_of(grants_of(*granted), OPEN)
    assert (set(access.read), set(access.write), access.own) == (read, write, own)


def test_a_column_of_an_unknown_type_is_refused() -> None:
    """A type that a jail could not be told of is an error for its owner, with those that can."""
    base = plugin_base("odd-game")

    class Odd(base):
        __tablename__ = "odd"
        community_read = frozenset({"id", "lasts"})
        id: Mapped[int] = mapped_column(primary_key=True)
        lasts: Mapped[object] = mapped_column(Interval)

    with pytest.raises(ValueError, match=r"Interval.*cannot be opened.*JsonDict"):
        openness_of([Odd])
    dispose_plugin_base("odd-game")  # others look at all that live


def test_tables_are_the_same_in_a_jail(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the host describes and a jail builds has the columns, types and keys of the model."""
    monkeypatch.setattr("pixsim7_backend.community.tables._Jail.tables", None)
    use_described(describe_tables(OPEN))
    heroes, model = open_table("heroes"), MODELS[0].__table__
    for column in heroes.columns:
        assert str(column.type) == str(model.c[column.name].type)
        assert type(column.type) is type(model.c[column.name].type)
        assert (column.primary_key, column.nullable) == (
            model.c[column.name].primary_key,
            model.c[column.name].nullable,
        )


def test_the_game_opens_what_a_quest_needs_and_no_credential() -> None:
    """Sessions, NPCs, places, worlds, scenes and names of players are open; mails, passwords and tokens are not."""
    plugins = ("auth", "game_locations", "game_npcs", "game_scenes", "game_sessions", "game_worlds", "users")
    for plugin in plugins:
        importlib.import_module(f"pixsim7_backend.plugins.{plugin}.models")
    opened = present_openness()
    assert {
        "game_hotspots", "game_locations", "game_npc_schedules", "game_npc_states", "game_npcs", "game_scenes",
        "game_session_events", "game_sessions", "game_worlds", "users",
    } <= set(opened)  # fmt: skip
    assert opened["users"].readable == {"id", "username", "display_name"}
    assert not set(opened) & {"auth_sessions", "auth_login_attempts", "user_preferences"}
    secretive = re.compile(r"mail|passw|token|secret|hash|address|agent")
    assert [
        f"{table.name}.{column.name}"
        for table in opened.values()
        for column in table.columns
        if secretive.search(column.name)
    ] == []
    writable = {name: table.writable for name, table in opened.items() if table.writable}
    assert {name: columns for name, columns in writable.items() if not name.startswith("hero")} == {
        "game_npc_states": {"state"}
    }
