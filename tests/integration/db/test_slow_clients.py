"""A real server and a client that reads its answer slowly."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy import select, update
from starlette.responses import Response

from pixsim7_backend.db import AsyncDbSession, Database, DbSession
from tests.integration.db.models import Counter

pytestmark = pytest.mark.anyio

SIZE = 32 * 1024 * 1024
"""More than the sockets' buffers hold."""


def _build(database: Database) -> FastAPI:
    app = FastAPI()
    app.state.database = database

    @app.get("/whole")
    def whole(db: DbSession) -> Response:
        db.get_one(Counter, 1).value += 1
        return Response(b"x" * SIZE)

    @app.get("/async")
    async def asynchronous(db: AsyncDbSession) -> Response:
        (await db.get_one(Counter, 1)).value += 1
        return Response(b"x" * SIZE)

    @app.get("/streamed")
    def streamed(db: DbSession) -> StreamingResponse:
        db.get_one(Counter, 1).value += 1

        def body() -> Iterator[bytes]:
            for _ in range(64):
                yield str(db.scalars(select(Counter.value)).one()).encode() * (SIZE // 64)

        return StreamingResponse(body())

    return app


@contextmanager
def _serving(app: FastAPI) -> Iterator[tuple[str, int]]:
    """Serve the app in a thread until the end."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()


@pytest.mark.parametrize("path", ["/whole", "/async", "/streamed"])
async def test_a_slow_reader_holds_nothing(counters: Database, path: str) -> None:
    """While the client has read one byte of many, no transaction is open, no lock held, no connection taken."""
    with _serving(_build(counters)) as address, socket.create_connection(address, timeout=20) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.to_thread(client.sendall, f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        first = await asyncio.to_thread(client.recv, 12)
        assert first == b"HTTP/1.1 200"
        await asyncio.sleep(0.2)
        assert _checked_out(counters) == 0
        with counters.session() as session:
            session.execute(update(Counter).values(value=Counter.value + 10))
        assert _open_transactions(counters) == 0
        with counters.readonly_session() as session:
            assert session.scalar(select(Counter.value)) == 11
    await counters.aclose()


def _checked_out(database: Database) -> int:
    pools: list[Any] = [database.engine.pool, database.reading_engine.pool, database.async_engine.pool]
    return sum(pool.checkedout() for pool in pools)


def _open_transactions(database: Database) -> int:
    if database.is_sqlite:
        return 0  # that the update went through has shown it: SQLite has one writer
    name = database.url.database
    with psycopg.connect(database.url.set(drivername="postgresql").render_as_string()) as connection:
        statement = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND state <> 'idle' AND pid <> pg_backend_pid()"
        )
        row = connection.execute(statement, [name]).fetchone()
    assert row is not None
    return int(row[0])
