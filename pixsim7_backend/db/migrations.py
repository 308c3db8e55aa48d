"""Each plugin's tables, brought to the state that its code expects.

A plugin keeps plain Alembic revision files in ``migrations/`` and needs no ``env.py``; where its
tables stand is kept in a version table of its own (``alembic_version_<folder>``), so that a plugin
that is gone leaves its tables and disturbs nobody. One plugin's upgrade is one transaction.

    report = upgrade(database, [MigrationSource("auth", package_dir / "migrations")])
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError, RevisionError
from alembic.util import CommandError
from sqlalchemy import Connection, MetaData, create_engine, inspect, text
from sqlalchemy.pool import NullPool

from .database import Database
from .errors import MigrationError, MigrationFailedError, MigrationScriptsError, UnknownRevisionError
from .locks import DEFAULT_TIMEOUT, exclusive
from .models import NAMING_CONVENTION
from .sqlite import create_file

__all__ = [
    "AppliedRevision",
    "MigrationSource",
    "UpgradeReport",
    "current",
    "downgrade",
    "find_source",
    "pending",
    "schema_differences",
    "upgrade",
]

LOCK = "migrations"
_alembic = threading.RLock()
"""Alembic's ``op`` is one per process."""


@dataclass(frozen=True, slots=True)
class MigrationSource:
    """Where the revision files of one plugin lie; ``folder`` names its version table."""

    plugin_id: str
    directory: Path
    folder: str = ""

    @property
    def version_table(self) -> str:
        """The table that holds the plugin's current revision."""
        return f"alembic_version_{self.folder or self.plugin_id.replace('-', '_')}"


@dataclass(frozen=True, slots=True)
class AppliedRevision:
    """One revision that was run."""

    plugin_id: str
    revision: str


@dataclass(frozen=True, slots=True)
class UpgradeReport:
    """What an upgrade has done, in the order it was done; empty when everything was up to date."""

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
        MigrationError: one plugin's migrations cannot be used or have failed; those before it stay
            applied, of the failed one nothing does.
        DatabaseBusyError: another process was busy with migrations for ``timeout`` seconds.
    """
    if not any(pending(database, source) for source in sources):
        return UpgradeReport()
    with exclusive(database, LOCK, timeout=timeout):
        applied = [revision for source in sources for revision in _move(database, source, "heads", is_upgrade=True)]
    return UpgradeReport(tuple(applied))


def downgrade(database: Database, source: MigrationSource, revision: str = "base") -> UpgradeReport:
    """Take the plugin's tables back to ``revision``; for authors, since data is lost. Errors as upgrade."""
    with exclusive(database, LOCK):
        return UpgradeReport(tuple(_move(database, source, revision, is_upgrade=False)))


def current(database: Database, source: MigrationSource) -> str | None:
    """Return the revision at which the plugin's tables stand, or None before the first."""
    with _connect(database) as connection:
        return _current(connection, source)


def pending(database: Database, source: MigrationSource) -> tuple[str, ...]:
    """Return the revisions that an upgrade would run, in order.

    Raises:
        MigrationError: the files cannot be used, or the tables are at a revision they do not have.
    """
    scripts = _scripts(source)
    with _connect(database) as connection:
        stands_at = _current(connection, source)
    return tuple(step.revision.revision for step in _steps(scripts, source, stands_at, "heads", is_upgrade=True))


def schema_differences(database: Database, metadata: MetaData) -> list[str]:
    """Return how the database differs from the models of ``metadata``; for tests of a plugin's migrations.

    Only its tables are looked at, and foreign keys to other plugins' tables are left out: those are
    in the migrations only.
    """
    options = {"compare_type": True, "include_name": _is_of(metadata), "include_object": _is_own(metadata)}
    with _connect(database) as connection:
        context = MigrationContext.configure(connection, opts=options)
        return [str(difference) for difference in compare_metadata(context, metadata)]


def _is_of(metadata: MetaData) -> Any:
    def include(name: str | None, kind: str, _parents: Any) -> bool:
        return kind != "table" or name in metadata.tables

    return include


