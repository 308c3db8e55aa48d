"""Reads the own tables of a community plugin for who removes it: as its role on PostgreSQL, behind the fence on SQLite.

What a stranger has defined (computed columns, policies, types) runs while rows are read. So it never does with the
rights of the host, and only within bounds of time and size.
"""

from __future__ import annotations

import base64
import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol

from pixsim7_backend.db import Database, DataLayerError
from pixsim7_backend.infrastructure.plugins._grants.permissions import Grants, Permission
from pixsim7_backend.infrastructure.plugins._jail.broker import BrokerError

from .executor import Executor, Mode, Transaction, refuse
from .limits import DatabaseLimits
from .openness import Access
from .own_file import own_file_of
from .sqlite_executor import SqliteExecutor

__all__ = ["NOTHING", "OwnTables", "OwnTablesUnreadableError", "reading_own_tables"]

_LIMITS: Final = DatabaseLimits(statement_time=120.0, result_size=32 << 20, temporary_size=8 << 30)
"""For one table; the size of a result is that of a row here, and what is written is the export."""
_MOST: Final = 1 << 30
"""Bytes of JSON of all tables together: they are compressed in the database, or computed."""
_LONGEST: Final = 600.0
_ALL: Final = Grants(frozenset(map(Permission.parse, ("db:read", "db:write", "db:own"))))
_OWN: Final = Access(read={}, write={}, own=True, grants=_ALL)
"""Nothing of the game is read; but the role may still have what was granted to it."""
_SQLITE_TABLES: Final = "SELECT name FROM main.sqlite_master WHERE type = 'table' ORDER BY name"
_POSTGRES_TABLES: Final = """
SELECT c.relname::pg_catalog.text, c.relkind OPERATOR(pg_catalog.=) 'p'
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE n.nspname OPERATOR(pg_catalog.=) $1::pg_catalog.name AND NOT c.relispartition
  AND (c.relkind OPERATOR(pg_catalog.=) 'r' OR c.relkind OPERATOR(pg_catalog.=) 'p')
ORDER BY 1
"""
_POSTGRES_ROWS: Final = """
SELECT size, CASE WHEN size OPERATOR(pg_catalog.<=) {} THEN line END AS line
FROM (SELECT pg_catalog.octet_length(line) AS size, line
  FROM (SELECT pg_catalog.row_to_json(each.*)::pg_catalog.text AS line FROM {} {} AS each OFFSET 0) AS lines) AS sizes
"""
_STANDING: Final = """
SELECT EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p')),
  EXISTS (SELECT FROM pg_roles WHERE rolname = %(role)s),
  (SELECT has_schema_privilege(oid, n.oid, 'USAGE') FROM pg_roles WHERE rolname = %(role)s)
FROM pg_namespace n WHERE n.nspname = %(schema)s
"""


class OwnTablesUnreadableError(DataLayerError):
    """The own tables of a community plugin cannot be read as the plugin itself could."""

    def __init__(self, *, plugin: str, problem: str) -> None:
        super().__init__(
            f"the own tables of plugin {plugin!r} cannot be exported: {problem}; mend that and repeat,"
            " or decide for --data keep or --data drop"
        )
        self.plugin = plugin
        self.problem = problem


class OwnTables(Protocol):
    """The own tables of one plugin, as they are at one moment."""

    @property
    def names(self) -> tuple[str, ...]:
        """All that hold rows; the stranger chose the names."""

    def read(self, name: str, take: Callable[[bytes], object]) -> int:
        """Give each row of a table as a line of JSON, one after the other; return their number.

        Raises:
            OwnTablesUnreadableError: it cannot be read, takes too long, or is too large.
        """


class _Nothing:
    names: tuple[str, ...] = ()

    def read(self, name: str, take: Callable[[bytes], object]) -> int:
        raise KeyError(name)


NOTHING: Final[OwnTables] = _Nothing()


@contextmanager
def reading_own_tables(database: Database, plugin: str, *, data_dir: Path) -> Iterator[OwnTables]:
    """Give the own tables of a plugin; none where it has none.

    Args:
        database: of the host.
        plugin: the id of the plugin; nothing of it may run meanwhile.
        data_dir: where files with own tables lie, and the passwords of roles.

    Raises:
        OwnTablesUnreadableError: there are some, and they cannot be read.
    """
    if not database.is_sqlite:
        with _reading_as_role(database.url.render_as_string(hide_password=False), plugin, data_dir) as tables:
            yield tables
    elif (file := own_file_of(data_dir, plugin)).exists():
        with _begun(SqliteExecutor(None, file, _OWN, _LIMITS), plugin) as transaction:
            yield _found_in_file(transaction, plugin)
    else:
        yield NOTHING


# --- which there are, and how a row becomes a line ------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Readable:
    """Tables by name, with the statement that reads each and what makes a line of its rows."""

    plugin: str
    transaction: Transaction
    statements: dict[str, str]
    to_line: Callable[[dict[str, Any]], str]
    taken: _Taken

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.statements)

    def read(self, name: str, take: Callable[[bytes], object]) -> int:
        count = 0

        def take_row(row: dict[str, Any]) -> None:
            nonlocal count
            line = self.to_line(row).encode() + b"\n"
            self.taken.add(len(line))
            take(line)
            count += 1

        try:
            self.taken.add(0)
            self.transaction.stream(self.statements[name], take_row)
        except BrokerError as error:
            raise OwnTablesUnreadableError(plugin=self.plugin, problem=f"table {name!r}: {error}") from error
        return count


