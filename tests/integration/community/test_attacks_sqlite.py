"""What a hostile plugin tries with SQLite. Each attempt is first shown to succeed where nothing is in its way."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import select

from pixsim7_backend.community.database import driver, service, sqlite_executor
from pixsim7_backend.community.database.limits import DatabaseLimits
from pixsim7_backend.infrastructure.plugins._jail.broker import BrokerLimits
from tests.integration.community.conftest import Enter, Jail
from tests.integration.community.game import Hero

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


def text_of(letter: str, length: int) -> str:
    """Return an expression for a long text."""
    return f"replace('{'q' * 1000}', 'q', '{letter * (length // 1000)}')"


@pytest.fixture
def database_kind() -> str:
    """All of this is about SQLite."""
    return "sqlite"


def test_other_files_are_not_attached(jail: Jail, tmp_path: Path, unchecked: None) -> None:
    """ATTACH, DETACH and VACUUM INTO reach no file, even where they are not refused at first sight."""
    with sqlite3.connect(tmp_path / "bare.sqlite3") as bare:
        bare.execute("ATTACH ? AS other", [str(tmp_path / "other.sqlite3")])
    for mode in ("read", "write"):
        refusal = jail.refused(f"ATTACH '{tmp_path}/stolen.sqlite3' AS stolen", mode=mode)
        assert "may not run a statement of this kind" in refusal
        assert "may not run" in jail.refused("DETACH game", mode=mode)
        assert "VACUUM" in jail.refused(f"VACUUM game INTO '{tmp_path}/copy.sqlite3'", mode=mode)
        assert "VACUUM" in jail.refused("VACUUM", mode=mode)
    assert not list(tmp_path.glob("stolen*")) + list(tmp_path.glob("copy*"))
    assert jail.still_serves()


@pytest.mark.parametrize(
    "statement",
    [
        "PRAGMA query_only = 0", "PRAGMA writable_schema = 1", "PRAGMA game.writable_schema = 1",
        "PRAGMA trusted_schema = 1", "PRAGMA main.max_page_count = 1073741823", "PRAGMA journal_mode = DELETE",
        "PRAGMA locking_mode = EXCLUSIVE", "PRAGMA temp_store_directory = '/tmp'", "PRAGMA database_list",
        "PRAGMA table_info(secrets)", "PRAGMA game.table_info(secrets)", "SELECT * FROM pragma_database_list",
        "SELECT * FROM pragma_table_info('secrets')", "SELECT count(*) FROM pragma_table_list",
        "SELECT load_extension('mod')", "SELECT writefile('x', 'y')", "SELECT readfile('/etc/passwd')",
        "SELECT fts3_tokenizer('x')", "SELECT sqlite_compileoption_get(1)", "CREATE VIRTUAL TABLE v USING fts5(x)",
        "CREATE TEMP TABLE heap (x)", "CREATE TEMP VIEW v AS SELECT * FROM secrets", "ANALYZE", "COMMIT", "ROLLBACK",
        "SAVEPOINT x", "RELEASE x", "BEGIN", "UPDATE game.sqlite_master SET sql = ''",
        "SELECT sql FROM game.sqlite_master", "SELECT count(*) FROM dbstat", "SELECT * FROM sqlite_stat1",
        "CREATE TRIGGER t AFTER UPDATE ON heroes BEGIN SELECT 1; END", "CREATE TABLE game.mine (x)",
        "CREATE INDEX game.mine ON heroes (name)", "DROP TABLE heroes", "ALTER TABLE heroes RENAME TO zeroes",
    ],
)  # fmt: skip
def test_the_fence_cannot_be_taken_down(jail: Jail, unchecked: None, statement: str) -> None:
    """Pragmas, extensions, schemas and transactions are not the plugin's, in any session."""
    for mode in ("read", "write"):
        refusal = jail.refused(statement, mode=mode)
        assert any(
            word in refusal
            for word in ("not open", "may not", "can only read", "no such", "not possible", "from within a transaction")
        )
    assert "can only read" in jail.refused("UPDATE heroes SET state = '{}'")
    assert jail.still_serves()


