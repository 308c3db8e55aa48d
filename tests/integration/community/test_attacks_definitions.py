"""More of what a hostile plugin tries with PostgreSQL: what it defines, and what it wants done for it by others."""

from __future__ import annotations

import contextlib
import random

import psycopg
import pytest
from sqlalchemy import text

from pixsim7_backend.community.database import driver
from pixsim7_backend.community.database.limits import DatabaseLimits
from pixsim7_backend.community.database.roles import login_of
from tests.integration.community.conftest import Enter, Jail


@pytest.fixture
def database_kind() -> str:
    """All of this is about PostgreSQL."""
    return "postgresql"


def _as_role(jail: Jail, *statements: str) -> list[tuple[object, ...]]:
    """Run statements in one transaction on a plain connection of the plugin's role, and undo them."""
    url = jail.game.url.render_as_string(hide_password=False)
    with psycopg.connect(login_of(url, "quest-stats", jail.directory / "data")) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
        rows = cursor.fetchall() if cursor.description else []
        connection.rollback()
    return rows


def test_copying_does_not_hang_the_host(jail: Jail, unchecked: None) -> None:
    """COPY waits for data that nobody sends, or gives it in a way of its own; its connection is cut."""
    jail.run("CREATE TABLE notes (x text)", mode="write")
    assert "copies nothing" in jail.refused("COPY notes FROM STDIN", mode="write")
    assert "copies nothing" in jail.refused("COPY heroes (name) TO STDOUT")
    assert jail.still_serves()


