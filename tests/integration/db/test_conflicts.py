"""Read-modify-write by several at once."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from pixsim7_backend.db import ConflictError, Database
from pixsim7_backend.db.conflicts import lock_row, lock_row_async, retry_on_conflict, retry_on_conflict_async
from tests.integration.db.models import Counter

pytestmark = pytest.mark.anyio

TIMES = 24


def _values(database: Database) -> list[int]:
    with database.session() as session:
        row = session.get_one(Counter, 1)
        assert row.value == len(row.marks) - 1
        return [int(mark) for mark in row.marks[1:]]


def _interfere(database: Database) -> None:
    """Change the row from another transaction."""
    with database.session() as session:
        session.execute(update(Counter).values(version=Counter.version + 1, name="other"))


async def test_locking_makes_concurrent_changes_add_up(counters: Database) -> None:
    """Each of many threads sees what the one before has stored."""

    def work(number: int) -> None:
        with counters.session() as session:
            session.get_one(Counter, 1)  # an old state in memory must not matter
            row = lock_row(session, Counter, 1)
            assert row is not None
            row.value += 1
            row.marks.append(number)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(TIMES)))
    assert sorted(_values(counters)) == list(range(TIMES))


async def test_async_locking_makes_concurrent_changes_add_up(counters: Database) -> None:
    """The same with coroutines."""

    async def work(number: int) -> None:
        async with counters.async_session() as session:
            row = await lock_row_async(session, Counter, 1)
            assert row is not None
            row.value += 1
            row.marks.append(number)

    await asyncio.gather(*(work(number) for number in range(TIMES)))
    assert sorted(_values(counters)) == list(range(TIMES))


async def test_locking_keeps_what_was_not_stored_yet(counters: Database) -> None:
    """A change made before the lock is taken is not lost when the row is read again."""
    with counters.session() as session:
        session.get_one(Counter, 1).meta["before"] = 1
        row = lock_row(session, Counter, 1)
        assert row is not None
        row.meta["after"] = 2
        assert lock_row(session, Counter, 404) is None
    with counters.session() as session:
        meta = session.get_one(Counter, 1).meta
        assert (meta["before"], meta["after"]) == (1, 2)


async def test_retrying_makes_concurrent_changes_add_up(counters: Database) -> None:
    """Without a lock the row version finds the lost races, and they are run again."""
    barrier = threading.Barrier(3)

    def work(number: int) -> None:
        with counters.session() as session:

            def change() -> None:
                row = session.scalars(select(Counter).where(Counter.id == 1)).one()
                row.value += 1
                row.marks.append(number)

            retry_on_conflict(session, change, attempts=20)

    def work_together(number: int) -> None:
        barrier.wait(20)
        work(number)

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(work_together, range(TIMES)))
    assert sorted(_values(counters)) == list(range(TIMES))


async def test_a_race_lost_every_time_is_a_conflict(counters: Database) -> None:
    """After the last attempt nothing is written, and what was done before is still there."""
    if counters.is_sqlite:
        pytest.skip("on SQLite the transaction is the only writer: nobody can interfere")
    attempts = 0
    with counters.session() as session:
        session.add(Counter(id=2, name="before"))

        def change() -> None:
            nonlocal attempts
            attempts += 1
            row = session.scalars(select(Counter).where(Counter.id == 1)).one()
            row.value += 1
            row.meta["lost"] = True
            _interfere(counters)

        with pytest.raises(ConflictError, match="in each of 3 attempts"):
            retry_on_conflict(session, change, attempts=3)
    assert attempts == 3
    with counters.session() as session:
        row = session.get_one(Counter, 1)
        assert (row.value, row.name, "lost" in row.meta) == (0, "other", False)
        assert session.get_one(Counter, 2).name == "before"


async def test_a_race_lost_once_is_retried_async(counters: Database) -> None:
    """The async twin reads again and succeeds."""
    async with counters.async_session() as session:
        seen = []

        async def change() -> str | None:
            row = (await session.scalars(select(Counter).where(Counter.id == 1))).one()
            row.value += 1
            seen.append(row.name)
            if len(seen) == 1 and not counters.is_sqlite:
                await asyncio.to_thread(_interfere, counters)
            return row.name

        result = await retry_on_conflict_async(session, change)
    assert seen == (["first"] if counters.is_sqlite else ["first", "other"])
    assert result == seen[-1]


async def test_other_errors_are_not_retried(counters: Database) -> None:
    """What is no lost race comes through at once."""
    calls: list[int] = []

    def change() -> None:
        calls.append(1)
        raise KeyError

    with counters.session() as session, pytest.raises(KeyError):
        retry_on_conflict(session, change)
    assert calls == [1]


async def test_writing_over_a_newer_row_is_never_silent(counters: Database) -> None:
    """A row that was loaded before somebody else changed it cannot be stored."""
    with counters.new_session() as session:
        row = session.get_one(Counter, 1)
        session.commit()
        _interfere(counters)
        row.value = 9
        with pytest.raises(StaleDataError):
            session.commit()


async def test_two_sessions_in_one_thread_do_not_hang_for_ever(counters: Database) -> None:
    """A second writer that can never get its turn is told so in time, and the first one goes on."""

    def take(session: Session) -> None:
        session.execute(update(Counter).values(value=Counter.value + 1))

    with counters.session() as first:
        take(first)
        with counters.new_session() as second, pytest.raises(Exception, match=r"was not free within|lock timeout"):
            await asyncio.to_thread(_with_short_patience, counters, second, take)
    assert counters.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    with counters.session() as session:
        assert session.get_one(Counter, 1).value == 1


def _with_short_patience(database: Database, session: Session, work: object) -> None:
    assert callable(work)
    if database.is_sqlite:
        monkeypatch = pytest.MonkeyPatch()
        with monkeypatch.context() as patch:
            patch.setattr("pixsim7_backend.db.sqlite.GATE_TIMEOUT", 0.2)
            work(session)
    else:
        session.connection().exec_driver_sql("SET LOCAL lock_timeout = '200ms'")
        work(session)
