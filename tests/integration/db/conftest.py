"""Databases with the test tables in them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pixsim7_backend.db import Database
from tests.databases import fresh_database
from tests.integration.db.models import Base, Counter


def create_tables(url: str) -> None:
    """Make the test tables."""
    database = Database(url)
    Base.metadata.create_all(database.engine)
    database.close()


@pytest.fixture
def counters_url(database_kind: str, tmp_path: Path) -> Iterator[str]:
    """The URL of a database whose one row is a counter with id 1 and some JSON in it."""
    with fresh_database(database_kind, tmp_path, create_tables) as url:
        database = Database(url)
        with database.session() as session:
            session.add(Counter(id=1, name="first", meta={"deep": {"list": [1, {"a": 1}]}}, marks=[1]))
        database.close()
        yield url


@pytest.fixture
async def counters(counters_url: str) -> AsyncIterator[Database]:
    """A database whose one row is a counter with id 1 and some JSON in it."""
    database = Database(counters_url)
    yield database
    await database.aclose()
