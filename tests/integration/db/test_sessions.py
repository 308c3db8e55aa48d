"""What a session stores."""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from pixsim7_backend.db import Database, UnstorableValueError
from tests.integration.db.models import Counter, Plain

pytestmark = pytest.mark.anyio


def _stored(database: Database) -> Counter:
    with database.session() as session:
        return session.scalars(select(Counter).where(Counter.id == 1)).one()


def _change_nested(row: Counter) -> None:
    row.meta["deep"]["list"][1]["a"] = 2


def _swap_int_for_bool(row: Counter) -> None:
    row.meta["deep"]["list"][0] = True


def _keep_own_reference(row: Counter) -> None:
    inner: dict[str, Any] = {}
    row.meta["own"] = inner
    inner["late"] = [1]


def _update_with_operator(row: Counter) -> None:
    row.meta |= {"x": None}
    row.meta["deep"] |= {"y": 1.5}


def _assign_the_same_object(row: Counter) -> None:
    changed = row.meta
    changed["x"] = 1
    row.meta = changed


def _clear(row: Counter) -> None:
    row.meta.clear()


def _sort_list(row: Counter) -> None:
    row.marks += [0, -1]
    row.marks.sort()


@pytest.mark.parametrize(
    ("change", "meta", "marks"),
    [
        (_change_nested, {"deep": {"list": [1, {"a": 2}]}}, [1]),
        (_swap_int_for_bool, {"deep": {"list": [True, {"a": 1}]}}, [1]),
        (_keep_own_reference, {"deep": {"list": [1, {"a": 1}]}, "own": {"late": [1]}}, [1]),
        (_update_with_operator, {"deep": {"list": [1, {"a": 1}], "y": 1.5}, "x": None}, [1]),
        (_assign_the_same_object, {"deep": {"list": [1, {"a": 1}]}, "x": 1}, [1]),
        (_clear, {}, [1]),
        (_sort_list, {"deep": {"list": [1, {"a": 1}]}}, [-1, 0, 1]),
    ],
)
async def test_in_place_changes_of_json_are_stored(
    counters: Database, change: Callable[[Counter], None], meta: dict[str, Any], marks: list[Any]
) -> None:
    """Whatever is done to a JSON value that was loaded reaches the database."""
    with counters.session() as session:
        change(session.scalars(select(Counter)).one())
    row = _stored(counters)
    assert json.dumps(row.meta, sort_keys=True) == json.dumps(meta, sort_keys=True)
    assert row.marks == marks


async def test_a_change_without_a_variable_is_stored(counters: Database) -> None:
    """The row is not lost when nothing but the session could refer to it."""
    with counters.session() as session:
        session.get_one(Counter, 1).meta["x"] = 1
        gc.collect()
    assert _stored(counters).meta["x"] == 1


async def test_a_second_change_after_a_flush_and_after_a_commit_is_stored(counters: Database) -> None:
    """The comparison is with what was stored last, not with what was loaded first."""
    with counters.new_session() as session:
        row = session.get_one(Counter, 1)
        row.meta["n"] = 1
        session.flush()
        row.meta["n"] = 2
        session.commit()
        row.meta["n"] = 3
        session.commit()
        row.meta["n"] = 2
        row.meta["n"] = 3
        session.commit()
    stored = _stored(counters)
    assert stored.meta["n"] == 3
    assert stored.version == 4, "the last commit changed nothing, so it wrote nothing"


async def test_a_new_row_changed_after_its_insert_is_stored(counters: Database) -> None:
    """A row that was just inserted is watched like one that was loaded."""
    with counters.session() as session:
        row = Counter(id=2, meta={})
        session.add(row)
        session.flush()
        row.meta["late"] = True
        row.marks.append(7)
    with counters.session() as session:
        again = session.get_one(Counter, 2)
        assert (again.meta, again.marks) == ({"late": True}, [7])


async def test_queries_see_changes_made_in_place(counters: Database) -> None:
    """The flush before a query knows of them."""
    with counters.session() as session:
        row = session.get_one(Counter, 1)
        row.meta["colour"] = "red"
        assert session.scalars(select(Counter.id).where(Counter.meta["colour"].as_string() == "red")).all() == [1]


async def test_a_savepoint_that_is_rolled_back_takes_its_changes_with_it(counters: Database) -> None:
    """In-place changes inside a savepoint are undone, those before it stay."""
    with counters.session() as session:
        row = session.get_one(Counter, 1)
        row.meta["kept"] = 1
        savepoint = session.begin_nested()
        row.meta["undone"] = 1
        savepoint.rollback()
        assert row.meta.get("kept") == 1
        assert "undone" not in row.meta
    meta = _stored(counters).meta
    assert meta["kept"] == 1
    assert "undone" not in meta


async def test_a_plain_sqlalchemy_session_stores_in_place_changes_too(counters: Database) -> None:
    """A commit is enough; the session need not be one of ours."""
    with Session(counters.engine) as session:
        row = session.get_one(Counter, 1)
        row.meta["x"] = 1
        session.commit()
    assert _stored(counters).meta["x"] == 1


