"""The database driver inside a jail: DB-API 2.0, whose every call the host carries out.

It opens no socket and no file. A connection is a number at the host, which begins with the first statement;
begin, commit, rollback and savepoints are calls of their own, not SQL.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time
from typing import Any

from sqlalchemy.util import await_only

from pixsim7_backend.infrastructure.plugins._jail.frames import FrameError
from pixsim7_backend.infrastructure.plugins._jail.inside.services import BrokerCallError, ShareUsedUpError, acall, call

from .wire import WireError, from_wire, to_wire

__all__ = [
    "Binary",
    "Connection",
    "Cursor",
    "DataError",
    "DatabaseError",
    "Date",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "NotSupportedError",
    "OperationalError",
    "ProgrammingError",
    "Time",
    "Timestamp",
    "Warning",
    "apilevel",
    "connect",
    "paramstyle",
    "sqlite_version_info",
    "threadsafety",
]

apilevel = "2.0"
threadsafety = 1
paramstyle = "qmark"
"""As SQLite takes them; for PostgreSQL they are ``$1``, ``$2``: the host changes nothing in a statement."""

sqlite_version_info = sqlite3.sqlite_version_info
"""The host runs the same interpreter, with the same SQLite."""

Binary = bytes
Date, Time, Timestamp = date, time, datetime

_AT_ONCE = 100
"""Rows of parameters in one call."""


class Warning(Exception):  # noqa: A001, N818 - the name is that of DB-API
    """Something noteworthy; never raised here."""


class Error(Exception):
    """Base of all. ``sqlstate`` is the code of PostgreSQL or of the host, ``sqlite_errorname`` that of SQLite."""

    sqlstate: str | None = None
    sqlite_errorname: str = ""
    share: ShareUsedUpError | None = None
    """Set where the plugin has used its share of the minute."""


class InterfaceError(Error):
    """The driver was used wrongly, or there is no host."""


class DatabaseError(Error):
    """The database, or the host, did not do it."""


class DataError(DatabaseError):
    """A value does not fit."""


class OperationalError(DatabaseError):
    """Something outside of the program: a lock, a limit, the end of a transaction."""


class IntegrityError(DatabaseError):
    """A constraint."""


class InternalError(DatabaseError):
    """The database is at odds with itself."""


class ProgrammingError(DatabaseError):
    """The statement is wrong, or not allowed."""


class NotSupportedError(DatabaseError):
    """What this driver does not do."""


_KINDS: Mapping[str, type[Error]] = {
    kind.__name__: kind
    for kind in (
        InterfaceError, DataError, OperationalError, IntegrityError, InternalError, ProgrammingError, NotSupportedError,
    )
}  # fmt: skip


def connect(*, mode: str, is_async: bool = False) -> Connection:
    """Return a connection for ``read`` or ``write``; an async one must be used within SQLAlchemy's greenlets."""
    return Connection(mode, is_async=is_async)


class Connection:
    """A row of transactions, one after the other."""

    Error = Error

    def __init__(self, mode: str, *, is_async: bool) -> None:
        self._mode = mode
        self._is_async = is_async
        self._number: int | None = None
        self.is_closed = False

    def cursor(self, *, is_streaming: bool = False) -> Cursor:
        """Return a cursor; a streaming one leaves its rows at the host until they are asked for."""
        return Cursor(self, is_streaming=is_streaming)

    def commit(self) -> None:
        """Keep what was written since the first statement."""
        number, self._number = self._number, None
        if number is not None:
            self.ask("commit", number)

    def rollback(self) -> None:
        """Keep nothing of it."""
        number, self._number = self._number, None
        if number is not None:
            self.ask("rollback", number)

    def savepoint(self, action: str, name: str) -> None:
        """``begin``, ``release`` or ``rollback`` a savepoint."""
        self.ask("savepoint", self.begin(), action, name)

    def close(self) -> None:
        """Keep nothing of what is open."""
        self.is_closed = True
        self.rollback()

    def begin(self) -> int:
        """Return the number of the transaction, opened where there is none."""
        if self.is_closed:
            raise InterfaceError("the connection is closed")
        if self._number is None:
            self._number = int(self.ask("begin", self._mode))
        return self._number

    def execute(self, statement: str, row: list[Any]) -> tuple[int, dict[str, Any]]:
        """Run a statement, the first of a transaction in one call with its beginning; return number and outcome."""
        if self._number is None and not self.is_closed:
            self._number, outcome = self.ask("first", self._mode, statement, row)
            return int(self._number), outcome
        number = self.begin()
        return number, self.ask("execute", number, statement, row)

    def ask(self, method: str, *args: Any) -> Any:
        """Let the host do something, and turn what goes wrong into an error of this driver."""
        try:
            return await_only(acall(f"db.{method}", *args)) if self._is_async else call(f"db.{method}", *args)
        except BrokerCallError as error:
            raise _error(error) from error
        except FrameError as error:
            raise DataError(str(error)) from error


