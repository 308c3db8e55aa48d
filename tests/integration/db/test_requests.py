"""When a request's session is committed, and what it holds while the response is sent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio
import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy import event, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from starlette.types import Message, Receive, Scope, Send

from pixsim7_backend.db import (
    AsyncDbSession,
    AsyncReadOnlyDb,
    Database,
    DbSession,
    ReadOnlyDb,
    ReadOnlySessionError,
    get_async_db,
    get_db,
    set_default_database,
)
from pixsim7_backend.db.conflicts import lock_row, lock_row_async
from tests.integration.db.models import Counter

pytestmark = pytest.mark.anyio


class CommitsSeen:
    """ASGI middleware that notes what is stored at the moment each response starts."""

    def __init__(self, app: Any, database: Database) -> None:
        self.app = app
        self.database = database
        self.values: list[int | None] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def observe(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.values.append(await asyncio.to_thread(self._stored))
            await send(message)

        await self.app(scope, receive, observe)

    def _stored(self) -> int | None:
        with self.database.readonly_session() as session:
            return session.scalar(select(Counter.value).where(Counter.id == 1))


@asynccontextmanager
async def _client(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as client:
        yield client


@pytest.fixture
def app(counters: Database) -> FastAPI:
    """An app on the database of the test."""
    made = FastAPI()
    made.state.database = counters

    @made.exception_handler(IntegrityError)
    async def conflict(_request: Request, _error: Exception) -> JSONResponse:
        return JSONResponse({"detail": "conflict"}, 409)

    return made


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the app."""
    async with _client(app) as made:
        yield made


def _value(database: Database) -> int | None:
    with database.readonly_session() as session:
        return session.scalar(select(Counter.value).where(Counter.id == 1))


def _raise(db: DbSession) -> None:
    db.get_one(Counter, 1).value += 1
    db.flush()
    raise HTTPException(418)


async def _raise_async(db: AsyncDbSession) -> None:
    (await db.get_one(Counter, 1)).value += 1
    await db.flush()
    raise HTTPException(418)


def _add_one(db: DbSession) -> int:
    counter = db.get_one(Counter, 1)
    counter.value += 1
    return counter.value


async def _add_one_async(db: AsyncDbSession) -> int:
    counter = await db.get_one(Counter, 1)
    counter.value += 1
    return counter.value


async def _add_one_on_the_loop(db: DbSession) -> int:
    return _add_one(db)


def _add_one_in_function_scope(db: Annotated[Session, Depends(get_db, scope="function")]) -> int:
    return _add_one(db)


def _audited(db: DbSession) -> Iterator[Session]:
    _add_one(db)
    yield db


def _read_user(db: DbSession) -> int:
    return db.get_one(Counter, 1).id


@pytest.mark.parametrize("endpoint", [_add_one, _add_one_async, _add_one_on_the_loop, _add_one_in_function_scope])
async def test_the_commit_is_done_when_the_response_starts(
    counters: Database, app: FastAPI, endpoint: Callable[..., Any]
) -> None:
    """Whoever sees the first byte of the answer sees the write."""
    app.post("/")(endpoint)
    seen = CommitsSeen(app, counters)
    async with _client(seen) as client:
        answers = [(await client.post("/")).json() for _ in range(3)]
    assert answers == seen.values == [1, 2, 3]


@pytest.mark.parametrize("endpoint", [_raise, _raise_async])
async def test_an_http_exception_rolls_back(
    counters: Database, app: FastAPI, client: httpx.AsyncClient, endpoint: Callable[..., Any]
) -> None:
    """An error answer means that nothing was stored, and the locks are gone."""
    app.post("/")(endpoint)
    assert (await client.post("/")).status_code == 418
    assert _value(counters) == 0
    with counters.session() as session:
        session.execute(update(Counter).values(value=7))


async def test_an_answer_that_does_not_fit_its_model_rolls_back(
    counters: Database, app: FastAPI, client: httpx.AsyncClient
) -> None:
    """Serialising the answer comes before the commit."""

    @app.post("/")
    def endpoint(db: DbSession) -> int:
        _add_one(db)
        return "no number"  # type: ignore[return-value]

    assert (await client.post("/")).status_code == 500
    assert _value(counters) == 0


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_failing_commit_is_an_error_answer(
    counters: Database, app: FastAPI, client: httpx.AsyncClient, is_async: bool
) -> None:
    """What the database refuses only at the end reaches the exception handlers of the app."""

    @app.post("/blocking")
    def blocking(db: DbSession) -> dict[str, bool]:
        db.add(Counter(name="first"))
        return {"ok": True}

    @app.post("/async")
    async def asynchronous(db: AsyncDbSession) -> dict[str, bool]:
        db.add(Counter(name="first"))
        return {"ok": True}

    @app.post("/crash")
    def crash(db: DbSession) -> dict[str, bool]:
        event.listen(db, "before_commit", lambda _session: 1 / 0)
        _add_one(db)
        return {"ok": True}

    response = await client.post("/async" if is_async else "/blocking")
    assert (response.status_code, response.json()) == (409, {"detail": "conflict"})
    assert (await client.post("/crash")).status_code == 500
    assert _value(counters) == 0


