"""Clients of every kind keep asking while their plugin is replaced again and again, often by broken code.

``make test-live`` runs it in full: 64 clients, 200 reloads.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from pixsim7_backend.infrastructure.plugins import LeakReport, LogReporter, PluginError, PluginRecord, PluginState
from pixsim7_backend.infrastructure.plugins.testing import write_plugin
from tests.integration.platform.live import LiveServer, live_server

CLIENTS = int(os.environ.get("LIVE_CLIENTS", "15"))
RELOADS = int(os.environ.get("LIVE_RELOADS", "30"))

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60 + 3 * RELOADS)]

#: Every answer tells the version from five places; they agree unless generations got mixed.
CODE = """
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fastapi import WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel
from . import rules

VERSION = {version}
ENABLED = None

class Question(BaseModel):
    text: str

class Versions(BaseModel):
    manifest: int
    rules: int
    dependency: int
    enabled: int
    state: int

def dependency() -> int:
    return VERSION

def tell(request, seen: int) -> dict[str, int]:
    return dict(
        manifest=VERSION, rules=rules.VERSION, dependency=seen, enabled=ENABLED, state=request.state.version
    )

@asynccontextmanager
async def lifespan(app):
    yield {{"version": VERSION}}

router = APIRouter(prefix="/quest", lifespan=lifespan)

@router.get("/plain")
async def plain(request: Request, seen: int = Depends(dependency)) -> Versions:
    return Versions(**tell(request, seen))

@router.post("/body")
def body(question: Question, request: Request, seen: int = Depends(dependency)) -> Versions:
    return Versions(**tell(request, seen))

@router.get("/slow")
async def slow(request: Request, seen: int = Depends(dependency)) -> Versions:
    await asyncio.sleep(0.25)
    return Versions(**tell(request, seen))

@router.get("/stream")
async def stream(request: Request, seen: int = Depends(dependency)) -> StreamingResponse:
    async def lines():
        for _ in range(8):
            yield json.dumps(tell(request, seen)) + "\\n"
            await asyncio.sleep(0.02)
    return StreamingResponse(lines(), media_type="application/x-ndjson")

@router.get("/events", response_class=EventSourceResponse)
async def events(request: Request, seen: int = Depends(dependency)) -> AsyncIterator[ServerSentEvent]:
    while True:
        yield ServerSentEvent(data=tell(request, seen))
        await asyncio.sleep(0.02)

@router.websocket("/socket")
async def socket(websocket: WebSocket):
    await websocket.accept()
    try:
        while True:
            await websocket.receive_text()
            await websocket.send_json(tell(websocket, VERSION))
    except WebSocketDisconnect:
        pass

def on_load(app):
    {on_load}

async def on_enable():
    global ENABLED
    await asyncio.sleep(0.01)
    {on_enable}
    ENABLED = VERSION

def health():
    return {health}
"""


def write(directory: Path, version: int, fault: str = "") -> Path:
    """Write a version of the plugin, whole or with one thing wrong."""
    code = CODE.format(
        version=version,
        on_load="raise RuntimeError('on purpose')" if fault == "on_load" else "pass",
        on_enable="raise RuntimeError('on purpose')" if fault == "on_enable" else "pass",
        health="False" if fault == "health" else "True",
    )
    if fault == "syntax":
        code += "\ndef broken(:"
    if fault == "import":
        code += "\nimport no_such_module_anywhere"
    more: dict[str, Any] = {"dependencies": "wrong"} if fault == "manifest" else {}
    folder = write_plugin(directory, "quest", "import json\n" + code, **more)
    (folder / "rules.py").write_text(f"VERSION = {version}\n")
    (folder / "migration").write_text("fails" if fault == "migration" else "works")
    return folder


FAULTS = ("syntax", "import", "manifest", "on_load", "on_enable", "health", "migration")


def prepare(_record: PluginRecord, folder: Path) -> None:
    """Stand in for the host's migrations."""
    if (folder / "migration").read_text() == "fails":
        raise RuntimeError("the migration fails")


