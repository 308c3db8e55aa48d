"""What a hostile plugin tries with PostgreSQL. Each attempt is first shown to succeed where nothing is in its way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from pixsim7_backend.community.database.limits import DatabaseLimits
from pixsim7_backend.community.database.roles import login_of
from pixsim7_backend.infrastructure.plugins._jail.broker import BrokerLimits
from tests.integration.community.conftest import Enter, Jail

WRITE = "UPDATE heroes SET state = '{}'"


@pytest.fixture
def database_kind() -> str:
    """All of this is about PostgreSQL."""
    return "postgresql"


def _as_role(jail: Jail, *statements: str) -> list[tuple[object, ...]]:
    """Run statements on a plain connection of the plugin's role: nothing but its grants is in the way."""
    url = jail.game.url.render_as_string(hide_password=False)
    with psycopg.connect(login_of(url, "quest-stats", jail.directory / "data"), autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def test_setting_the_default_does_not_make_it_writable(jail: Jail) -> None:
    """SET default_transaction_read_only=off works on a connection of one's own, and is refused in a jail."""
    _as_role(jail, "SET default_transaction_read_only = on", "SET default_transaction_read_only = off", WRITE)
    assert "begins with SELECT" in jail.refused("SET default_transaction_read_only = off")
    assert "read-only" in jail.refused(WRITE)
    assert jail.still_serves()


def test_the_default_means_nothing_to_the_host(jail: Jail, unchecked: None) -> None:
    """Even where the statement passes, the transaction stays read-only, and so does the next."""
    assert "read-only" in jail.refused("SET default_transaction_read_only = off", WRITE)
    assert "read-only" in jail.refused(WRITE)


def test_a_transaction_cannot_be_made_writable(jail: Jail, unchecked: None) -> None:
    """SET TRANSACTION READ WRITE works as the first statement, which in a jail was the host's."""
    jail.bare("SET TRANSACTION READ ONLY", "SET TRANSACTION READ WRITE", WRITE)
    assert "must be set before any query" in jail.refused("SET TRANSACTION READ WRITE")
    assert "read-only" in jail.refused(WRITE)


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK", "END", "ABORT", "PREPARE TRANSACTION 'x'", "BEGIN"])
def test_the_hosts_transaction_cannot_be_ended(jail: Jail, end: str) -> None:
    """COMMIT and its like are refused before they are sent."""
    assert "those of the session" in jail.refused(end)
    assert jail.still_serves()


def test_an_ended_transaction_is_noticed(jail: Jail, unchecked: None) -> None:
    """A statement that would get through and end the transaction costs the connection, and writes nothing."""
    assert "ended the transaction" in jail.refused("COMMIT")
    assert "read-only" in jail.refused(WRITE)
    assert jail.still_serves()


def test_definer_functions_are_closed(jail: Jail) -> None:
    """A function that runs with its owner's rights is open to everybody when it is made, and closed by granting."""
    with jail.game.engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION peek() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT token FROM secrets LIMIT 1';"
            "CREATE PROCEDURE poke() LANGUAGE sql SECURITY DEFINER AS 'UPDATE heroes SET purse = ''gone''';"
            "GRANT EXECUTE ON FUNCTION peek() TO PUBLIC; GRANT EXECUTE ON PROCEDURE poke() TO PUBLIC"
        )
    assert jail.run("SELECT peek()") == [("s3cret",)]
    assert any("peek()" in str(change) for change in jail.apply().changes)
    assert "permission denied for function peek" in jail.refused("SELECT peek()")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        _as_role(jail, "CALL poke()")


def test_functions_made_later_are_closed(jail: Jail) -> None:
    """What the host's role makes after granting is not open to everybody."""
    with jail.game.engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION later() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT token FROM secrets LIMIT 1'"
        )
    assert "permission denied" in jail.refused("SELECT later()")


@pytest.mark.parametrize("statement", ["DO $$ BEGIN UPDATE heroes SET state = '{}'; END $$", "CALL anything()"])
def test_code_is_not_run(jail: Jail, statement: str) -> None:
    """DO and CALL are refused."""
    assert "begins with SELECT" in jail.refused(statement, mode="write")


def test_code_needs_a_language(jail: Jail, unchecked: None) -> None:
    """No block of code runs and no function is made, not even in the plugin's own schema."""
    jail.bare("DO $$ BEGIN PERFORM 1; END $$")
    assert "permission denied for language" in jail.refused("DO $$ BEGIN PERFORM 1; END $$", mode="write")
    function = "CREATE FUNCTION own() RETURNS int LANGUAGE sql AS 'SELECT 1'"
    assert "permission denied for language" in jail.refused(function, mode="write")


