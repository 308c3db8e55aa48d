"""How the statements of a plugin may begin."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixsim7_backend.community.database.statements import check_statement


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
