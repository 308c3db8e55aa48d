"""Announce what a transaction causes once it is committed, never before, and not at all if it is rolled back.

An event told earlier would be a lie after a roll-back, and on SQLite a handler that writes would wait
for the very transaction that waits for it. Savepoints are followed: what was announced inside one that
is rolled back is forgotten. SQLAlchemy is imported only here and only when somebody hands in a session.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Protocol

from pixsim7_backend.infrastructure.plugins._ledger.ownership import running_as_host

logger = logging.getLogger("pixsim7.plugins")

_KEY = "pixsim7_announcements"


class Bus(Protocol):
    """What events are emitted on."""

    def emit(self, event: str, *args: Any, **kwargs: Any) -> Awaitable[object]: ...


class SessionLike(Protocol):
    """What is needed of a SQLAlchemy ``Session``: its ``info`` and its nested transaction."""

    info: dict[Any, Any]

    def get_nested_transaction(self) -> Any: ...


@dataclass(slots=True)
class _Announcement:
    event: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    savepoint: Any


class AfterCommit:
    """Queues events on sessions and emits them after the commit, on the event loop they belong to.

    The events of one transaction are emitted in order, by one task that nobody waits for;
    :meth:`settle` waits for those under way.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._under_way: set[asyncio.Task[None]] = set()

    def announce(
        self,
        session: SessionLike,
        loop: asyncio.AbstractEventLoop | None,
        event: str,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Emit ``event`` when ``session`` commits. ``loop`` runs the handlers; None: they run at once."""
        queue: list[_Announcement] | None = session.info.get(_KEY)
        if queue is None:
            queue = session.info[_KEY] = []
            self._listen(session, queue, loop)
        queue.append(_Announcement(event, args, kwargs, session.get_nested_transaction()))

    def _listen(self, session: Any, queue: list[_Announcement], loop: asyncio.AbstractEventLoop | None) -> None:
        from sqlalchemy import event as sqlalchemy_event

        def committed(session: Any) -> None:
            savepoint = session.get_nested_transaction()
            if savepoint is not None:  # released: what it announced now stands or falls with its parent
                outer = savepoint.parent if savepoint.parent.nested else None
                for announcement in queue:
                    if announcement.savepoint is savepoint:
                        announcement.savepoint = outer
            elif queue:
                batch = tuple(queue)
                queue.clear()
                self._schedule(batch, loop)

        def rolled_back(_session: Any, transaction: Any) -> None:
            if transaction.nested:
                queue[:] = [announcement for announcement in queue if announcement.savepoint is not transaction]

        def ended(_session: Any, transaction: Any) -> None:
            if transaction.parent is None:
                queue.clear()  # rolled back, or closed without a commit

        sqlalchemy_event.listen(session, "after_commit", committed)
        sqlalchemy_event.listen(session, "after_soft_rollback", rolled_back)
        sqlalchemy_event.listen(session, "after_transaction_end", ended)

    def _schedule(self, batch: tuple[_Announcement, ...], loop: asyncio.AbstractEventLoop | None) -> None:
        with running_as_host():
            context = contextvars.copy_context()
        if loop is None or loop.is_closed():
            context.run(asyncio.run, self._deliver(batch))
        else:
            loop.call_soon_threadsafe(self._start, batch, context, context=context)

    def _start(self, batch: tuple[_Announcement, ...], context: contextvars.Context) -> None:
        task = asyncio.get_running_loop().create_task(self._deliver(batch), name="after-commit", context=context)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _deliver(self, batch: tuple[_Announcement, ...]) -> None:
        for announcement in batch:
            await self._bus.emit(announcement.event, *announcement.args, **announcement.kwargs)

    async def settle(self) -> None:
        """Wait until everything that was committed so far is announced on this loop."""
        await asyncio.sleep(0)  # what another thread scheduled just now starts first
        loop = asyncio.get_running_loop()
        while tasks := [task for task in self._under_way if task.get_loop() is loop and not task.done()]:
            await asyncio.wait(tasks)
