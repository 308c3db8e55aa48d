"""How values and the time without a look at the clock are bounded by what a statement was compiled to."""

from __future__ import annotations

import sqlite3

from hypothesis import given
from hypothesis import strategies as st

from pixsim7_backend.community.database.sqlite_pace import Pace, pace_of

LONGEST = 900_000
STEPS = st.tuples(
    st.sampled_from(["Function", "AggStep", "Column", "VFilter", "Variable", "Goto"]),
    st.sampled_from(["upper(1)", "like(2)", "instr(2)", "json_patch(2)", "json_extract(-1)", "max(-1)"]),
)


@given(st.lists(STEPS, max_size=300), STEPS)
def test_more_work_is_never_given_more(program: list[tuple[str, str]], step: tuple[str, str]) -> None:
    """Another operation leaves values as long, or shorter, and both numbers keep to their bounds."""
    fewer, more = pace_of(program, LONGEST), pace_of([*program, step], LONGEST)
    assert LONGEST >= fewer.longest >= more.longest >= 1000
    assert 2000 >= more.operations >= 10


def test_usual_statements_get_everything() -> None:
    """A statement that compares and stores gets the longest values; one that searches texts shorter ones."""
    with sqlite3.connect(":memory:") as connection:
        connection.execute("CREATE TABLE t (a, b)")

        def pace(statement: str) -> Pace:
            rows = connection.execute(f"EXPLAIN {statement}", ["x"] * statement.count("?"))
            return pace_of([(row[1], str(row[5])) for row in rows], LONGEST)

        assert pace("SELECT a, b FROM t WHERE a = 1 ORDER BY b").longest == LONGEST
        assert pace("UPDATE t SET a = json_set(a, '$.x', 1) WHERE b = 2").longest == LONGEST
        assert pace(f"INSERT INTO t VALUES {', '.join(['(?, lower(?))'] * 100)}").longest == LONGEST
        assert 200_000 < pace("SELECT instr(a, b) FROM t").longest < LONGEST
        assert pace(f"SELECT {', '.join(['a LIKE b'] * 100)} FROM t").longest < 20_000
        assert pace("SELECT a LIKE b FROM t").operations < pace("SELECT a = b FROM t").operations
