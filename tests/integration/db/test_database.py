"""The life of a database object."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref
from pathlib import Path

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.orm import Mapped, mapped_column

from pixsim7_backend.db import Database
from pixsim7_backend.db.models import dispose_plugin_base, plugin_base
from tests.integration.db.models import Counter

pytestmark = pytest.mark.anyio


async def test_nothing_is_opened_before_it_is_needed(tmp_path: Path) -> None:
    """Making one and closing it leaves no trace."""
    database = Database(f"sqlite:///{tmp_path / 'new' / 'x.sqlite3'}")
    database.close()
    await database.aclose()
    assert database.file is not None
    assert not database.file.parent.exists()


async def test_it_can_be_used_again_after_it_was_closed(counters: Database) -> None:
    """Closing closes connections, nothing else."""
    for _ in range(2):
        with counters.session() as session:
            session.get_one(Counter, 1).value += 1
        async with counters.async_readonly_session() as reader:
            value = await reader.scalar(select(Counter.value))
        await counters.aclose()
    assert value == 2


def test_closing_without_a_loop_closes_async_connections_too(counters_url: str) -> None:
    """A command that used async sessions inside ``asyncio.run`` may close afterwards."""
    database = Database(counters_url)

    async def use() -> int | None:
        async with database.async_session() as session:
            return await session.scalar(select(Counter.id))

    assert asyncio.run(use()) == 1
    database.close()
    database.close()
    assert asyncio.run(use()) == 1
    database.close()


async def test_closing_async_connections_in_a_loop_must_be_awaited(counters: Database) -> None:
    """The blocking close would stop the loop that it waits for, so it refuses."""
    async with counters.async_readonly_session() as session:
        await session.scalar(select(Counter.id))
    with pytest.raises(RuntimeError, match=r"await aclose\(\)"):
        counters.close()


@pytest.mark.parametrize("count", [0, 40, -1])
def test_more_requests_than_threads_are_refused(count: int) -> None:
    """Waiting requests could otherwise use up all threads."""
    with pytest.raises(ValueError, match="at most 39 requests"):
        Database("sqlite:///x.sqlite3", max_requests=count)


async def test_writers_in_one_process_do_not_fail(counters: Database) -> None:
    """Threads and coroutines that write at once wait for each other, and every change counts."""

    def in_thread() -> None:
        for _ in range(5):
            with counters.session() as session:
                session.execute(update(Counter).values(value=Counter.value + 1))

    async def in_coroutine() -> None:
        for _ in range(5):
            async with counters.async_session() as session:
                await session.execute(update(Counter).values(value=Counter.value + 1))

    await asyncio.gather(*(asyncio.to_thread(in_thread) for _ in range(6)), *(in_coroutine() for _ in range(6)))
    with counters.readonly_session() as session:
        assert session.scalar(select(Counter.value)) == 60


async def test_readers_do_not_wait_for_a_writer(counters: Database) -> None:
    """They see what was committed before, at once."""
    with counters.session() as writer:
        writer.execute(update(Counter).values(value=5))
        with counters.readonly_session() as reader:
            assert reader.scalar(select(Counter.value)) == 0
        async with counters.async_readonly_session() as async_reader:
            assert await async_reader.scalar(select(Counter.value)) == 0


async def test_another_process_that_writes_is_waited_for(counters: Database) -> None:
    """A lock that is held elsewhere for a moment is no error."""
    other = Database(counters.url.render_as_string(hide_password=False))
    taken, release = threading.Event(), threading.Event()

    def hold() -> None:
        with other.session() as session:
            session.execute(update(Counter).values(value=1))
            taken.set()
            release.wait(5)

    holder = threading.Thread(target=hold)
    holder.start()
    await asyncio.to_thread(taken.wait, 5)
    threading.Timer(0.2, release.set).start()
    with counters.session() as session:
        session.execute(update(Counter).values(value=Counter.value + 1))
    holder.join()
    other.close()
    with counters.readonly_session() as session:
        assert session.scalar(select(Counter.value)) == 2


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_leaves_the_connections_to_its_parent(counters_url: str) -> None:
    """A child that was forked while connections were open makes its own; the parent's go on working."""
    database = Database(counters_url)
    with database.session() as session:
        session.execute(update(Counter).values(value=Counter.value + 1))
        with database.readonly_session() as reader:
            reader.scalar(text("SELECT 1"))
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        code = 1
        try:
            with database.session() as session:
                session.execute(update(Counter).values(value=Counter.value + 1))
            with database.readonly_session() as session:
                code = 0 if session.scalar(select(Counter.value)) == 2 else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    with database.session() as session:
        assert session.scalar(select(Counter.value)) == 2
    database.close()


def test_tables_die_with_the_models_that_are_given_up(database: Database) -> None:
    """Statements that were run leave nothing behind that keeps a disposed base's tables in memory."""
    base = plugin_base("passing")

    class Guest(base):
        __tablename__ = "guests"
        id: Mapped[int] = mapped_column(primary_key=True)

    base.metadata.create_all(database.engine)
    with database.session() as session:
        session.add(Guest())
        session.flush()
    with database.readonly_session() as session:
        assert len(session.scalars(select(Guest)).all()) == 1
    table = weakref.ref(Guest.__table__)
    dispose_plugin_base("passing", base)
    del Guest, base, session
    gc.collect()
    assert table() is None
