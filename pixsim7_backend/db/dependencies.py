"""The session dependencies: committed before the response starts, rolled back on any error."""

from __future__ import annotations

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
"""Scope key under which FastAPI keeps the stack that it leaves between the endpoint and the response."""


def database_of(connection: HTTPConnection) -> Database:
    """Return the database that the app put into ``app.state.database``, or else the process's."""
    database = getattr(connection.app.state, "database", None)
    return database if isinstance(database, Database) else default_database()


async def get_db(connection: HTTPConnection) -> Session:
    """Give the request's session. What it wrote is committed before the response starts."""
    session = database_of(connection).new_session()
    _finish_before_response(connection, session)
    return session


async def get_db_readonly(connection: HTTPConnection) -> Session:
    """Give the request's session that cannot write, whatever SQL is run on it."""
    session = database_of(connection).new_readonly_session()
    _finish_before_response(connection, session)
    return session


async def get_async_db(connection: HTTPConnection) -> AsyncSession:
    """Async twin of :func:`get_db`."""
    session = database_of(connection).new_async_session()
    _finish_async_before_response(connection, session)
    return session


async def get_async_db_readonly(connection: HTTPConnection) -> AsyncSession:
    """Async twin of :func:`get_db_readonly`."""
    session = database_of(connection).new_async_readonly_session()
    _finish_async_before_response(connection, session)
    return session


DbSession = Annotated[Session, Depends(get_db)]
ReadOnlyDb = Annotated[Session, Depends(get_db_readonly)]
AsyncDbSession = Annotated[AsyncSession, Depends(get_async_db)]
AsyncReadOnlyDb = Annotated[AsyncSession, Depends(get_async_db_readonly)]


def _before_response(connection: HTTPConnection) -> AsyncExitStack:
    stack = connection.scope.get(_BEFORE_RESPONSE)
    if not isinstance(stack, AsyncExitStack):
        raise CommitPointError(fastapi.__version__)
    return stack


def _finish_before_response(connection: HTTPConnection, session: PlatformSession) -> None:
    async def finish(
        kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_end, session, kind is None)

    _before_response(connection).push_async_exit(finish)


def _end(session: Session, is_success: bool) -> None:
    try:
        if is_success:
            session.commit()
    finally:
        session.close()


def _finish_async_before_response(connection: HTTPConnection, session: AsyncSession) -> None:
    async def finish(
        kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            try:
                if kind is None:
                    await session.commit()
            finally:
                await session.close()

    _before_response(connection).push_async_exit(finish)
