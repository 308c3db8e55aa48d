"""Runs in a jail before its plugin is imported: lets ``get_db`` and all of ``pixsim7_backend.db`` go to the host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from pixsim7_backend import db
from pixsim7_backend.community.tables import use_described
from pixsim7_backend.db import Database, ReadOnlySessionError, UnstorableValueError, dependencies, set_default_database
from pixsim7_backend.infrastructure.plugins.errors import ShareUsedUpError as PluginShareUsedUpError

from . import dialects
from .driver import DataError
from .executor import READ_ONLY, Mode

__all__ = ["JailedDatabase", "PermissionMissingError", "install"]

_WRITING = ("get_db", "get_async_db", "DbSession", "AsyncDbSession")
_READING = ("get_db_readonly", "get_async_db_readonly", "ReadOnlyDb", "AsyncReadOnlyDb")
_PLACES = {"sqlite": "sqlite:////jail", "postgresql": "postgresql://jail/jail"}


class PermissionMissingError(Exception):
    """The plugin uses a session for which it has no permission. The text has the line to add to its manifest."""

    def __init__(self, plugin: str, what: str, mode: Mode) -> None:
        permissions = ("db:write", "db:own") if mode is Mode.WRITE else ("db:read", "db:own")
        super().__init__(
            f"plugin {plugin!r} uses {what}, which needs {' or '.join(permissions)}; add to its manifest:"
            f' permissions=["{permissions[0]}"], and let the operator grant it:'
            f" pixsim7 plugins enable {plugin} --grant {permissions[0]}"
        )
        self.plugin = plugin
        self.permissions = permissions


def install(app: FastAPI) -> None:
    """Make the jail's database that of this process; ``app.state.services["db"]`` is what the host says of it."""
    described: Mapping[str, Any] = app.state.services["db"]
    set_default_database(JailedDatabase(described))
    use_described(described["tables"])
    closed = {name: Mode.WRITE for name in _WRITING if not described["write"]}
    closed |= {name: Mode.READ for name in _READING if not described["read"]}
    for module in (db, dependencies):
        _close(module, described["plugin"], closed)


def _close(module: Any, plugin: str, closed: Mapping[str, Mode]) -> None:
    """Let the import of a name fail: the plugin is told when it is loaded, not when it is first used."""

    def refuse(name: str) -> Any:
        if name in closed:
            raise PermissionMissingError(plugin, name, closed[name])
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

    for name in closed:
        vars(module).pop(name, None)
    module.__getattr__ = refuse


class JailedDatabase(Database):
    """The host's database as far as this plugin may use it. Connections are numbers at the host: there is no pool."""

    def __init__(self, described: Mapping[str, Any]) -> None:
        self._kind: str = described["kind"]
        self._described = described
        super().__init__(_PLACES[self._kind], max_requests=max(1, int(described["transactions"]) // 2))

    def __repr__(self) -> str:
        return f"JailedDatabase({self._kind!r})"

    @property
    def file(self) -> None:
        """None: the file is the host's."""

    def ping(self) -> None:
        """Ask the host for an answer."""
        mode = Mode.READ if self._described["read"] else Mode.WRITE
        with self._engine("reader" if mode is Mode.READ else "writer").connect() as connection:
            connection.execute(text("SELECT 1"))

    def _create(self, role: str) -> Engine | AsyncEngine:
        mode = Mode.READ if role.endswith("reader") else Mode.WRITE
        if not self._described[mode]:
            raise PermissionMissingError(self._described["plugin"], f"a session that can {mode}", mode)
        dialects.register()
        make: Any = create_async_engine if role.startswith("async") else create_engine
        made: Engine | AsyncEngine = make(f"{self._kind}+jail://", poolclass=NullPool, connect_args={"mode": str(mode)})
        event.listen(made.sync_engine if isinstance(made, AsyncEngine) else made, "handle_error", _translate)
        return made


class ShareUsedUpError(PluginShareUsedUpError, OperationalError):
    """The plugin has used its share of the minute, as SQLAlchemy tells it."""

    def __init__(self, error: BaseException, fields: dict[str, Any]) -> None:
        OperationalError.__init__(self, None, None, error)
        PluginShareUsedUpError.__init__(self, **fields)

    def __str__(self) -> str:
        return str(self.args[0])


def _translate(context: ExceptionContext) -> None:
    """Raise what the same mistake raises in the host's process; what only a jail can do wrong, as its own error."""
    error = context.original_exception
    share = getattr(error, "share", None)
    if share is not None:
        raise ShareUsedUpError(error, share.fields) from error
    if getattr(error, "sqlstate", None) == READ_ONLY:
        raise ReadOnlySessionError("run a statement that does not only read") from error
    if isinstance(error, DataError):
        raise UnstorableValueError(f"a value cannot be stored: {error}") from error
