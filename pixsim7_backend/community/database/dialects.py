"""SQLAlchemy's dialects over the jail's driver: what the stock ones are, without a database of their own to ask."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from sqlalchemy import types as sqltypes
from sqlalchemy import util
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql import JSON, JSONB
from sqlalchemy.dialects.postgresql.base import PGDialect, PGExecutionContext
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.base import SQLiteDialect, SQLiteExecutionContext
from sqlalchemy.engine import URL
from sqlalchemy.engine.default import DefaultExecutionContext

from . import driver

__all__ = ["register"]

_SQLITE_PARAMETERS = 1800
_ISOLATION = "SERIALIZABLE"


class _Streaming(DefaultExecutionContext):
    def create_server_side_cursor(self) -> Any:
        """Return a cursor whose rows stay at the host until they are read."""
        return self._dbapi_connection.cursor(is_streaming=True)


class _Jailed:
    """What both have in common: the driver, savepoints that are calls, and nothing to ask at the start."""

    driver = "jail"
    supports_statement_cache = True
    supports_server_side_cursors = True
    is_async = False

    @classmethod
    def import_dbapi(cls) -> ModuleType:
        """Return the jail's driver."""
        return driver

    def create_connect_args(self, url: URL) -> Any:
        """Return what :func:`driver.connect` takes; the mode comes from ``connect_args``."""
        return (), {"is_async": self.is_async}

    def initialize(self, connection: Any) -> None:
        """Ask nothing: the versions are those that the platform requires."""

    def on_connect(self) -> None:
        """Nothing to set up."""

    def do_begin(self, dbapi_connection: Any) -> None:
        """The first statement begins."""

    def do_savepoint(self, connection: Any, name: str) -> None:
        connection.connection.dbapi_connection.savepoint("begin", name)

    def do_release_savepoint(self, connection: Any, name: str) -> None:
        connection.connection.dbapi_connection.savepoint("release", name)

    def do_rollback_to_savepoint(self, connection: Any, name: str) -> None:
        connection.connection.dbapi_connection.savepoint("rollback", name)

    def do_ping(self, dbapi_connection: Any) -> bool:
        return not dbapi_connection.is_closed

    def is_disconnect(self, error: Any, connection: Any, cursor: Any) -> bool:
        """A transaction that the host ended is over; the next begins anew."""
        return False

    def get_isolation_level_values(self, dbapi_connection: Any) -> Any:
        return [_ISOLATION]

    def get_isolation_level(self, dbapi_connection: Any) -> Any:
        return _ISOLATION

    def set_isolation_level(self, dbapi_connection: Any, level: Any) -> None:
        """The host chooses: reading sees one moment, writing locks as that database does."""

    def get_driver_connection(self, connection: Any) -> Any:
        return connection


class _SqliteContext(_Streaming, SQLiteExecutionContext):
    pass


class JailedSqlite(_Jailed, SQLiteDialect):
    """SQLite."""

    supports_statement_cache = True
    execution_ctx_cls = _SqliteContext
    default_paramstyle = "qmark"
    returns_native_bytes = True
    server_version_info = driver.sqlite_version_info
    default_schema_name = "main"
    insertmanyvalues_max_parameters = _SQLITE_PARAMETERS

    @classmethod
    def get_async_dialect_cls(cls, url: URL) -> type[Any]:
        """Return the async twin."""
        return AsyncJailedSqlite


class AsyncJailedSqlite(JailedSqlite):
    """Its async twin."""

    supports_statement_cache = True
    is_async = True


class _Json(JSON[Any]):
    render_bind_cast = True


class _Jsonb(JSONB[Any]):
    render_bind_cast = True


class _PostgresContext(_Streaming, PGExecutionContext):
    pass


class JailedPostgres(_Jailed, PGDialect):
    """PostgreSQL, as psycopg knows its types; the statement goes to the server as it is."""

    supports_statement_cache = True
    execution_ctx_cls = _PostgresContext
    default_paramstyle = "numeric_dollar"
    supports_sane_multi_rowcount = True
    use_insertmanyvalues_wo_returning = False
    _has_native_hstore = False
    server_version_info = (14,)
    default_schema_name = "public"
    colspecs = util.update_copy(PGDialect_psycopg.colspecs, {sqltypes.JSON: _Json, JSON: _Json, JSONB: _Jsonb})

    def __init__(self, **options: Any) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            paramstyle=self.default_paramstyle, **options
        )

    @classmethod
    def get_async_dialect_cls(cls, url: URL) -> type[Any]:
        """Return the async twin."""
        return AsyncJailedPostgres


class AsyncJailedPostgres(JailedPostgres):
    """Its async twin."""

    supports_statement_cache = True
    is_async = True


def register() -> None:
    """Let SQLAlchemy find them: ``sqlite+jail://`` and ``postgresql+jail://``."""
    registry.register("sqlite.jail", __name__, JailedSqlite.__name__)
    registry.register("postgresql.jail", __name__, JailedPostgres.__name__)