def test_temporary_tables_are_not_made(jail: Jail, unchecked: None) -> None:
    """Temporary tables, which everybody may make by default, are not made."""
    jail.bare("CREATE TEMP TABLE heap AS SELECT 1")
    assert "temporary tables" in jail.refused("CREATE TEMP TABLE heap (x int)", mode="write")
    assert "temporary tables" in jail.refused("SELECT 1 AS x INTO TEMP heap", mode="write")


def test_large_objects_are_not_made(jail: Jail) -> None:
    """lo_create writes in a read-only transaction where it is not revoked."""
    if jail.game.engine.dialect.server_version_info < (16,):  # type: ignore[operator]
        assert jail.bare("SET TRANSACTION READ ONLY", "SELECT lo_create(0)")
    for call in ("lo_create(0)", "lo_from_bytea(0, 'x')", "lo_creat(-1)", "lo_open(1, 131072)"):
        assert "permission denied for function" in jail.refused(f"SELECT {call}")


@pytest.mark.parametrize(
    "statement",
    [
        "COPY heroes (name) TO PROGRAM 'cat'",
        "COPY heroes (state) FROM '/etc/passwd'",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_read_binary_file('/etc/passwd')",
        "SELECT pg_ls_dir('.')",
        "SELECT lo_import('/etc/passwd')",
        "CREATE EXTENSION postgres_fdw",
        "CREATE SERVER other FOREIGN DATA WRAPPER postgres_fdw",
        "LOAD 'auto_explain'",
    ],
)
def test_files_and_programs_are_out_of_reach(jail: Jail, unchecked: None, statement: str) -> None:
    """No statement reads a file, starts a program or reaches another server, whatever is looked at first."""
    refusal = jail.refused(statement, mode="write")
    assert any(word in refusal for word in ("permission denied", "must be superuser", "does not exist", "access to"))


def test_time_limits_are_the_hosts(enter: Enter, unchecked: None) -> None:
    """A statement that sets its own limit to none is stopped all the same."""
    jail = enter(limits=DatabaseLimits(statement_time=0.5))
    endless = "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b"
    assert "took too long" in jail.refused("SET statement_timeout = 0", endless)
    assert jail.still_serves()


def test_nobody_sleeps_or_holds_locks(jail: Jail) -> None:
    """pg_sleep and advisory locks, which everybody may use by default, are revoked; the host's role keeps them."""
    assert jail.bare("SELECT pg_advisory_xact_lock(42)")
    for call in ("pg_sleep(60)", "pg_advisory_lock(42)", "pg_try_advisory_lock(42)", "pg_sleep_for('1 hour')"):
        assert "permission denied for function" in jail.refused(f"SELECT {call}")


def test_memory_is_the_hosts(jail: Jail) -> None:
    """A plugin cannot raise what sorting may take."""
    assert jail.bare("SELECT set_config('work_mem', '1GB', true)") == [("1GB",)]
    assert "permission denied for function set_config" in jail.refused("SELECT set_config('work_mem', '1GB', true)")
    assert "begins with SELECT" in jail.refused("SET work_mem = '1GB'")
    assert jail.run("SELECT current_setting('work_mem')") == [("4MB",)]


def test_settings_do_not_outlive_a_transaction(jail: Jail, unchecked: None) -> None:
    """What a statement sets of the session is gone when the next transaction begins."""
    jail.run("SET work_mem = '1GB'")
    assert jail.run("SELECT current_setting('work_mem')") == [("4MB",)]


def test_results_without_end_are_cut(jail: Jail) -> None:
    """An endless series ends at the limit of rows, large values at that of bytes; the transaction is usable again."""
    assert "50,000 rows" in jail.refused("SELECT generate_series(1, 100000000)")
    assert "bytes" in jail.refused("SELECT repeat('x', 500000) FROM generate_series(1, 1000)")
    assert "bytes" in jail.refused("SELECT repeat('x', 100000000)")
    assert jail.still_serves()


def test_a_huge_value_takes_no_memory_of_the_host(jail: Jail) -> None:
    """A row is refused while it comes: the driver, which would make room for all of it, is not given more."""
    assert _peak(lambda: jail.bare("SELECT repeat('x', 200000000)")) > 200 << 20
    assert _peak(lambda: jail.refused("SELECT repeat('x', 200000000)")) < 100 << 20
    assert jail.still_serves()