class _Taken:
    """How much was read, and until when that may go on."""

    def __init__(self) -> None:
        self._bytes = 0
        self._until = time.monotonic() + _LONGEST

    def add(self, size: int) -> None:
        self._bytes += size
        if self._bytes > _MOST:
            raise refuse(f"all rows together are more than {_MOST:,} bytes of JSON", "54000")
        if time.monotonic() > self._until:
            raise refuse(f"reading all rows takes more than {_LONGEST:g} s", "54000")


@contextmanager
def _begun(executor: Executor, plugin: str) -> Iterator[Transaction]:
    """Give a transaction that reads; what is wrong with the tables at its beginning is told of the plugin."""
    try:
        transaction = executor.begin(Mode.READ)
    except (BrokerError, sqlite3.Error) as error:
        _refuse(plugin, error)
    try:
        yield transaction
    finally:
        transaction.rollback()
        executor.close()


def _found_in_file(transaction: Transaction, plugin: str) -> OwnTables:
    names = [name for (name,) in _rows(transaction, plugin, _SQLITE_TABLES) if not name.startswith("sqlite_")]
    quoted = {name: name.replace('"', '""') for name in names}
    statements = {name: f'SELECT * FROM main."{each}"' for name, each in quoted.items()}  # noqa: S608 - quoted
    return _Readable(plugin, transaction, statements, _line_of, _Taken())


def _line_of(row: dict[str, Any]) -> str:
    return json.dumps({name: _jsonable(value) for name, value in row.items()}, ensure_ascii=False)


def _jsonable(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _rows(transaction: Transaction, plugin: str, statement: str, *values: Any) -> list[list[Any]]:
    try:
        return transaction.execute(statement, [values], is_many=False).rows
    except BrokerError as error:
        _refuse(plugin, error)


def _refuse(plugin: str, error: Exception) -> NoReturn:
    raise OwnTablesUnreadableError(plugin=plugin, problem=str(error)) from error


# --- PostgreSQL -----------------------------------------------------------------------------------


@contextmanager
def _reading_as_role(url: str, plugin: str, data_dir: Path) -> Iterator[OwnTables]:
    from psycopg.conninfo import make_conninfo

    from .postgres_executor import PostgresExecutor
    from .roles import login_of, own_schema

    with _let_in(url, plugin) as is_there:
        if not is_there:
            yield NOTHING
            return
        login = make_conninfo(login_of(url, plugin, data_dir), client_encoding="utf8")
        schema = own_schema(plugin)
        with _begun(PostgresExecutor(login, schema, _OWN, _LIMITS), plugin) as transaction:
            yield _found_in_schema(transaction, plugin, schema)


def _found_in_schema(transaction: Transaction, plugin: str, schema: str) -> OwnTables:
    """Find tables; the server itself makes JSON of their rows, since it knows all their types."""
    from psycopg import sql

    def reading(name: str, *, is_partitioned: bool) -> str:
        only = sql.SQL("") if is_partitioned else sql.SQL("ONLY")
        return sql.SQL(_POSTGRES_ROWS).format(_LIMITS.result_size, only, sql.Identifier(schema, name)).as_string()

    found = _rows(transaction, plugin, _POSTGRES_TABLES, schema)
    statements = {name: reading(name, is_partitioned=is_partitioned) for name, is_partitioned in found}
    return _Readable(plugin, transaction, statements, _on_one_line, _Taken())


def _on_one_line(row: dict[str, Any]) -> str:
    """Return the JSON of a row; a line break in it becomes a blank: within texts there are none."""
    if row["line"] is None:
        raise refuse(f"a row has {row['size']:,} bytes; {_LIMITS.result_size:,} can be read", "54000")
    return str(row["line"]).replace("\n", " ").replace("\r", " ")


@contextmanager
def _let_in(url: str, plugin: str) -> Iterator[bool]:
    """Tell whether there are tables; let the role see its own schema meanwhile, also where that was taken back.

    Nothing but catalogues is read here, with the rights of the host.
    """
    import psycopg
    from psycopg import sql

    from .roles import own_schema, role_of, server_conninfo

    try:
        with psycopg.connect(server_conninfo(url), autocommit=True) as host:
            role, schema = role_of(host.info.dbname, plugin), own_schema(plugin)
            found = host.execute(_STANDING, {"role": role, "schema": schema}).fetchone()
            has_tables, has_role, is_in = found or (False, False, False)
            if has_tables and not has_role:
                raise OwnTablesUnreadableError(plugin=plugin, problem=f"the role {role!r} that owned them is gone")
            if not has_tables or is_in:
                yield has_tables
                return
            names = sql.Identifier(schema), sql.Identifier(role)
            host.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(*names))
            try:
                yield True
            finally:
                host.execute(sql.SQL("REVOKE USAGE ON SCHEMA {} FROM {}").format(*names))
    except psycopg.Error as error:
        raise OwnTablesUnreadableError(plugin=plugin, problem=(str(error).splitlines() or ["no answer"])[0]) from error
