"""The data of plugins, for those who install and remove them: exported, dropped, or taken back to an older form."""

from __future__ import annotations

import ast
import base64
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, Final
from uuid import UUID

from sqlalchemy import Connection, MetaData, Table, inspect, select, text

from pixsim7_backend.community.database.own_tables import NOTHING, OwnTables
from pixsim7_backend.db import Database, migrations
from pixsim7_backend.db.migrations import MigrationSource, find_source
from pixsim7_backend.infrastructure.plugins import DesiredState
from pixsim7_backend.infrastructure.plugins.errors import TablesAheadError

__all__ = ["PluginTables"]

_AT_ONCE: Final = 500
_PLAIN: Final = re.compile(r"[A-Za-z0-9_]{1,63}")
"""Names of tables that are names of files anywhere."""


class PluginTables:
    """What the database holds of plugins, found through the migrations in their folders.

    Args:
        database: where the tables are.
        exports: the directory to write exports to; made when first needed.
        desired: tells how plugins are switched and configured.
        confined: tells of which plugins no migration is read, since reading one runs it.
        own_tables: gives those that a confined plugin has made for itself.

    All methods raise MigrationError where a plugin's migrations cannot be used.
    """

    def __init__(
        self,
        database: Database,
        exports: Path,
        desired: Callable[[], DesiredState],
        *,
        confined: Callable[[], Collection[str]] = tuple,
        own_tables: Callable[[str], AbstractContextManager[OwnTables]] = lambda _: nullcontext(NOTHING),
    ) -> None:
        self._database = database
        self._exports = exports
        self._desired = desired
        self._confined = confined
        self._own_tables = own_tables

    def revision(self, plugin_id: str, installed_as: str) -> str | None:
        """Return at which revision the plugin's tables stand, known to its files or not; None before the first."""
        return migrations.noted(self._database, MigrationSource(plugin_id, Path(), installed_as))

    def pending(self, plugin_id: str, folder: Path, installed_as: str, *, version: str) -> tuple[str, ...]:
        """Return the revisions that these files would bring to the tables, in order; nothing of them is run.

        None where only running them would tell, or they are not one line of revisions.

        Raises:
            TablesAheadError: the tables stand at a revision that ``version`` does not know.
        """
        line = revisions_in(folder / "migrations")
        stands_at = self.revision(plugin_id, installed_as) if line else None
        if stands_at is None:
            return line
        if stands_at not in line:
            raise TablesAheadError(plugin=plugin_id, version=version, revision=stands_at)
        return line[line.index(stands_at) + 1 :]

    def downgrade(self, plugin_id: str, folder: Path, revision: str | None) -> None:
        """Take the plugin's tables back to a revision, None is before the first; what newer columns hold is lost."""
        source = self._find_source(plugin_id, folder)
        if source is not None:
            migrations.downgrade(self._database, source, revision or "base")

    def drop(self, plugin_id: str, folder: Path) -> None:
        """Delete the plugin's tables, and the note of where they stand. Doing it twice is fine."""
        source = self._find_source(plugin_id, folder)
        if source is None:
            return
        migrations.downgrade(self._database, source)
        with self._database.engine.begin() as connection:
            connection.execute(text(f"DROP TABLE IF EXISTS {source.version_table}"))

    def export(self, plugin_id: str, folder: Path) -> Path | None:
        """Write every row of the plugin's tables to a zip of JSON Lines; return it, None when nothing is stored.

        ``contents.json`` lists the tables with the number of their rows, and has how the plugin was switched
        and configured (secrets as they are stored: encrypted); ``<table>.jsonl`` has one row per line. The own
        tables of a confined plugin are in ``own/``; ``contents.json`` says which is in which file.
        All tables are read at one moment, and the file is there whole or not at all.

        Raises:
            OwnTablesUnreadableError: own tables are there and cannot be read.
        """
        source = self._find_source(plugin_id, folder)
        wishes = self._desired()
        on, settings = wishes.switched.get(plugin_id), wishes.settings.get(plugin_id, {})
        with self._own_tables(plugin_id) if plugin_id in self._confined() else nullcontext(NOTHING) as own:
            if source is None and on is None and not settings and not own.names:
                return None
            about = {
                "plugin": plugin_id,
                "revision": migrations.current(self._database, source) if source else None,
                "switched": on,
                "settings": dict(settings),
            }
            return self._write(plugin_id, tables_of(source) if source else (), own, about)

    def _write(self, plugin_id: str, names: tuple[str, ...], own: OwnTables, about: Mapping[str, Any]) -> Path:
        self._exports.mkdir(mode=0o700, parents=True, exist_ok=True)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
        target = self._exports / f"{plugin_id}-{stamp}.zip"
        part = target.with_suffix(".part")
        try:
            with part.open("xb") as stream:
                part.chmod(0o600)
                with self._reading_at_one_moment() as connection:
                    _write_zip(stream, connection, names, own, about)
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return target

    def _find_source(self, plugin_id: str, folder: Path) -> MigrationSource | None:
        """Return the plugin's migrations, None where it has none, may have none, or there is no database yet."""
        if plugin_id in self._confined():
            return None
        file = self._database.file
        is_there = file is None or file.exists()
        return find_source(plugin_id, folder) if is_there else None

    @contextmanager
    def _reading_at_one_moment(self) -> Iterator[Connection]:
        """Give a transaction that sees the database as it was at its beginning; SQLite's always do."""
        with self._database.reading_engine.connect() as connection:
            if not self._database.is_sqlite:
                connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection


