"""SQLite as this backend uses it: WAL, one writer at a time, and connections that cannot write."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_only

from .errors import DatabaseBusyError, ReadOnlySessionError, UnstorableValueError
from .gate import WriteGate

MAX_REQUESTS = 32
"""Below the 40 threads that endpoints run in; see ``admission``."""
BUSY_TIMEOUT = 5.0
GATE_TIMEOUT = 15.0
LOOP_TIMEOUT = 0.5
"""A blocking session on the event loop's own thread stops those it waits for: it must not wait long."""
_BEGIN_ATTEMPTS = 3
_GATE = "write_gate"

_READING = frozenset(
    {
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_FUNCTION,
        sqlite3.SQLITE_RECURSIVE,
        sqlite3.SQLITE_TRANSACTION,
        sqlite3.SQLITE_SAVEPOINT,
    }
)
_READING_PRAGMAS = frozenset(
    {
        "collation_list", "compile_options", "database_list", "foreign_key_list", "function_list", "index_info",
        "index_list", "index_xinfo", "read_uncommitted", "table_info", "table_list", "table_xinfo",
    }
)  # fmt: skip
_BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED")


def create_directory(file: Path) -> None:
    """Make the directory of the file, readable for its owner only, and keep it out of version control."""
    if file.parent.exists():
        return
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    (file.parent / ".gitignore").write_text("*\n", encoding="utf-8")


def create_file(file: Path) -> None:
    """Make the file an empty database in WAL mode where it is missing: a reader cannot."""
    if file.exists() and file.stat().st_size > 0:
        return
    create_directory(file)
    deadline = time.monotonic() + BUSY_TIMEOUT
    while not _try_create(file):
        if time.monotonic() > deadline:
            raise DatabaseBusyError("the new SQLite file (another process makes it)", BUSY_TIMEOUT)
        time.sleep(0.02)


def _try_create(file: Path) -> bool:
    """Switch the file to WAL, which takes it for itself alone: SQLite does not wait for others then."""
    with closing(sqlite3.connect(file, timeout=BUSY_TIMEOUT, isolation_level=None)) as connection:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if is_busy(error):
                return False
            raise
    return True


def reading_url(url: URL) -> URL:
    """Return the URL of the same file, opened by SQLite itself for reading only."""
    assert url.database is not None
    return url.set(database=Path(url.database).as_uri(), query={"mode": "ro", "uri": "true"})


def configure_writer(engine: Engine, gate: WriteGate) -> None:
    """Set up the engine's connections for writing, one transaction after the other."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: ConnectionPoolEntry) -> None:
        _run(connection, "PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        _begin_immediate(connection, gate)

    @event.listens_for(engine, "checkin")
    def checkin(_connection: Any, record: ConnectionPoolEntry) -> None:
        if (record.record_info or {}).pop(_GATE, None):
            gate.release()

    event.listen(engine, "handle_error", _translate_value_error)


def configure_reader(engine: Engine) -> None:
    """Set up the engine's connections so that no SQL can make them write."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: ConnectionPoolEntry) -> None:
        _run(connection, "PRAGMA query_only=ON")
        _set_authorizer(connection)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    event.listen(engine, "handle_error", _translate_refusal)
    event.listen(engine, "handle_error", _translate_value_error)


def is_busy(error: BaseException | None) -> bool:
    """Tell whether SQLite gave up waiting for a lock."""
    return str(getattr(error, "sqlite_errorname", "")).startswith(_BUSY)


def _run(connection: Any, *statements: str) -> None:
    cursor = connection.cursor()
    for statement in statements:
        cursor.execute(statement)
    cursor.close()


def _begin_immediate(connection: Connection, gate: WriteGate) -> None:
    """Take the write lock at once: a transaction that turns writer later fails without waiting."""
    info = connection.connection.record_info
    assert info is not None
    if not info.get(_GATE):
        _pass(gate, connection)
        info[_GATE] = True
    try:
        _retry_begin(connection)
    except BaseException:
        if info.pop(_GATE, None):
            gate.release()
        raise


def _pass(gate: WriteGate, connection: Connection) -> None:
    if connection.dialect.is_async:
        await_only(gate.acquire_async(GATE_TIMEOUT))
    else:
        gate.acquire(LOOP_TIMEOUT if is_event_loop_thread() else GATE_TIMEOUT)


def _retry_begin(connection: Connection) -> None:
    started = time.monotonic()
    for attempt in range(1, _BEGIN_ATTEMPTS + 1):
        try:
            _run(connection.connection.dbapi_connection, "BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
            if attempt == _BEGIN_ATTEMPTS:
                waited = time.monotonic() - started
                raise DatabaseBusyError("the SQLite file (another process writes)", round(waited, 1)) from error
        else:
            return


def is_event_loop_thread() -> bool:
    """Tell whether blocking here would stop an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _set_authorizer(connection: Any) -> None:
    driver = connection.driver_connection if hasattr(connection, "driver_connection") else connection
    if isinstance(driver, sqlite3.Connection):
        driver.set_authorizer(_authorize)
    else:
        await_only(driver.set_authorizer(_authorize))


def _authorize(action: int, first: str | None, second: str | None, _database: str | None, _inner: str | None) -> int:
    """Let pass what reads; raw SQL cannot switch this off, since a pragma is an action too."""
    if action in _READING:
        refused = action == sqlite3.SQLITE_FUNCTION and second == "load_extension"
        return sqlite3.SQLITE_DENY if refused else sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_PRAGMA and first in _READING_PRAGMAS:
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _translate_refusal(context: ExceptionContext) -> None:
    error = context.original_exception
    name = str(getattr(error, "sqlite_errorname", ""))
    if name.startswith(("SQLITE_READONLY", "SQLITE_AUTH")) or str(error).startswith("not authorized"):
        raise ReadOnlySessionError("run a statement that does not only read") from error


def _translate_value_error(context: ExceptionContext) -> None:
    """Turn what the driver raises for values out of range into our own type."""
    cause = context.original_exception
    if isinstance(cause, (OverflowError, UnicodeEncodeError)):
        raise UnstorableValueError(f"a value cannot be stored: {cause}") from cause
