"""Limits of plugins that serve real requests."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Scope
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from pixsim7_backend.infrastructure.plugins import LimitSettings, Rate, Verdict, plugin_hooks
from pixsim7_backend.infrastructure.plugins.testing import plugin_host, write_plugin
from tests.integration.platform.live import live_server

pytestmark = pytest.mark.anyio

DICE = """
from fastapi import WebSocket
from fastapi.responses import Response
SEEN = []
OPEN = asyncio.Event()

@router.get("/roll")
async def roll() -> int:
    SEEN.append("roll")
    return 4

@router.get("/seen")
async def seen() -> list[str]:
    return SEEN

@router.get("/missing")
async def missing() -> None:
    raise HTTPException(404)

@router.get("/wait")
async def wait() -> int:
    await OPEN.wait()
    return 1

async def on_enable() -> None:
    plugin_hooks.register("dice:opened", OPEN.set)

@router.websocket("/talk")
async def talk(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(await socket.receive_text())
    await socket.close()
"""
ROLL = "/api/v1/dice/roll"


async def test_a_request_beyond_the_rate_never_reaches_the_plugin(tmp_path: Path) -> None:
    """The answer is 429, tells when to come back, and is counted apart from what the plugin does."""
    write_plugin(tmp_path, "dice", DICE, rate_limit="2/hour")
    async with plugin_host(tmp_path) as host:
        first, second, third = [await host.client.get(ROLL) for _ in range(3)]
        assert [each.status_code for each in (first, second, third)] == [200, 200, 429]
        assert first.headers["ratelimit-policy"] == '"dice";q=2;w=3600'
        assert first.headers["ratelimit"] == '"dice";r=1;t=1800'
        assert second.headers["ratelimit"] == '"dice";r=0;t=1800'
        assert third.json() == {"detail": "plugin 'dice' answers 2/hour to one client; try again in 1800 s"}
        assert third.headers["retry-after"] == "1800"
        assert third.headers["ratelimit-policy"] == '"dice";q=2;w=3600'
        assert third.headers["ratelimit"] == '"dice";r=0;t=1800'
        figures = host.manager.metrics.of("dice")
        assert (figures.answers, figures.requests, figures.errors) == ({"2xx": 2}, 2, 0)
        assert figures.to_json()["refused"] == {"rate": 1}
        assert host.manager.metrics.totals_of("dice").requests == 2
        line = 'pixsim7_plugin_refused_total{plugin="dice",limit="rate"} 1'
        assert line in host.manager.metrics.render_prometheus()


async def test_errors_of_the_plugin_tell_the_limit_too(tmp_path: Path) -> None:
    """What is not found counts, and says so; what no plugin serves does not."""
    write_plugin(tmp_path, "dice", DICE, rate_limit="5/minute")
    async with plugin_host(tmp_path) as host:
        missing = await host.client.get("/api/v1/dice/missing")
        assert (missing.status_code, missing.headers["ratelimit"]) == (404, '"dice";r=4;t=12')
        nowhere = await host.client.get("/api/v1/dice/nowhere")
        assert "ratelimit" not in nowhere.headers
        assert (await host.client.get(ROLL)).headers["ratelimit"].startswith('"dice";r=3;')


async def test_the_host_formats_the_refusal_and_the_plugin_does_not_see_it(tmp_path: Path) -> None:
    """The app's handler of HTTP errors answers, not one of the plugin, and no middleware of the plugin runs."""
    code = """
    from fastapi.responses import PlainTextResponse
    from starlette.middleware import Middleware

    class Noting:
        def __init__(self, app):
            self.app = app
        async def __call__(self, scope, receive, send):
            SEEN.append("middleware")
            await self.app(scope, receive, send)

    SEEN = []
    middleware = [Middleware(Noting)]
    exception_handlers = {429: lambda request, error: PlainTextResponse("the plugin's")}

    @router.get("/seen")
    async def seen() -> list[str]:
        return SEEN
    """
    write_plugin(tmp_path, "dice", code, rate_limit="1/hour")
    app = FastAPI()

    @app.exception_handler(429)
    async def slow_down(_request: Request, error: Exception) -> Response:
        return JSONResponse({"slow down": type(error).__name__}, 429)

    async with plugin_host(tmp_path, app=app) as host:
        assert (await host.client.get("/api/v1/dice/seen")).json() == ["middleware"]
        assert (await host.client.get("/api/v1/dice/seen")).json() == {"slow down": "RefusedError"}
        host.manager.limits.change(LimitSettings(rates={"dice": None}))
        assert (await host.client.get("/api/v1/dice/seen")).json() == ["middleware", "middleware"]


async def test_plugins_without_a_limit_say_nothing(tmp_path: Path) -> None:
    """Neither headers nor figures."""
    write_plugin(tmp_path, "dice", DICE)
    async with plugin_host(tmp_path) as host:
        answer = await host.client.get(ROLL)
        assert not [name for name in answer.headers if name.startswith("ratelimit")]
        assert host.manager.metrics.of("dice").refused == {}


async def test_clients_and_plugins_have_limits_of_their_own(tmp_path: Path) -> None:
    """One plugin's limit is not another's; whose request it is, the host may say."""
    write_plugin(tmp_path, "dice", DICE, rate_limit="1/hour")
    write_plugin(tmp_path, "cards", DICE, rate_limit="1/hour")

    def find_client(scope: Scope) -> str | None:
        return next((value.decode() for name, value in scope["headers"] if name == b"x-user"), None)

    async with plugin_host(tmp_path, limits=LimitSettings(find_client=find_client)) as host:
        for path in (ROLL, "/api/v1/cards/roll"):
            for headers in ({}, {"x-user": "ada"}, {"x-user": "ben"}):
                statuses = [(await host.client.get(path, headers=headers)).status_code for _ in range(2)]
                assert statuses == [200, 429]


async def test_a_reload_goes_on_counting_unless_the_rate_changes(tmp_path: Path) -> None:
    """New code under the same rate does not give clients a fresh start; another rate holds from the next request on."""
    write_plugin(tmp_path, "dice", DICE, rate_limit="2/hour")
    async with plugin_host(tmp_path) as host:
        await host.client.get(ROLL)
        await host.manager.reload("dice")
        assert (await host.client.get(ROLL)).headers["ratelimit"].startswith('"dice";r=0;')
        write_plugin(tmp_path, "dice", DICE, rate_limit="3/hour")
        await host.manager.reload("dice")
        assert (await host.client.get(ROLL)).headers["ratelimit-policy"] == '"dice";q=3;w=3600'
        await host.manager.disable("dice")
        await host.manager.enable("dice")
        assert (await host.client.get(ROLL)).headers["ratelimit"].startswith('"dice";r=1;')
        write_plugin(tmp_path, "dice", DICE)
        await host.manager.reload("dice")
        assert "ratelimit" not in (await host.client.get(ROLL)).headers


async def test_the_operators_change_holds_at_once_and_forgets_nothing(tmp_path: Path) -> None:
    """What was counted stays where the rate stays, whatever else changes."""
    write_plugin(tmp_path, "dice", DICE, rate_limit="2/hour")
    async with plugin_host(tmp_path, limits=LimitSettings(rates={"dice": Rate.parse("3/hour")})) as host:
        assert (await host.client.get(ROLL)).headers["ratelimit"].startswith('"dice";r=2;')
        settings = LimitSettings(rates={"dice": Rate.parse("3/hour")}, concurrency={"dice": 5})
        host.manager.limits.change(settings)
        assert (await host.client.get(ROLL)).headers["ratelimit"].startswith('"dice";r=1;')
        host.manager.limits.change(LimitSettings())
        assert (await host.client.get(ROLL)).headers["ratelimit-policy"] == '"dice";q=2;w=3600'


async def test_a_plugin_that_serves_as_many_as_it_may_is_busy(tmp_path: Path) -> None:
    """One more is told to come back with 503, which blames nobody; when one has finished there is room again."""
    write_plugin(tmp_path, "dice", DICE)
    limits = LimitSettings(concurrency={"dice": 2})
    async with live_server(tmp_path, limits=limits) as server, server.client() as client:
        waiting = [asyncio.create_task(client.get("/api/v1/dice/wait")) for _ in range(2)]
        figures = server.manager.metrics.of
        while figures("dice").in_flight < 2:  # noqa: ASYNC110  # nothing announces it
            await asyncio.sleep(0.001)
        refused = await client.get(ROLL)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["detail"] == "plugin 'dice' serves 2 requests at once, and does now; try again in 1 s"
        await plugin_hooks.emit("dice:opened")
        assert [(await each).status_code for each in waiting] == [200, 200]
        assert (await client.get(ROLL)).status_code == 200
        assert figures("dice").refused == {"concurrency": 1}
        assert figures("dice").errors == 0
        assert server.manager.metrics.totals_of("dice").faults == {}


async def test_the_handshake_of_a_websocket_counts(tmp_path: Path) -> None:
    """Messages do not; a refused handshake is answered over HTTP, where the server can."""
    write_plugin(tmp_path, "dice", DICE, rate_limit="1/hour")
    async with live_server(tmp_path) as server:
        url = f"ws://{server.address}/api/v1/dice/talk"
        async with connect(url) as socket:
            assert socket.response is not None
            assert socket.response.headers["ratelimit"] == '"dice";r=0;t=3600'
            await socket.send("hello")
            assert await socket.recv() == "hello"
        with pytest.raises(InvalidStatus) as refused:
            await connect(url)
        assert refused.value.response.status_code == 429
        assert refused.value.response.headers["retry-after"] == "3600"
        assert server.manager.metrics.of("dice").refused == {"rate": 1}
        assert server.manager.metrics.of("dice").websockets == 1


async def test_elsewhere_a_refused_websocket_is_closed_for_now(tmp_path: Path) -> None:
    """A server that cannot answer a handshake over HTTP gets the close code 1013."""
    write_plugin(tmp_path, "dice", DICE, rate_limit="1/hour")
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": "websocket", "path": "/api/v1/dice/talk", "raw_path": b"/api/v1/dice/talk", "query_string": b"",
        "headers": [], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "scheme": "ws", "root_path": "",
        "subprotocols": [], "asgi": {"version": "3.0"}, "http_version": "1.1",
    }  # fmt: skip
    async with plugin_host(tmp_path) as host:
        assert (await host.client.get(ROLL)).status_code == 200
        await host.app(scope, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1013, "reason": "try again later"}]


class Gatekeeper:
    """Shared counts that keep a request waiting until the test lets it go."""

    def __init__(self) -> None:
        self.is_asked, self.answers = asyncio.Event(), asyncio.Event()

    async def take(self, plugin: str, client: str, rate: Rate) -> Verdict:
        self.is_asked.set()
        await self.answers.wait()
        return Verdict(True, 1, 1.0)


async def test_a_request_at_the_gate_is_served_by_the_code_it_came_for(tmp_path: Path) -> None:
    """A plugin that is replaced while shared counts are asked waits for that request before it is taken down."""
    write_plugin(tmp_path, "dice", DICE, rate_limit="2/hour")
    store = Gatekeeper()
    async with plugin_host(tmp_path, limits=LimitSettings(shared=store)) as host:
        asked = asyncio.create_task(host.client.get(ROLL))
        await store.is_asked.wait()
        write_plugin(tmp_path, "dice", DICE.replace("return 4", "return 6"), rate_limit="2/hour")
        await host.manager.reload("dice")
        settling = asyncio.create_task(host.manager.settle())
        await asyncio.sleep(0)
        assert not settling.done()
        store.answers.set()
        assert (await asked).json() == 4
        await settling
        assert (await host.client.get(ROLL)).json() == 6