class Retired(LogReporter):
    """Keeps the reports of the generations that were replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.reports: list[LeakReport] = []

    def retired(self, record: PluginRecord, report: LeakReport) -> None:
        self.reports.append(report)


class Clients:
    """Ask until told to stop; whatever is not as it should be is written down."""

    def __init__(self, server: LiveServer, http: httpx.AsyncClient) -> None:
        self.server = server
        self.http = http
        self.good: set[int] = set()
        self.wrong: list[str] = []
        self.counts: Counter[str] = Counter()
        self.is_over = False

    async def run(self, kind: str, ask: Callable[[], Awaitable[None]]) -> None:
        while not self.is_over:
            try:
                await ask()
            except Exception as error:  # noqa: BLE001  # whatever goes wrong is what the test is about
                self.wrong.append(f"{kind}: {type(error).__name__}: {error}")
                return
            self.counts[kind] += 1

    def judge(self, kind: str, text: str | bytes) -> None:
        versions = set(json.loads(text).values())
        if len(versions) != 1 or not versions <= self.good:
            self.wrong.append(f"{kind}: {text!r}")

    async def plain(self) -> None:
        answer = (await self.http.get("/api/v1/quest/plain")).raise_for_status()
        self.judge("plain", answer.content)

    async def body(self) -> None:
        answer = (await self.http.post("/api/v1/quest/body", json={"text": "?"})).raise_for_status()
        self.judge("body", answer.content)

    async def slow(self) -> None:
        answer = (await self.http.get("/api/v1/quest/slow")).raise_for_status()
        self.judge("slow", answer.content)

    async def stream(self) -> None:
        answer = (await self.http.get("/api/v1/quest/stream")).raise_for_status()
        lines = answer.text.splitlines()
        self.judge("stream", lines[0])
        if len(lines) != 8 or len(set(lines)) != 1:
            self.wrong.append(f"stream: {lines}")

    async def events(self) -> None:
        async with self.http.stream("GET", "/api/v1/quest/events") as answer:
            answer.raise_for_status()
            seen = set()
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    seen.add(line.removeprefix("data: "))
                    self.judge("events", line.removeprefix("data: "))
                if self.is_over:
                    return
            if len(seen) > 1:
                self.wrong.append(f"events: {seen}")

    async def socket(self) -> None:
        async with connect(f"ws://{self.server.address}/api/v1/quest/socket") as socket:
            try:
                while not self.is_over:
                    await socket.send("?")
                    self.judge("socket", await socket.recv())
                    await asyncio.sleep(0.02)
            except ConnectionClosed as closed:
                if closed.rcvd is None or closed.rcvd.code != 1012:
                    raise


async def test_nothing_is_lost_in_reloads_under_load(tmp_path: Path) -> None:
    """No request fails, no answer is half new; every old generation has finished, or is reported by name."""
    retired = Retired()
    write(tmp_path, 0)
    async with (
        live_server(tmp_path, drain_timeout=20, prepare=prepare, reporter=retired) as server,
        server.client() as http,
    ):
        clients = Clients(server, http)
        clients.good.add(0)
        kinds = [clients.plain, clients.body, clients.slow, clients.stream, clients.events, clients.socket]
        asked = itertools.islice(itertools.cycle(kinds), CLIENTS)
        tasks = [asyncio.create_task(clients.run(ask.__name__, ask)) for ask in asked]
        faults = itertools.cycle(FAULTS)
        replaced = 0
        for version in range(1, RELOADS + 1):
            fault = next(faults) if version % 3 == 0 else ""
            folder = write(tmp_path, version, fault)
            if fault:
                with pytest.raises(PluginError):
                    await server.manager.refresh(folder)
            else:
                clients.good.add(version)
                await server.manager.refresh(folder)
                replaced += 1
            assert server.manager.get("quest").state is PluginState.ENABLED
            await asyncio.sleep(0.02)
            assert clients.wrong == []
        await asyncio.sleep(0.3)
        clients.is_over = True
        await asyncio.gather(*tasks)
        await server.manager.settle()
        assert clients.wrong == []
        assert set(clients.counts) >= {ask.__name__ for ask in kinds[: min(CLIENTS, len(kinds))]}
        assert len(retired.reports) == replaced
        assert [str(leak) for report in retired.reports for leak in report.leaks] == []
