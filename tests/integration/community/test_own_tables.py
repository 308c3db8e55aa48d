"""The own tables of a plugin, read for whoever removes it: whole, and never with the rights of the host."""

from __future__ import annotations

import json
import sqlite3
import tracemalloc
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pixsim7_backend.community.database import own_tables
from pixsim7_backend.community.database.own_file import own_file_of
from pixsim7_backend.community.database.own_tables import OwnTablesUnreadableError, reading_own_tables
from pixsim7_backend.community.database.roles import login_of, own_schema, role_of, server_conninfo
from pixsim7_backend.db import Database
from tests.integration.community.conftest import Enter, Jail

PLUGIN = "quest-stats"
SCHEMA = own_schema(PLUGIN)
only_postgresql = pytest.mark.parametrize("database_kind", ["postgresql"])
only_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"])


def rows_of(game: Database, directory: Path, *names: str) -> dict[str, list[Any]]:
    """Return the rows of the plugin's own tables, all of them or these."""
    found: dict[str, list[Any]] = {}
    with reading_own_tables(game, PLUGIN, data_dir=directory / "data") as own:
        for name in names or own.names:
            lines: list[bytes] = []
            assert own.read(name, lines.append) == len(lines)
            assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)
            found[name] = [json.loads(line) for line in lines]
    return found


def problem_of(game: Database, directory: Path) -> str:
    """Return why the plugin's own tables cannot be read."""
    with pytest.raises(OwnTablesUnreadableError) as failure:
        rows_of(game, directory)
    assert failure.value.plugin == PLUGIN
    return failure.value.problem


def as_role(jail: Jail, *statements: str) -> None:
    """Run statements on a plain connection of the plugin's role: what it could do if nothing but its grants held."""
    with psycopg.connect(
        login_of(jail.game.url.render_as_string(hide_password=False), PLUGIN, jail.directory / "data")
    ) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def as_host(jail: Jail, *statements: str) -> None:
    """Run statements as the host, a superuser here."""
    with psycopg.connect(url_of(jail.game)) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def url_of(game: Database) -> str:
    """Return how the host itself logs in."""
    return server_conninfo(game.url.render_as_string(hide_password=False))


def privileges(game: Database) -> Any:
    """Return who owns the plugin's schema, and who may do what there."""
    with psycopg.connect(url_of(game)) as host:
        found = host.execute(
            "SELECT nspowner::regrole::text, nspacl::text FROM pg_namespace WHERE nspname = %s", [SCHEMA]
        )
        return found.fetchone()


def test_where_there_are_none_there_are_none(game: Database, tmp_path: Path) -> None:
    """A plugin that never had any: no role, no schema, no file is needed, and none is made."""
    assert rows_of(game, tmp_path) == {}
    assert not (tmp_path / "data").exists()


def test_every_row_is_read(jail: Jail) -> None:
    """All tables, with the strangest names, and nothing of the game."""
    jail.run(
        "CREATE TABLE notes (id integer PRIMARY KEY, text varchar(200), score float)",
        'CREATE TABLE "../up; DROP TABLE ""x""" ("each" integer, "line" integer)',
        "CREATE TABLE empty (id integer)",
        "INSERT INTO notes VALUES (1, 'first\nline \u2028 \"quoted\"', 0.5), (2, NULL, 1e300)",
        'INSERT INTO "../up; DROP TABLE ""x""" VALUES (7, 8)',
        mode="write",
    )
    assert rows_of(jail.game, jail.directory) == {
        "notes": [
            {"id": 1, "text": 'first\nline \u2028 "quoted"', "score": 0.5},
            {"id": 2, "text": None, "score": 1e300},
        ],
        '../up; DROP TABLE "x"': [{"each": 7, "line": 8}],
        "empty": [],
    }
    assert jail.still_serves()


def test_large_tables_are_streamed(jail: Jail) -> None:
    """Reading 24 MB of rows takes no memory that grows with them."""
    jail.run("CREATE TABLE notes (id integer PRIMARY KEY, text varchar(9000))", mode="write")
    letters = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) "
    jail.run(f"INSERT INTO notes {letters} SELECT i, replace('{'x' * 800}', 'x', 'letters of ') FROM n", mode="write")
    size = 0

    def count(line: bytes) -> None:
        nonlocal size
        size += len(line)

    with reading_own_tables(jail.game, PLUGIN, data_dir=jail.directory / "data") as own:
        tracemalloc.start()
        try:
            assert own.read("notes", count) == 3000
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (size > 24_000_000, peak < 4_000_000) == (True, True)


