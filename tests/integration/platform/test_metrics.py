"""Figures of plugins that serve real requests."""

from __future__ import annotations

import asyncio
import sys
import tracemalloc
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.types import Message
from starlette.websockets import WebSocketDisconnect

from pixsim7_backend.infrastructure.plugins import plugin_hooks
from pixsim7_backend.infrastructure.plugins.errors import PluginNotFoundError
from pixsim7_backend.infrastructure.plugins.testing import plugin_host, write_plugin

pytestmark = pytest.mark.anyio

QUEST = """
import time
from fastapi import WebSocket
from fastapi.responses import Response

OPEN = asyncio.Event()

@router.get("/ok")
async def ok() -> int:
    return 1

@router.get("/missing")
async def missing() -> None:
    raise HTTPException(404)

@router.get("/broken")
def broken() -> None:
    raise KeyError("secret")

@router.get("/bad")
async def bad() -> Response:
    return Response(status_code=502)

@router.get("/away")
async def away() -> None:
    raise HTTPException(503)

@router.get("/wait")
async def wait() -> int:
    await OPEN.wait()
    return 1

@router.get("/busy")
async def busy() -> None:
    end = time.perf_counter() + 0.02
    while time.perf_counter() < end:
        pass

@router.get("/thread")
def thread() -> None:
    time.sleep(0.05)

@router.websocket("/talk")
async def talk(socket: WebSocket, fail: bool = False) -> None:
    await socket.accept()
    if fail:
        raise KeyError("secret")
    await socket.send_text(await socket.receive_text())
    await socket.close()

async def on_enable() -> None:
    plugin_hooks.register("quest:asked", fail)
    asyncio.create_task(asyncio.sleep(60))

def fail() -> None:
    raise KeyError("secret")
"""


async def test_requests_are_counted_by_what_came_of_them(tmp_path: Path) -> None:
    """Errors are 5xx and exceptions; the last fault has file and line, and no text of an exception."""
    folder = write_plugin(tmp_path, "quest", QUEST)
    async with plugin_host(tmp_path) as host:
        for path, times in {"ok": 5, "missing": 2, "bad": 1, "away": 1}.items():
            for _ in range(times):
                await host.client.get(f"/api/v1/quest/{path}")
        with pytest.raises(KeyError):
            await host.client.get("/api/v1/quest/broken")
        await host.client.get("/api/v1/nowhere")
        figures = host.manager.metrics.of("Quest")
        assert figures.answers == {"2xx": 5, "4xx": 2, "5xx": 3}
        assert (figures.requests, figures.errors, figures.in_flight) == (10, 3, 0)
        assert figures.latency.count == 10
        assert (figures.tasks, figures.subscriptions, figures.memory_bytes) == (1, 1, None)
        line = 1 + (folder / "manifest.py").read_text().splitlines().index('    raise KeyError("secret")')
        assert host.manager.metrics.last_fault_of("quest") == f"KeyError at {folder}/manifest.py:{line}"
        assert 'pixsim7_plugin_errors_total{plugin="quest"} 3' in host.manager.metrics.render_prometheus()
        with pytest.raises(PluginNotFoundError):
            host.manager.metrics.of("nobody")


async def test_only_time_on_the_loop_is_loop_time(tmp_path: Path) -> None:
    """Waiting and work in threads leave the loop to others."""
    write_plugin(tmp_path, "quest", QUEST)
    write_plugin(tmp_path, "other", QUEST)
    async with plugin_host(tmp_path) as host:
        for _ in range(3):
            await host.client.get("/api/v1/quest/busy")
            await host.client.get("/api/v1/other/thread")
        assert host.manager.metrics.of("quest").loop_seconds >= 0.06
        assert host.manager.metrics.of("other").loop_seconds < 0.06
        assert host.manager.metrics.of("other").latency.mean >= 0.05


async def test_figures_survive_a_reload_and_not_a_removal(tmp_path: Path) -> None:
    """They belong to the id; requests of the old generation still count, and are seen in flight."""
    folder = write_plugin(tmp_path, "quest", QUEST)
    async with plugin_host(tmp_path) as host:
        manager = host.manager
        waiting = asyncio.create_task(host.client.get("/api/v1/quest/wait"))
        await host.client.get("/api/v1/quest/ok")
        module = sys.modules[f"{host.record('quest').source.package}.manifest"]
        await manager.reload("quest")
        await host.client.get("/api/v1/quest/ok")
        assert (manager.metrics.of("quest").requests, manager.metrics.of("quest").in_flight) == (2, 1)
        module.OPEN.set()
        assert (await waiting).status_code == 200
        await manager.settle()
        assert (manager.metrics.of("quest").requests, manager.metrics.of("quest").in_flight) == (3, 0)
        await manager.disable("quest")
        await manager.enable("quest")
        assert manager.metrics.of("quest").requests == 3
        text = {path: path.read_text() for path in folder.glob("*.py")}
        for path in text:
            path.unlink()
        await manager.refresh(folder)
        with pytest.raises(PluginNotFoundError):
            manager.metrics.of("quest")
        for path, content in text.items():
            path.write_text(content)
        await manager.refresh(folder)
        assert manager.metrics.of("quest").requests == 0


