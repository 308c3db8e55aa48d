"""One process at a time: for migrations, and for what several workers must create only once."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from .database import Database
from .errors import DatabaseBusyError
from .sqlite import create_directory, is_busy

DEFAULT_TIMEOUT = 120.0
_LOCK_NOT_AVAILABLE = "55P03"


@contextmanager
def exclusive(database: Database, name: str, *, timeout: float = DEFAULT_TIMEOUT) -> Iterator[None]:
    """Hold the lock ``name`` of this database; every process and thread that asks for it waits.

    It lasts as long as the process does, at most: one that is killed leaves nothing locked. It is
    not re-entrant.

    Raises:
        DatabaseBusyError: others held it for ``timeout`` seconds.
    """
    if database.file:
        with _file_lock(database.file, name, timeout):
            yield
    else:
        with _advisory_lock(database, name, timeout):
            yield


@contextmanager
def _file_lock(file: Path, name: str, timeout: float) -> Iterator[None]:
    """Lock an empty SQLite file beside the database: portable, and the kernel lets go for the dead."""
    create_directory(file)
    path = file.with_name(f"{file.name}.{_slug(name)}.lock")
    with closing(sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)) as lock:
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if is_busy(error):
                raise DatabaseBusyError(f"the lock {name!r}", timeout) from error
            raise
        yield


@contextmanager
def _advisory_lock(database: Database, name: str, timeout: float) -> Iterator[None]:
    """Take a lock of the server on a connection of its own: it ends with the connection."""
    engine = create_engine(database.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    key = int.from_bytes(hashlib.sha256(f"pixsim7:{name}".encode()).digest()[:8], signed=True)
    with engine.connect() as connection:
        connection.execute(text(f"SET lock_timeout = {int(timeout * 1000)}"))
        try:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": key})
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
                raise DatabaseBusyError(f"the lock {name!r}", timeout) from error
            raise
        yield


def _slug(name: str) -> str:
    return "".join(char if char.isalnum() else "-" for char in name)