def test_what_was_taken_back_is_read_too(enter: Enter) -> None:
    """The operator who declined own tables later still gets what they hold; the plugin gets nothing by that."""
    jail = enter()
    jail.run("CREATE TABLE notes (id integer)", "INSERT INTO notes VALUES (1)", mode="write")
    if jail.game.is_sqlite:
        assert rows_of(jail.game, jail.directory) == {"notes": [{"id": 1}]}
        return
    jail.apply("db:read")
    before = privileges(jail.game)
    assert before[0] != role_of(jail.game.url.database or "", PLUGIN)
    assert rows_of(jail.game, jail.directory) == {"notes": [{"id": 1}]}
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        as_role(jail, f"SELECT * FROM {SCHEMA}.notes")
    host, _ = before
    assert privileges(jail.game) == (host, f"{{{host}=UC/{host}}}")
    jail.apply("db:read", "db:own")
    assert jail.run("SELECT id FROM notes") == [(1,)]


@only_postgresql
def test_what_a_cut_off_export_left_is_taken_back(jail: Jail) -> None:
    """The next decision closes the schema to a role that has no own tables any more."""
    jail.run("CREATE TABLE notes (id integer)", mode="write")
    jail.apply("db:read")
    as_host(jail, f"GRANT USAGE ON SCHEMA {SCHEMA} TO {role_of(jail.game.url.database or '', PLUGIN)}")
    as_role(jail, f"SELECT * FROM {SCHEMA}.notes")
    assert [str(change) for change in jail.apply("db:read").changes if "USAGE ON SCHEMA" in str(change)]
    assert jail.apply("db:read").changes == ()
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        as_role(jail, f"SELECT * FROM {SCHEMA}.notes")


# --- what a stranger leaves in its tables -----------------------------------------------------------

SPY = f"""
CREATE FUNCTION {SCHEMA}.spy(mood {SCHEMA}.mood) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
  BEGIN RESET SESSION AUTHORIZATION; EXCEPTION WHEN OTHERS THEN NULL; END;
  BEGIN RESET ROLE; EXCEPTION WHEN OTHERS THEN NULL; END;
  BEGIN SET ROLE postgres; EXCEPTION WHEN OTHERS THEN NULL; END;
  BEGIN INSERT INTO {SCHEMA}.seen VALUES (current_user); EXCEPTION WHEN OTHERS THEN NULL; END;
  RETURN pg_catalog.json_build_array(current_user, session_user, pg_catalog.has_table_privilege('secrets', 'SELECT'));
END $$
"""


@only_postgresql
def test_its_code_runs_with_its_own_rights(jail: Jail) -> None:
    """A function that is called for each row finds itself as the plugin's role for good, and can only read."""
    role = role_of(jail.game.url.database or "", PLUGIN)
    as_host(jail, f"GRANT USAGE ON LANGUAGE plpgsql TO {role}")
    as_role(
        jail,
        f"CREATE TYPE {SCHEMA}.mood AS ENUM ('sad')",
        f"CREATE TABLE {SCHEMA}.bait (mood {SCHEMA}.mood)",
        f"CREATE TABLE {SCHEMA}.seen (who text)",
        f"INSERT INTO {SCHEMA}.bait VALUES ('sad')",
        SPY,
        f"CREATE CAST ({SCHEMA}.mood AS json) WITH FUNCTION {SCHEMA}.spy({SCHEMA}.mood)",
    )
    assert rows_of(jail.game, jail.directory) == {"bait": [{"mood": [role, role, False]}], "seen": []}


@only_postgresql
def test_views_are_not_read(jail: Jail) -> None:
    """They hold no rows; partitions and heirs are read once, with or within what they belong to."""
    as_role(
        jail,
        f"CREATE TABLE {SCHEMA}.parent (id int)",
        f"CREATE TABLE {SCHEMA}.child (more int) INHERITS ({SCHEMA}.parent)",
        f"INSERT INTO {SCHEMA}.parent VALUES (1)",
        f"INSERT INTO {SCHEMA}.child VALUES (2, 3)",
        f"CREATE TABLE {SCHEMA}.split (id int) PARTITION BY RANGE (id)",
        f"CREATE TABLE {SCHEMA}.part PARTITION OF {SCHEMA}.split FOR VALUES FROM (0) TO (9)",
        f"INSERT INTO {SCHEMA}.split VALUES (4)",
        f"CREATE VIEW {SCHEMA}.seen AS SELECT 1 / (id - id) FROM {SCHEMA}.parent",
        f"CREATE TABLE {SCHEMA}.nothing ()",
        f"INSERT INTO {SCHEMA}.nothing DEFAULT VALUES",
    )
    assert rows_of(jail.game, jail.directory) == {
        "child": [{"id": 2, "more": 3}],
        "nothing": [{}],
        "parent": [{"id": 1}],
        "split": [{"id": 4}],
    }