def test_other_columns_are_closed(jail: Jail) -> None:
    """A column that is not open is reached by no name, join, view, condition or count."""
    with jail.game.engine.begin() as connection:
        connection.exec_driver_sql("CREATE VIEW purses AS SELECT purse FROM heroes")
    assert jail.bare("SELECT purse FROM purses")
    for statement in (
        "SELECT purse FROM heroes",
        "SELECT * FROM heroes",
        "SELECT name FROM heroes WHERE purse LIKE 'h%'",
        "SELECT name FROM heroes ORDER BY purse",
        "SELECT name FROM heroes GROUP BY purse",
        "SELECT * FROM purses",
        "SELECT count(*) FROM purses",
        "WITH x AS (SELECT purse FROM heroes) SELECT count(*) FROM x",
        "SELECT a.name FROM heroes a JOIN heroes b ON a.purse > b.purse",
        "SELECT (SELECT token FROM secrets)",
        "SELECT count(*) FROM secrets",
        "SELECT count(*) FROM SECRETS",
        "SELECT 1 FROM heroes WHERE EXISTS (SELECT 1 FROM secrets)",
        "SELECT rowid FROM secrets",
        "SELECT json_group_array(purse) FROM heroes",
        "TABLE heroes",
    ):
        refusal = jail.refused(statement)
        assert "not open to this plugin" in refusal or "syntax error" in refusal
    assert jail.run("SELECT count(*) FROM heroes") == [(2,)]
    assert jail.run("WITH c AS (SELECT 1) SELECT count(*) FROM c") == [(1,)]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT probe.id FROM probe JOIN secrets USING (token)",
        "SELECT token FROM probe FULL JOIN secrets USING (token)",
        "SELECT count(*) FROM probe JOIN secrets\nUSING(token)",
        "SELECT purse FROM probe FULL JOIN heroes USING (purse)",
        "SELECT * FROM probe NATURAL FULL JOIN secrets",
        "SELECT * FROM probe natural/**/join secrets",
        "SELECT a.name FROM heroes a NATURAL JOIN heroes b",
    ],
)
def test_joins_that_the_authorizer_does_not_see_are_refused(jail: Jail, statement: str) -> None:
    """A closed column is not compared, nor shown, by joining it with a column of the same name in an own table."""
    create = "CREATE TABLE probe (id INTEGER, token TEXT, purse TEXT)"
    assert jail.bare("CREATE TEMP TABLE probe (id INTEGER, token TEXT, purse TEXT)", statement) is not None
    jail.run(create, mode="write")
    for mode in ("read", "write"):
        assert "USING or NATURAL" in jail.refused(statement, mode=mode)


def test_what_a_statement_opens_is_looked_at(jail: Jail, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a join that nobody refused opens no table of which nothing is open, nor its indexes."""
    monkeypatch.setattr(sqlite_executor, "_UNSEEN", re.compile("(?!)"))
    jail.run("CREATE TABLE probe (id INTEGER, token TEXT)", mode="write")
    statement = "SELECT token FROM probe FULL JOIN secrets USING (token)"
    assert "a table that is not open" in jail.refused(statement)


def test_tables_made_later_are_closed(jail: Jail) -> None:
    """A table that was made after the plugin's connection cannot even be counted."""
    jail.run("SELECT 1")
    with jail.game.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE later (x)")
    assert "not open to this plugin" in jail.refused("SELECT count(*) FROM later")


def test_other_writes_are_closed(jail: Jail) -> None:
    """Columns that are not open for writing stay, and rows are neither made nor deleted."""
    for statement in (
        "UPDATE heroes SET name = 'x'",
        "UPDATE heroes SET state = '{}' RETURNING purse",
        "UPDATE heroes SET state = purse",
        "DELETE FROM heroes",
        "INSERT INTO heroes (state) VALUES ('{}')",
        "INSERT INTO heroes (id, state) VALUES (1, '{}') ON CONFLICT (id) DO UPDATE SET state = '{}'",
        "UPDATE secrets SET token = 'mine'",
    ):
        assert "not open to this plugin" in jail.refused(statement, mode="write")


def test_triggers_of_the_game_act_for_nobody(jail: Jail) -> None:
    """A trigger that would write what the plugin may not write refuses the statement that fires it."""
    with jail.game.engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER pay AFTER UPDATE OF state ON heroes BEGIN UPDATE heroes SET purse = 'gone'; END"
        )
    assert "not open to this plugin" in jail.refused("UPDATE heroes SET state = '{}'", mode="write")


def test_one_statement_at_a_time(jail: Jail) -> None:
    """A second statement in one text is refused."""
    assert "one statement at a time" in jail.refused("SELECT 1; DELETE FROM heroes", mode="write")


