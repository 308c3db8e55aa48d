"""PostgreSQL as this backend uses it: bounded waits, and connections that cannot write."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DataError
from sqlalchemy.pool import ConnectionPoolEntry

from .errors import ReadOnlySessionError, UnstorableValueError

CONNECT_TIMEOUT = 10
LOCK_TIMEOUT = 10.0
"""Seconds that a statement waits for a row that another transaction holds."""

_READ_ONLY_TRANSACTION = "25006"
_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1"

_READING = re.compile(
    r"\s*(?:SELECT|WITH|VALUES|TABLE|EXPLAIN|SHOW|DECLARE|FETCH|MOVE|CLOSE|SAVEPOINT|RELEASE|ROLLBACK\s+TO)\b",
    re.IGNORECASE,
)
_SIDE_DOORS = re.compile(
    r"set_config|\blo_\w+|\blo(?:write|_import)|U&\s*\"|pg_(?:advisory|write|file)_?\w*\s*\(", re.IGNORECASE
)
_QUOTED = re.compile(
    r"""'(?:[^'\\]|\\.|'')*'|"(?:[^"]|"")*"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|--[^\n]*|/\*.*?\*/""", re.DOTALL
)


def configure_writer(engine: Engine) -> None:
    """Set up the engine's connections for writing."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: ConnectionPoolEntry) -> None:
        _run_outside_transaction(connection, f"SET lock_timeout = {int(LOCK_TIMEOUT * 1000)}")

    event.listen(engine, "handle_error", translate_value_error)


def configure_reader(engine: Engine) -> None:
    """Set up the engine's connections so that no SQL can make them write.

    Each transaction is opened here as READ ONLY and has run a query when the caller gets it: from
    then on PostgreSQL itself refuses to make it read-write. What is left is to end it and begin
    another; statements that could are refused before they are sent.
    """

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: ConnectionPoolEntry) -> None:
        _run_outside_transaction(connection, "SET default_transaction_read_only = on")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        dbapi_connection: Any = connection.connection.dbapi_connection
        _run_outside_transaction(dbapi_connection, _BEGIN, restore=False)

    @event.listens_for(engine, "before_cursor_execute")
    def check(_connection: Connection, _cursor: Any, statement: str, *_rest: Any) -> None:
        _check_reading(statement)

    event.listen(engine, "handle_error", _translate_refusal)
    event.listen(engine, "handle_error", translate_value_error)


def _run_outside_transaction(connection: Any, statement: str, *, restore: bool = True) -> None:
    """Run a statement as it is, without the BEGIN that the driver would send first."""
    before = connection.autocommit
    if not before:
        _set_autocommit(connection, True)
    cursor = connection.cursor()
    _execute_plain(connection, cursor, statement)
    cursor.close()
    if restore and not before:
        _set_autocommit(connection, False)


def _set_autocommit(connection: Any, value: bool) -> None:
    connection.autocommit = value


def _execute_plain(connection: Any, cursor: Any, statement: str) -> None:
    cursor.execute(statement)


def _check_reading(statement: str) -> None:
    bare = _QUOTED.sub(lambda match: " " if match[0].startswith(("--", "/*")) else '""', statement)
    first, *further = bare.split(";")
    if any(part.strip() for part in further):
        raise ReadOnlySessionError("run several statements at once")
    if not _READING.match(first) or _SIDE_DOORS.search(statement):
        raise ReadOnlySessionError("run a statement that is not only reading")


def _translate_refusal(context: ExceptionContext) -> None:
    if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY_TRANSACTION:
        raise ReadOnlySessionError("run a statement that is not only reading") from context.original_exception


def translate_value_error(context: ExceptionContext) -> None:
    """Turn what the driver or the server says of values out of range into our own type."""
    if isinstance(context.sqlalchemy_exception, DataError) or isinstance(
        context.original_exception, UnicodeEncodeError
    ):
        raise UnstorableValueError(
            "a value is out of the range that the database can keep"
        ) from context.original_exception
