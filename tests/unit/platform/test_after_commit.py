"""Events announced after a commit: never before it, not at all after a roll-back, savepoints followed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from pixsim7_backend.infrastructure.plugins._hooks.bus import HookBus
from pixsim7_backend.infrastructure.plugins._ledger.ownership import AppKey, Entry, Owner, current_owner, running_as

pytestmark = pytest.mark.anyio


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    engine = create_engine(f"sqlite:///{tmp_path}/events.db")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE quest (id INTEGER PRIMARY KEY)"))
    with Session(engine) as session:
        yield session
    engine.dispose()


class Listening:
    def __init__(self) -> None:
        self.bus = HookBus()
        self.heard: list[Any] = []
        self.bus.register("quest:finished", self.heard.append)

    async def settled(self) -> list[Any]:
        await self.bus.settle()
        return self.heard


async def test_an_event_is_told_after_the_commit_and_in_order(session: Session) -> None:
    """Nothing is heard before the commit; then everything, in the order of its announcement."""
    listening = Listening()
    session.execute(text("INSERT INTO quest VALUES (1)"))
    listening.bus.emit_after_commit(session, "quest:finished", 1)
    listening.bus.emit_after_commit(session, "quest:finished", 2)
    assert await listening.settled() == []
    session.commit()
    assert listening.heard == []  # the committing code does not wait for the handlers
    assert await listening.settled() == [1, 2]


async def test_a_rolled_back_event_is_never_told(session: Session) -> None:
    """Also not by the next commit of the same session, and not after a close."""
    listening = Listening()
    session.execute(text("INSERT INTO quest VALUES (1)"))
    listening.bus.emit_after_commit(session, "quest:finished", 1)
    session.rollback()
    session.execute(text("INSERT INTO quest VALUES (1)"))
    session.commit()
    assert await listening.settled() == []
    session.execute(text("INSERT INTO quest VALUES (2)"))
    listening.bus.emit_after_commit(session, "quest:finished", 2)
    session.close()
    session.execute(text("INSERT INTO quest VALUES (3)"))
    listening.bus.emit_after_commit(session, "quest:finished", 3)
    session.commit()
    assert await listening.settled() == [3]


async def test_savepoints_decide_over_what_was_announced_inside(session: Session) -> None:
    """A released savepoint hands its events to its parent; a rolled back one takes them along."""
    listening = Listening()
    emit = listening.bus.emit_after_commit
    session.execute(text("INSERT INTO quest VALUES (1)"))
    emit(session, "quest:finished", "root")
    with session.begin_nested():
        emit(session, "quest:finished", "released")
        with session.begin_nested():
            emit(session, "quest:finished", "inner released")
    with session.begin_nested() as savepoint:
        emit(session, "quest:finished", "rolled back")
        with session.begin_nested():
            emit(session, "quest:finished", "released into the rolled back one")
        savepoint.rollback()
    assert await listening.settled() == []
    session.commit()
    assert await listening.settled() == ["root", "released", "inner released"]


async def test_it_works_from_a_worker_thread_as_in_sync_endpoints(session: Session) -> None:
    """The handlers run on the loop of the app whose code runs, not in the thread."""
    listening = Listening()
    loops: list[asyncio.AbstractEventLoop] = []
    listening.bus.register("quest:finished", lambda _quest: loops.append(asyncio.get_running_loop()))
    app = AppKey(loop=asyncio.get_running_loop())

    def endpoint() -> None:
        session.execute(text("INSERT INTO quest VALUES (1)"))
        listening.bus.emit_after_commit(session, "quest:finished", 1)
        session.commit()

    with running_as(Owner(app, "quests", 1, "quests", "/quests/"), Entry.REQUEST):
        await anyio.to_thread.run_sync(endpoint)
    assert await listening.settled() == [1]
    assert loops == [asyncio.get_running_loop()]


async def test_handlers_are_not_tasks_of_the_plugin_that_emitted(session: Session) -> None:
    """Disabling the emitter does not cancel other plugins' handlers: nobody owns the delivering task."""
    bus = HookBus()
    owners: list[Owner | None] = []
    bus.register("quest:finished", lambda: owners.append(current_owner()))
    owner = Owner(AppKey(), "quests", 1, "quests", "/quests/")
    with running_as(owner, Entry.REQUEST):
        session.execute(text("INSERT INTO quest VALUES (1)"))
        bus.emit_after_commit(session, "quest:finished")
        session.commit()
    await bus.settle()
    assert owners == [None]
    assert owner.ledger.tasks == ()


def test_without_a_loop_the_handlers_run_at_the_commit(session: Session) -> None:
    """A command-line tool that commits has told everybody when the commit returns."""
    listening = Listening()
    session.execute(text("INSERT INTO quest VALUES (1)"))
    listening.bus.emit_after_commit(session, "quest:finished", 1)
    session.commit()
    assert listening.heard == [1]
