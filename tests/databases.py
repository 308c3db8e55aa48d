"""Fresh databases for tests, of both kinds. Used through the fixture ``database_url``, or directly."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from pixsim7_backend.db import Database

SERVER = os.environ.get("TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
"""Where tests may create databases."""

KINDS = ("sqlite", "postgresql")


@contextmanager
def fresh_database(kind: str, directory: Path, template: str = "template0") -> Iterator[str]:
    """Give the URL of an empty database of its own; it is dropped at the end, used or not."""
    if kind == "sqlite":
        yield f"sqlite:///{directory / f'{uuid.uuid4().hex}.sqlite3'}"
        return
    name = f"pixsim7_test_{uuid.uuid4().hex}"
    with psycopg.connect(SERVER, autocommit=True) as server:
        create = (
            "CREATE DATABASE {} TEMPLATE {} STRATEGY wal_log"
            if template == "template0"
            else "CREATE DATABASE {} TEMPLATE {}"
        )
        server.execute(sql.SQL(create).format(sql.Identifier(name), sql.Identifier(template)))
    try:
        yield _with_name(name)
    finally:
        with psycopg.connect(SERVER, autocommit=True) as server:
            server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _with_name(name: str) -> str:
    return f"{SERVER.rpartition('/')[0]}/{name}"


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
