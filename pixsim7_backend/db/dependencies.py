"""The session dependencies: what a request writes is committed before its response starts.

FastAPI leaves ``yield`` dependencies after the response has been sent: a failing commit could not be
told any more, and the client's next request could miss the write. So these dependencies are plain
functions that put the end of their session on the stack which FastAPI leaves between the endpoint and
the response. An exception on the way (an ``HTTPException`` and cancellation too) rolls back.

After that the session can still be used, by a streaming body or a background task: reads go to the
connections that cannot write and hold nothing in between; writes need a commit of their own, and
what is left uncommitted is rolled back and logged as an error. In a WebSocket the commit is at its
end; commit in between.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Annotated

import anyio.to_thread
import fastapi
from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from starlette.requests import HTTPConnection

from .database import Database
from .default import default_database
from .errors import CommitPointError
from .sessions import PlatformSession

_BEFORE_RESPONSE = "fastapi_function_astack"
_AFTER_RESPONSE = "fastapi_inner_astack"
_ADMITTED = "pixsim7.db.admitted"

logger = logging.getLogger("pixsim7.db")


def database_of(connection: HTTPConnection) -> Database:
    """Return the database that the app put into ``app.state.database``, or else the process's."""
    database = getattr(connection.app.state, "database", None)
    return database if isinstance(database, Database) else default_database()


async def get_db(connection: HTTPConnection) -> Session:
    """Give the request's session. What it wrote is committed before the response starts."""
    return await _lend(connection, database_of(connection).new_session)


async def get_db_readonly(connection: HTTPConnection) -> Session:
    """Give the request's session that cannot write, whatever SQL is run on it."""
    return await _lend(connection, database_of(connection).new_readonly_session)


async def get_async_db(connection: HTTPConnection) -> AsyncSession:
    """Async twin of :func:`get_db`."""
    return await _lend_async(connection, database_of(connection).new_async_session)


async def get_async_db_readonly(connection: HTTPConnection) -> AsyncSession:
    """Async twin of :func:`get_db_readonly`."""
    return await _lend_async(connection, database_of(connection).new_async_readonly_session)


DbSession = Annotated[Session, Depends(get_db)]
ReadOnlyDb = Annotated[Session, Depends(get_db_readonly)]
AsyncDbSession = Annotated[AsyncSession, Depends(get_async_db)]
AsyncReadOnlyDb = Annotated[AsyncSession, Depends(get_async_db_readonly)]


async def _lend(connection: HTTPConnection, make: Callable[[], PlatformSession]) -> Session:
    before, after = _stack(connection, _BEFORE_RESPONSE), _stack(connection, _AFTER_RESPONSE)
    await _admit(connection, before)
    session = make()
    after.push_async_callback(_close, session)
    before.push_async_exit(_on_exit(lambda is_success: _finish(session, is_success)))
    return session


async def _lend_async(connection: HTTPConnection, make: Callable[[], AsyncSession]) -> AsyncSession:
    before, after = _stack(connection, _BEFORE_RESPONSE), _stack(connection, _AFTER_RESPONSE)
    await _admit(connection, before)
    session = make()
    after.push_async_callback(_close_async, session)
    before.push_async_exit(_on_exit(lambda is_success: _finish_async(session, is_success)))
    return session


def _stack(connection: HTTPConnection, key: str) -> AsyncExitStack:
    """Return one of FastAPI's stacks. The keys are private names of FastAPI: a series without them is refused."""
    stack = connection.scope.get(key)
    if not isinstance(stack, AsyncExitStack):
        raise CommitPointError(fastapi.__version__)
    return stack


async def _admit(connection: HTTPConnection, before: AsyncExitStack) -> None:
    """Wait for a place among the requests that use the database, one for all sessions of the request."""
    if connection.scope["type"] != "http" or connection.scope.get(_ADMITTED) is before:
        return  # a WebSocket may last for hours: it does not count
    place = await database_of(connection).admission.enter()
    before.callback(place.release)
    connection.scope[_ADMITTED] = before


_Exit = Callable[[type[BaseException] | None, BaseException | None, TracebackType | None], Awaitable[None]]


def _on_exit(finish: Callable[[bool], Awaitable[None]]) -> _Exit:
    async def leave(
        kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):  # a request that is cancelled must still let go of its locks
            await finish(kind is None)

    return leave


async def _finish(session: PlatformSession, is_success: bool) -> None:
    await _run_blocking(session, _commit if is_success else _roll_back)
    session.answer()


async def _finish_async(session: AsyncSession, is_success: bool) -> None:
    await session.run_sync(_commit if is_success else _roll_back)
    assert isinstance(session.sync_session, PlatformSession)
    session.sync_session.answer()


def _commit(session: Session) -> None:
    try:
        session.commit()
    except BaseException:
        session.rollback()
        raise


def _roll_back(session: Session) -> None:
    """Roll back; an error here (the connection is gone, so nothing is stored) must not hide the first one."""
    try:
        session.rollback()
    except Exception as error:  # noqa: BLE001 - whatever the driver raises
        logger.warning("a roll-back failed, the connection is dropped: %s", error)
        session.invalidate()


async def _run_blocking(session: PlatformSession, work: Callable[[PlatformSession], None]) -> None:
    """Run ``work`` in a thread of its own accord, not in FastAPI's pool: all of that may be waiting for this.

    What began on the event loop's thread (a blocking session in an ``async def`` endpoint) ends there,
    without a pause in which another such endpoint would block the loop waiting for it.
    """
    if not session.in_transaction() or session.began_on_event_loop:
        work(session)
    else:
        await anyio.to_thread.run_sync(work, session, limiter=anyio.CapacityLimiter(1))


async def _close(session: PlatformSession) -> None:
    with anyio.CancelScope(shield=True):
        await _run_blocking(session, _close_checked)


async def _close_async(session: AsyncSession) -> None:
    with anyio.CancelScope(shield=True):
        await session.run_sync(_close_checked)


def _close_checked(session: Session) -> None:
    assert isinstance(session, PlatformSession)
    if session.in_transaction() and session.has_uncommitted_writes:
        logger.error(
            "changes made after the response had started were not committed and are rolled back;"
            " commit them where they are made, or use `with database.session()`"
        )
    session.close()