def test_rows_of_many_pieces_come_whole(jail: Jail) -> None:
    """What comes in several pieces, rows and all, is what was asked for, and the connection is used again."""
    rows = [(number, f"{number:04}" * 20_000) for number in range(1, 31)]
    statement = "SELECT n, repeat(lpad(n::text, 4, '0'), 20000) FROM generate_series(1, 30) n ORDER BY n"
    for _ in range(3):
        assert jail.run(statement) == rows
        broken = "SELECT repeat('x', 100000), 1 / (n - 5) FROM generate_series(1, 9) n"
        assert "division by zero" in jail.refused(broken)
    assert jail.still_serves()


def _peak(work: Callable[[], object]) -> int:
    """Return by how many bytes this process grew meanwhile, at most."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
    before = _memory("VmRSS")
    work()
    return _memory("VmHWM") - before


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def test_joins_without_end_are_stopped(enter: Enter) -> None:
    """A cartesian product is stopped by the clock, while the host goes on."""
    jail = enter(limits=DatabaseLimits(statement_time=0.5))
    product = "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b"
    assert "took too long" in jail.refused(product)
    assert jail.still_serves()


def test_a_statement_does_not_fill_the_disk(enter: Enter, unchecked: None) -> None:
    """What sorting may write has a limit that the role can neither raise nor drop."""
    jail = enter(limits=DatabaseLimits(statement_time=60), broker=BrokerLimits(call_time=60))
    sorting = "SELECT md5(x::text) FROM generate_series(1, 5000000) x ORDER BY 1 DESC LIMIT 10 OFFSET 4000000"
    assert "temporary file size exceeds" in jail.refused(sorting)
    assert "permission denied" in jail.refused("SET temp_file_limit = -1")
    jail.run("ALTER ROLE CURRENT_USER RESET ALL", mode="write")
    assert _as_role(jail, "SHOW temp_file_limit") == [("128MB",)]


def test_the_role_is_refused_to_change_itself(jail: Jail) -> None:
    """ALTER ROLE, which a role may use on itself, is refused."""
    _as_role(jail, "ALTER ROLE CURRENT_USER SET work_mem = '1GB'")
    jail.apply()
    assert "begins with SELECT" in jail.refused("ALTER ROLE CURRENT_USER PASSWORD 'mine'", mode="write")


def test_a_role_that_changed_itself_gains_nothing(jail: Jail, unchecked: None) -> None:
    """Its own defaults do not count in the host's transactions, and granting again removes them."""
    jail.run("ALTER ROLE CURRENT_USER SET work_mem = '1GB'", mode="write")
    jail.run("ALTER ROLE CURRENT_USER SET default_transaction_read_only = off", mode="write")
    assert _as_role(jail, "SHOW work_mem") == [("1GB",)]
    assert jail.run("SELECT current_setting('work_mem')") == [("4MB",)]
    assert "read-only" in jail.refused(WRITE)
    assert any("RESET ALL" in str(change) for change in jail.apply().changes)
    assert _as_role(jail, "SHOW work_mem") != [("1GB",)]
    for escalation in ("SUPERUSER", "CREATEROLE", "BYPASSRLS"):
        refusal = jail.refused(f"ALTER ROLE CURRENT_USER {escalation}", mode="write")
        assert "permission denied" in refusal or "must be superuser" in refusal


def test_no_other_role_is_reached(jail: Jail, unchecked: None) -> None:
    """SET ROLE, SET SESSION AUTHORIZATION and RESET ROLE lead to no other role."""
    assert "permission denied" in jail.refused("SET ROLE pg_read_all_data")
    assert "permission denied" in jail.refused("SET SESSION AUTHORIZATION postgres")
    assert jail.run("RESET ROLE", "SELECT current_user = session_user") == [(True,)]


@pytest.mark.parametrize(
    "relation",
    [
        "pg_stat_activity", "pg_stat_user_tables", "pg_stat_statements", "pg_locks", "pg_proc", "pg_settings",
        "pg_roles", "pg_authid", "pg_shadow", "pg_stats", "pg_statistic", "pg_views", "pg_rules", "pg_trigger",
        "pg_cursors", "pg_prepared_statements", "pg_hba_file_rules", "pg_largeobject", "pg_database",
    ],
)  # fmt: skip
def test_catalogues_tell_nothing_of_others(jail: Jail, relation: str) -> None:
    """What others do, what is stored, and the source of functions cannot be read."""
    refusal = jail.refused(f"SELECT * FROM {relation}")
    assert "permission denied" in refusal or "does not exist" in refusal


