"""What the broker takes of a query, on both databases.

Its share is processor time of the host: a statement through the broker, less the same statement without it. Beside it,
for comparison, the time of a query as plugins see it, in a jail and in process: with two changes of process each.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psycopg
import uvloop
from fastapi import FastAPI
from psycopg import sql
from sqlalchemy.orm import Mapped, mapped_column

from pixsim7_backend.community.database.executor import Mode
from pixsim7_backend.community.database.openness import Access, access_of, openness_of
from pixsim7_backend.community.database.roles import apply_grants, remove_role
from pixsim7_backend.community.database.service import DatabaseService
from pixsim7_backend.db import Database
from pixsim7_backend.db.models import plugin_base
from pixsim7_backend.infrastructure.plugins import DesiredState, init_plugin_manager, plugin_hooks
from pixsim7_backend.infrastructure.plugins._grants.permissions import Grants, Permission
from pixsim7_backend.infrastructure.plugins._jail.broker import Broker, JailIdentity
from pixsim7_backend.infrastructure.plugins._jail.jails import Jails, JailSettings
from pixsim7_backend.infrastructure.plugins._jail.launcher import Launcher
from pixsim7_backend.infrastructure.plugins._store import MemoryStateStore
from pixsim7_backend.infrastructure.plugins.testing import write_plugin

from .report import Row, at_most, for_comparison

_SERVER = os.environ.get("TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
_CODE = """
import time
from sqlalchemy import select
from sqlalchemy.orm import Session
from pixsim7_backend.community.tables import open_table
from pixsim7_backend.db import get_db_readonly

items = open_table("benchmark_items")

@router.get("/queries/{count}")
def query(count: int, db: Session = Depends(get_db_readonly)) -> float:
    statement = select(items.c.id, items.c.name).where(items.c.id == 7)
    assert db.execute(statement).all() == [(7, "item 7")]
    started = time.perf_counter()
    for _ in range(count):
        db.execute(statement).all()
    return (time.perf_counter() - started) / count * 1e6
"""

_STATEMENT = "SELECT id, name FROM benchmark_items WHERE id = "
_Base = plugin_base("benchmark")


class _Item(_Base):
    """What the plugin reads."""

    __tablename__ = "benchmark_items"
    community_read = frozenset({"id", "name"})

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def query_rows(launcher: Launcher, directory: Path, rounds: int) -> list[Row]:
    """Measure the broker's share on SQLite, and on PostgreSQL where there is a server."""
    found = _rows(launcher, directory / "sqlite", f"sqlite:///{directory}/benchmark.sqlite3", rounds)
    with _postgresql() as url:
        if url is not None:
            found += _rows(launcher, directory / "postgresql", url, rounds)
    return found


@contextmanager
def _postgresql() -> Iterator[str | None]:
    """Give the URL of a new database; None where there is no server."""
    name = f"pixsim7_benchmark_{secrets.token_hex(8)}"
    try:
        server = psycopg.connect(_SERVER, autocommit=True, connect_timeout=5)
    except psycopg.OperationalError:
        yield None
        return
    with server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield f"{_SERVER.rpartition('/')[0]}/{name}"
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _rows(launcher: Launcher, directory: Path, url: str, rounds: int) -> list[Row]:
    database = Database(url)
    grants, openness, secrets_in = Grants(frozenset({Permission.parse("db:read")})), openness_of([_Item]), directory
    try:
        _Base.metadata.create_all(database.engine)
        with database.session() as session:
            session.add_all(_Item(name=f"item {number}") for number in range(1, 101))
        if not database.is_sqlite:
            apply_grants(url, "there", grants, openness, data_dir=secrets_in)
        service = DatabaseService(lambda: database, data_dir=secrets_in, openness=lambda: openness)
        try:
            direct, brokered = uvloop.run(_measure(launcher, directory, database, service, rounds))
            alone, through = uvloop.run(_work(service, grants, access_of(grants, openness), directory, rounds))
        finally:
            if not database.is_sqlite:
                remove_role(url, "there", data_dir=secrets_in)
    finally:
        database.close()
    kind = "SQLite" if url.startswith("sqlite") else "PostgreSQL"
    share = median(there - here for there, here in zip(through, alone, strict=True))
    detail = f"{median(through):.0f} µs of the host's processor with it, {median(alone):.0f} µs without"
    added = median(there - here for there, here in zip(brokered, direct, strict=True))
    seen = f"{median(brokered):.0f} µs in a jail, {median(direct):.0f} µs in process"
    return [
        at_most(f"broker's share of a query, {kind}", share, 60, "µs", detail),
        for_comparison(f"added to a query by its jail, {kind}", added, "µs", seen),
    ]


async def _work(
    service: DatabaseService, grants: Grants, access: Access, directory: Path, rounds: int
) -> tuple[list[float], list[float]]:
    """Return the microseconds of processor time of a statement without and with the broker, round by round."""
    answers: dict[int, asyncio.Future[Any]] = {}
    jail = JailIdentity(plugin="there", generation=1, directory=directory, scratch=directory)
    broker = Broker(
        jail,
        grants,
        [service],
        reply=lambda number, is_good, value: answers.pop(number).set_result((is_good, value)),
    )
    numbers = itertools.count(1)

    async def call(method: str, *args: Any) -> Any:
        number = next(numbers)
        answer = answers[number] = asyncio.get_running_loop().create_future()
        broker.take(number, method, list(args))
        is_good, value = await answer
        assert is_good, value
        return value

    executor = service._executor("there", access)
    transaction = executor.begin(Mode.READ)
    statement = _STATEMENT + ("?" if service.describe(jail, grants)["kind"] == "sqlite" else "$1")
    opened = await call("db.begin", "read")
    alone: list[float] = []
    through: list[float] = []
    try:
        for _ in range(rounds + 1):
            started = time.process_time()
            for _ in range(200):
                transaction.execute(statement, [[7]], is_many=False)
            between = time.process_time()
            for _ in range(200):
                await call("db.execute", opened, statement, [7])
            alone.append((between - started) / 200 * 1e6)
            through.append((time.process_time() - between) / 200 * 1e6)
    finally:
        await broker.close()
        transaction.rollback()
        executor.close()
    return alone[1:], through[1:]


async def _measure(
    launcher: Launcher, directory: Path, database: Database, service: DatabaseService, rounds: int
) -> tuple[list[float], list[float]]:
    """Return the microseconds of a query in process and confined, round by round."""
    granted: dict[str, Any] = {"granted": ["db:read"], "declined": []}
    write_plugin(directory / "plugins", "here", _CODE)
    write_plugin(directory / "community", "there", _CODE, permissions=("db:read",))
    app = FastAPI()
    app.state.database = database
    manager = init_plugin_manager(
        app,
        directory / "plugins",
        community_directory=directory / "community",
        disabled=(),
        store=MemoryStateStore(DesiredState(grants={"there": granted})),
        jails=lambda: Jails(launcher, JailSettings(services=(service,)), plugin_hooks),
    )
    await manager.enable_all()
    times: dict[str, list[float]] = {"here": [], "there": []}
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://bench", timeout=60) as client:
            for _ in range(rounds + 1):
                for plugin, found in times.items():
                    found.append((await client.get(f"/api/v1/{plugin}/queries/200")).raise_for_status().json())
    finally:
        await manager.disable_all()
        manager.close()
    return times["here"][1:], times["there"][1:]
