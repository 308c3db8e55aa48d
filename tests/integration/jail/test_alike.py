"""One folder, run in process and confined: clients cannot tell which."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from pixsim7_backend.infrastructure.plugins import PluginState
from pixsim7_backend.infrastructure.plugins.testing import write_plugin
from tests.integration.platform.live import LiveServer

from .conftest import Serve

pytestmark = pytest.mark.anyio

CODE = """\

import asyncio
import tempfile
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import BackgroundTasks, Body, Cookie, File, Form, Header, Path, Query, Response, UploadFile, WebSocket
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from pydantic import BaseModel, Field

class Item(BaseModel):
    name: str = Field(min_length=2)
    size: int = 1
    tags: list[str] = []

class Answer(BaseModel):
    item: Item
    by: str

done: list[str] = []
life: list[str] = []

@asynccontextmanager
async def lifespan(app):
    life.append("begun")
    yield {"shared": "state"}
    life.append("ended")

router = APIRouter(prefix="/sample", tags=["sample"], lifespan=lifespan)

def on_load(app):
    life.append("loaded")

async def on_enable():
    life.append("enabled")

def number(n: Annotated[int, Query(ge=0, le=9)] = 3) -> int:
    return n

async def twice(n: Annotated[int, Depends(number)]) -> int:
    return 2 * n

def closing():
    done.append("opened")
    yield "resource"
    done.append("closed")

@router.get("/sync")
def sync(n: Annotated[int, Depends(twice)]) -> dict[str, int]:
    return {"n": n}

@router.get("/async")
async def asynchronous(n: Annotated[int, Depends(twice)]) -> dict[str, int]:
    await asyncio.sleep(0)
    return {"n": n}

@router.post("/items", status_code=201)
def make(item: Item, x_by: Annotated[str, Header()] = "nobody") -> Answer:
    return Answer(item=item, by=x_by)