async def test_the_dependencies_of_one_request_share_its_session(
    counters: Database, app: FastAPI, client: httpx.AsyncClient
) -> None:
    """What a sub-dependency wrote is committed with the rest, or not at all."""

    @app.post("/{outcome}")
    def endpoint(outcome: str, mine: DbSession, other: Annotated[Session, Depends(_audited)]) -> bool:
        if outcome == "bad":
            raise HTTPException(400)
        return mine is other

    assert (await client.post("/good")).json() is True
    assert (await client.post("/bad")).status_code == 400
    assert _value(counters) == 1


async def test_invalid_input_leaves_nothing_open(counters: Database, app: FastAPI, client: httpx.AsyncClient) -> None:
    """A request that fails validation after its session was made gives everything back."""

    @app.post("/")
    def endpoint(touched: Annotated[int, Depends(_add_one)], number: int) -> int:
        return touched + number

    assert (await client.post("/", params={"number": "x"})).status_code == 422
    assert _value(counters) == 0
    assert counters.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


async def test_cancelling_a_request_rolls_back(counters: Database, app: FastAPI) -> None:
    """A request whose task is cancelled leaves no lock and no change."""
    started = asyncio.Event()

    @app.post("/blocking")
    async def blocking(db: DbSession) -> None:
        _add_one(db)
        db.flush()
        started.set()
        await asyncio.sleep(60)

    @app.post("/async")
    async def asynchronous(db: AsyncDbSession) -> None:
        await _add_one_async(db)
        await db.flush()
        started.set()
        await asyncio.sleep(60)

    async with _client(app) as client:
        for path in ("/blocking", "/async"):
            started.clear()
            request = asyncio.create_task(client.post(path))
            await started.wait()
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
            with anyio.fail_after(5):
                async with counters.async_session() as session:
                    assert (await session.get_one(Counter, 1, with_for_update=True)).value == 0


async def test_a_read_only_session_is_an_error_when_written(
    counters: Database, app: FastAPI, client: httpx.AsyncClient
) -> None:
    """A forgotten write through it is an error answer, not a silent loss."""
    raised: list[type[Exception]] = []

    @app.exception_handler(ReadOnlySessionError)
    async def note(_request: Request, error: Exception) -> JSONResponse:
        raised.append(type(error))
        return JSONResponse(None, 500)

    @app.post("/blocking")
    def blocking(db: ReadOnlyDb) -> None:
        db.get_one(Counter, 1).value = 6

    @app.post("/async")
    async def asynchronous(db: AsyncReadOnlyDb) -> None:
        (await db.get_one(Counter, 1)).meta["x"] = 6

    statuses = [(await client.post(path)).status_code for path in ("/blocking", "/async")]
    assert statuses == [500, 500]
    assert raised == [ReadOnlySessionError, ReadOnlySessionError]
    assert _value(counters) == 0


async def test_a_streaming_body_reads_without_holding_anything(
    counters: Database, app: FastAPI, client: httpx.AsyncClient
) -> None:
    """Between two parts of the body the session holds no connection, so nobody waits for a slow client."""
    held: list[tuple[int, int]] = []

    def note() -> None:
        pools: list[Any] = [counters.engine.pool, counters.reading_engine.pool]
        held.append((pools[0].checkedout(), pools[1].checkedout()))

    @app.post("/")
    def endpoint(db: DbSession) -> StreamingResponse:
        counter = db.get_one(Counter, 1)
        counter.value = 1

        def body() -> Iterator[str]:
            for _ in range(3):
                note()
                yield f"{db.scalar(select(Counter.value))} {db.execute(text('SELECT 2')).scalar()} "
                note()
                yield f"{db.scalars(select(Counter)).one().value} {db.get_one(Counter, 1).value}\n"
                with counters.session() as other:
                    other.execute(update(Counter).values(value=Counter.value + 1))
                db.expire(counter)

        return StreamingResponse(body())

    assert (await client.post("/")).text == "1 2 1 1\n2 2 2 2\n3 2 3 3\n"
    assert set(held) == {(0, 0)}


async def test_an_async_streaming_body_reads_too(counters: Database, app: FastAPI, client: httpx.AsyncClient) -> None:
    """The async twin, with a result that is streamed row by row."""
    pool: Any = None

    @app.get("/")
    async def endpoint(db: AsyncDbSession) -> StreamingResponse:
        await _add_one_async(db)

        async def body() -> AsyncIterator[str]:
            nonlocal pool
            pool = counters.async_reading_engine.pool
            yield str((await db.scalars(select(Counter))).one().value)
            yield str(pool.checkedout())
            async for value in await db.stream_scalars(select(Counter.value).execution_options(yield_per=1)):
                yield str(value)

        return StreamingResponse(body())

    assert (await client.get("/")).text == "101"
    assert pool.checkedout() == 0