def revisions_in(directory: Path) -> tuple[str, ...]:
    """Return the revisions that migration files name, first to last; none where one would have to be run to tell."""
    files = [file for file in sorted(directory.glob("*.py")) if file.name != "__init__.py"]
    after = {each.get("down_revision"): each.get("revision") for each in map(_literals_in, files)}
    line: list[str] = []
    follower = after.get(None)
    while isinstance(follower, str) and follower not in line:
        line.append(follower)
        follower = after.get(follower)
    return tuple(line) if len(line) == len(files) else ()


def _literals_in(file: Path) -> dict[str, Any]:
    """Return the literals that a file gives names to at its top; {} where it is not Python."""
    try:
        body = ast.parse(file.read_bytes()).body
    except (SyntaxError, ValueError, RecursionError):
        return {}
    found: dict[str, Any] = {}
    for statement in body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        value = getattr(statement, "value", None)
        names = [each.id for each in targets if isinstance(each, ast.Name)]
        found |= dict.fromkeys(names, value.value) if isinstance(value, ast.Constant) else {}
    return found


def tables_of(source: MigrationSource) -> tuple[str, ...]:
    """Return the tables that a plugin's migrations make: they are run on an empty database to see."""
    with tempfile.TemporaryDirectory(prefix="pixsim7-") as scratch:
        database = Database(f"sqlite:///{Path(scratch, 'tables.sqlite3')}")
        try:
            migrations.upgrade(database, [source])
            found = inspect(database.engine).get_table_names()
        finally:
            database.close()
    return tuple(sorted(name for name in found if name != source.version_table))


def _write_zip(
    stream: BinaryIO, connection: Connection, names: tuple[str, ...], own: OwnTables, about: Mapping[str, Any]
) -> None:
    present = set(inspect(connection).get_table_names())
    counts: dict[str, int] = {}
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            if name in present:
                counts[name] = _write_table(archive, connection, name)
        own_counts = [_write_own_table(archive, own, name, file) for name, file in _own_files(own.names).items()]
        contents = {
            **about,
            "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "tables": counts,
            "own_tables": own_counts,
        }
        archive.writestr("contents.json", json.dumps(contents, indent=2))


def _own_files(names: tuple[str, ...]) -> dict[str, str]:
    """Return a file in the zip for each table: a stranger chose its name, which could lead out of a directory."""
    files: dict[str, str] = {}
    for number, name in enumerate(names, start=1):
        file = f"own/{name}.jsonl" if _PLAIN.fullmatch(name) else f"own/table-{number}.jsonl"
        is_taken = file.lower() in map(str.lower, files.values())  # some systems do not tell case apart
        files[name] = f"own/table-{number}.jsonl" if is_taken else file
    return files


def _write_own_table(archive: zipfile.ZipFile, own: OwnTables, name: str, file: str) -> dict[str, Any]:
    with archive.open(file, "w", force_zip64=True) as lines:
        count = own.read(name, lines.write)
    return {"table": name, "file": file, "rows": count}


def _write_table(archive: zipfile.ZipFile, connection: Connection, name: str) -> int:
    table = Table(name, MetaData(), autoload_with=connection, resolve_fks=False)
    statement = select(table).order_by(*table.primary_key.columns).execution_options(yield_per=_AT_ONCE)
    count = 0
    with archive.open(f"{name}.jsonl", "w", force_zip64=True) as lines, connection.execute(statement) as rows:
        for row in rows.mappings():
            lines.write(json.dumps(dict(row), ensure_ascii=False, default=_jsonable).encode() + b"\n")
            count += 1
    return count


def _jsonable(value: object) -> Any:
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, (bytes, memoryview)):
        return {"base64": base64.b64encode(bytes(value)).decode()}
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    raise TypeError(f"a column holds a {type(value).__name__}, which JSON has no form for")
