"""Which route answers: order, methods, redirects, mounts, frontends, root paths and names."""

from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request as StarletteRequest
from starlette.routing import Host, Mount, NoMatchFound, Route, Router, WebSocketRoute
from starlette.websockets import WebSocket

from .twins import PluginSpec, Twins, make_twins, request

pytestmark = pytest.mark.anyio


async def plain(request: StarletteRequest) -> Response:
    return PlainTextResponse(f"{request.method} {request.url.path} {dict(request.path_params)}")


def overlapping(name: str) -> APIRouter:
    """Return a router whose paths overlap with those of its siblings."""
    router = APIRouter()

    def say(text: str) -> Any:
        def endpoint(request: Request) -> dict[str, Any]:
            params = {key: str(value) for key, value in request.path_params.items()}
            return {"plugin": name, "route": text, "params": params}

        return endpoint

    router.add_api_route("/things/special", say("special"), name=f"{name}_special")
    router.add_api_route("/things/{thing}", say("thing"), name=f"{name}_thing")
    router.add_api_route(f"/things/{{thing}}/{name}", say("own"), methods=["POST"], name=f"{name}_own")
    router.add_api_route(f"/{name}/", say("slash"))
    router.add_api_route(f"/{name}/no-slash", say("no slash"))
    router.add_api_route("/{anything}", say("anything"), methods=["DELETE"], name=f"{name}_any")
    return router


def overlap(name: str) -> PluginSpec:
    return PluginSpec(name, lambda: [overlapping(name)])


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "DELETE", "PUT"])
async def test_overlapping_plugins(method: str) -> None:
    """The first full match wins, else the first with another method: 405 with its Allow."""
    twins = make_twins(overlap("a"), overlap("b"))
    for path in ("/things/special", "/things/x", "/things/x/a", "/things/x/b", "/a/", "/a", "/b/no-slash/", "/b"):
        await twins.ask(method, "/api" + path)
    for path in ("/things", "/things/", "/nope/nope", "", "/a%0A", "/things/special%0A", "/b/no-slash%0A", "//a/"):
        await twins.ask(method, "/api" + path)
    await twins.ask(method, "/elsewhere")


async def test_redirects_can_be_off() -> None:
    """An app without redirect_slashes does not redirect to plugins either."""
    twins = make_twins(overlap("a"), host=lambda: FastAPI(redirect_slashes=False))
    assert (await twins.ask("GET", "/api/a/no-slash/")).status_code == 404


async def test_plain_routes_mounts_and_hosts() -> None:
    """Starlette's routes, mounts and hosts inside a plugin answer as in a hard-coded router."""

    def make() -> list[APIRouter]:
        sub = FastAPI()
        sub.add_api_route("/hello/{name}", lambda name: name, name="hello")
        router = APIRouter(prefix="/m")
        router.add_route("/m/plain/{x:int}", plain, methods=["GET", "POST"], name="plain")
        router.routes.append(Mount("/sub", app=sub, name="sub"))
        router.routes.append(Mount("/{tenant}/deep", routes=[Route("/x", plain, name="x")], name="deep"))
        router.mount("/asgi", Router([Route("/a", plain)]))
        router.routes.append(Host("{who}.example.org", app=Router([Route("/api/at", plain), Route("/at", plain)])))
        nested = APIRouter(prefix="/nested")
        nested.include_router(router, prefix="/again")
        return [router, nested]

    twins = make_twins(PluginSpec("mounts", make))
    for base in ("", "/nested/again"):
        for path in ("/m/plain/3", "/m/plain/x", "/sub/hello/joe", "/sub/nope", "/sub", "/t/deep/x", "/asgi/a"):
            for method in ("GET", "POST"):
                await twins.ask(method, f"/api{base}{path}")
        for path in ("/at", f"/api{base}/at"):
            await twins.ask("GET", path, headers={"host": "joe.example.org:80"})
    assert twins.platform.url_path_for("sub:hello", name="x") == twins.hard.url_path_for("sub:hello", name="x")
    assert twins.platform.url_path_for("deep:x", tenant="t") == twins.hard.url_path_for("deep:x", tenant="t")
    twins.compare_openapi()


async def test_names() -> None:
    """url_path_for and request.url_for find the same route, and miss the same names."""

    def make() -> list[APIRouter]:
        router = overlapping("a")

        @router.get("/links")
        def links(request: Request) -> list[str]:
            return [str(request.url_for("a_thing", thing="x")), str(request.url_for("b_own", thing="y"))]

        return [router]

    twins = make_twins(PluginSpec("a", make), overlap("b"))
    await twins.ask("GET", "/api/links")
    await twins.ask("GET", "/api/links", root_path="/behind")
    for name, params in (("a_thing", {"thing": "1"}), ("b_any", {"anything": "1"}), ("b_special", {})):
        assert twins.platform.url_path_for(name, **params) == twins.hard.url_path_for(name, **params)
    for name, params in (("a_thing", {}), ("nobody", {})):
        with pytest.raises(NoMatchFound):
            twins.platform.url_path_for(name, **params)


