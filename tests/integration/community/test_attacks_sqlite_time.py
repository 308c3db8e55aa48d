"""What a hostile plugin tries so that nobody can stop a statement: SQLite looks at no clock within an operation."""

from __future__ import annotations

import pytest

from pixsim7_backend.community.database import driver
from pixsim7_backend.community.database.limits import DatabaseLimits
from pixsim7_backend.infrastructure.plugins._jail.broker import BrokerLimits
from tests.integration.community.conftest import Enter, Jail

SIZES = (840_000, 180_000, 50_000)
"""Bytes of both operands together: the most that the plugin can store, and what its statements are left with."""
ROWS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
WORDS = ("took too long", "too big", "too complex", "not open", "no such function")
REPEATED = [
    "instr(x || i, y || 'b') > 0",
    "replace(x || i, y || 'b', 'c') = i",
    f"x || i LIKE '%{'a' * 190}b'",
    f"x || i LIKE '{'%a' * 95}%b'",
    f"x || i LIKE '%{'_' * 190}b'",
    f"x || i GLOB '*[{'b' * 190}a]c'",
    "json_patch('{\"k\":1,' || j || i || '\":1}', '{' || j || i || '\":1}') = i",
    "json_extract('{' || j || i || '\":1}', '$.b', '$.c', '$.d') = i",
    "json_valid('{' || j || i || '\":1}') = i",
    "json_set('{' || j || i || '\":1}', '$.b', i) = i",
    "(SELECT count(*) FROM json_tree('{' || j || i || '\":1}')) = i",
    "hex(x || i) = i",
    "unhex(hex(x || i)) = i",
    "quote(x || i) = i",
    f"trim(x || i, '{'b' * 990}a') = i",
    "upper(x || i) = i",
    f"strftime('{'%d' * 100}' || x || i, 0) = i",
    "(SELECT group_concat(a, x) FROM (SELECT i AS a UNION ALL SELECT i)) = i",
    "(SELECT json_group_array(a) FROM (SELECT x || i AS a)) = i",
    "length(x || i) = -i",
    "x || i = y || i",
    "CAST(replace(x, 'a', '9') || i AS REAL) = i",
    "printf('%s', x || i) = i",
    "zeroblob(length(x)) = i",
]


@pytest.fixture
def database_kind() -> str:
    """All of this is about SQLite."""
    return "sqlite"


@pytest.fixture
def hurried(enter: Enter) -> Jail:
    """A jail whose statements have a fifth of a second, and whose calls are waited for."""
    made: Jail = enter(limits=DatabaseLimits(statement_time=0.2, write_time=60), broker=BrokerLimits(call_time=120))
    made.run("CREATE TABLE texts (x TEXT, y TEXT)", "CREATE TABLE keys (j TEXT)", mode="write")
    return made


def store(jail: Jail, size: int) -> None:
    """Keep two texts that agree to their end, and the keys of an object of which none comes twice."""
    keys = "".join(f'"{number:x}":1,' for number in range(size // 9))[: size - 20].rpartition(",")[0] + ',"'
    jail.run("DELETE FROM texts", "DELETE FROM keys", mode="write")
    texts = ("a" * (size * 2 // 3), "a" * (size // 3))
    jail.run("INSERT INTO texts VALUES (?, ?)", mode="write", parameters=texts)
    jail.run("INSERT INTO keys VALUES (?)", mode="write", parameters=(keys,))


@pytest.mark.parametrize("condition", REPEATED, ids=range(len(REPEATED)))
def test_work_in_one_operation_is_bounded(hurried: Jail, condition: str) -> None:
    """Whatever is called for each row without end, the clock ends it, or its operands are too large."""
    for size in SIZES:
        store(hurried, size)
        refusal = hurried.refused(f"{ROWS} SELECT count(*) FROM n, texts, keys WHERE {condition}")
        assert any(words in refusal for words in WORDS), refusal
    assert "took too long" in refusal or "not open" in refusal or "no such function" in refusal
    assert hurried.still_serves()


@pytest.mark.parametrize(
    "call", ["upper(x)", "instr(x, y || 'b')", "json_valid(j)", "x LIKE '%a%ab'", "x + 0", "hex(x)"]
)
def test_work_without_a_loop_is_bounded(hurried: Jail, call: str) -> None:
    """Where operations follow each other by the thousand nobody looks at the clock: operands must be smaller."""
    store(hurried, SIZES[0])
    many = ", ".join(f"max({', '.join([call] * 50)})" for _ in range(40))
    refusal = hurried.refused(f"SELECT {many} FROM texts, keys")
    assert "too big" in refusal or "too long to be understood" in refusal, refusal  # the latter on a busy machine
    assert hurried.still_serves()


def test_work_for_many_rows_of_one_call_is_bounded(hurried: Jail) -> None:
    """A statement that is run with row after row of parameters has one time for all of them."""
    store(hurried, SIZES[1])
    connection = driver.connect(mode="write")
    statement = "UPDATE texts SET y = y WHERE instr(x, y || 'b') > 0 AND ? > 0"
    with pytest.raises(driver.OperationalError, match="took too long"):
        connection.cursor().executemany(statement, [(number,) for number in range(1, 200)])
    connection.close()
    assert hurried.still_serves()


def test_usual_work_is_left_alone(jail: Jail) -> None:
    """Long texts are searched, replaced, compared and stored; a large statement inserts its rows."""
    jail.run("CREATE TABLE notes (x TEXT, y TEXT)", mode="write")
    jail.run("INSERT INTO notes VALUES (?, ?)", mode="write", parameters=("long " * 160_000, "short"))
    assert jail.run("SELECT length(x), upper(substr(x, 1, 4)) FROM notes WHERE x LIKE '%g l%'") == [(800_000, "LONG")]
    jail.run("UPDATE notes SET x = ?", mode="write", parameters=("long " * 20_000,))
    assert jail.run("SELECT instr(x, 'gl'), length(replace(x, 'long', 'longer')) FROM notes") == [(0, 140_000)]
    jail.run("INSERT INTO notes VALUES (?, ?)", mode="write", parameters=("short", "long " * 160_000))
    jail.run("ALTER TABLE notes ADD COLUMN z TEXT DEFAULT 'z'", "ALTER TABLE notes DROP COLUMN x", mode="write")
    assert jail.run("SELECT max(length(y)), min(z) FROM notes") == [(800_000, "z")]
    jail.run("DELETE FROM notes", mode="write")
    rows = ", ".join(["(?, lower(?))"] * 500)
    jail.run(f"INSERT INTO notes VALUES {rows}", mode="write", parameters=["x" * 400] * 1000)
    assert jail.run("SELECT count(*) FROM notes") == [(500,)]
