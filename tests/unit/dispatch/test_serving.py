"""Publishing, owning, counting and draining: what one mount does for its requests."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request
from starlette.websockets import WebSocket

from pixsim7_backend.infrastructure.plugins._dispatch import PluginMount, PluginRoute
from pixsim7_backend.infrastructure.plugins._ledger.ownership import AppKey, current_app, current_owner, running
from tests.integration.compat.twins import PluginSpec, converse, mount_of, request

pytestmark = pytest.mark.anyio


def single(
    app: FastAPI, endpoint: Callable[..., Any], path: str = "/x", plugin: str = "one", **options: Any
) -> PluginMount:
    router = APIRouter()
    router.add_api_route(path, endpoint)
    return mount_of(app, PluginSpec(plugin, lambda: [router]))


def who() -> dict[str, Any]:
    now = running.get()
    owner = current_owner()
    return {"plugin": owner.plugin if owner else None, "entry": now.entry if now else None}


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_requests_are_owned(kind: str) -> None:
    """Endpoints run as their plugin, in the thread pool too; afterwards nobody is owner."""

    async def who_async() -> dict[str, Any]:
        return who()

    app = FastAPI()
    mount = single(app, who if kind == "sync" else who_async)
    PluginRoute.install(app).publish({"one": mount})
    assert (await request(app, "GET", "/api/x")).json() == {"plugin": "one", "entry": "request"}
    assert running.get() is None


async def test_host_code_belongs_to_the_app() -> None:
    """Host routes run as code of the app, owned by no plugin, until the route is uninstalled."""
    key = AppKey("mine")
    seen: list[tuple[object, object]] = []
    app = FastAPI()
    app.add_api_route("/host", lambda: seen.append((current_app(), who()["plugin"])))
    route = PluginRoute.install(app, key)
    await request(app, "GET", "/host")
    route.uninstall()
    await request(app, "GET", "/host")
    assert seen == [(key, None), (None, None)]


async def test_second_install_takes_the_new_key() -> None:
    """A manager that follows another one on the same app finds its own key set."""
    seen: list[object] = []
    app = FastAPI()
    app.add_api_route("/host", lambda: seen.append(current_app()))
    PluginRoute.install(app, AppKey("first"))
    second = AppKey("second")
    PluginRoute.install(app, second)
    await request(app, "GET", "/host")
    assert seen == [second]


async def test_key_is_cleared_under_a_foreign_wrapper() -> None:
    """Where somebody wrapped the router after us, uninstalling leaves the wrapper and clears the key."""
    seen: list[object] = []
    app = FastAPI()
    app.add_api_route("/host", lambda: seen.append(current_app()))
    route = PluginRoute.install(app, AppKey())

    class Wrapper:
        def __init__(self, inner: Any) -> None:
            self.app = inner

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app(scope, receive, send)

    router: Any = app.router
    router.middleware_stack = wrapper = Wrapper(router.middleware_stack)
    route.uninstall()
    await request(app, "GET", "/host")
    assert seen == [None]
    assert router.middleware_stack is wrapper


async def test_ownership_ends_with_cancellation_and_errors() -> None:
    """A cancelled or failing request leaves neither an owner nor a count."""

    async def hang() -> None:
        await asyncio.sleep(60)

    app = FastAPI()
    mount = single(app, hang)
    PluginRoute.install(app).publish({"one": mount})
    scope = {"type": "http", "method": "GET", "path": "/api/x", "query_string": b"", "headers": [], "root_path": ""}

    async def nothing(*_: Any) -> Any:
        return {"type": "http.request"}

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await app(scope, nothing, nothing)
    assert running.get() is None
    assert mount.in_flight == 0


async def test_replaced_while_in_flight() -> None:
    """A request is answered by the mount it was matched to; the next one by the new mount."""
    started, go = asyncio.Event(), asyncio.Event()

    async def old() -> str:
        started.set()
        await go.wait()
        return "old"

    app = FastAPI()
    route = PluginRoute.install(app)
    first, second = single(app, old), single(app, lambda: "new")
    route.publish({"one": first})
    task = asyncio.create_task(request(app, "GET", "/api/x"))
    await started.wait()
    route.publish({"one": second})
    assert first.in_flight == 1
    assert (await request(app, "GET", "/api/x")).json() == "new"
    assert await first.drain(0.01) == ("GET /api/x",)
    draining = asyncio.create_task(first.drain(5))
    await asyncio.sleep(0)
    go.set()
    assert await draining == ()
    assert (await task).json() == "old"
    assert await first.drain(5) == ()


async def test_two_drains_at_once() -> None:
    """Two that wait for the same mount both learn that it is empty; compiling changes nothing."""
    started, go = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        started.set()
        await go.wait()

    app = FastAPI()
    mount = single(app, slow)
    mount.compile()
    PluginRoute.install(app).publish({"one": mount})
    task = asyncio.create_task(request(app, "GET", "/api/x"))
    await started.wait()
    drains = [asyncio.create_task(mount.drain(30)) for _ in range(2)]
    await asyncio.sleep(0)
    go.set()
    assert await asyncio.wait_for(asyncio.gather(*drains), 5) == [(), ()]
    await task


async def test_websockets_count() -> None:
    """An open WebSocket is in flight, and named when it does not end."""
    router = APIRouter()
    left: list[tuple[str, ...]] = []

    @router.websocket("/ws")
    async def socket(websocket: WebSocket) -> None:
        left.append(await mount.drain(0))

    app = FastAPI()
    mount = mount_of(app, PluginSpec("one", lambda: [router]))
    PluginRoute.install(app).publish({"one": mount})
    await converse(app, "/api/ws", [], {})
    assert left == [("WEBSOCKET /api/ws",)]


async def test_order_is_the_order_of_the_mapping() -> None:
    """Of overlapping plugins the first in the mapping wins; a replaced one keeps its place."""
    app = FastAPI()
    route = PluginRoute.install(app)
    mounts = {name: single(app, lambda name=name: name, plugin=name) for name in ("a", "b", "c")}

    async def winner() -> str:
        text: str = (await request(app, "GET", "/api/x")).json()
        return text

    route.publish(mounts)
    assert await winner() == "a"
    route.publish({**mounts, "a": single(app, lambda: "a2", plugin="a")})
    assert await winner() == "a2"
    route.publish({name: mounts[name] for name in ("c", "a", "b")})
    assert await winner() == "c"
    route.publish({name: mounts[name] for name in ("a", "b")})
    assert await winner() == "a"
    route.publish({name: mounts[name] for name in ("b", "a", "c")})
    assert await winner() == "b"


async def test_lifespan_state() -> None:
    """What the lifespan yielded is in request.state; what the host put there wins; neighbours see nothing."""
    app = FastAPI()

    def state(request: Request) -> dict[str, Any]:
        return {key: getattr(request.state, key, None) for key in ("pool", "host")}

    mounts = {name: single(app, state, f"/{name}", name) for name in ("one", "two")}
    mounts["one"].lifespan_state = {"pool": 1, "host": "plugin"}

    @app.middleware("http")
    async def set_host(request: Request, call_next: Any) -> Any:
        request.state.host = "host"
        return await call_next(request)

    PluginRoute.install(app).publish(mounts)
    assert (await request(app, "GET", "/api/one")).json() == {"pool": 1, "host": "host"}
    assert (await request(app, "GET", "/api/two")).json() == {"pool": None, "host": "host"}


async def test_merged_lifespan_of_the_routers() -> None:
    """The routers' lifespans, nested ones included, are one context that yields their states."""
    log: list[str] = []

    def lifespan(name: str) -> Any:
        async def run(app: Any) -> Any:
            log.append(f"{name} in")
            yield {name: 1}
            log.append(f"{name} out")

        return run

    inner, outer = APIRouter(lifespan=lifespan("inner")), APIRouter(lifespan=lifespan("outer"))
    outer.include_router(inner)
    app = FastAPI()
    mount = mount_of(app, PluginSpec("one", lambda: [outer]))
    async with mount.lifespan_context(app) as state:
        assert state == {"inner": 1, "outer": 1}
    assert log == ["outer in", "inner in", "inner out", "outer out"]


