"""How the statements of a plugin may begin."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixsim7_backend.community.database.statements import check_statement, expanded_size


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1", "select 1", "  \n SELECT 1", "(SELECT 1) UNION (SELECT 2)", "((SELECT 1))",
        "WITH x AS (SELECT 1) SELECT 2", "VALUES (1)", "TABLE heroes", "INSERT INTO x VALUES (1)",
        "UPDATE x SET y = 1", "DELETE FROM x",
    ],
)  # fmt: skip
def test_queries_and_changes_of_rows_pass(statement: str) -> None:
    """What reads and changes rows is let through, with and without own tables."""
    assert check_statement(statement, may_define=False) is None
    assert check_statement(statement, may_define=True) is None


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE x (y int)", "create unique index i on x (y)", "ALTER TABLE x ADD y int", "DROP TABLE x",
        "DROP INDEX i",
    ],
)  # fmt: skip
def test_definitions_need_own_tables(statement: str) -> None:
    """Tables are defined by those that have some of their own."""
    assert check_statement(statement, may_define=False) is not None
    assert check_statement(statement, may_define=True) is None


@pytest.mark.parametrize(
    "statement",
    [
        "", ";", "COMMIT", "BEGIN", "ROLLBACK", "SAVEPOINT x", "SET x = 1", "RESET ALL", "DO $$ $$", "CALL f()",
        "COPY x TO y", "NOTIFY x", "LISTEN x", "LOCK TABLE x", "VACUUM", "ANALYZE", "EXPLAIN SELECT 1",
        "PREPARE x AS SELECT 1", "EXECUTE x", "DECLARE c CURSOR FOR SELECT 1", "FETCH c", "DISCARD ALL",
        "GRANT x TO y", "ALTER ROLE x", "CREATE ROLE x", "CREATE FUNCTION f()", "CREATE TEMP TABLE x (y int)",
        "CREATE VIEW x AS SELECT 1", "CREATE TRIGGER t", "DROP ROLE x", "CREATE EXTENSION x", "ATTACH 'x' AS y",
        "PRAGMA query_only = 0", "PRAGMA game.table_info(x)", "MERGE INTO x", "-- SELECT\nCOMMIT",
        "/* SELECT */ COMMIT", "SELECTED", "REINDEX", "IMPORT FOREIGN SCHEMA x", "SELECT 1\x00; COMMIT",
        "INSERT OR REPLACE INTO x VALUES (1)", "REPLACE INTO x VALUES (1)", "SHOW ALL", "LOAD 'x'",
        "SECURITY LABEL x",
    ],
)  # fmt: skip
def test_everything_else_is_refused(statement: str) -> None:
    """What ends transactions, changes the session, sends messages or runs code does not pass."""
    assert "begins with SELECT" in (check_statement(statement, may_define=True) or "") or "\x00" in statement
    assert check_statement(statement, may_define=False) is not None


@given(st.text())
def test_no_text_upsets_the_check(text: str) -> None:
    """Any text is passed or refused, at once; what passes begins with one of the words."""
    if check_statement(text, may_define=False) is None:
        assert text.lstrip(" \t\n\r\v\f\x1c\x1d\x1e\x1f\x85\xa0(").upper()[:2] in {
            "SE",
            "WI",
            "VA",
            "TA",
            "IN",
            "UP",
            "DE",
        }


def nested(*names: str) -> str:
    """Return a statement whose names each stand for two of the one before."""
    parts = [f"{names[0]} AS (SELECT 1 AS x)"]
    parts += [f"{name} AS (SELECT a.x FROM {one} a, {one} b)" for one, name in pairwise(names)]
    return f"WITH {', '.join(parts)} SELECT x FROM {names[-1]}"


def test_what_a_statement_comes_to_is_reckoned_before_it_is_compiled() -> None:
    """Names that use one another double with each; the usual, recursive ones too, are far from the limit."""
    assert expanded_size("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n") == 53
    small, large = nested(*(f"c{n}" for n in range(5))), nested(*(f"c{n}" for n in range(20)))
    assert check_statement(small, may_define=False) is None
    assert "no more than 100,000 words" in (check_statement(large, may_define=False) or "")
    in_circles = "WITH a AS (SELECT * FROM b), b AS (SELECT * FROM a) SELECT * FROM a"
    twice = "WITH a AS (WITH a AS (SELECT 1) SELECT * FROM a, a b) SELECT * FROM a"
    for unclear in (in_circles, twice, nested(*(f"c{n}" for n in range(60)))):
        assert expanded_size(unclear) is None


SPELLINGS = (
    '"c{}"',
    "[c{}]",
    "`c{}`",
    "'c{}'",
    "C{}/* ' */",
    "c{}$",
    "\u00e9\u00a0{}",
    "\U0001f600{}",
    '"c""{}"',
    "c{}--'\n",
)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_names_are_found_however_they_are_written(spelling: str) -> None:
    """Quoted in four ways, with comments between, in any letters that SQLite takes for one."""
    assert (expanded_size(nested(*(spelling.format(n) for n in range(20)))) or 0) > 10_000_000


@pytest.mark.parametrize("trick", ["$a(')", '@b(")', ":c(`)", "''", '"a"', "/* ' */ 1", '1 -- "\n', "x'00'", "[']"])
def test_nothing_hides_what_follows(trick: str) -> None:
    """What looks like the beginning of a text, and is none for SQLite, does not swallow the rest."""
    statement = nested(*(f"c{n}" for n in range(20))).replace("WITH ", f"SELECT {trick}, (WITH ")
    assert (expanded_size(f"{statement})") or 0) > 10_000_000


def test_garbage_is_read_in_no_time() -> None:
    """Whatever is opened and never closed, the text is read once."""
    for piece in ("[", "'", '"', "/*", "(", "a as (", "as ", "with a(", "$a(", "`", "-", "a"):
        expanded_size("with " + piece * (100_000 // len(piece)))