def test_a_statement_without_end_is_stopped(enter: Enter) -> None:
    """An endless recursion is stopped by the clock; the host writes meanwhile."""
    jail = enter(limits=DatabaseLimits(statement_time=0.5))
    assert "took too long" in jail.refused(ENDLESS)
    assert jail.still_serves()


def test_a_statement_does_not_fill_the_disk(enter: Enter) -> None:
    """Sorting more than fits into memory is stopped when it has written its share."""
    jail = enter(limits=DatabaseLimits(temporary_size=1 << 20, statement_time=60), broker=BrokerLimits(call_time=60))
    series = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 10000000)"
    assert "too much disk" in jail.refused(f"{series} SELECT x, {text_of('x', 100_000)} || x FROM n ORDER BY 2")
    assert jail.still_serves()


@pytest.mark.parametrize(
    "statement",
    [
        f"SELECT {text_of('x', 800_000)} || {text_of('x', 800_000)}",
        "SELECT zeroblob(100000000)",
        "SELECT randomblob(100000000)",
        f"SELECT replace({text_of('a', 800_000)}, 'a', 'aaaa')",
        f"SELECT a.name FROM heroes a, heroes b WHERE a.name LIKE {text_of('%', 10_000)}",
    ],
)
def test_values_without_end_are_cut(jail: Jail, statement: str) -> None:
    """Nothing larger than a frame is ever built."""
    assert any(word in jail.refused(statement) for word in ("too big", "not open", "too complex"))
    assert jail.still_serves()


def test_results_without_end_are_cut(jail: Jail) -> None:
    """A result ends at the limit of rows or of bytes."""
    series = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n"
    assert "50,000 rows" in jail.refused(series)
    assert "bytes" in jail.refused(series.replace("SELECT x FROM n", f"SELECT {text_of('x', 100_000)} FROM n"))


def test_a_writer_that_idles_is_ended(enter: Enter) -> None:
    """A plugin that begins to write and then does nothing holds the host's writers only shortly."""
    jail = enter(limits=DatabaseLimits(write_time=0.3))
    connection = driver.connect(mode="write")
    connection.cursor().execute("UPDATE heroes SET state = '{\"mine\": 1}'")
    with jail.game.session() as session:
        session.add(Hero(name="Cyd", state={}, purse=""))
    with pytest.raises(driver.OperationalError, match=r"transaction is over: it was open for more than 0\.3 s"):
        connection.commit()
    with jail.game.readonly_session() as session:
        assert session.scalars(select(Hero.state)).first() == {"hp": 3}


def test_a_reader_does_not_keep_the_host_from_writing(enter: Enter) -> None:
    """The host writes while a plugin reads, and the plugin goes on to see what it saw first, until its time is up."""
    jail = enter(limits=DatabaseLimits(idle_time=0.3))
    connection = driver.connect(mode="read")
    cursor = connection.cursor()
    assert cursor.execute("SELECT count(*) FROM heroes").fetchall() == [(2,)]
    with jail.game.session() as session:
        session.add(Hero(name="Cyd", state={}, purse=""))
    assert cursor.execute("SELECT count(*) FROM heroes").fetchall() == [(2,)]
    jail.wait_until_over()
    with pytest.raises(driver.OperationalError, match=r"nothing was done in it"):
        cursor.execute("SELECT 1")
    connection.rollback()
    assert jail.run("SELECT count(*) FROM heroes") == [(3,)]


def test_own_tables_have_a_quota(enter: Enter) -> None:
    """The plugin's own file ends at its size; what did not fit is rolled back."""
    jail = enter(limits=DatabaseLimits(own_size=200_000))
    jail.run("CREATE TABLE notes (x TEXT)", mode="write")
    refusal = jail.refused("INSERT INTO notes VALUES (?)", mode="write", parameters=("x" * 500_000,))
    assert "full" in refusal
    assert jail.run("SELECT count(*) FROM notes") == [(0,)]
    assert jail.still_serves()


def test_without_own_tables_there_are_none(enter: Enter) -> None:
    """A plugin that may only read defines nothing, not even in memory."""
    jail = enter("db:read", "db:write")
    assert "begins with SELECT" in jail.refused("CREATE TABLE notes (x TEXT)", mode="write")
    assert jail.run("SELECT name FROM heroes WHERE id = 1") == [("Ada",)]


