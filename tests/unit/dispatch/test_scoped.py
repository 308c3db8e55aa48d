"""Middleware and exception handlers of a plugin wrap its own routes, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from pixsim7_backend.infrastructure.plugins._dispatch import PluginRoute
from tests.integration.compat.twins import PluginSpec, converse, mount_of, request

pytestmark = pytest.mark.anyio


class Stamp:
    """Adds its name to the answer's ``x-stamps`` and notes every passage."""

    def __init__(self, app: ASGIApp, name: str, log: list[str]) -> None:
        self.app, self.name, self.log = app, name, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.log.append(f"{self.name} {scope['type']}")

        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", []).append((b"x-stamps", self.name.encode()))
            await send(message)

        await self.app(scope, receive, stamped)


class Mine(Exception):
    pass


def router() -> APIRouter:
    made = APIRouter()

    @made.get("/ok")
    def ok() -> str:
        return "ok"

    @made.get("/raise/{kind}")
    def fail(kind: str) -> None:
        raise {"mine": Mine("m"), "value": ValueError("v"), "http": HTTPException(409, "c"), "bug": KeyError("k")}[kind]

    @made.get("/number/{number}")
    def number(number: int) -> int:
        return number

    @made.websocket("/ws/{kind}")
    async def socket(websocket: WebSocket, kind: str) -> None:
        if kind == "mine":
            raise Mine("before accepting")
        await websocket.accept()

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise Mine("from a mounted app")

    made.routes.append(Mount("/mounted", failing))
    return made


def say(who: str, status: int = 400) -> Callable[[Request, Exception], Response]:
    def handler(request: Request, error: Exception) -> Response:
        return PlainTextResponse(f"{who}: {type(error).__name__}", status)

    return handler


def serve(
    middleware: Sequence[Middleware] = (), handlers: Mapping[Any, Any] | None = None, host: FastAPI | None = None
) -> FastAPI:
    """Return an app with the plugin ``own`` under test and the plugin ``other`` without anything."""
    app = host or FastAPI()
    own = PluginSpec("own", lambda: [router()], "/own")
    mounts = {
        "own": mount_of(app, own, middleware=middleware, exception_handlers=handlers),
        "other": mount_of(app, PluginSpec("other", lambda: [router()], "/other")),
    }
    PluginRoute.install(app).publish(mounts)
    return app


async def test_middleware_wraps_own_routes_in_order() -> None:
    """The first middleware is the outermost; neighbours, 404s and redirects do not pass through it."""
    log: list[str] = []
    app = serve([Middleware(Stamp, name, log) for name in ("outer", "inner")])
    answer = await request(app, "GET", "/own/ok")
    assert answer.headers.get_list("x-stamps") == ["inner", "outer"]
    assert log == ["outer http", "inner http"]
    for path in ("/other/ok", "/own/nope", "/own/ok/", "/nope"):
        assert "x-stamps" not in (await request(app, "GET", path)).headers
    await converse(app, "/own/ws/ok", [], {})
    assert log[2:] == ["outer websocket", "inner websocket"]


async def test_a_method_that_is_not_allowed_is_the_plugins() -> None:
    """405 for a path of the plugin passes through its middleware and its handlers."""
    log: list[str] = []
    app = serve([Middleware(Stamp, "mine", log)], {405: say("own", 405)})
    answer = await request(app, "POST", "/own/ok")
    assert (answer.status_code, answer.text, answer.headers["x-stamps"]) == (405, "own: HTTPException", "mine")
    other = await request(app, "POST", "/other/ok")
    assert other.json() == {"detail": "Method Not Allowed"}


