"""What is still streaming when its plugin is replaced: told to end, or finished, never in the way."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from pixsim7_backend.infrastructure.plugins.testing import write_plugin
from tests.integration.platform.live import LiveServer, live_server

pytestmark = pytest.mark.anyio

STREAMS = """
from collections.abc import AsyncIterator
from fastapi import WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
ENDED = []

@router.get("/numbers")
async def numbers(count: int = 10, pause: float = 0.03) -> StreamingResponse:
    async def stream():
        for number in range(count):
            yield f"{number}\\n"
            await asyncio.sleep(pause)
    return StreamingResponse(stream(), media_type="text/csv")

@router.get("/events", response_class=EventSourceResponse)
async def events() -> AsyncIterator[ServerSentEvent]:
    try:
        for number in range(10**6):
            yield ServerSentEvent(data=number)
            await asyncio.sleep(0.01)
    finally:
        ENDED.append("events")

@router.get("/slow")
async def slow(seconds: float = 0.3) -> str:
    await asyncio.sleep(seconds)
    return "slow"

@router.websocket("/echo")
async def echo(socket: WebSocket):
    await socket.accept()
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect as left:
        ENDED.append(f"echo {left.code}")

@router.websocket("/ticks")
async def ticks(socket: WebSocket):
    await socket.accept()
    while True:
        await socket.send_text("tick")
        await asyncio.sleep(0.01)
"""


def ended(server: LiveServer) -> list[Any]:
    import sys

    record = server.manager.get("streams")
    found: list[Any] = sys.modules[f"{record.source.package}.manifest"].__dict__["ENDED"]
    return found


async def read(client: httpx.AsyncClient, path: str, begun: asyncio.Event) -> str:
    """Read a streamed answer to its end; a body that is cut raises."""
    text = ""
    async with client.stream("GET", f"/api/v1/streams/{path}") as answer:
        assert answer.status_code == 200
        async for chunk in answer.aiter_text():
            text += chunk
            begun.set()
    return text


async def receive_all(socket: ClientConnection) -> None:
    """Receive until the other side closes, which raises."""
    while True:
        await socket.recv()


async def test_event_streams_and_websockets_end_at_once_and_cleanly(tmp_path: Path) -> None:
    """The old code is gone long before the drain deadline: its clients saw a proper end and may come again."""
    write_plugin(tmp_path, "streams", STREAMS)
    async with live_server(tmp_path, drain_timeout=20) as server, server.client() as client:
        old, begun = ended(server), asyncio.Event()
        events = asyncio.create_task(read(client, "events", begun))
        url = f"ws://{server.address}/api/v1/streams"
        async with connect(f"{url}/echo") as echo, connect(f"{url}/ticks") as ticks:
            await begun.wait()
            await echo.send("hello")
            assert await echo.recv() == "hello"
            assert await ticks.recv() == "tick"
            started = time.monotonic()
            await server.manager.reload("streams")
            assert (await events).startswith("data: 0")
            with pytest.raises(ConnectionClosed) as closed:
                await echo.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
            with pytest.raises(ConnectionClosed) as closed:
                await receive_all(ticks)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
            await server.manager.settle()
        assert time.monotonic() - started < 10
        assert sorted(old) == ["echo 1012", "events"]
        report = server.manager.find_report("streams")
        assert report is not None
        assert report.is_clean


async def test_answers_with_an_end_are_finished(tmp_path: Path) -> None:
    """A long-running request and a streamed file are answered in full by the code they began with."""
    write_plugin(tmp_path, "streams", STREAMS)
    async with live_server(tmp_path, drain_timeout=20) as server, server.client() as client:
        begun = asyncio.Event()
        numbers = asyncio.create_task(read(client, "numbers", begun))
        slow = asyncio.create_task(client.get("/api/v1/streams/slow"))
        await begun.wait()
        await server.manager.reload("streams")
        assert (await slow).json() == "slow"
        assert await numbers == "".join(f"{number}\n" for number in range(10))
        await server.manager.settle()
        report = server.manager.find_report("streams")
        assert report is not None
        assert report.is_clean


async def test_what_does_not_end_in_time_is_cut_and_named(tmp_path: Path) -> None:
    """A cut body looks cut, not whole; the report names it, and a request that does not listen."""
    write_plugin(tmp_path, "streams", STREAMS)
    async with live_server(tmp_path, drain_timeout=0.2) as server, server.client() as client:
        begun = asyncio.Event()
        numbers = asyncio.create_task(read(client, "numbers?count=1000", begun))
        slow = asyncio.create_task(client.get("/api/v1/streams/slow?seconds=3"))
        await begun.wait()
        await asyncio.sleep(0.1)
        await server.manager.reload("streams")
        await server.manager.settle()
        with pytest.raises(httpx.RemoteProtocolError):
            await numbers
        report = server.manager.find_report("streams")
        assert report is not None
        assert sorted(leak.name for leak in report.leaks if leak.kind == "request") == [
            "GET /api/v1/streams/numbers",
            "GET /api/v1/streams/slow",
        ]
        assert (await slow).json() == "slow"


async def test_streams_may_be_left_alone_until_the_deadline(tmp_path: Path) -> None:
    """With end_streams=False events go on until then, and end as cleanly."""
    write_plugin(tmp_path, "streams", STREAMS)
    async with live_server(tmp_path, drain_timeout=0.5, end_streams=False) as server, server.client() as client:
        begun = asyncio.Event()
        events = asyncio.create_task(read(client, "events", begun))
        await begun.wait()
        started = time.monotonic()
        await server.manager.reload("streams")
        await events
        assert time.monotonic() - started >= 0.5
        await server.manager.settle()
        report = server.manager.find_report("streams")
        assert report is not None
        assert report.is_clean


async def test_streams_live_again_after_the_plugin_is_enabled_again(tmp_path: Path) -> None:
    """The same generation, disabled and enabled, streams as before."""
    write_plugin(tmp_path, "streams", STREAMS)
    async with live_server(tmp_path) as server, server.client() as client:
        await server.manager.disable("streams")
        await server.manager.enable("streams")
        begun = asyncio.Event()
        events = asyncio.create_task(read(client, "events", begun))
        await begun.wait()
        await asyncio.sleep(0.1)
        assert not events.done()
        await server.manager.disable("streams")
        assert "data: 3" in await events