def _is_own(metadata: MetaData) -> Any:
    def include(item: Any, _name: str | None, kind: str, _reflected: bool, _other: Any) -> bool:
        return kind != "foreign_key_constraint" or item.elements[0].target_fullname.split(".")[0] in metadata.tables

    return include


def _move(database: Database, source: MigrationSource, target: str, *, is_upgrade: bool) -> list[AppliedRevision]:
    """Run the steps to ``target`` in one transaction, and return them."""
    scripts = _scripts(source)
    done: list[str] = []

    def steps(heads: tuple[str, ...], _context: MigrationContext) -> Iterator[Any]:
        for step in _steps(scripts, source, heads[0] if heads else None, target, is_upgrade=is_upgrade):
            done.append(step.revision.revision)
            yield step

    options = {
        "fn": steps,
        "version_table": source.version_table,
        "target_metadata": MetaData(naming_convention=NAMING_CONVENTION),
        "transactional_ddl": True,
    }
    with _alembic, _connect(database) as connection:
        try:
            with _transaction(connection, source):
                context = MigrationContext.configure(connection, opts={**options, "script": scripts})
                with Operations.context(context):
                    context.run_migrations()
        except MigrationError:
            raise
        except Exception as error:
            raise MigrationFailedError(
                plugin=source.plugin_id, revision=done[-1] if done else "", cause=error
            ) from error
    return [AppliedRevision(source.plugin_id, revision) for revision in done]


@contextmanager
def _connect(database: Database) -> Iterator[Connection]:
    """Give a connection of its own, without the pool's time limits."""
    if database.file:
        create_file(database.file)
    arguments = {"isolation_level": None, "timeout": 30.0} if database.is_sqlite else {}
    engine = create_engine(database.url, poolclass=NullPool, connect_args=arguments)
    with engine.connect() as connection:
        yield connection


@contextmanager
def _transaction(connection: Connection, source: MigrationSource) -> Iterator[None]:
    """Commit everything or nothing, tables included.

    On SQLite foreign keys are off meanwhile, or rebuilding a table (its way to ALTER) would delete
    the rows that refer to it; what they must hold is checked before the commit.
    """
    if connection.dialect.name != "sqlite":
        with connection.begin():
            yield
        return
    connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
    connection.rollback()
    with connection.begin():
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        if broken:
            tables = ", ".join(sorted({row[0] for row in broken}))
            raise MigrationScriptsError(plugin=source.plugin_id, reason=f"they leave rows without parents in {tables}")


def _scripts(source: MigrationSource) -> ScriptDirectory:
    try:
        scripts = ScriptDirectory(str(source.directory), version_locations=[str(source.directory)])
        heads = scripts.get_heads()
    except Exception as error:  # revision files are the plugin's code
        reason = f"{type(error).__name__}: {error}"
        raise MigrationScriptsError(plugin=source.plugin_id, reason=reason) from error
    if len(heads) > 1:
        raise MigrationScriptsError(plugin=source.plugin_id, reason=f"they have several heads: {', '.join(heads)}")
    return scripts


def _steps(
    scripts: ScriptDirectory, source: MigrationSource, stands_at: str | None, target: str, *, is_upgrade: bool
) -> list[Any]:
    try:
        if stands_at is not None:
            scripts.get_revision(stands_at)
    except (CommandError, RevisionError):
        raise UnknownRevisionError(plugin=source.plugin_id, revision=stands_at or "") from None
    try:
        if is_upgrade:
            return list(scripts._upgrade_revs(target, stands_at))  # type: ignore[arg-type]
        return list(scripts._downgrade_revs(target, stands_at))
    except (CommandError, ResolutionError) as error:
        raise MigrationScriptsError(plugin=source.plugin_id, reason=str(error)) from error


def _current(connection: Connection, source: MigrationSource) -> str | None:
    if not inspect(connection).has_table(source.version_table):
        return None
    rows = connection.execute(text(f"SELECT version_num FROM {source.version_table}")).scalars().all()  # noqa: S608
    return rows[0] if rows else None