async def test_concurrent_requests_of_many_plugins_are_all_counted(tmp_path: Path) -> None:
    """400 requests at once, to four plugins, and one reload in the middle."""
    for number in range(4):
        write_plugin(tmp_path, f"quest-{number}", QUEST)
    async with plugin_host(tmp_path) as host:
        requests = [
            asyncio.create_task(host.client.get(f"/api/v1/quest-{number % 4}/{'ok' if number % 3 else 'bad'}"))
            for number in range(400)
        ]
        await host.manager.reload("quest-1")
        statuses = [(await each).status_code for each in requests]
        figures = list(host.manager.metrics)
        assert [each.requests for each in figures] == [100, 100, 100, 100]
        assert sum(each.errors for each in figures) == statuses.count(502)


async def test_clients_that_leave_are_not_errors(tmp_path: Path) -> None:
    """A cancelled request is unanswered."""
    write_plugin(tmp_path, "quest", QUEST)
    async with plugin_host(tmp_path) as host:
        task = asyncio.create_task(host.client.get("/api/v1/quest/wait"))
        while not host.manager.metrics.of("quest").in_flight:  # noqa: ASYNC110 - as soon as it is there
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        figures = host.manager.metrics.of("quest")
        assert (figures.unanswered, figures.requests, figures.errors, figures.in_flight) == (1, 0, 0, 0)


async def connect(app: FastAPI, query: bytes, *received: Message) -> list[str]:
    """Open a WebSocket, receive what the client sends, and return the kinds of message that it got."""
    messages, sent = iter([{"type": "websocket.connect"}, *received]), []
    path = "/api/v1/quest/talk"
    scope = {"type": "websocket", "path": path, "query_string": query, "headers": [], "root_path": "", "scheme": "ws"}

    async def receive() -> Message:
        return next(messages)

    async def send(message: Message) -> None:
        sent.append(message["type"].removeprefix("websocket."))

    await app(scope, receive, send)
    return sent


async def test_web_sockets_are_counted_when_they_end(tmp_path: Path) -> None:
    """One that fails is an error; one whose client leaves is not."""
    write_plugin(tmp_path, "quest", QUEST)
    async with plugin_host(tmp_path) as host:
        text: Message = {"type": "websocket.receive", "text": "hello"}
        assert await connect(host.app, b"", text) == ["accept", "send", "close"]
        with pytest.raises(WebSocketDisconnect):
            await connect(host.app, b"", {"type": "websocket.disconnect", "code": 1000})
        with pytest.raises(KeyError):
            await connect(host.app, b"fail=1")
        figures = host.manager.metrics.of("quest")
        assert (figures.websockets, figures.requests, figures.errors) == (3, 3, 1)


async def test_failing_handlers_count_for_whose_they_are(tmp_path: Path) -> None:
    """Who emits has nothing to do with it."""
    write_plugin(tmp_path, "quest", QUEST)
    write_plugin(tmp_path, "other", "")
    async with plugin_host(tmp_path) as host:
        await plugin_hooks.emit("quest:asked")
        assert host.manager.metrics.of("quest").handler_failures == 1
        assert host.manager.metrics.of("other").handler_failures == 0
        assert host.manager.metrics.last_fault_of("quest").startswith("KeyError at ")


async def test_memory_is_known_while_it_is_traced(tmp_path: Path) -> None:
    """What a plugin's own lines took is found; without tracing nobody can tell, and nobody pretends."""
    write_plugin(tmp_path, "quest", "KEPT = [bytes(1000) for _ in range(1000)]")
    write_plugin(tmp_path, "other", "")
    tracemalloc.start()
    try:
        async with plugin_host(tmp_path) as host:
            memory = {each.plugin: each.memory_bytes for each in host.manager.metrics}
    finally:
        tracemalloc.stop()
    assert memory["quest"] is not None
    assert memory["other"] is not None
    assert memory["quest"] > 1_000_000 > memory["other"]