async def test_writing_after_the_answer_needs_its_own_commit(
    counters: Database, app: FastAPI, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A background task that commits stores its change; one that does not is an error in the log."""

    @app.post("/{commits}")
    def endpoint(commits: bool, db: DbSession, tasks: BackgroundTasks) -> None:
        def work() -> None:
            _add_one(db)
            if commits:
                db.commit()

        tasks.add_task(work)

    @app.post("/async/{commits}")
    async def asynchronous(commits: bool, db: AsyncDbSession, tasks: BackgroundTasks) -> None:
        async def work() -> None:
            await _add_one_async(db)
            if commits:
                await db.commit()

        tasks.add_task(work)

    with caplog.at_level(logging.ERROR, "pixsim7.db"):
        await client.post("/true")
        await client.post("/async/true")
        assert (_value(counters), caplog.messages) == (2, [])
        await client.post("/false")
        await client.post("/async/false")
    assert _value(counters) == 2
    assert len(caplog.messages) == 2
    assert "changes made after the response had started were not committed" in caplog.messages[0]


async def test_generator_endpoints_may_use_their_session(
    counters: Database, app: FastAPI, client: httpx.AsyncClient
) -> None:
    """FastAPI's streaming endpoints run after the commit and read like any streaming body."""

    @app.get("/")
    def endpoint(db: DbSession) -> Iterator[int]:
        for _ in range(2):
            yield db.scalars(select(Counter.value)).one()

    assert (await client.get("/")).text.split() == ["0", "0"]


async def test_a_websocket_commits_when_it_says_so_and_at_its_end(counters: Database, app: FastAPI) -> None:
    """A connection that lasts commits in between, and what is left is committed at its end."""

    @app.websocket("/")
    async def endpoint(websocket: WebSocket, db: DbSession) -> None:
        await websocket.accept()
        for _ in range(2):
            _add_one(db)
            db.commit()
            await websocket.send_json(_value(counters))
        _add_one(db)
        await websocket.close()

    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app({"type": "websocket", "path": "/", "headers": [], "query_string": b""}, receive, send)
    assert [message.get("text") for message in sent] == [None, "1", "2", None]
    assert _value(counters) == 3


@pytest.mark.parametrize("count", [96])
async def test_more_requests_than_threads_do_not_starve_each_other(
    counters: Database, app: FastAPI, client: httpx.AsyncClient, count: int
) -> None:
    """Requests that read in a dependency, then lock and write in threads and coroutines, all finish and add up."""

    @app.post("/blocking")
    def blocking(db: DbSession, _user: Annotated[int, Depends(_read_user)]) -> None:
        counter = lock_row(db, Counter, 1)
        assert counter is not None
        counter.value += 1
        counter.meta.setdefault("values", []).append(counter.value)

    @app.post("/async")
    async def asynchronous(db: AsyncDbSession) -> None:
        counter = await lock_row_async(db, Counter, 1)
        assert counter is not None
        counter.value += 1
        counter.meta.setdefault("values", []).append(counter.value)

    @app.post("/loop")
    async def on_the_loop(db: DbSession) -> None:
        blocking(db, 1)

    with anyio.fail_after(40):
        first = await asyncio.gather(*(client.post(path) for path in ["/blocking", "/async"] * (count // 2)))
        second = await asyncio.gather(*(client.post("/loop") for _ in range(8)))
    assert {response.status_code for response in [*first, *second]} == {200}
    with counters.session() as session:
        assert session.get_one(Counter, 1).meta["values"] == list(range(1, count + 9))


async def test_a_plain_app_uses_the_database_of_the_process(counters: Database) -> None:
    """Without ``app.state.database`` the guide's plugin text works all the same."""
    app = FastAPI()
    app.post("/")(_add_one)
    set_default_database(counters)
    try:
        async with _client(app) as client:
            assert (await client.post("/")).json() == 1
    finally:
        set_default_database(None)
    assert _value(counters) == 1


async def test_dependency_overrides_work(app: FastAPI, client: httpx.AsyncClient) -> None:
    """Tests of a plugin may put their own session in."""
    app.dependency_overrides[get_db] = lambda: "a session"
    app.dependency_overrides[get_async_db] = lambda: "an async session"

    @app.get("/")
    def endpoint(db: Annotated[Any, Depends(get_db)], async_db: Annotated[Any, Depends(get_async_db)]) -> list[str]:
        return [db, async_db]

    assert (await client.get("/")).json() == ["a session", "an async session"]


async def test_a_fastapi_without_the_stack_is_refused(app: FastAPI) -> None:
    """Where the commit cannot come before the response, the request fails instead of promising it."""

    @app.get("/")
    def endpoint(request: Request) -> None:
        """Do nothing."""

    scope = {"type": "http", "app": app, "headers": [], "method": "GET", "path": "/"}
    with pytest.raises(Exception, match="has no stack that is left before the response starts"):
        await get_db(Request(scope))