async def test_async_sessions_store_in_place_changes(counters: Database) -> None:
    """The async twin behaves the same."""
    async with counters.async_session() as session:
        row = await session.get_one(Counter, 1)
        row.meta["deep"]["list"].append("async")
    assert _stored(counters).meta["deep"]["list"] == [1, {"a": 1}, "async"]


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, "a\x00b", {"a\x00": 1}, "\ud800", {1, 2}, datetime(2026, 1, 1, tzinfo=UTC)],
    ids=["nan", "inf", "nul", "nul in a key", "surrogate", "set", "datetime"],
)
async def test_json_that_one_database_would_refuse_is_refused_by_both(counters: Database, value: object) -> None:
    """What PostgreSQL would not take or give back changed never gets into SQLite either."""
    with pytest.raises(UnstorableValueError), counters.session() as session:
        session.get_one(Counter, 1).meta["x"] = value
    assert _stored(counters).meta == {"deep": {"list": [1, {"a": 1}]}}


async def test_a_backslash_before_u0000_is_no_nul(counters: Database) -> None:
    """Text that only looks like an escaped NUL is stored as it is."""
    with counters.session() as session:
        session.get_one(Counter, 1).meta["x"] = "\\u0000"
    assert _stored(counters).meta["x"] == "\\u0000"


async def test_the_wrong_container_is_refused(counters: Database) -> None:
    """A JSON object column takes no list."""
    with pytest.raises(UnstorableValueError, match="a JSON dict is wanted, not list"), counters.session() as session:
        session.get_one(Counter, 1).meta = []  # type: ignore[assignment]


async def test_deeply_nested_json_is_refused_not_a_crash(counters: Database) -> None:
    """JSON beyond the interpreter's recursion is an error that says so."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(UnstorableValueError, match="nested too deeply"), counters.session() as session:
        session.get_one(Counter, 1).marks = deep
    while deep:
        deep = deep.pop()


@pytest.mark.parametrize("number", [2**31, 2**63, -(2**70)])
async def test_numbers_beyond_the_column_are_refused(counters: Database, number: int) -> None:
    """A number that the column cannot hold is our own error, whatever the driver raises."""
    if counters.is_sqlite and number == 2**31:
        pytest.skip("SQLite's integers have 64 bits")
    with pytest.raises(UnstorableValueError), counters.session() as session:
        session.add(Plain(value=number))


@pytest.mark.parametrize("name", ["\ud800", "a\x00b"])
async def test_text_that_is_not_unicode_is_refused(counters: Database, name: str) -> None:
    """Lone surrogates, and on PostgreSQL NUL, are our own error."""
    if counters.is_sqlite and "\x00" in name:
        pytest.skip("SQLite stores NUL")
    with pytest.raises(UnstorableValueError), counters.session() as session:
        session.add(Counter(name=name))


async def test_times_come_back_aware_and_in_utc(counters: Database) -> None:
    """A time in any zone is the same moment when it is read, to the microsecond."""
    moment = datetime(2026, 3, 29, 2, 30, 0, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    with counters.session() as session:
        session.get_one(Counter, 1).due_at = moment
    row = _stored(counters)
    assert row.due_at == moment
    assert row.due_at is not None
    assert row.due_at.tzinfo is UTC
    assert row.created_at.tzinfo is UTC
    with counters.session() as session:
        assert session.scalars(select(Counter.id).where(Counter.due_at >= moment)).all() == [1]
        assert session.scalars(select(Counter.id).where(Counter.due_at < moment)).all() == []


async def test_a_naive_time_is_refused(counters: Database) -> None:
    """Nobody knows what a time without a zone means."""
    with pytest.raises(UnstorableValueError, match="is not a datetime with a time zone"), counters.session() as session:
        session.get_one(Counter, 1).due_at = datetime(2026, 1, 1)  # noqa: DTZ001


async def test_updating_moves_updated_at_and_version(counters: Database) -> None:
    """An in-place change counts as a change of the row."""
    before = _stored(counters)
    with counters.session() as session:
        session.get_one(Counter, 1).meta["x"] = 1
    after = _stored(counters)
    assert after.version == before.version + 1
    assert after.updated_at > before.updated_at
    assert after.created_at == before.created_at


def _fail(session: Session) -> None:
    session.get_one(Counter, 1).value = 5
    session.flush()
    raise RuntimeError


async def test_an_exception_rolls_back(counters: Database) -> None:
    """Nothing of a session that fails is stored, in both twins."""
    with pytest.raises(RuntimeError), counters.session() as session:
        _fail(session)
    with pytest.raises(RuntimeError):
        async with counters.async_session() as async_session:
            await async_session.run_sync(_fail)
    assert _stored(counters).value == 0


async def test_sqlite_enforces_foreign_keys_and_waits(counters: Database) -> None:
    """The connection settings that SQLite leaves off by default are on."""
    if not counters.is_sqlite:
        pytest.skip("SQLite only")
    with counters.session() as session:
        found = [session.scalar(text(f"PRAGMA {name}")) for name in ("foreign_keys", "journal_mode", "busy_timeout")]
    assert found == [1, "wal", 5000]


async def test_a_duplicate_is_an_integrity_error(counters: Database) -> None:
    """SQLAlchemy's own type comes through, so that it can be mapped."""
    with pytest.raises(IntegrityError), counters.session() as session:
        session.add(Counter(name="first"))
