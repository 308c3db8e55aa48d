"""Each plugin's tables, brought to the state that its code expects.

A plugin keeps plain Alembic revision files in ``migrations/`` and needs no ``env.py``; where its
tables stand is kept in a version table of its own (``alembic_version_<folder>``), so that a plugin
that is gone leaves its tables and disturbs nobody. One plugin's upgrade is one transaction.

    report = upgrade(database, [MigrationSource("auth", package_dir / "migrations")])
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, MetaData

from ._revisions import PATIENCE, MigrationSource, Revisions, migration_engine, stands_at
from .database import Database
from .errors import MigrationError, MigrationFailedError, MigrationScriptsError, UnknownRevisionError
from .locks import DEFAULT_TIMEOUT, exclusive
from .models import NAMING_CONVENTION
from .schema_check import schema_differences

__all__ = [
    "AppliedRevision",
    "MigrationError",
    "MigrationFailedError",
    "MigrationScriptsError",
    "MigrationSource",
    "UnknownRevisionError",
    "UpgradeReport",
    "current",
    "downgrade",
    "find_source",
    "noted",
    "pending",
    "schema_differences",
    "upgrade",
]

LOCK = "migrations"
_alembic = threading.RLock()
"""Alembic's ``op`` is one for the whole process."""

Steps = Callable[[Revisions, str | None], list[Any]]


@dataclass(frozen=True, slots=True)
class AppliedRevision:
    """One revision that was run."""

    plugin_id: str
    revision: str


@dataclass(frozen=True, slots=True)
class UpgradeReport:
    """What was done, in that order; empty when everything was up to date."""

    applied: tuple[AppliedRevision, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-able values."""
        return {"applied": [{"plugin": each.plugin_id, "revision": each.revision} for each in self.applied]}


def find_source(plugin_id: str, package_dir: Path) -> MigrationSource | None:
    """Return the migrations of the plugin in this folder, or None when it has none."""
    directory = package_dir / "migrations"
    return MigrationSource(plugin_id, directory, package_dir.name) if directory.is_dir() else None


def upgrade(
    database: Database, sources: Sequence[MigrationSource], *, timeout: float = DEFAULT_TIMEOUT
) -> UpgradeReport:
    """Bring the tables of every source to its newest revision, in the given order.

    Safe to call from several processes at once: one does the work, the others wait and find it done.

    Raises:
        MigrationError: one plugin's migrations cannot be used or have failed. Those of the plugins
            before it stay applied; of the failed one nothing does.
        DatabaseBusyError: another process was busy with migrations for ``timeout`` seconds.
    """
    all_revisions = [Revisions.read(source) for source in sources]
    with migration_engine(database).connect() as connection:
        if not any(revisions.pending(connection) for revisions in all_revisions):
            return UpgradeReport()
    with exclusive(database, LOCK, timeout=timeout):
        return UpgradeReport(
            tuple(applied for revisions in all_revisions for applied in _move(database, revisions, Revisions.steps_up))
        )


def downgrade(database: Database, source: MigrationSource, revision: str = "base") -> UpgradeReport:
    """Take the plugin's tables back to ``revision``; for authors, since what they hold is lost. Errors as upgrade."""
    revisions = Revisions.read(source)
    with exclusive(database, LOCK):
        return UpgradeReport(
            tuple(_move(database, revisions, lambda each, stands_at: each.steps_down(stands_at, revision)))
        )


def current(database: Database, source: MigrationSource) -> str | None:
    """Return the revision at which the plugin's tables stand, or None before the first. Errors as pending."""
    with migration_engine(database).connect() as connection:
        return Revisions.read(source).current(connection)


def noted(database: Database, source: MigrationSource) -> str | None:
    """Return the revision noted for the plugin's tables, known to its files or not; no file is read, or made."""
    if database.file is not None and not database.file.exists():
        return None
    with migration_engine(database).connect() as connection:
        return stands_at(connection, source)


def pending(database: Database, source: MigrationSource) -> tuple[str, ...]:
    """Return the revisions that an upgrade would run, in order.

    Raises:
        MigrationScriptsError: the files cannot be used.
        UnknownRevisionError: the tables are at a revision that the files do not have.
    """
    with migration_engine(database).connect() as connection:
        return Revisions.read(source).pending(connection)


def _move(database: Database, revisions: Revisions, find_steps: Steps) -> list[AppliedRevision]:
    """Run the steps in one transaction and return them."""
    plugin, done = revisions.source.plugin_id, list[str]()
    with _alembic, migration_engine(database).connect() as connection:
        steps = find_steps(revisions, revisions.current(connection))
        connection.rollback()
        try:
            with _transaction(connection, plugin):
                _run(connection, revisions, steps, done)
        except MigrationError:
            raise
        except Exception as error:
            raise MigrationFailedError(plugin=plugin, revision=done[-1] if done else "", cause=error) from error
    return [AppliedRevision(plugin, revision) for revision in done]


def _run(connection: Connection, revisions: Revisions, steps: list[Any], done: list[str]) -> None:
    """Run the steps, noting each one in ``done`` when it begins."""

    def begin_each(_heads: Any, _context: MigrationContext) -> Iterator[Any]:
        for step in steps:
            done.append(step.revision.revision)
            yield step

    options = {
        "fn": begin_each,
        "script": revisions.scripts,
        "version_table": revisions.source.version_table,
        "target_metadata": MetaData(naming_convention=NAMING_CONVENTION),
    }
    context = MigrationContext.configure(connection, opts=options)
    with Operations.context(context):
        context.run_migrations()


@contextmanager
def _transaction(connection: Connection, plugin: str) -> Iterator[None]:
    """Commit everything or nothing, the tables themselves included."""
    if connection.dialect.name == "sqlite":
        with _sqlite_transaction(connection, plugin):
            yield
    else:
        with connection.begin():
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(PATIENCE * 1000)}")
            yield


@contextmanager
def _sqlite_transaction(connection: Connection, plugin: str) -> Iterator[None]:
    """Begin in so many words: the driver would commit before each CREATE.

    Foreign keys are off meanwhile, or rebuilding a table (SQLite's way to ALTER) would delete the rows
    that refer to it; what they must hold is checked before the commit.
    """
    connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
    connection.rollback()
    with connection.begin():
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        if broken:
            tables = ", ".join(sorted({str(row[0]) for row in broken}))
            raise MigrationScriptsError(plugin=plugin, reason=f"they leave rows without parents in {tables}")