def with_frontend(tmp_path: Path, folder: str, path: str, **options: Any) -> APIRouter:
    directory = tmp_path / folder
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "index.html").write_text(f"index of {folder}")
    (directory / "app.js").write_text(f"script of {folder}")
    router = APIRouter(**options)
    router.frontend(path, directory=directory)
    return router


async def test_frontends(tmp_path: Path) -> None:
    """Frontends are asked last, the most specific wins, also against the host's own."""

    def host() -> FastAPI:
        app = FastAPI()
        (tmp_path / "host").mkdir(exist_ok=True)
        (tmp_path / "host" / "index.html").write_text("index of host")
        app.frontend("/", directory=tmp_path / "host", check_dir=True)
        return app

    def late() -> list[APIRouter]:
        outer = APIRouter()
        outer.include_router(with_frontend(tmp_path, "b", "/ui/deep"))
        return [outer]

    twins = make_twins(
        PluginSpec("a", lambda: [with_frontend(tmp_path, "a", "/ui")], prefix=""),
        overlap("x"),
        PluginSpec("b", late, prefix=""),
        host=host,
    )
    html = {"accept": "text/html"}
    for path in ("/ui", "/ui/", "/ui/app.js", "/ui/deep/", "/ui/deep/app.js", "/ui/deep/none", "/", "/other", "/api/x"):
        for method in ("GET", "POST", "HEAD"):
            await twins.ask(method, path)
            await twins.ask(method, path, headers=html)
    assert (await twins.ask("GET", "/ui/deep/some/page", headers=html)).text == "index of b"


async def test_root_path_and_middleware() -> None:
    """Behind a root path, and inside the app's middleware, plugins see the same scope."""

    def host() -> FastAPI:
        app = FastAPI()

        async def stamp(request: StarletteRequest, call_next: Any) -> Response:
            request.state.stamp = "from outside"
            response: Response = await call_next(request)
            route = request.scope.get("route")
            response.headers["x-route"] = str(getattr(route, "path", None))
            return response

        app.add_middleware(BaseHTTPMiddleware, dispatch=stamp)
        return app

    def make() -> list[APIRouter]:
        router = APIRouter(prefix="/scope")

        @router.get("/{x}")
        def scope(request: Request, x: str) -> dict[str, Any]:
            keys = ("path", "root_path", "path_params", "method")
            return {"url": str(request.url), "stamp": request.state.stamp} | {key: request.scope[key] for key in keys}

        return [router]

    twins = make_twins(PluginSpec("scope", make), host=host)
    for root_path in ("", "/behind", "/api"):
        await twins.ask("GET", root_path + "/api/scope/1", root_path=root_path)
        await twins.ask("GET", root_path + "/api/scope/1/", root_path=root_path)
        await twins.ask("GET", "/api/scope/1", root_path=root_path)
        await twins.ask("POST", "/api/scope/1", root_path=root_path)


async def test_app_below_another_app() -> None:
    """A whole app of plugins, mounted in another one, answers as the hard-coded one would there."""
    inner = make_twins(overlap("a"))
    hard, platform = FastAPI(), FastAPI()
    hard.mount("/inner", inner.hard)
    platform.mount("/inner", inner.platform)
    outer = Twins(hard, platform, inner.route)
    for path in ("/inner/api/things/x", "/inner/api/a", "/inner/nope", "/inner"):
        await outer.ask("GET", path)
    documents = [(await request(app, "GET", "/inner/openapi.json")).json() for app in (hard, platform)]
    assert documents[0] == documents[1]
    assert documents[1]["servers"] == [{"url": "/inner"}]


async def test_websockets() -> None:
    """WebSockets are matched, refused, closed and given their parameters alike."""

    def make() -> list[APIRouter]:
        router = APIRouter(prefix="/ws")

        @router.websocket("/echo/{room}")
        async def echo(websocket: WebSocket, room: str, q: int = 0) -> None:
            await websocket.accept()
            async for text in websocket.iter_text():
                await websocket.send_json({"room": room, "q": q, "text": text})

        async def bare(websocket: WebSocket) -> None:
            await websocket.accept()
            await websocket.send_text(str(websocket.url))
            await websocket.close(3000)

        router.routes.append(WebSocketRoute("/ws/bare", bare, name="bare"))
        router.add_api_route("/echo/{room}", lambda room: room)
        return [router]

    twins = make_twins(PluginSpec("ws", make))
    said = await twins.talk("/api/ws/echo/lobby?q=3", "hello", "again")
    assert [message["type"] for message in said] == ["websocket.accept", "websocket.send", "websocket.send"]
    for url in ("/api/ws/bare", "/api/ws/echo/lobby?q=x", "/api/ws/nope", "/api/ws/echo/", "/api/ws/bare%0A"):
        await twins.talk(url)
    await twins.ask("GET", "/api/ws/echo/lobby")
    await twins.ask("GET", "/api/ws/bare")
    assert twins.platform.url_path_for("echo", room="a") == twins.hard.url_path_for("echo", room="a")
