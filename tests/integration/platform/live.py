"""Props: a real server with plugins in this process, and clients that keep asking it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from pixsim7_backend.infrastructure.plugins import PluginManager, init_plugin_manager
from pixsim7_backend.infrastructure.plugins.testing import MemoryStateStore


@dataclass(frozen=True, slots=True)
class LiveServer:
    """A uvicorn server on a free port, on the loop of the test."""

    app: FastAPI
    manager: PluginManager
    address: str
    """Like ``127.0.0.1:43210``."""

    def client(self, **options: Any) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None)
        return httpx.AsyncClient(base_url=f"http://{self.address}", timeout=30, limits=limits, **options)


@asynccontextmanager
async def live_server(directory: Path, **options: Any) -> AsyncIterator[LiveServer]:
    """Serve the plugins of ``directory`` over HTTP; ``options`` go to ``init_plugin_manager``."""
    app = FastAPI()
    defaults: dict[str, Any] = {"disabled": (), "store": MemoryStateStore()}
    manager = init_plugin_manager(app, directory, **(defaults | options))
    await manager.enable_all()
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # of others asyncio lets TCP wait
    listening.bind(("127.0.0.1", 0))
    listening.listen(512)
    # An idle connection that the server closes just when a client takes it up again is no fault of a reload.
    config = uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1, timeout_keep_alive=600)
    server = uvicorn.Server(config)
    server.capture_signals = _no_signals  # type: ignore[method-assign,assignment]  # the test's own stay
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        while not server.started:  # noqa: ASYNC110  # uvicorn tells by this attribute only
            await asyncio.sleep(0.01)
        yield LiveServer(app, manager, "{}:{}".format(*listening.getsockname()[:2]))
    finally:
        server.should_exit = True
        await serving
        await manager.disable_all()
        manager.close()
        listening.close()


class _no_signals:  # noqa: N801  # stands in for a context manager function
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...
