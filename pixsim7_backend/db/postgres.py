"""PostgreSQL as this backend uses it: bounded waits, and connections that cannot write."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DataError
from sqlalchemy.pool import ConnectionPoolEntry

from .errors import ReadOnlySessionError, UnstorableValueError

MAX_REQUESTS = 10
"""Two connections each: four workers stay below PostgreSQL's default of 100."""
CONNECT_TIMEOUT = 10
LOCK_TIMEOUT = 10.0
"""Seconds that a statement waits for a row that another transaction holds."""

_READ_ONLY_TRANSACTION = "25006"
_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1"

_READING = re.compile(
    r"\s*\(*\s*(?:SELECT|WITH|VALUES|TABLE|EXPLAIN|SHOW|SAVEPOINT|RELEASE|ROLLBACK\s+TO)\b", re.IGNORECASE
)
_SIDE_DOORS = re.compile(r"\bset_config\b|\blo_\w+|\blowrite\b|\bdblink|U&\s*\"", re.IGNORECASE)
"""What writes, or changes the session, from within a SELECT: settings, large objects, other connections."""

_NOT_INSIDE_NAME = r"(?<![\w$\x80-\U0010ffff])"
_QUOTED = re.compile(
    rf"""{_NOT_INSIDE_NAME}[eE]'(?:[^'\\]|\\.|'')*'   # escape string
    | '(?:[^']|'')*'                                  # string
    | "(?:[^"]|"")*"                                  # quoted name
    | {_NOT_INSIDE_NAME}\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$   # dollar-quoted string
    | (?P<comment>--[^\r\n]*|/\*.*?\*/)""",
    re.DOTALL | re.VERBOSE,
)


def configure_writer(engine: Engine) -> None:
    """Set up the engine's connections for writing."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: ConnectionPoolEntry) -> None:
        connection.autocommit = True
        _run(connection, f"SET lock_timeout = {int(LOCK_TIMEOUT * 1000)}")
        connection.autocommit = False

    event.listen(engine, "handle_error", _translate_value_error)


def configure_reader(engine: Engine) -> None:
    """Set up the engine's connections so that no SQL can make them write.

    Each transaction is opened here as READ ONLY and has run a query when the caller gets it: from
    then on PostgreSQL itself refuses to make it read-write, whatever options the caller asked for.
    What is left is to end it and begin another; statements that could are refused before they are sent.
    It sees one state of the database from its first query to its end, as on SQLite.
    """

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: ConnectionPoolEntry) -> None:
        connection.autocommit = True  # the driver would send a BEGIN of its own
        _run(connection, "SET default_transaction_read_only = on")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        dbapi_connection: Any = connection.connection.dbapi_connection
        if not dbapi_connection.autocommit:
            dbapi_connection.autocommit = True
        _run(dbapi_connection, _BEGIN)

    @event.listens_for(engine, "before_cursor_execute")
    def check(_connection: Connection, _cursor: Any, statement: str, *_rest: Any) -> None:
        check_reading(statement)

    event.listen(engine, "handle_error", _translate_refusal)
    event.listen(engine, "handle_error", _translate_value_error)


def check_reading(statement: str) -> None:
    """Refuse a statement that could end the read-only transaction, or write in spite of it.

    Raises:
        ReadOnlySessionError: it is more than one statement, or not one that reads.
    """
    bare = _QUOTED.sub(lambda found: " " if found["comment"] else "''", statement)
    first, *further = bare.split(";")
    if any(part.strip() for part in further):
        raise ReadOnlySessionError("run several statements at once")
    if not _READING.match(first) or _SIDE_DOORS.search(statement):
        raise ReadOnlySessionError("run a statement that does not only read")


def _run(connection: Any, statement: str) -> None:
    """Run on the driver's own level: as it is, and unseen by the check."""
    cursor = connection.cursor()
    cursor.execute(statement)
    cursor.close()


def _translate_refusal(context: ExceptionContext) -> None:
    if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY_TRANSACTION:
        raise ReadOnlySessionError("run a statement that does not only read") from context.original_exception


def _translate_value_error(context: ExceptionContext) -> None:
    """Turn what the driver or the server says of values out of range into our own type."""
    cause = context.original_exception
    if isinstance(context.sqlalchemy_exception, DataError) or isinstance(cause, UnicodeEncodeError):
        raise UnstorableValueError(f"a value cannot be stored: {str(cause).splitlines()[0]}") from cause