async def test_base_http_middleware() -> None:
    """Starlette's request/response middleware works around a plugin, and sees handled errors as responses."""

    async def count(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers["x-status"] = str(response.status_code)
        return response

    app = serve([Middleware(BaseHTTPMiddleware, dispatch=count)], {Mine: say("own", 418)})
    for path, status in (("ok", 200), ("raise/mine", 418), ("raise/http", 409), ("number/x", 422)):
        answer = await request(app, "GET", f"/own/{path}")
        assert (answer.status_code, answer.headers["x-status"]) == (status, str(status))


async def test_own_handlers_win() -> None:
    """The plugin's handlers are asked first, by status and class; what they do not name is the app's."""
    host = FastAPI()
    host.add_exception_handler(Mine, say("app"))
    host.add_exception_handler(409, say("app", 409))
    host.add_exception_handler(ValueError, say("app"))
    app = serve(handlers={Mine: say("own"), HTTPException: say("own", 409), LookupError: say("own")}, host=host)
    texts = [(await request(app, "GET", f"/own/raise/{kind}")).text for kind in ("mine", "value", "http", "bug")]
    assert texts == ["own: Mine", "app: ValueError", "own: HTTPException", "own: KeyError"]
    assert (await request(app, "GET", "/other/raise/mine")).text == "app: Mine"
    assert (await request(app, "GET", "/other/raise/http")).text == "app: HTTPException"
    assert (await request(app, "GET", "/own/number/x")).status_code == 422


async def test_async_handlers_and_mounted_apps() -> None:
    """Handlers may be async, and catch what an app mounted in the plugin raises."""

    async def handler(request: Request, error: Exception) -> Response:
        return JSONResponse({"path": request.url.path, "error": str(error)}, 400)

    app = serve(handlers={Mine: handler})
    assert (await request(app, "GET", "/own/mounted/x")).json()["error"] == "from a mounted app"
    assert (await request(app, "GET", "/own/raise/mine")).json() == {"path": "/own/raise/mine", "error": "m"}
    assert (await request(app, "GET", "/other/mounted/x")).status_code == 500


async def test_handlers_of_websockets() -> None:
    """A handler may close a WebSocket; without one the exception reaches the server."""

    async def close(websocket: WebSocket, error: Exception) -> None:
        await websocket.close(4000, str(error))

    app = serve(handlers={Mine: close})
    sent = await converse(app, "/own/ws/mine", [], {})
    assert sent == [{"type": "websocket.close", "code": 4000, "reason": "before accepting"}]
    with pytest.raises(Mine):
        await converse(app, "/other/ws/mine", [], {})


@pytest.mark.parametrize("key", [500, Exception])
async def test_last_resort(key: int | type[Exception]) -> None:
    """A handler for 500 or Exception answers what nobody handles; the server still sees the exception."""
    log: list[str] = []
    app = serve([Middleware(Stamp, "mine", log)], {key: say("own", 500)})
    assert (await request(app, "GET", "/own/raise/bug")).text == "own: KeyError"
    assert (await request(app, "GET", "/own/raise/http")).json() == {"detail": "c"}
    assert (await request(app, "GET", "/other/raise/bug")).text == "Internal Server Error"
    messages: list[Message] = []
    with pytest.raises(KeyError):
        await app(_scope("/own/raise/bug"), _no_body, _into(messages))
    assert messages[0]["status"] == 500


async def test_error_after_the_answer_started() -> None:
    """An exception that has a handler but comes too late is reported as such, as in Starlette."""
    made = APIRouter()

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("started")(scope, receive, send)
        raise Mine("too late")

    made.routes.append(Mount("/late", late))
    app = FastAPI()
    mount = mount_of(app, PluginSpec("own", lambda: [made], "/own"), exception_handlers={Mine: say("own")})
    PluginRoute.install(app).publish({"own": mount})
    with pytest.raises(RuntimeError, match="response already started"):
        await app(_scope("/own/late/x"), _no_body, _into([]))


async def test_frontends_are_never_unwrapped(variant: str, tmp_path: Path) -> None:
    """A frontend passes through the plugin's middleware, or (public variant) is not served at all."""
    (tmp_path / "index.html").write_text("index")
    made = APIRouter()
    made.frontend("/ui", directory=tmp_path, check_dir=True)
    app = FastAPI()
    log: list[str] = []
    spec = PluginSpec("own", lambda: [made], "/own")
    mount = mount_of(app, spec, middleware=[Middleware(Stamp, "mine", log)])
    PluginRoute.install(app).publish({"own": mount})
    answer = await request(app, "GET", "/own/ui/")
    if variant == "fast":
        assert (answer.text, answer.headers["x-stamps"]) == ("index", "mine")
    else:
        assert answer.status_code == 404


def _scope(path: str) -> Scope:
    return {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [], "root_path": ""}


async def _no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def _into(messages: list[Message]) -> Send:
    async def send(message: Message) -> None:
        messages.append(message)

    return send