@router.get("/items/{item_id}")
def read(item_id: UUID, when: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> dict[str, object]:
    return {"id": item_id, "when": when}

@router.post("/upload")
async def upload(file: UploadFile, note: Annotated[str, Form()]) -> dict[str, object]:
    content = await file.read()
    return {"name": file.filename, "size": len(content), "sum": sum(content) % 997, "note": note}

@router.get("/file")
def file() -> FileResponse:
    with tempfile.NamedTemporaryFile("w", suffix=".txt", delete=False) as made:
        made.write("from a file\\n" * 1000)
    return FileResponse(made.name, filename="sample.txt")

@router.get("/stream")
async def stream() -> StreamingResponse:
    async def pieces():
        for each in range(50):
            yield f"{each}," * 1000
    return StreamingResponse(pieces(), media_type="text/plain")

@router.get("/events")
async def events() -> StreamingResponse:
    async def pieces():
        for each in range(3):
            yield f"data: {each}\\n\\n"
            await asyncio.sleep(0.01)
    return StreamingResponse(pieces(), media_type="text/event-stream")

@router.get("/text", response_class=PlainTextResponse)
def text() -> str:
    return "plain"

@router.get("/moved")
def moved() -> RedirectResponse:
    return RedirectResponse("/api/v1/sample/text", status_code=307)

@router.get("/empty", status_code=204)
def empty() -> None: ...

@router.get("/teapot")
def teapot() -> None:
    raise HTTPException(418, {"why": "teapot"}, headers={"X-Tea": "green"})

@router.get("/broken")
def broken() -> None:
    raise ValueError("broken")

@router.get("/resource")
def resource(it: Annotated[str, Depends(closing)]) -> str:
    return it

@router.post("/later")
def later(tasks: BackgroundTasks) -> str:
    tasks.add_task(done.append, "later")
    return "soon"

@router.get("/done")
def list_done() -> list[str]:
    return done

@router.get("/life")
def list_life(request: Request) -> dict[str, object]:
    return {"life": life, "shared": request.state.shared}

@router.get("/headers")
def headers(response: Response, accept_language: Annotated[str, Header()] = "") -> str:
    response.headers["X-Sample"] = accept_language
    response.headers.append("Vary", "Accept-Language")
    return accept_language

@router.api_route("/any", methods=["GET", "PUT", "DELETE"], include_in_schema=False)
async def anything(request: Request) -> dict[str, str]:
    return {"method": request.method, "path": request.url.path, "query": request.url.query}

released = asyncio.Event()

@router.get("/waiting")
async def waiting() -> StreamingResponse:
    async def pieces():
        await released.wait()
        yield b"now"
    return StreamingResponse(pieces())

@router.post("/release")
async def release() -> None:
    released.set()

@router.get("/sub/{rest:path}")
def rest(rest: str) -> str:
    return rest

@router.websocket("/echo")
async def echo(socket: WebSocket, name: str = "nobody") -> None:
    await socket.accept(subprotocol="chat" if "chat" in socket.scope["subprotocols"] else None)
    await socket.send_json({"hello": name})
    async for message in socket.iter_text():
        if message == "bye":
            break
        await socket.send_text(message[::-1])
    await socket.close(code=4001, reason="said bye")
"""

ID = "8c5c7a0e-5f1f-4f0c-9f0e-0d8a3c7f3f11"
REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/sync", {}),
    ("GET", "/async?n=4", {}),
    ("GET", "/async?n=40", {}),
    ("GET", "/async?n=x", {}),
    ("POST", "/items", {"json": {"name": "lamp", "tags": ["old"]}, "headers": {"X-By": "ann"}}),
    ("POST", "/items", {"json": {"name": "x", "size": "many"}}),
    ("POST", "/items", {"content": b"{no json", "headers": {"Content-Type": "application/json"}}),
    ("GET", f"/items/{ID}", {}),
    ("GET", "/items/none", {}),
    ("POST", "/upload", {"files": {"file": ("a.bin", bytes(range(256)) * 9000)}, "data": {"note": "big"}}),
    ("GET", "/file", {}),
    ("GET", "/stream", {}),
    ("GET", "/events", {}),
    ("GET", "/text", {}),
    ("HEAD", "/text", {}),
    ("OPTIONS", "/text", {}),
    ("GET", "/moved", {}),
    ("GET", "/empty", {}),
    ("GET", "/teapot", {}),
    ("GET", "/resource", {}),
    ("POST", "/later", {}),
    ("GET", "/done", {}),
    ("GET", "/life", {}),
    ("GET", "/headers", {"headers": {"Accept-Language": "de, en;q=0.5"}}),
    ("GET", "/any?a=1&a=2&b=%C3%A4", {}),
    ("PUT", "/any", {}),
    ("POST", "/any", {}),
    ("GET", "/sub/a/b%20c/d", {}),
    ("GET", "/nowhere", {}),
    ("GET", "/text/", {}),
]
#: What servers add, and what the host adds for confined plugins.
ADDED = {"date", "server", "content-security-policy", "x-content-type-options", "last-modified", "etag"}


def shown(response: httpx.Response) -> dict[str, Any]:
    """Return what a client sees of an answer."""
    headers = sorted(
        (name, ", ".join(sorted(value.split(", "))) if name == "allow" else value)  # of a set: in any order
        for name, value in response.headers.multi_items()
        if name not in ADDED
    )
    return {"status": response.status_code, "headers": headers, "body": response.content}


async def ask_all(server: LiveServer) -> list[dict[str, Any]]:
    """Send the requests one after the other; return what comes."""
    answers = []
    async with server.client() as client:
        client.headers["Host"] = "game.example"
        for method, path, options in REQUESTS:
            answers.append(shown(await client.request(method, f"/api/v1/sample{path}", **options)))
    return answers


async def chat(server: LiveServer) -> list[Any]:
    """Talk over the WebSocket; return everything that was heard."""
    async with connect(f"ws://{server.address}/api/v1/sample/echo?name=ann", subprotocols=["chat", "other"]) as socket:  # type: ignore[list-item]
        heard: list[Any] = [socket.subprotocol, json.loads(await socket.recv())]
        for message in ("abc", "ä€😀", "x" * 100_000, "bye"):
            await socket.send(message)
            if message != "bye":
                heard.append(await socket.recv())
        await socket.wait_closed()
        return [*heard, socket.close_code, socket.close_reason]


async def test_clients_cannot_tell_which(confined: Serve, in_process: Serve, open_dir: Path) -> None:
    """Every answer, header and message is the same, but for the headers that the host adds."""
    write_plugin(open_dir, "sample", CODE)
    async with in_process() as server:
        expected, expected_chat = await ask_all(server), await chat(server)
    async with confined() as server:
        assert server.manager.get("sample").source.is_confined
        found, found_chat = await ask_all(server), await chat(server)
    for (method, path, _), here, there in zip(REQUESTS, expected, found, strict=True):
        assert there == here, f"{method} {path}"
    assert found_chat == expected_chat


async def test_errors_that_nobody_catches_are_a_500_in_both(confined: Serve, open_dir: Path) -> None:
    """The client is told nothing of it, the host's log the line in the plugin."""
    write_plugin(open_dir, "sample", CODE)
    async with confined() as server, server.client() as client:
        answer = await client.get("/api/v1/sample/broken")
        assert (answer.status_code, answer.text) == (500, "Internal Server Error")
        assert server.manager.metrics.of("sample").errors == 1


async def test_documents_are_alike(confined: Serve, in_process: Serve, open_dir: Path) -> None:
    """The host's OpenAPI shows the same operations and schemas."""
    write_plugin(open_dir, "sample", CODE)
    documents = []
    for serve in (in_process, confined):
        async with serve() as server, server.client() as client:
            documents.append((await client.get("/openapi.json")).json())
    assert documents[1] == documents[0]


async def test_many_at_once(confined: Serve, open_dir: Path) -> None:
    """Requests of all kinds are under way together, and each gets its own answer."""
    write_plugin(open_dir, "sample", CODE)
    async with confined() as server, server.client() as client:

        async def ask(number: int) -> None:
            item = {"name": f"item {number}", "size": number}
            answer = await client.post("/api/v1/sample/items", json=item, headers={"X-By": str(number)})
            assert answer.json() == {"item": {**item, "tags": []}, "by": str(number)}
            assert len((await client.get("/api/v1/sample/stream")).content) == 140_000
            assert await chat(server)

        await asyncio.gather(*(ask(number) for number in range(32)))


async def test_an_answer_begins_before_its_body_is_there(confined: Serve, in_process: Serve, open_dir: Path) -> None:
    """A client hears that its stream has begun, like a browser's EventSource, though nothing came on it yet."""
    write_plugin(open_dir, "sample", CODE)
    for serve in (in_process, confined):
        async with (
            serve() as server,
            server.client() as client,
            client.stream("GET", "/api/v1/sample/waiting") as response,
        ):
            assert response.status_code == 200
            await client.post("/api/v1/sample/release")
            assert await response.aread() == b"now"


async def test_it_is_disabled_and_enabled_like_any_other(confined: Serve, open_dir: Path) -> None:
    """Its process ends with it, and its hooks run in the next one."""
    write_plugin(open_dir, "sample", CODE)
    async with confined() as server, server.client() as client:
        manager = server.manager
        report = await manager.disable("sample")
        assert report.leaks == ()
        assert (await client.get("/api/v1/sample/text")).status_code == 404
        await manager.enable("sample")
        assert (await client.get("/api/v1/sample/life")).json()["life"] == ["loaded", "begun", "enabled"]


async def test_new_code_takes_over_and_broken_code_does_not(confined: Serve, open_dir: Path) -> None:
    """A reload brings up another jail beside the old one; until it serves, and if it fails, the old one does."""
    write_plugin(open_dir, "sample", CODE)
    async with confined() as server, server.client() as client:
        manager = server.manager
        write_plugin(open_dir, "sample", CODE.replace('return "plain"', 'return "new"'))
        await manager.reload("sample")
        assert (await client.get("/api/v1/sample/text")).text == "new"
        for broken in ("raise RuntimeError('at import')", "def on_load(app): raise RuntimeError('at load')"):
            write_plugin(open_dir, "sample", f"{CODE}\n{broken}\n")
            with pytest.raises(Exception, match="could not load in its jail"):
                await manager.reload("sample")
            assert (await client.get("/api/v1/sample/text")).text == "new"
        assert manager.get("sample").state is PluginState.ENABLED
