"""The app that the jail benchmark serves: one plugin in process, confined, and behind a proxy.

``BENCH_PLUGINS`` names the folder of the plugin in process, ``BENCH_COMMUNITY`` that of the confined ones,
``BENCH_SOCKET`` the Unix socket of a server with the same routes, to which ``/proxied`` passes on. ``/echoed`` is the
same route, which only lets another process send its answer back.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, Request
from starlette.responses import StreamingResponse

from pixsim7_backend.infrastructure.plugins import init_plugin_manager

from .echo import EchoClient, echoing


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Serve the plugins."""
    transport = httpx.AsyncHTTPTransport(uds=os.environ["BENCH_SOCKET"])
    async with httpx.AsyncClient(transport=transport, base_url="http://behind") as app.state.behind:
        manager = init_plugin_manager(
            app, os.environ["BENCH_PLUGINS"], community_directory=os.environ["BENCH_COMMUNITY"], disabled=()
        )
        await manager.enable_all()
        async with echoing(os.environ["BENCH_SOCKET"] + ".echo") as app.state.echo:
            yield
        await manager.disable_all()


async def proxy(request: Request) -> StreamingResponse:
    """Pass a request on, and its answer back."""
    client: httpx.AsyncClient = request.app.state.behind
    path = request.url.path.removeprefix("/proxied")
    passed = client.build_request(request.method, path, content=request.stream(), headers=request.headers.raw)
    answer = await client.send(passed, stream=True)
    headers = {name: value for name, value in answer.headers.items() if name not in ("date", "server")}
    return StreamingResponse(answer.aiter_raw(), answer.status_code, headers)


async def echo(item: int, request: Request, q: str = "") -> dict[str, object]:
    """Answer as the plugin does, with another process asked meanwhile; what is sent is as long as a scope."""
    client: EchoClient = request.app.state.echo
    await client.ask(bytes(300))
    return {"item": item, "q": q}


def make_app() -> FastAPI:
    """Return the app."""
    app = FastAPI(lifespan=lifespan)
    app.add_route("/proxied/{rest:path}", proxy, methods=["GET", "POST"])
    app.add_api_route("/echoed/items/{item}", echo)
    return app
