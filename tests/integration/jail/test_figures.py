"""What confined plugins use, as operators see it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pixsim7_backend.infrastructure.plugins._jail.broker import BrokerLimits
from pixsim7_backend.infrastructure.plugins.testing import write_plugin
from tests.integration.platform.live import LiveServer

from .conftest import PATIENT, Serve

pytestmark = pytest.mark.anyio

CODE = """
import os
from pathlib import Path
from pixsim7_backend.infrastructure.plugins._jail.inside.services import BrokerCallError

def on_enable():
    Path("kept").write_bytes(bytes(1 << 20))

@router.post("/say")
async def say() -> str:
    try:
        await plugin_hooks.emit("busy:said")
    except BrokerCallError as error:
        return error.kind
    return "said"

@router.get("/die")
def die() -> None:
    os._exit(7)
"""


def confined_figures(server: LiveServer) -> dict[str, Any]:
    """Return what the admin API shows of the only plugin."""
    [figures] = server.manager.metrics.to_json()
    found: dict[str, Any] = figures["confined"]
    return found


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.02)


async def test_operators_see_what_a_confined_plugin_uses(
    confined: Serve, open_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its process, its starts and crashes, its calls and what is refused of them; a reload goes on counting."""
    write_plugin(open_dir, "busy", CODE, events=["busy:said"])
    calls = BrokerLimits(per_minute={"events.calls": 1000, "busy.events.calls": 2})
    quick = replace(PATIENT, heartbeat=0.05)
    with caplog.at_level(logging.WARNING, "pixsim7.plugins.broker"):
        async with confined(jails={"calls": calls, "supervision": quick}) as server, server.client() as client:
            for _ in range(4):
                await client.post("/api/v1/busy/say")
            found = confined_figures(server)
            assert (found["phase"], found["starts"], found["crashes"]) == ("up", 1, 0)
            assert found["cpu_seconds"] >= 0
            assert found["memory_bytes"] > 1 << 20
            assert found["threads"] >= 1
            assert (found["calls"]["events.calls"], found["calls_per_minute"]) == (2, {"events.calls": 2})
            assert found["calls_this_minute"]["events.calls"] == 2
            assert found["calls_refused"] == {"events.calls": 2}
            line = 'pixsim7_plugin_calls_refused_total{plugin="busy",limit="events.calls"} 2'
            assert line in server.manager.metrics.render_prometheus()
            assert (await client.get("/api/v1/busy/die")).status_code == 502
            await until(lambda: confined_figures(server)["starts"] == 2)
            await until(lambda: (confined_figures(server)["scratch_bytes"] or 0) >= 1 << 20)
            await server.manager.reload("busy")
            found = confined_figures(server)
            assert (found["starts"], found["crashes"], found["calls_refused"]) == (3, 1, {"events.calls": 2})
            await server.manager.disable("busy")
            found = confined_figures(server)
            assert (found["phase"], found["memory_bytes"], found["calls"]["events.calls"]) == ("off", None, 2)
    told = [each for each in caplog.messages if "COMMUNITY_CALLS=busy.events.calls=4 would allow more" in each]
    assert len(told) == 1


async def test_what_was_removed_begins_anew(confined: Serve, open_dir: Path) -> None:
    """Whoever comes under the name of a plugin that was removed has used nothing; a reload forgets nothing."""
    folder = write_plugin(open_dir, "busy", CODE, events=["busy:said"])
    calls = BrokerLimits(per_minute={"events.calls": 1})
    async with confined(jails={"calls": calls}) as server, server.client() as client:
        said = [(await client.post("/api/v1/busy/say")).json() for _ in range(2)]
        await server.manager.reload("busy")
        said.append((await client.post("/api/v1/busy/say")).json())
        assert said == ["said", "ShareUsedUpError", "ShareUsedUpError"]
        await server.manager.withdraw("busy")
        await server.manager.settle()
        await server.manager.refresh(folder)
        found = confined_figures(server)
        assert (found["starts"], found["crashes"], found["calls"], found["calls_refused"]) == (1, 0, {}, {})
        assert (await client.post("/api/v1/busy/say")).json() == "said"