def _error(error: BrokerCallError) -> Error:
    name, _, code = error.kind.partition(":")
    made = _KINDS.get(name, OperationalError)(str(error))
    made.share = error if isinstance(error, ShareUsedUpError) else None
    if code.startswith("SQLITE_"):
        made.sqlite_errorname = code
    else:
        made.sqlstate = code or None
    return made


class Cursor:
    """Runs statements, and gives their rows."""

    def __init__(self, connection: Connection, *, is_streaming: bool) -> None:
        self.connection = connection
        self.arraysize = 1
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.description: list[tuple[Any, ...]] | None = None
        self._is_streaming = is_streaming
        self._rows: deque[tuple[Any, ...]] = deque()
        self._result = 0
        self._of = 0

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Cursor:
        """Run one statement."""
        self._forget()
        number, outcome = self.connection.execute(statement, _row(parameters))
        columns = outcome["columns"]
        self.description = (
            None if columns is None else [(name, code, None, None, None, None, None) for name, code in columns]
        )
        self.rowcount, self.lastrowid = outcome["rowcount"], outcome["lastrowid"]
        self._result, self._of = outcome["result"], number
        self._take(outcome["rows"])
        while self._result and not self._is_streaming:
            self._fetch()
        return self

    def executemany(self, statement: str, rows: Sequence[Sequence[Any]]) -> Cursor:
        """Run one statement with each row of parameters."""
        self._forget()
        number, changed = self.connection.begin(), 0
        for start in range(0, len(rows), _AT_ONCE):
            part = [_row(row) for row in rows[start : start + _AT_ONCE]]
            changed += max(0, int(self.connection.ask("many", number, statement, part)))
        self.rowcount = changed
        return self

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row, None after the last."""
        if not self._rows and self._result:
            self._fetch()
        return self._rows.popleft() if self._rows else None

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """Return up to so many rows."""
        wanted = self.arraysize if size is None else size
        while len(self._rows) < wanted and self._result:
            self._fetch()
        return [self._rows.popleft() for _ in range(min(wanted, len(self._rows)))]

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return all rows that are left."""
        while self._result:
            self._fetch()
        rows = list(self._rows)
        self._rows.clear()
        return rows

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        while (row := self.fetchone()) is not None:
            yield row

    def close(self) -> None:
        """Give up what is left."""
        self._forget()

    async def _async_soft_close(self) -> None:
        """Nothing: the rows of a result that is not streamed are here (SQLAlchemy asks async cursors for this)."""

    def setinputsizes(self, *_sizes: Any) -> None:
        """Nothing: types go with the statement."""

    def setoutputsize(self, *_sizes: Any) -> None:
        """Nothing."""

    def _fetch(self) -> None:
        piece = self.connection.ask("fetch", self._of, self._result)
        if not piece:
            self._result = 0
        self._take(piece)

    def _take(self, rows: list[list[Any]]) -> None:
        self._rows.extend(tuple(from_wire(value) for value in row) for row in rows)

    def _forget(self) -> None:
        result, self._result = self._result, 0
        self._rows.clear()
        self.description, self.rowcount, self.lastrowid = None, -1, None
        if result:
            self.connection.ask("forget", self._of, result)


def _row(parameters: Sequence[Any]) -> list[Any]:
    try:
        return [to_wire(value) for value in parameters]
    except WireError as error:
        raise NotSupportedError(str(error)) from error
