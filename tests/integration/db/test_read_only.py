"""Attempts to write through sessions that can only read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from pixsim7_backend.db import Database, ReadOnlySessionError
from pixsim7_backend.db.postgres import check_reading
from tests.integration.db.models import Base, Counter, Plain

pytestmark = pytest.mark.anyio

Attack = Callable[[Session], Any]
INSERT = "INSERT INTO plains (id, value) VALUES (66, 6)"


def _add(session: Session) -> None:
    session.add(Plain(id=66))
    session.flush()


def _change(session: Session) -> None:
    session.get_one(Counter, 1).value = 6
    session.flush()


def _change_in_place(session: Session) -> None:
    session.get_one(Counter, 1).meta["x"] = 6
    session.commit()


def _remove(session: Session) -> None:
    session.delete(session.get_one(Counter, 1))
    session.scalar(select(Counter.id))


def _nested(session: Session) -> None:
    with session.begin_nested():
        session.execute(text(INSERT))


def _nested_flush(session: Session) -> None:
    with session.begin_nested():
        session.add(Plain(id=66))


def _after_rollback(session: Session) -> None:
    session.get_one(Counter, 1)
    session.rollback()
    session.execute(text(INSERT))


def _after_commit(session: Session) -> None:
    session.get_one(Counter, 1)
    session.commit()
    session.execute(text(INSERT))


def _other_isolation(level: str) -> Attack:
    def attack(session: Session) -> None:
        session.connection(execution_options={"isolation_level": level}).execute(text(INSERT))

    attack.__name__ = f"isolation {level}"
    return attack


def _raw(statement: str) -> Attack:
    def attack(session: Session) -> None:
        session.connection().exec_driver_sql(statement)

    attack.__name__ = statement
    return attack


def _raw_then_insert(statement: str) -> Attack:
    def attack(session: Session) -> None:
        session.connection().exec_driver_sql(statement)
        session.connection().exec_driver_sql(INSERT)

    attack.__name__ = f"{statement}, then INSERT"
    return attack


def _without_parameters(statement: str) -> Attack:
    def attack(session: Session) -> None:
        options = {"no_parameters": True}
        session.connection().exec_driver_sql(statement, execution_options=options)

    attack.__name__ = f"unprepared {statement}"
    return attack


ATTACKS: list[Attack] = [
    _add,
    _change,
    _change_in_place,
    _remove,
    _nested,
    _nested_flush,
    _after_rollback,
    _after_commit,
    _other_isolation("AUTOCOMMIT"),
    lambda session: session.execute(insert(Plain).values(id=66)),
    lambda session: session.execute(insert(Plain), [{"id": 66}, {"id": 67}]),
    lambda session: session.execute(update(Counter).values(value=6)),
    lambda session: session.execute(delete(Counter)),
    lambda session: session.execute(text(INSERT)),
    lambda session: session.bulk_insert_mappings(Counter.__mapper__, [{"id": 66}]),
    lambda session: session.bulk_save_objects([Plain(id=66)]),
    lambda session: session.connection().execute(text(INSERT)),
    lambda session: session.connection().begin_nested().connection.execute(text(INSERT)),
    lambda session: Base.metadata.drop_all(session.connection()),
    _raw(INSERT),
    _raw("WITH x AS (SELECT 1) INSERT INTO plains (id, value) SELECT 66, 6 FROM x"),
    _raw("CREATE TABLE evil (id INTEGER)"),
    _raw("DROP TABLE plains"),
    _raw("ALTER TABLE plains ADD COLUMN evil INTEGER"),
    _raw_then_insert("COMMIT"),
    _raw_then_insert("ROLLBACK"),
    _raw("/* SELECT */ DELETE FROM counters"),
    _raw("-- SELECT\nDELETE FROM counters"),
]

SQLITE_ATTACKS: list[Attack] = [
    _raw_then_insert("PRAGMA query_only=0"),
    _raw_then_insert("PRAGMA query_only(OFF)"),
    _raw_then_insert("PRAGMA main.query_only=0"),
    _raw("PRAGMA journal_mode=DELETE"),
    _raw("PRAGMA writable_schema=1"),
    _raw("PRAGMA user_version=6"),
    _raw("PRAGMA wal_checkpoint(TRUNCATE)"),
    _raw("ATTACH DATABASE 'evil.db' AS evil"),
    _raw("ATTACH DATABASE ':memory:' AS evil"),
    _raw("VACUUM"),
    _raw("VACUUM INTO 'evil.db'"),
    _raw("REINDEX"),
    _raw("ANALYZE"),
    _raw("CREATE TEMP TABLE evil (id INTEGER)"),
    _raw("REPLACE INTO plains (id, value) VALUES (66, 6)"),
    _raw("SELECT load_extension('evil')"),
]

POSTGRESQL_ATTACKS: list[Attack] = [
    _other_isolation("SERIALIZABLE"),
    lambda session: session.connection(execution_options={"postgresql_readonly": False}).execute(text(INSERT)),
    _raw_then_insert("SET TRANSACTION READ WRITE"),
    _raw_then_insert("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE"),
    _raw_then_insert("SET default_transaction_read_only = off"),
    _raw_then_insert("SELECT set_config('transaction_read_only', 'off', false)"),
    _raw_then_insert("SELECT pg_catalog.\"set_config\"('default_transaction_read_only', 'off', false)"),
    _raw("SELECT U&\"s\\0065t_config\"('default_transaction_read_only', 'off', false)"),
    _raw_then_insert("BEGIN READ WRITE"),
    _raw_then_insert("START TRANSACTION READ WRITE"),
    _raw_then_insert("END"),
    _raw_then_insert("ABORT"),
    _raw("PREPARE TRANSACTION 'evil'"),
    _raw(f"DO $$ BEGIN {INSERT}; END $$"),
    _raw("SELECT lo_create(0)"),
    _raw("SELECT * INTO evil FROM plains"),
    _raw("SELECT * FROM counters FOR UPDATE"),
    _raw("WITH x AS (INSERT INTO plains (id, value) VALUES (66, 6) RETURNING id) SELECT * FROM x"),
    _raw(f"EXPLAIN ANALYZE {INSERT}"),
    _raw("SELECT nextval('plains_id_seq')"),
    _raw("SELECT setval('plains_id_seq', 100)"),
    _raw("COPY plains FROM PROGRAM 'echo 66'"),
    _raw("TRUNCATE plains"),
    _raw("NOTIFY evil"),
    _raw("CREATE TEMP TABLE evil (id INTEGER)"),
    *(
        _without_parameters(statement)
        for statement in (
            f"COMMIT; BEGIN READ WRITE; {INSERT}; COMMIT",
            f"SELECT 1; COMMIT; BEGIN READ WRITE; {INSERT}; COMMIT",
            f"SELECT '\\'; COMMIT; BEGIN READ WRITE; {INSERT}; COMMIT; SELECT '",
            f"SELECT 1 --\r; COMMIT; BEGIN READ WRITE; {INSERT}; COMMIT",
            f"SELECT 1 AS a$$; COMMIT; BEGIN READ WRITE; {INSERT}; COMMIT; SELECT 1 AS a$$",
            f'SELECT 1 AS "😀"; COMMIT; BEGIN READ WRITE; {INSERT}; COMMIT',
            f"SELECT /* /* */ 1 */ 1; COMMIT; BEGIN READ WRITE; {INSERT}; COMMIT",
        )
    ),
]


def _attacks(kind: str) -> list[Attack]:
    return ATTACKS + (SQLITE_ATTACKS if kind == "sqlite" else POSTGRESQL_ATTACKS)


@pytest.fixture
def intact(counters: Database) -> Iterator[Database]:
    """A database that must be as before at the end."""
    yield counters
    with counters.session() as session:
        assert session.scalars(select(Plain.id)).all() == []
        row = session.scalars(select(Counter)).one()
        assert (row.id, row.value, row.version, row.meta) == (1, 0, 1, {"deep": {"list": [1, {"a": 1}]}})
        connection = session.connection()
        assert not connection.dialect.has_table(connection, "evil")


async def test_no_attack_writes(intact: Database) -> None:
    """Each attempt is refused by our own error, and the session's next user is not affected."""
    outcomes = {}
    for attack in _attacks("sqlite" if intact.is_sqlite else "postgresql"):
        with intact.new_readonly_session() as session:
            outcomes[attack.__name__] = _attempt(session, attack)
            session.rollback()
        with intact.readonly_session() as session:
            assert session.scalar(select(Counter.value)) == 0
    assert {name: outcome for name, outcome in outcomes.items() if outcome != "refused"} == {}


