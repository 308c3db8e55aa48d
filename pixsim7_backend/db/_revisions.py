"""One plugin's revision files, and where its tables stand among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, inspect, text
from sqlalchemy.pool import NullPool

from .database import Database
from .errors import MigrationScriptsError, UnknownRevisionError
from .sqlite import create_file

PATIENCE = 30.0
"""Seconds that migrations wait for a lock that requests hold."""


@dataclass(frozen=True, slots=True)
class MigrationSource:
    """Where the revision files of one plugin lie; ``folder`` (the plugin's) names its version table."""

    plugin_id: str
    directory: Path
    folder: str = ""

    @property
    def version_table(self) -> str:
        """The table that holds the plugin's current revision."""
        return f"alembic_version_{self.folder or self.plugin_id.replace('-', '_')}"


@dataclass(frozen=True, slots=True)
class Revisions:
    """The revision files of a source, read."""

    source: MigrationSource
    scripts: ScriptDirectory

    @classmethod
    def read(cls, source: MigrationSource) -> Revisions:
        """Import the files.

        Raises:
            MigrationScriptsError: one of them raises, or they do not form one line.
        """
        try:
            scripts = ScriptDirectory(str(source.directory), version_locations=[str(source.directory)])
            heads = scripts.get_heads()
        except Exception as error:  # revision files are the plugin's code
            reason = f"{type(error).__name__}: {error}"
            raise MigrationScriptsError(plugin=source.plugin_id, reason=reason) from error
        if len(heads) > 1:
            reason = f"they have several heads ({', '.join(sorted(heads))}); let one follow the other"
            raise MigrationScriptsError(plugin=source.plugin_id, reason=reason)
        return cls(source, scripts)

    def current(self, connection: Connection) -> str | None:
        """Return the revision at which the tables stand, None before the first.

        Raises:
            UnknownRevisionError: it is not among the files.
        """
        revision = stands_at(connection, self.source)
        if revision is not None and not self._knows(revision):
            raise UnknownRevisionError(plugin=self.source.plugin_id, revision=revision)
        return revision

    def pending(self, connection: Connection) -> tuple[str, ...]:
        """Return the revisions that an upgrade would run, in order."""
        return tuple(step.revision.revision for step in self.steps_up(self.current(connection)))

    def steps_up(self, current: str | None) -> list[Any]:
        """Return Alembic's steps from ``current`` to the newest revision."""
        return self._steps(self.scripts._upgrade_revs, "heads", current)

    def steps_down(self, current: str | None, target: str) -> list[Any]:
        """Return Alembic's steps from ``current`` back to ``target``."""
        return self._steps(self.scripts._downgrade_revs, target, current)

    def _knows(self, revision: str) -> bool:
        try:
            return self.scripts.get_revision(revision) is not None
        except (CommandError, RevisionError):
            return False

    def _steps(self, find: Callable[[str, Any], list[Any]], target: str, current: str | None) -> list[Any]:
        try:
            return find(target, current)
        except (CommandError, RevisionError) as error:
            raise MigrationScriptsError(plugin=self.source.plugin_id, reason=str(error)) from error


def stands_at(connection: Connection, source: MigrationSource) -> str | None:
    """Return the revision noted for a plugin's tables, known to its files or not; None before the first."""
    if not inspect(connection).has_table(source.version_table):
        return None
    statement = text(f"SELECT version_num FROM {source.version_table}")  # noqa: S608 - our own name
    revision: str | None = connection.execute(statement).scalar()
    return revision


def migration_engine(database: Database) -> Engine:
    """Return an engine of its own: no pool, and no BEGIN but those written here."""
    if database.file:
        create_file(database.file)
    arguments = {"isolation_level": None, "timeout": PATIENCE} if database.is_sqlite else {}
    return create_engine(database.url, poolclass=NullPool, connect_args=arguments)