@only_postgresql
def test_all_types_become_json(jail: Jail) -> None:
    """Also what Python has no word for; a JSON text of several lines becomes one line."""
    as_role(
        jail,
        f"CREATE TABLE {SCHEMA}.kinds (a timestamp, b json, c bytea, d numeric, e int4range, f text[])",
        f"""INSERT INTO {SCHEMA}.kinds VALUES
            ('infinity', '{{"x":\n 1,\r\n "y": "\\u0000"}}', '\\x00ff', 'NaN', '[1,3)', '{{a,NULL}}')""",
    )
    [row] = rows_of(jail.game, jail.directory)["kinds"]
    assert row == {
        "a": "infinity", "b": {"x": 1, "y": "\x00"}, "c": "\\x00ff", "d": "NaN", "e": "[1,3)", "f": ["a", None],
    }  # fmt: skip


@only_postgresql
def test_its_settings_change_nothing(jail: Jail) -> None:
    """What the role has set for itself does not count for the reading."""
    jail.run("CREATE TABLE notes (text varchar(9))", "INSERT INTO notes VALUES ('Ærø')", mode="write")
    role = role_of(jail.game.url.database or "", PLUGIN)
    as_role(jail, f"ALTER ROLE {role} SET client_encoding = 'LATIN1'", f"ALTER ROLE {role} SET search_path = nowhere")
    assert rows_of(jail.game, jail.directory) == {"notes": [{"text": "Ærø"}]}


@only_sqlite
def test_all_values_of_sqlite_become_json(jail: Jail) -> None:
    """Bytes, infinity, and texts that are none."""
    jail.run("CREATE TABLE kinds (a, b, c, d)", mode="write")
    values = [b"\x00\xff", float("inf"), b"\xff", 2**63 - 1]
    jail.run("INSERT INTO kinds VALUES (?, ?, CAST(? AS TEXT), ?)", parameters=values, mode="write")
    [row] = rows_of(jail.game, jail.directory)["kinds"]
    assert row == {"a": {"base64": "AP8="}, "b": "inf", "c": {"base64": "/w=="}, "d": 2**63 - 1}


@only_sqlite
def test_the_fence_holds_while_rows_are_read(jail: Jail) -> None:
    """In a file that was not made by the broker, no view is read, and no computed column grows without end."""
    jail.run("CREATE TABLE notes (id integer)", "INSERT INTO notes VALUES (1)", mode="write")
    with closing(sqlite3.connect(own_file_of(jail.directory / "data", PLUGIN), isolation_level=None)) as file:
        file.execute("CREATE VIEW seen AS SELECT * FROM notes")
        assert rows_of(jail.game, jail.directory) == {"notes": [{"id": 1}]}
        file.execute("CREATE TABLE bait (id integer, x AS (zeroblob(id)))")
        file.execute("INSERT INTO bait VALUES (900000000)")
    assert problem_of(jail.game, jail.directory) == "table 'bait': string or blob too big"
    assert rows_of(jail.game, jail.directory, "notes") == {"notes": [{"id": 1}]}


@only_sqlite
def test_a_file_that_is_no_database_is_told(game: Database, tmp_path: Path) -> None:
    """Nothing is exported, and why is said."""
    file = own_file_of(tmp_path / "data", PLUGIN)
    file.parent.mkdir(parents=True)
    file.write_text("no database " * 100)
    assert problem_of(game, tmp_path) == "file is not a database"


def test_what_cannot_be_read_is_named(jail: Jail) -> None:
    """A table that no reading comes to the end of, for its size, is named with the limit."""
    jail.run("CREATE TABLE notes (text varchar(9))", "INSERT INTO notes VALUES ('far')", mode="write")
    jail.run("INSERT INTO notes VALUES ('too much')", mode="write")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own_tables, "_MOST", 20)
        assert (
            problem_of(jail.game, jail.directory) == "table 'notes': all rows together are more than 20 bytes of JSON"
        )
        patch.setattr(own_tables, "_LONGEST", -1.0)
        assert "takes more than" in problem_of(jail.game, jail.directory)
    assert rows_of(jail.game, jail.directory) == {"notes": [{"text": "far"}, {"text": "too much"}]}


@only_postgresql
def test_a_row_is_not_read_at_any_size(jail: Jail) -> None:
    """One that would not fit into memory is refused before it is read."""
    as_role(
        jail,
        f"CREATE TABLE {SCHEMA}.notes (text text)",
        f"INSERT INTO {SCHEMA}.notes SELECT repeat('x', 100000000)",
    )
    assert problem_of(jail.game, jail.directory) == "table 'notes': a row has 100,000,011 bytes; 33,554,432 can be read"
    assert jail.still_serves()


@only_postgresql
def test_without_its_role_nothing_is_read(jail: Jail) -> None:
    """The host does not read in its place: what it says is what to mend."""
    jail.run("CREATE TABLE notes (id integer)", mode="write")
    role = sql.Identifier(role_of(jail.game.url.database or "", PLUGIN))
    with psycopg.connect(url_of(jail.game)) as host:
        host.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(role))
    assert "cannot log in" in problem_of(jail.game, jail.directory)
    with psycopg.connect(url_of(jail.game)) as host:
        host.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(role))
    jail.apply("db:own")
    assert "table 'notes': permission denied" in problem_of(jail.game, jail.directory)