async def test_no_attack_writes_through_async_sessions(intact: Database) -> None:
    """The same attempts on the async twin."""
    outcomes = {}
    for attack in _attacks("sqlite" if intact.is_sqlite else "postgresql"):
        async with intact.new_async_readonly_session() as session:
            outcomes[attack.__name__] = await session.run_sync(_attempt, attack)
            await session.rollback()
        async with intact.async_readonly_session() as session:
            assert await session.scalar(select(Counter.value)) == 0
    assert {name: outcome for name, outcome in outcomes.items() if outcome != "refused"} == {}


def _attempt(session: Session, attack: Attack) -> str:
    try:
        attack(session)
        session.commit()
    except ReadOnlySessionError:
        return "refused"
    except OperationalError as error:
        return "refused" if "cannot VACUUM" in str(error) else repr(error)  # before it is asked who may
    except Exception as error:  # noqa: BLE001 - what else it may be is the question
        return repr(error)
    return "let through"


async def test_reading_works(intact: Database) -> None:
    """Everything that only reads is let through, with quotes, comments and semicolons in it."""
    statements = [
        "SELECT count(*) FROM counters",
        "SELECT ';' || 'it''s; fine' AS \"a;b\" ",
        "SELECT 1; ",
        "WITH x AS (SELECT 1 AS one) SELECT * FROM x",
        "/* first; */ SELECT 1 -- last; DELETE",
        "(SELECT 1)" if not intact.is_sqlite else "VALUES (1)",
        "EXPLAIN SELECT 1",
    ]
    with intact.readonly_session() as session:
        for statement in statements:
            assert session.execute(text(statement.replace(":", "\\:"))).all()
        with session.begin_nested():
            assert session.get_one(Counter, 1).meta
        assert len(list(session.execute(select(Counter.id).execution_options(yield_per=10)))) == 1
        if intact.is_sqlite:
            assert session.execute(text("PRAGMA table_info(counters)")).all()


async def test_a_read_only_session_sees_one_state(intact: Database) -> None:
    """From its first query to its end nothing that others commit shows up."""
    with intact.readonly_session() as reader:
        assert reader.scalar(select(Counter.value)) == 0
        with intact.session() as writer:
            writer.execute(update(Counter).values(value=1))
        assert reader.scalar(select(Counter.value)) == 0
    with intact.session() as writer:
        writer.execute(update(Counter).values(value=0, version=1))


async def test_reading_before_anything_was_written(database: Database) -> None:
    """The reading engine works first, on a database that did not even exist."""
    with database.readonly_session() as session:
        assert session.scalar(text("SELECT 1")) == 1
    await database.aclose()


@pytest.mark.parametrize(
    "statement", ["SELECT E'\\'; COMMIT; SELECT E'", "SELECT $a$;$a$", "SELECT $1", "TABLE plains"]
)
def test_quoting_is_read_as_postgresql_does(statement: str) -> None:
    """A semicolon inside quotes of any kind is no second statement."""
    check_reading(statement)