def test_what_views_are_made_of_is_not_told(jail: Jail) -> None:
    """The functions behind those views are closed too."""
    for call in ("pg_stat_get_activity(NULL)", "pg_get_functiondef(1)", "pg_get_viewdef(1)", "pg_lock_status()"):
        assert "permission denied for function" in jail.refused(f"SELECT {call}")
    assert jail.run("SELECT * FROM information_schema.columns WHERE table_name = 'secrets'") == []


def test_no_messages_are_sent(jail: Jail) -> None:
    """NOTIFY and LISTEN are refused, and so is the function behind."""
    jail.bare("NOTIFY gossip, 'x'")
    for statement in ("NOTIFY gossip, 'x'", "LISTEN gossip", "UNLISTEN *"):
        assert "begins with SELECT" in jail.refused(statement)
    assert "permission denied for function" in jail.refused("SELECT pg_notify('gossip', 'x')")


@pytest.mark.parametrize(
    "statements",
    [
        "SELECT 1; DELETE FROM heroes",
        "SELECT 1; COMMIT",
        "WITH x AS (SELECT 1) SELECT * FROM x; SET work_mem = '1GB'",
        "SELECT 1 /* */ ; -- \n COMMIT",
    ],
)
def test_one_statement_at_a_time(jail: Jail, statements: str) -> None:
    """A second statement in one text is an error of the protocol."""
    assert jail.bare("SELECT 1; SELECT 2") == [(1,)]
    assert "multiple commands" in jail.refused(statements, mode="write")
    assert jail.still_serves()


def test_parameters_are_never_statements(jail: Jail) -> None:
    """A parameter is a value whatever it looks like; one of another type is an error of types."""
    found = "SELECT name FROM heroes WHERE name = $1"
    assert jail.run(found, parameters=["' OR 1=1 --"]) == []
    assert jail.run(found, parameters=[["Ada", "Bob"]]) == []
    assert "invalid input syntax" in jail.refused("SELECT name FROM heroes WHERE id = $1", parameters=["1 OR 1=1"])
    assert jail.run("SELECT $1::text", parameters=["); DROP TABLE heroes; --"]) == [("); DROP TABLE heroes; --",)]


def test_other_columns_are_closed(jail: Jail) -> None:
    """A column that is not open is reached by no name, join, view, row value or condition."""
    with jail.game.engine.begin() as connection:
        connection.exec_driver_sql("CREATE VIEW purses AS SELECT purse FROM heroes")
    assert jail.bare("SELECT purse FROM purses")
    for statement in (
        "SELECT purse FROM heroes",
        "SELECT * FROM heroes",
        "SELECT heroes FROM heroes",
        "SELECT to_json(h) FROM heroes h",
        "SELECT name FROM heroes WHERE purse LIKE 'h%'",
        "SELECT name FROM heroes ORDER BY purse",
        "SELECT * FROM purses",
        "WITH x AS (SELECT purse FROM heroes) SELECT count(*) FROM x",
        "SELECT a.name FROM heroes a JOIN heroes b ON a.purse > b.purse",
        "SELECT token FROM secrets",
        "SELECT count(*) FROM secrets",
        "TABLE heroes",
        "SELECT ctid, xmin FROM heroes",
    ):
        assert "permission denied" in jail.refused(statement)


def test_other_writes_are_closed(jail: Jail) -> None:
    """Columns that are not open for writing stay, and rows are neither made nor deleted."""
    for statement in (
        "UPDATE heroes SET name = 'x'",
        "UPDATE heroes SET state = '{}' RETURNING purse",
        "UPDATE heroes SET state = to_json(purse)",
        "DELETE FROM heroes",
        "INSERT INTO heroes (state) VALUES ('{}')",
        "INSERT INTO heroes (id, state) VALUES (1, '{}') ON CONFLICT (id) DO UPDATE SET state = '{}'",
        "WITH x AS (DELETE FROM heroes RETURNING id) SELECT * FROM x",
        "CREATE TABLE public.mine (x int)",
        "ALTER TABLE heroes ADD COLUMN mine int",
        "DROP TABLE heroes",
        "CREATE INDEX mine ON heroes (name)",
        "CREATE TABLE child (id int REFERENCES heroes (id))",
    ):
        refusal = jail.refused(statement, mode="write")
        assert "permission denied" in refusal or "must be owner" in refusal
