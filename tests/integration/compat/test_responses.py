"""Whatever a plugin answers with arrives as from a hard-coded router."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from fastapi import APIRouter, BackgroundTasks, FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel

from .twins import PluginSpec, Twins, make_twins, one, request

pytestmark = pytest.mark.anyio


class Public(BaseModel):
    name: str
    note: str | None = None


class Teapot(Exception):
    pass


router = APIRouter(prefix="/r", responses={404: {"description": "gone"}})


@router.get("/model", response_model=Public, response_model_exclude_none=True, status_code=201)
def model() -> Any:
    return {"name": "a", "secret": "s", "note": None}


@router.get("/invalid", response_model=Public)
def invalid() -> Any:
    return {"note": 1}


@router.get("/html", response_class=HTMLResponse)
def html() -> str:
    return "<p>hi</p>"


@router.get("/raw")
def raw(response: Response) -> Response:
    response.headers["x-lost"] = "1"
    return Response(b"raw", 202, headers={"x-kept": "1"})


@router.get("/cookie")
def cookie(response: Response) -> dict[str, int]:
    response.set_cookie("a", "b")
    response.status_code = 203
    return {"a": 1}


@router.get("/empty", status_code=204)
def empty() -> None: ...


@router.get("/redirect")
def redirect() -> RedirectResponse:
    return RedirectResponse("/api/r/model")


@router.get("/file")
def file() -> FileResponse:
    return FileResponse(__file__, filename="a.py", headers={"etag": "x", "last-modified": "y"})


@router.get("/stream")
def stream() -> StreamingResponse:
    return StreamingResponse(iter(["a", "b", "c"]), media_type="text/plain")


@router.get("/jsonl")
async def jsonl() -> AsyncIterator[Public]:
    for name in "ab":
        yield Public(name=name)


@router.get("/events", response_class=EventSourceResponse)
async def events() -> AsyncIterator[ServerSentEvent]:
    for number in range(3):
        yield ServerSentEvent(data={"n": number}, event="count", id=str(number))


@router.get("/sync-events", response_class=EventSourceResponse)
def sync_events() -> Iterator[Public]:
    yield Public(name="a")


@router.get("/task")
def task(tasks: BackgroundTasks, request: Request) -> str:
    tasks.add_task(request.app.state.log.append, "done")
    return "queued"


@router.get("/teapot")
def teapot() -> None:
    raise Teapot("short and stout")


@router.get("/http/{code}")
def http(code: int) -> None:
    raise HTTPException(code, {"code": code}, headers={"x-code": str(code)})


@router.get("/bug")
def bug() -> None:
    raise RuntimeError("a bug")


def host() -> FastAPI:
    app = FastAPI()
    app.state.log = []

    @app.exception_handler(Teapot)
    def on_teapot(request: Request, error: Teapot) -> JSONResponse:
        return JSONResponse({"teapot": str(error), "path": request.url.path}, 418)

    @app.exception_handler(409)
    async def on_conflict(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"conflict": error.detail}, 409)

    @app.exception_handler(Exception)
    def on_bug(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"bug": repr(error)}, 500)

    return app


@pytest.fixture
def twins() -> Twins:
    return make_twins(PluginSpec("responses", one(router)), host=host)


PATHS = "model html raw cookie empty redirect file stream jsonl events sync-events teapot http/404 http/409 bug invalid"


@pytest.mark.parametrize("path", PATHS.split())
async def test_answers(twins: Twins, path: str) -> None:
    """Models, files, streams, events and errors come out alike, for GET and HEAD."""
    await twins.ask("GET", f"/api/r/{path}")
    await twins.ask("HEAD", f"/api/r/{path}")


async def test_background_tasks(twins: Twins) -> None:
    """A background task runs after the answer."""
    await twins.ask("GET", "/api/r/task")
    assert twins.platform.state.log == twins.hard.state.log == ["done"]


async def test_open_stream_is_cancelled_with_its_client(twins: Twins) -> None:
    """A client that leaves ends the stream, and nothing stays in flight."""
    streaming = APIRouter()
    closed = asyncio.Event()

    @streaming.get("/endless")
    async def endless() -> StreamingResponse:
        async def numbers() -> AsyncIterator[str]:
            try:
                while True:
                    yield "x"
                    await asyncio.sleep(0.001)
            finally:
                closed.set()

        return StreamingResponse(numbers())

    with_stream = make_twins(PluginSpec("stream", one(streaming)))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await request(with_stream.platform, "GET", "/api/endless")
    await asyncio.wait_for(closed.wait(), 1)
    assert with_stream.mounts["stream"].in_flight == 0


async def test_document(twins: Twins) -> None:
    """Response models, streams and additional responses are documented alike."""
    twins.compare_openapi()
