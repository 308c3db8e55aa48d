"""One database and its engines, each made when it is first needed."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakSet

from sqlalchemy import Engine, create_engine, inspect
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, QueuePool

from . import postgres, sqlite
from .admission import Admission
from .gate import WriteGate
from .sessions import PlatformSession
from .urls import parse_url, redact

_POOL_TIMEOUT = 30.0
_KEPT = 5
"""Connections that stay open when idle, per engine."""
_BESIDE_REQUESTS = 18
"""Connections for code outside of requests: tasks, event handlers, WebSockets, bodies that stream rows."""
_databases: WeakSet[Database] = WeakSet()


def forget_statements() -> None:
    """Drop the compiled statements that engines remember: they keep tables alive whose models are given up."""
    for database in tuple(_databases):
        database._forget_statements()


class Database:
    """Sessions of one database, for reading and writing or for reading only, blocking or async.

    ``url`` is what ``DATABASE_URL`` may hold. ``max_requests`` is how many requests of this process use
    it at once (1 to 39); further ones wait. Each may take a connection for writing and one for reading.
    Nothing is opened before it is needed. Close it with :meth:`close`, or :meth:`aclose` inside an
    event loop.

    Raises:
        DatabaseUrlError: the URL is malformed or not supported.
        ValueError: ``max_requests`` is out of range.
    """

    def __init__(self, url: str, *, max_requests: int | None = None) -> None:
        self.url = _absolute(parse_url(url))
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._mutex = threading.RLock()
        self._engines: dict[str, Engine | AsyncEngine] = {}
        usual = sqlite.MAX_REQUESTS if self.is_sqlite else postgres.MAX_REQUESTS
        self.admission = Admission(usual if max_requests is None else max_requests)
        self._gate = WriteGate()
        _databases.add(self)

    def __repr__(self) -> str:
        return f"Database({redact(self.url)!r})"

    @property
    def file(self) -> Path | None:
        """The file of a SQLite database, else None."""
        return Path(self.url.database) if self.is_sqlite and self.url.database else None

    @property
    def engine(self) -> Engine:
        """The blocking engine that writes."""
        return self._engine("writer")

    @property
    def reading_engine(self) -> Engine:
        """The blocking engine that cannot write."""
        return self._engine("reader")

    @property
    def async_engine(self) -> AsyncEngine:
        """The async engine that writes."""
        return self._async_engine("async writer")

    @property
    def async_reading_engine(self) -> AsyncEngine:
        """The async engine that cannot write."""
        return self._async_engine("async reader")

    def new_session(self) -> PlatformSession:
        """Return a session that nobody closes but the caller; prefer :meth:`session`."""
        return PlatformSession(bind=self.engine, reader=lambda: self.reading_engine)

    def new_readonly_session(self) -> PlatformSession:
        """Return a reading session that nobody closes but the caller; prefer :meth:`readonly_session`."""
        return PlatformSession(bind=self.reading_engine, is_read_only=True)

    def new_async_session(self) -> AsyncSession:
        """Return an async session that nobody closes but the caller; prefer :meth:`async_session`."""
        return AsyncSession(
            bind=self.async_engine,
            sync_session_class=PlatformSession,
            reader=lambda: self.async_reading_engine.sync_engine,
        )

    def new_async_readonly_session(self) -> AsyncSession:
        """Return an async reading session that nobody closes but the caller."""
        return AsyncSession(bind=self.async_reading_engine, sync_session_class=PlatformSession, is_read_only=True)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Give a session that is committed at the end, rolled back on an exception."""
        with self.new_session() as session, session.begin():
            yield session

    @contextmanager
    def readonly_session(self) -> Iterator[Session]:
        """Give a session that cannot write; a change left in it is a ReadOnlySessionError."""
        with self.new_readonly_session() as session, session.begin():
            yield session

    @asynccontextmanager
    async def async_session(self) -> AsyncIterator[AsyncSession]:
        """Async twin of :meth:`session`."""
        async with self.new_async_session() as session, session.begin():
            yield session

    @asynccontextmanager
    async def async_readonly_session(self) -> AsyncIterator[AsyncSession]:
        """Async twin of :meth:`readonly_session`."""
        async with self.new_async_readonly_session() as session, session.begin():
            yield session

    def ping(self) -> None:
        """Ask the database for an answer, within 3 seconds on a new connection; raise what comes instead."""
        if self.file:
            sqlite.create_file(self.file)
        engine = create_engine(self.url, poolclass=NullPool, connect_args=self._connect_args(timeout=3))
        with engine.connect() as connection:
            inspect(connection).has_table("any")

    def close(self) -> None:
        """Close all connections; the database can be used again afterwards.

        Raises:
            RuntimeError: there are async ones and an event loop runs here; await :meth:`aclose`.
        """
        if not any(isinstance(engine, AsyncEngine) for engine in self._engines.values()):
            self._dispose()
        elif sqlite.is_event_loop_thread():
            raise RuntimeError("an event loop runs here and there are async connections: await aclose() instead")
        else:
            asyncio.run(self.aclose())

    async def aclose(self) -> None:
        """Close all connections, those of the async engines too."""
        with self._mutex:
            engines = [engine for engine in self._engines.values() if isinstance(engine, AsyncEngine)]
            self._engines = {name: each for name, each in self._engines.items() if isinstance(each, Engine)}
        for engine in engines:
            await engine.dispose()
        await asyncio.to_thread(self._dispose)

    def _dispose(self) -> None:
        with self._mutex:
            engines, self._engines = self._engines, {}
        for engine in engines.values():
            assert isinstance(engine, Engine)
            engine.dispose()

    def _forget_statements(self) -> None:
        for engine in tuple(self._engines.values()):
            (engine.sync_engine if isinstance(engine, AsyncEngine) else engine).clear_compiled_cache()

    def _engine(self, role: str) -> Engine:
        engine = self._engines.get(role) or self._make(role)
        assert isinstance(engine, Engine)
        return engine

    def _async_engine(self, role: str) -> AsyncEngine:
        engine = self._engines.get(role) or self._make(role)
        assert isinstance(engine, AsyncEngine)
        return engine

    def _make(self, role: str) -> Engine | AsyncEngine:
        with self._mutex:
            if role not in self._engines:
                self._engines[role] = self._create(role)
            return self._engines[role]

    def _create(self, role: str) -> Engine | AsyncEngine:
        if self.file:
            sqlite.create_file(self.file)
        is_async, is_reader = role.startswith("async"), role.endswith("reader")
        url = sqlite.reading_url(self.url) if self.is_sqlite and is_reader else self.url
        options: dict[str, Any] = {
            "poolclass": AsyncAdaptedQueuePool if is_async else QueuePool,
            "pool_size": _KEPT,
            "max_overflow": self.admission.capacity + _BESIDE_REQUESTS - _KEPT,
            "pool_timeout": _POOL_TIMEOUT,
            "pool_pre_ping": not self.is_sqlite,
            "connect_args": self._connect_args(),
        }
        if is_async:
            driver = "sqlite+aiosqlite" if self.is_sqlite else "postgresql+psycopg"
            made: Engine | AsyncEngine = create_async_engine(url.set(drivername=driver), **options)
        else:
            made = create_engine(url, **options)
        self._configure(made.sync_engine if isinstance(made, AsyncEngine) else made, is_reader=is_reader)
        return made

    def _configure(self, engine: Engine, *, is_reader: bool) -> None:
        if not self.is_sqlite:
            (postgres.configure_reader if is_reader else postgres.configure_writer)(engine)
        elif is_reader:
            sqlite.configure_reader(engine)
        else:
            sqlite.configure_writer(engine, self._gate)

    def _connect_args(self, timeout: int = postgres.CONNECT_TIMEOUT) -> dict[str, Any]:
        if self.is_sqlite:
            return {"timeout": sqlite.BUSY_TIMEOUT, "check_same_thread": False, "isolation_level": None}
        return {"connect_timeout": timeout, "application_name": "pixsim7"}

    def _forget_connections(self) -> None:
        """Leave the parent's connections to the parent, after a fork."""
        self.admission, self._gate = Admission(self.admission.capacity), WriteGate()
        self._mutex = threading.RLock()
        engines, self._engines = self._engines, {}
        for engine in engines.values():
            (engine.sync_engine if isinstance(engine, AsyncEngine) else engine).dispose(close=False)


def _absolute(url: URL) -> URL:
    """Fix a relative SQLite file to where the process is now."""
    if url.get_backend_name() != "sqlite":
        return url
    assert url.database is not None
    return url.set(database=str(Path(url.database).expanduser().absolute()))


def _after_fork() -> None:
    for database in list(_databases):
        database._forget_connections()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
