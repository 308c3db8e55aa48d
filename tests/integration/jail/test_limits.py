"""Limits hold for confined plugins as for any other, and only the host counts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from starlette.types import Scope

from pixsim7_backend.infrastructure.plugins import LimitSettings, Rate
from pixsim7_backend.infrastructure.plugins._jail.allowances import Allowance, Allowances, HttpLimits
from pixsim7_backend.infrastructure.plugins.testing import write_plugin
from tests.integration.platform.live import LiveServer

from .conftest import Serve

pytestmark = pytest.mark.anyio

CODE = """
asked = []

@router.get("/asked")
async def how_often() -> int:
    asked.append(1)
    return len(asked)

@router.get("/wait")
async def wait() -> None:
    await asyncio.Event().wait()
"""


def find_client(scope: Scope) -> str | None:
    return next((value.decode() for name, value in scope["headers"] if name == b"x-user"), None)


async def ask(server: LiveServer) -> list[tuple[int, str, str]]:
    """Ask four times as each of two clients; return statuses, what is said of the limit, and the answers."""
    async with server.client() as client:
        answers = [
            await client.get("/api/v1/dice/asked", headers={"x-user": user})
            for user in ("ada", "ben")
            for _ in range(4)
        ]
    return [(each.status_code, each.headers["ratelimit"], each.text) for each in answers]


async def test_each_client_has_the_rate_of_the_manifest(confined: Serve, in_process: Serve, open_dir: Path) -> None:
    """In process and confined alike: three each, the fourth never reaches the plugin."""
    write_plugin(open_dir, "dice", CODE, rate_limit="3/day")
    found = []
    for serve in (in_process, confined):
        async with serve(limits=LimitSettings(find_client=find_client)) as server:
            found.append(await ask(server))
            assert server.manager.metrics.of("dice").refused == {"rate": 2}
    assert found[1] == found[0]
    assert [(status, text) for status, _, text in found[1] if status == 200] == [(200, str(n)) for n in range(1, 7)]


async def test_operators_limits_are_for_confined_plugins_only(confined: Serve, open_dir: Path) -> None:
    """What is set for community plugins caps their own claim, and how many requests they serve at once."""
    write_plugin(open_dir, "dice", CODE, rate_limit="100/second")
    limits = LimitSettings(community_rate=Rate.parse("50/day"), community_concurrency=1)
    brief = {
        "allowances": Allowances(Allowance(http=HttpLimits(answer_time=1)))
    }  # for the request that nobody waits for any more
    async with confined(limits=limits, jails=brief) as server, server.client() as client:
        first = await client.get("/api/v1/dice/asked")
        assert first.headers["ratelimit-policy"] == '"dice";q=50;w=86400'
        waiting = asyncio.create_task(client.get("/api/v1/dice/wait"))
        while not server.manager.metrics.of("dice").in_flight:  # noqa: ASYNC110  # nothing announces it
            await asyncio.sleep(0.001)
        assert (await client.get("/api/v1/dice/asked")).status_code == 503
        waiting.cancel()
        while server.manager.metrics.of("dice").in_flight:  # noqa: ASYNC110  # nothing announces it
            await asyncio.sleep(0.001)
        assert (await client.get("/api/v1/dice/asked")).status_code == 200