async def test_routes_added_later() -> None:
    """What a plugin adds to its routers later is served and documented after the next publish at the latest."""
    app = FastAPI()
    route = PluginRoute.install(app)
    outer, inner = APIRouter(), APIRouter(prefix="/inner")
    outer.include_router(inner)
    mounts = {"one": mount_of(app, PluginSpec("one", lambda: [outer]))}
    route.publish(mounts)
    assert (await request(app, "GET", "/api/inner/late")).status_code == 404
    app.openapi()
    inner.add_api_route("/late", lambda: "late")
    assert "/api/inner/late" in app.openapi()["paths"]
    deeper = APIRouter()
    inner.include_router(deeper, prefix="/deeper")
    deeper.add_api_route("/late/{x}", lambda x: x)
    route.publish(mounts)
    assert (await request(app, "GET", "/api/inner/late")).json() == "late"
    assert (await request(app, "GET", "/api/inner/deeper/late/1")).json() == "1"
    assert app.url_path_for("<lambda>", x="1") == "/api/inner/deeper/late/1"


async def test_routes_added_later_are_served_at_once(variant: str) -> None:
    """Where FastAPI announces additions, they are served without another publish."""
    app = FastAPI()
    router = APIRouter()
    PluginRoute.install(app).publish({"one": mount_of(app, PluginSpec("one", lambda: [router]))})
    router.add_api_route("/quite/new", lambda: "new")
    assert (await request(app, "GET", "/api/quite/new")).status_code == (200 if variant == "fast" else 404)


async def test_mount_dies_when_it_is_replaced() -> None:
    """Nothing of ours keeps a replaced mount or its endpoints alive."""
    app = FastAPI()
    route = PluginRoute.install(app)

    def endpoint() -> str:
        return "x"

    route.publish({"one": single(app, endpoint)})
    await request(app, "GET", "/api/x")
    app.openapi()
    dying = [weakref.ref(route.snapshot.mounts["one"])]
    route.publish({})
    app.openapi()
    gc.collect()
    assert [ref() for ref in dying] == [None]


async def test_swaps_under_load() -> None:
    """While another thread swaps generations, every answer is whole and of one generation."""
    app = FastAPI()
    route = PluginRoute.install(app)

    def generation(number: int) -> dict[str, PluginMount]:
        router = APIRouter()
        router.add_api_route("/a", lambda: number)
        router.add_api_route(f"/only/{number % 2}", lambda: number)
        return {"one": mount_of(app, PluginSpec("one", lambda: [router]), number), "two": neighbour}

    neighbour = single(app, lambda: "neighbour", "/n", "two")
    generations = [generation(number) for number in range(40)]
    route.publish(generations[0])
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for mounts in generations:
                route.publish(mounts)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(60):
            assert (await request(app, "GET", "/api/a")).status_code == 200
            assert (await request(app, "GET", "/api/n")).json() == "neighbour"
            assert (await request(app, "GET", "/api/only/0")).status_code in (200, 404)
    finally:
        stop.set()
        thread.join()
