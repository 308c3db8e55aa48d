"""Fresh databases for tests, of both kinds. Used through the fixtures here, or :func:`fresh_database`.

Creating and dropping a PostgreSQL database costs up to seconds, so each test process keeps the ones it
has made, empties them after each use, and drops them when it ends. A schema that many tests need is
made once (``prepare``): on SQLite the file is copied, on PostgreSQL the tables are emptied.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from pixsim7_backend.db import Database
from tests.services import postgresql_url

KINDS = ("sqlite", "postgresql")

Prepare = Callable[[str], None]
"""Makes the schema in the empty database of this URL."""


def _leave_empty(_url: str) -> None:
    """Prepare nothing."""


@contextmanager
def fresh_database(kind: str, directory: Path, prepare: Prepare = _leave_empty) -> Iterator[str]:
    """Give the URL of a database that nobody else uses; it may be left with open connections.

    ``prepare`` must be the same function object each time for its schema to be reused; what it
    inserts into tables is not kept from one use to the next, only version tables are.
    """
    if kind == "sqlite":
        yield _copy_of_prepared_file(directory, prepare)
        return
    free = _free[prepare]
    server = free.pop() if free else _PreparedDatabase(prepare)
    try:
        yield server.url
    finally:
        if server.reset():
            free.append(server)


class _PreparedDatabase:
    """A PostgreSQL database of this process, with the schema that ``prepare`` made."""

    def __init__(self, prepare: Prepare) -> None:
        self.name = f"pixsim7_test_{uuid.uuid4().hex}"
        self.url = f"{postgresql_url().rpartition('/')[0]}/{self.name}"
        create = sql.SQL("CREATE DATABASE {} TEMPLATE template0 STRATEGY wal_log")
        with psycopg.connect(postgresql_url(), autocommit=True) as server:
            server.execute(create.format(sql.Identifier(self.name)))
        _made.append(self.name)
        prepare(self.url)
        self._tables = self._list_tables()

    def reset(self) -> bool:
        """Empty all tables and close connections that were left; False when the schema was changed."""
        with psycopg.connect(postgresql_url(), autocommit=True) as server:
            server.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", [self.name]
            )
        if not self._tables:
            self._run("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
            return True
        if self._list_tables() != self._tables:
            return False
        names = [name for name in self._tables if not name.startswith("alembic_version_")]
        quoted = sql.SQL(", ").join(map(sql.Identifier, names))
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY CASCADE").format(quoted))
        return True

    def _run(self, statements: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statements.encode())

    def _list_tables(self) -> list[str]:
        with psycopg.connect(self.url) as connection:
            found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
            return [name for (name,) in found]


_made: list[str] = []
_free: defaultdict[Prepare, list[_PreparedDatabase]] = defaultdict(list)
_prepared_files: dict[Prepare, Path] = {}
_scratch: list[Path] = []


def _copy_of_prepared_file(directory: Path, prepare: Prepare) -> str:
    target = directory / f"{uuid.uuid4().hex}.sqlite3"
    if prepare is not _leave_empty:
        if prepare not in _prepared_files:
            _prepared_files[prepare] = _prepare_file(prepare)
        shutil.copy(_prepared_files[prepare], target)
    return f"sqlite:///{target}"


def _prepare_file(prepare: Prepare) -> Path:
    if not _scratch:
        _scratch.append(Path(tempfile.mkdtemp(prefix="pixsim7-test-")))
    file = _scratch[0] / f"{uuid.uuid4().hex}.sqlite3"
    prepare(f"sqlite:///{file}")
    return file


def pytest_unconfigure() -> None:
    """Drop what this process has made."""
    if _made:
        with psycopg.connect(postgresql_url(), autocommit=True) as server:
            for name in _made:
                server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        _made.clear()
    for directory in _scratch:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(params=KINDS)
def database_kind(request: pytest.FixtureRequest) -> str:
    """``sqlite`` or ``postgresql``: each test that uses it runs on both."""
    kind: str = request.param
    return kind


@pytest.fixture
def database_url(database_kind: str, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database for one test."""
    with fresh_database(database_kind, tmp_path) as url:
        yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An empty database for one test, closed at its end."""
    made = Database(database_url)
    yield made
    made.close()