def test_writing_own_tables_does_not_keep_the_host_from_writing(enter: Enter) -> None:
    """A plugin that may write only what is its own never holds the lock of the game's file."""
    jail = enter("db:read", "db:own")
    jail.run("CREATE TABLE notes (x TEXT)", mode="write")
    connection = driver.connect(mode="write")
    connection.cursor().execute("INSERT INTO notes VALUES ('mine')")
    with jail.game.session() as session:
        session.add(Hero(name="Cyd", state={}, purse=""))
    connection.commit()
    assert jail.run("SELECT x FROM notes") == [("mine",)]
    assert "not open to this plugin for writing" in jail.refused("UPDATE heroes SET state = '{}'", mode="write")


def test_a_jail_that_ends_while_it_waits_to_write_leaves_no_lock(enter: Enter) -> None:
    """A transaction that begins when nobody wants it any more is undone."""
    jail = enter()
    with jail.game.session() as session:
        session.add(Hero(name="Cyd", state={}, purse=""))
        session.flush()
        jail.channel._send("db.begin", ("write",))
        jail.channel.run(asyncio.sleep(0.2))
        ending = threading.Thread(target=lambda: jail.channel.run(jail.channel.broker.close()))
        ending.start()
    ending.join()
    with jail.game.session() as session:
        session.add(Hero(name="Dan", state={}, purse=""))


@pytest.mark.parametrize(
    ("way", "long"),
    [
        ("c{0} AS NOT MATERIALIZED (SELECT a.x FROM c{1} a JOIN c{1} b ON a.x = b.x)", 14),
        ("c{0} AS (SELECT (SELECT max(x) FROM c{1}) + (SELECT min(x) FROM c{1}) AS x)", 18),
    ],
)
def test_compiling_does_not_take_for_ever(enter: Enter, way: str, long: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Subqueries that double with each name are refused by their number, and behind that by the clock."""
    jail = enter(limits=DatabaseLimits(statement_time=0.2))
    for most, expected in ((40, "no more than 100,000 words"), (long, "statement took too long")):
        parts = ["c0 AS (SELECT 1 AS x)", *(way.format(n, n - 1) for n in range(1, most))]
        if most == long:
            monkeypatch.setattr(service, "check_statement", lambda _statement, **_: None)
        assert expected in jail.refused(f"WITH {', '.join(parts)} SELECT x FROM c{most - 1}")
        assert jail.still_serves()


def test_functions_that_nobody_can_interrupt_are_closed(jail: Jail) -> None:
    """A format may ask for billions of letters, and a set of characters to trim is gone through for each letter."""
    for call in ("printf('%.2000000000c', 'x')", "format('%.2000000000c', 'x')"):
        assert "not open to plugins" in jail.refused(f"SELECT {call}")
    hidden = "ALTER TABLE notes ADD COLUMN y TEXT AS (\"printf\"('%.2000000000c', 'x'))"
    jail.run("CREATE TABLE notes (x TEXT)", mode="write")
    assert "not open to plugins" in jail.refused(hidden, mode="write")
    for call in ("trim", "ltrim", "rtrim"):
        assert "raised exception" in jail.refused(
            f"SELECT {call}(?, {text_of('b', 50_000)})", parameters=("a" * 100_000,)
        )
    assert jail.run("SELECT trim(' a '), ltrim('xxa', 'x'), rtrim(100, '0'), trim(NULL, 'x')") == [
        ("a", "a", "1", None)
    ]


def test_depth_has_an_end(jail: Jail) -> None:
    """Nested brackets, subqueries, operators, lists and documents end with an error, not with the host."""
    for deep in (
        "(" * 5000 + "1" + ")" * 5000,
        "(SELECT " * 3000 + "1" + ")" * 3000,
        "NOT " * 20_000 + "1",
        "-" * 1 + "~" * 20_000 + "1",
        "1" + " + 1" * 20_000,
        "json_extract('" + "[" * 3000 + "]" * 3000 + "', '$[0]')",
        " UNION ALL ".join(["1"] + ["SELECT 1"] * 60),
    ):
        refusal = jail.refused(f"SELECT {deep}")
        assert any(words in refusal for words in ("overflow", "too large", "too many", "malformed", "SQL", "parser"))
    assert jail.still_serves()


def test_bytes_in_a_statement_are_no_text(jail: Jail) -> None:
    """What a statement is compiled to may hold bytes that are no text; looking at it is fine with that."""
    assert jail.run("SELECT x'ff00fe', 'ü'") == [(b"\xff\x00\xfe", "ü")]