def test_nothing_of_a_session_is_left_to_the_next(jail: Jail, unchecked: None) -> None:
    """Held cursors, prepared statements and channels end with the transaction."""
    _as_role(jail, "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "FETCH c")
    jail.run("DECLARE c CURSOR WITH HOLD FOR SELECT name FROM heroes")
    jail.run("PREPARE p AS SELECT name FROM heroes")
    jail.run("LISTEN gossip")
    assert "does not exist" in jail.refused("FETCH c")
    assert "does not exist" in jail.refused("EXECUTE p")
    assert jail.run("SELECT pg_listening_channels()") == []


FOR_OTHERS = (
    "CREATE FUNCTION own() RETURNS int LANGUAGE internal AS 'pg_backend_pid'",
    "CREATE FUNCTION own() RETURNS int RETURN 1",
    "CREATE PROCEDURE own() BEGIN ATOMIC SELECT 1; END",
    "CREATE EXTENSION pg_trgm SCHEMA plugin_quest_stats",
    "CREATE EVENT TRIGGER t ON ddl_command_start EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE TRIGGER t BEFORE UPDATE ON heroes EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE RULE r AS ON UPDATE TO heroes DO INSTEAD NOTHING",
    "CREATE POLICY p ON heroes USING (false)",
    "CREATE TABLE child () INHERITS (heroes)",
    "CREATE TABLE twin (LIKE heroes INCLUDING ALL)",
    "CREATE STATISTICS s ON id, name FROM heroes",
    "CREATE SCHEMA other",
    "CREATE CAST (text AS int) WITH INOUT AS IMPLICIT",
    "CREATE PUBLICATION p",
    "ALTER SCHEMA plugin_quest_stats RENAME TO mine",
    "ALTER SCHEMA plugin_quest_stats OWNER TO postgres",
    "ALTER DEFAULT PRIVILEGES FOR ROLE postgres GRANT ALL ON TABLES TO PUBLIC",
    "LOCK TABLE heroes IN ACCESS SHARE MODE",
    "TRUNCATE heroes",
    "COMMENT ON TABLE heroes IS 'mine'",
    "REASSIGN OWNED BY CURRENT_USER TO postgres",
    "SELECT ts_rewrite('a'::tsquery, 'SELECT ''a''::tsquery, ''b''::tsquery')",
    "SELECT pg_get_function_sqlbody(1)",
    "SELECT setval('heroes_id_seq', 1)",
    "SELECT last_value FROM secrets_id_seq",
)


def test_nothing_is_defined_for_others(jail: Jail, unchecked: None) -> None:
    """No code, no trigger, rule or policy on the game's tables, no default for others; not as the role itself."""
    url = jail.game.url.render_as_string(hide_password=False)
    with psycopg.connect(login_of(url, "quest-stats", jail.directory / "data")) as connection:
        for statement in FOR_OTHERS:
            with pytest.raises(psycopg.Error, match=r"permission denied|must be owner|must be member|must be able"):
                connection.execute(statement.encode())
            connection.rollback()
            assert "ProgrammingError" in jail.refused(statement, mode="write")


def test_what_it_grants_to_others_is_its_own(jail: Jail, unchecked: None) -> None:
    """GRANT of the game's columns gives nothing to anybody; that of own tables opens nothing but those."""
    found = "SELECT attacl::text FROM pg_attribute WHERE attrelid = 'heroes'::regclass ORDER BY attnum"
    before = _as_role(jail, found)
    jail.run("CREATE TABLE notes (x int)", mode="write")
    for statement in ("GRANT SELECT (name) ON heroes TO PUBLIC", "GRANT ALL ON notes TO PUBLIC"):
        jail.run(statement, mode="write")
    assert _as_role(jail, found) == before
    jail.run("CREATE VIEW purses AS SELECT name FROM heroes", mode="write")
    jail.apply("db:own")
    assert "permission denied for table heroes" in jail.refused("SELECT * FROM purses", mode="write")


def test_definitions_count_as_own_tables_do(enter: Enter) -> None:
    """Sequences, types, empty tables, constraints and comments fill the catalogues, and end at the same quota."""
    enter(limits=DatabaseLimits(own_size=300_000))
    columns = ", ".join(f"c{number} int" for number in range(50))
    for definition in (
        "CREATE SEQUENCE s{}",
        "CREATE TYPE e{} AS ENUM ('a', 'b')",
        "CREATE TABLE t{} (x int)",
        "ALTER TABLE notes ADD CHECK (x <> '" + random.randbytes(5000).hex() + "{}')",
        "COMMENT ON COLUMN notes.c{} IS '" + random.randbytes(5000).hex() + "'",
    ):
        connection = driver.connect(mode="write")
        cursor = connection.cursor()
        cursor.execute(f"CREATE TABLE notes (x text, {columns})")
        for number in range(50):
            cursor.execute(definition.format(number))
        with pytest.raises(driver.OperationalError, match="300,000 are allowed"):
            connection.commit()


def test_the_quota_is_not_reckoned_with_the_plugins_own_objects(enter: Enter, unchecked: None) -> None:
    """An aggregate or a type of its own by the name of what measures, first in its path, is not asked."""
    jail = enter(limits=DatabaseLimits(own_size=300_000))
    for shadow in (
        "CREATE AGGREGATE pg_total_relation_size(oid) (sfunc = oidsmaller, stype = oid)",
        "CREATE DOMAIN pg_column_size AS text",
        "CREATE AGGREGATE coalesce(bigint, int) (sfunc = int84pl, stype = bigint)",
        "CREATE OPERATOR + (leftarg = numeric, rightarg = bigint, function = numeric_add)",
    ):
        with contextlib.suppress(driver.Error):
            jail.run(shadow, mode="write")
    jail.run("CREATE TABLE notes (x text)", mode="write")
    filling = "INSERT INTO notes SELECT md5(n::text) FROM generate_series(1, 10000) n"
    assert "300,000 are allowed" in jail.refused(filling, mode="write")


def test_rows_of_the_game_are_not_held_for_long(enter: Enter) -> None:
    """Who may write the game's tables may lock their rows, for as long as the host's writers wait at most."""
    jail = enter(limits=DatabaseLimits(write_time=0.3))
    connection = driver.connect(mode="write")
    connection.cursor().execute("SELECT name FROM heroes FOR UPDATE")
    with jail.game.session() as session:
        session.execute(text("UPDATE heroes SET purse = 'full'"))
    with pytest.raises(driver.OperationalError, match=r"it was open for more than 0\.3 s"):
        connection.commit()


def test_nothing_runs_without_end(enter: Enter) -> None:
    """Recursion, series and aggregates end with the clock, or with what they may write."""
    jail = enter(limits=DatabaseLimits(statement_time=0.3))
    for statement in (
        "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT count(*) FROM r",
        "SELECT count(*) FROM generate_series(1, 10000000000) x",
        "SELECT array_agg(x) FROM generate_series(1, 1000000000) x",
    ):
        refusal = jail.refused(statement)
        assert any(words in refusal for words in ("took too long", "temporary file size", "could not be stopped"))
    assert jail.still_serves()
