"""What the host's services give to a plugin in a real jail: Redis, the web, who asks, events and the log."""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from redis import Redis

from pixsim7_backend.community.http.service import HttpService
from pixsim7_backend.community.redis.service import RedisService
from pixsim7_backend.community.redis.users import prefix_of
from pixsim7_backend.community.users import UserService, extend_scope
from pixsim7_backend.infrastructure.plugins import DesiredState, PluginState, plugin_hooks, ports
from pixsim7_backend.infrastructure.plugins.testing import MemoryStateStore, write_plugin
from tests.integration.community.web import PUBLIC, Server, certificate_for, serving
from tests.integration.platform.live import LiveServer
from tests.services import redis_url

from .conftest import Serve

pytestmark = pytest.mark.anyio

PLUGIN = f"uses-all-{uuid.uuid4().hex[:8]}"
PLACE = f"/api/v1/{PLUGIN}"
CODE = """
import logging

from pixsim7_backend.community.sdk import CurrentUser, async_http_client, http_client
from pixsim7_backend.redis import get_redis, new_async_redis

heard: list[object] = []
plugin_hooks.register("npc:spawned", lambda number: heard.append(number))
plugin_hooks.register("test:answered", lambda number: heard.append(-number))

@router.get("/hits")
def hits() -> int:
    return get_redis().incr("hits")

@router.get("/hits-on-the-loop")
async def hits_on_the_loop() -> int:
    async with new_async_redis() as redis:
        return int(await redis.get("hits")) + get_redis().incr("hits")

@router.get("/web")
def web(url: str) -> dict[str, object]:
    with http_client() as client:
        answer = client.post(url, content=b"x" * 200_000)
        return {"status": answer.status_code, "body": answer.json()["body"]}

@router.get("/web-on-the-loop")
async def web_on_the_loop(url: str) -> str:
    async with async_http_client() as client:
        try:
            return (await client.get(url)).text
        except Exception as error:
            return f"{type(error).__name__}: {error}"

@router.get("/me")
def me(user: CurrentUser) -> int:
    return user.id

@router.get("/heard")
def what_was_heard() -> list[object]:
    return heard

@router.post("/emit/{number}")
async def emit(number: int) -> None:
    await plugin_hooks.emit("test:finished", number)

@router.post("/log")
def log() -> None:
    logging.getLogger("mine").info("one line\\n12:00 ERROR forged\\x1b[2J")
"""


@pytest.fixture
def web(tmp_path: Path) -> Any:
    """A web server of somebody else's, which answers to ``api.example.test``."""
    trust = certificate_for("api.example.test", path=tmp_path / "certificate.pem")
    with serving(PUBLIC, 0, tmp_path / "certificate.pem") as server:
        yield server, trust


@pytest.fixture
async def running(
    confined: Serve, open_dir: Path, web: tuple[Server, Any], tmp_path: Path
) -> AsyncIterator[LiveServer]:
    """A server with the plugin in a jail, and all that it asks for granted."""
    server, trust = web
    wanted = ["redis:read", "redis:write", f"net:api.example.test:{server.port}", "user:read"]
    wanted.append("events:subscribe:npc:*")
    write_plugin(open_dir, PLUGIN, code=CODE, permissions=wanted, events=["test:finished", "test:answered"])

    async def resolve(_host: str, _port: int) -> list[str]:
        return [PUBLIC]

    services = (
        RedisService(redis_url, data_dir=tmp_path), UserService(),
        HttpService(resolver=resolve, is_allowed=lambda each: each == PUBLIC, trust=trust),
    )  # fmt: skip
    store = MemoryStateStore(DesiredState(grants={PLUGIN: {"granted": wanted, "declined": []}}))
    async with confined(jails={"services": services, "extend": extend_scope}, store=store) as live:
        assert live.manager.get(PLUGIN).state is PluginState.ENABLED, live.manager.get(PLUGIN).reason
        yield live
    with Redis.from_url(redis_url()) as client:
        for key in client.scan_iter(match=f"{prefix_of(PLUGIN)}*"):
            client.delete(key)


async def test_redis_in_a_jail(running: LiveServer) -> None:
    """In threads and on the event loop, also where that is blocked."""
    async with running.client() as client:
        assert [(await client.get(f"{PLACE}/hits")).json() for _ in range(2)] == [1, 2]
        assert (await client.get(f"{PLACE}/hits-on-the-loop")).json() == 2 + 3


async def test_the_web_in_a_jail(running: LiveServer, web: tuple[Server, Any]) -> None:
    """What is granted is answered, and nothing else."""
    url = f"https://api.example.test:{web[0].port}"
    async with running.client() as client:
        assert (await client.get(f"{PLACE}/web", params={"url": f"{url}/echo"})).json() == {
            "status": 200,
            "body": 200_000,
        }
        assert "secret" in (await client.get(f"{PLACE}/web-on-the-loop", params={"url": f"{url}/secret"})).text
        refused = await client.get(f"{PLACE}/web-on-the-loop", params={"url": "https://example.test/"})
        assert "ConnectError: requests to example.test are not granted" in refused.text


async def test_events_in_a_jail(running: LiveServer) -> None:
    """They come in while it works, and go out to the host's handlers."""
    theirs: list[Any] = []

    async def answer(number: int) -> None:
        theirs.append(number)
        await plugin_hooks.emit("test:answered", number)

    subscription = plugin_hooks.register("test:finished", answer)
    try:
        async with running.client() as client:
            await plugin_hooks.emit("npc:spawned", 7)
            await client.post(f"{PLACE}/emit/5")
            heard: list[Any] = []
            while len(heard) < 2:
                heard = (await client.get(f"{PLACE}/heard")).json()
    finally:
        subscription.cancel()
    assert theirs == [5]
    assert heard == [7, -5]


async def test_lines_of_a_jail(running: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    """Are in the host's log, on one line, as the plugin's."""
    with caplog.at_level(logging.INFO, "pixsim7.plugins.jail"):
        async with running.client() as client:
            await client.post(f"{PLACE}/log")
    (record,) = [each for each in caplog.records if "one line" in each.getMessage()]
    assert record.name == f"pixsim7.plugins.jail.{PLUGIN}"
    assert record.getMessage() == r"[mine] one line\n12:00 ERROR forged\x1b[2J"
    assert record.plugin == PLUGIN  # type: ignore[attr-defined]


async def test_the_caller_in_a_jail(running: LiveServer) -> None:
    """Who it is comes from the host, which was asked by whoever keeps the accounts."""

    class Ada:
        id = 42
        role = "user"

    async def identify(connection: Request) -> Ada | None:
        return Ada() if connection.headers["authorization"] == "Bearer ada" else None

    withdraw = ports.provide("caller-identity", identify)
    try:
        async with running.client() as client:
            assert (await client.get(f"{PLACE}/me", headers={"authorization": "Bearer ada"})).json() == 42
            assert (await client.get(f"{PLACE}/me", headers={"authorization": "Bearer eve"})).status_code == 401
            assert (await client.get(f"{PLACE}/me", headers={"pixsim7.user": "1"})).status_code == 401
    finally:
        withdraw()
