"""The roles of plugins: made, granted and hardened in one go, and the same again without a change."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pixsim7_backend.community.database.openness import openness_of
from pixsim7_backend.community.database.roles import apply_grants, login_of, own_schema, remove_role, role_of
from tests.integration.community.conftest import create_game
from tests.integration.community.game import MODELS
from tests.integration.community.halves import grants_of
from tests.services import postgresql_url

OPEN = openness_of(MODELS)
PLUGIN = "quest-stats"


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """The URL of the game's database, new on the server: what was hardened before would stay so."""
    name = sql.Identifier(f"pixsim7_test_{uuid.uuid4().hex}")
    with psycopg.connect(postgresql_url(), autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0 STRATEGY wal_log").format(name))
        made = f"{postgresql_url().rpartition('/')[0]}/{name.as_string(server)[1:-1]}"
        try:
            create_game(made)
            yield made
            for plugin in (PLUGIN, "other"):
                remove_role(made, plugin, data_dir=tmp_path)
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def _texts(url: str, directory: Path, *granted: str, dry_run: bool = False) -> list[str]:
    applied = apply_grants(url, PLUGIN, grants_of(*granted), OPEN, data_dir=directory, dry_run=dry_run)
    return [str(change) for change in applied.changes]


def _roles(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        name = role_of(connection.info.dbname, PLUGIN)
        return [each for (each,) in connection.execute("SELECT rolname FROM pg_roles WHERE rolname = %s", [name])]


def test_a_dry_run_says_all_and_changes_nothing(url: str, tmp_path: Path) -> None:
    """What would be run is shown without secrets; no role, no grant and no file is there afterwards."""
    shown = _texts(url, tmp_path, "db:read", dry_run=True)
    assert _roles(url) == []
    assert not (tmp_path / "community-roles").exists()
    done = _texts(url, tmp_path, "db:read")
    assert shown == done
    assert any(text.startswith("CREATE ROLE") for text in done)
    assert any("lo_create" in text for text in done)
    secret = next((tmp_path / "community-roles").iterdir()).read_text()
    assert not any(secret in text for text in done)


def test_doing_it_twice_changes_nothing(url: str, tmp_path: Path) -> None:
    """The second time there is nothing left to do, and nothing left open."""
    _texts(url, tmp_path, "db:read", "db:write", "db:own")
    again = apply_grants(url, PLUGIN, grants_of("db:read", "db:write", "db:own"), OPEN, data_dir=tmp_path)
    assert (again.changes, again.left_open, again.missing) == ((), (), ())


def test_less_is_revoked(url: str, tmp_path: Path) -> None:
    """What is granted no more is revoked, and what others granted by hand too; own tables stay, out of reach."""
    _texts(url, tmp_path, "db:read", "db:write", "db:own")
    with psycopg.connect(url, autocommit=True) as host:
        role = sql.Identifier(role_of(host.info.dbname, PLUGIN))
        host.execute(sql.SQL("GRANT ALL ON secrets TO {}").format(role))
        host.execute(sql.SQL("GRANT pg_read_all_data TO {}").format(role))
        host.execute(sql.SQL("ALTER ROLE {} CREATEDB").format(role))
        with psycopg.connect(login_of(url, PLUGIN, tmp_path), autocommit=True) as plugin:
            plugin.execute(sql.SQL("CREATE TABLE {}.kept (x int)").format(sql.Identifier(own_schema(PLUGIN))))
            less = _texts(url, tmp_path, "db:read:heroes")
            assert sum("REVOKE" in text for text in less) >= 3
            for statement in ("SELECT token FROM secrets", "UPDATE heroes SET state = '{}'"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    plugin.execute(statement.encode())
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                plugin.execute(sql.SQL("SELECT * FROM {}.kept").format(sql.Identifier(own_schema(PLUGIN))))
    assert any("ALTER SCHEMA" in text for text in _texts(url, tmp_path, "db:read:heroes", "db:own"))


def test_plugins_do_not_reach_each_other(url: str, tmp_path: Path) -> None:
    """A plugin sees nothing in the schema of another."""
    _texts(url, tmp_path, "db:own")
    apply_grants(url, "other", grants_of("db:own"), OPEN, data_dir=tmp_path)
    with psycopg.connect(login_of(url, PLUGIN, tmp_path), autocommit=True) as plugin:
        plugin.execute(sql.SQL("CREATE TABLE {}.mine (x int)").format(sql.Identifier(own_schema(PLUGIN))))
    with psycopg.connect(login_of(url, "other", tmp_path), autocommit=True) as other:
        for statement in ("SELECT * FROM {}.mine", "CREATE TABLE {}.theirs (x int)"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                other.execute(sql.SQL(statement).format(sql.Identifier(own_schema(PLUGIN))))


def test_tables_that_are_not_there_are_told(url: str, tmp_path: Path) -> None:
    """A granted table whose plugin has not been migrated is named; the rest is granted."""
    with psycopg.connect(url, autocommit=True) as host:
        host.execute("DROP TABLE heroes")
    applied = apply_grants(url, PLUGIN, grants_of("db:read"), OPEN, data_dir=tmp_path)
    assert applied.missing == ("heroes",)


def test_what_only_a_superuser_can_close_is_told(url: str, tmp_path: Path) -> None:
    """A host whose login is no superuser makes roles and grants, and says what everybody may still do.

    When a superuser closes that, the host's login keeps it.
    """
    host_role = f"pixsim7_test_{uuid.uuid4().hex[:12]}"
    name = sql.Identifier(host_role)
    with psycopg.connect(url, autocommit=True) as server:
        server.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEROLE PASSWORD 'host'").format(name))
        try:
            database = sql.Identifier(server.info.dbname)
            server.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(database, name))
            server.execute(sql.SQL("ALTER TABLE heroes OWNER TO {}").format(name))
            own = make_conninfo(url, user=host_role, password="host")
            with psycopg.connect(own) as probe:
                address = f"postgresql://{host_role}:host@{probe.info.host}:{probe.info.port}/{probe.info.dbname}"
            applied = apply_grants(address, PLUGIN, grants_of("db:read", "db:own"), OPEN, data_dir=tmp_path)
            assert any("pg_sleep" in left for left in applied.left_open)
            assert any(str(change).startswith("CREATE SCHEMA") for change in applied.changes)
            assert apply_grants(address, PLUGIN, grants_of("db:read", "db:own"), OPEN, data_dir=tmp_path).changes == ()
            remove_role(address, PLUGIN, data_dir=tmp_path)
            apply_grants(url, PLUGIN, grants_of("db:read"), OPEN, data_dir=tmp_path)
            with psycopg.connect(own) as host:
                assert host.execute("SELECT pg_try_advisory_lock(1)").fetchone() == (True,)
        finally:
            server.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(name))
            server.execute(sql.SQL("DROP OWNED BY {}").format(name))
            server.execute(sql.SQL("DROP ROLE {}").format(name))


def test_names_of_roles_fit() -> None:
    """However long an id is, role and schema have names of their own that PostgreSQL does not cut."""
    first, second = (f"{'long-name-' * 12}{end}" for end in "ab")
    assert len(role_of("game", first)) == len(own_schema(first)) == 63
    assert role_of("game", first) != role_of("game", second)
    assert role_of("game", PLUGIN) != role_of("other", PLUGIN)
