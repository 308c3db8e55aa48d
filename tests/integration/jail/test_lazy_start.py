"""Jails that are started when somebody needs them, and stopped when nobody does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pixsim7_backend.infrastructure.plugins import BreakerSettings, DesiredState, PluginState, plugin_hooks
from pixsim7_backend.infrastructure.plugins._jail.supervisor import JailSupervisor
from pixsim7_backend.infrastructure.plugins.errors import PluginSettingsError, QuarantinedError
from pixsim7_backend.infrastructure.plugins.testing import MemoryStateStore, write_plugin
from tests.integration.platform.live import LiveServer

from .conftest import PATIENT, Serve

pytestmark = pytest.mark.anyio

CODE = """
import logging
import os

heard: list[object] = []
plugin_hooks.register("late:called", lambda: heard.append("called"))
plugin_hooks.register("app:shutdown", lambda: heard.append("the end"))

def on_enable() -> None:
    plugin_hooks.register("npc:spawned", heard.append)

def on_disable() -> None:
    logging.getLogger("mine").warning("good bye of %d", os.getpid())

@router.get("/pid")
async def pid() -> int:
    return os.getpid()

@router.get("/heard")
async def what_was_heard() -> list[object]:
    return heard
"""
WANTED = ["events:subscribe:npc:spawned"]
LAZY = replace(PATIENT, is_lazy=True)


def serve(confined: Serve, folder: Path, code: str = CODE, *, settings: Any = LAZY, **options: Any) -> Any:
    """Return a server with the plugin ``late``, which is granted what it wants."""
    write_plugin(folder, "late", code, permissions=WANTED, events=["late:called"])
    store = MemoryStateStore(DesiredState(grants={"late": {"granted": WANTED, "declined": []}}))
    return confined(jails={"supervision": settings}, store=store, **options)


def supervisor_of(server: LiveServer) -> JailSupervisor:
    """Return what keeps the only jail of a server."""
    jails: Any = server.manager.settings.jails
    found: JailSupervisor = jails.made.supervisors["late"]
    return found


def is_alive(pid: int) -> bool:
    """Tell whether the process runs."""
    return Path(f"/proc/{pid}").exists()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.02)


async def test_the_first_requests_start_one_process(confined: Serve, open_dir: Path) -> None:
    """Before them there is none, but the plugin is enabled and described; all of them wait for the same one."""
    async with serve(confined, open_dir) as server, server.client() as client:
        supervisor = supervisor_of(server)
        assert server.manager.get("late").state is PluginState.ENABLED
        assert (supervisor.phase, supervisor.process, supervisor.starts) == ("idle", None, 0)
        assert "/api/v1/late/pid" in (await client.get("/openapi.json")).json()["paths"]
        assert supervisor.starts == 0
        answers = await asyncio.gather(*(client.get("/api/v1/late/pid") for _ in range(10)))
        assert {answer.status_code for answer in answers} == {200}
        assert supervisor.process is not None
        assert {answer.json() for answer in answers} == {supervisor.process.pid}
        assert (supervisor.phase, supervisor.starts, list(supervisor.crashes)) == ("up", 1, [])


@pytest.mark.parametrize(("event", "payload"), [("npc:spawned", [7]), ("late:called", [])])
async def test_an_event_starts_it(event: str, payload: list[object], confined: Serve, open_dir: Path) -> None:
    """One that it was granted by name, and one that it listened to when it was loaded; others, or the end, do not."""
    async with serve(confined, open_dir) as server, server.client() as client:
        supervisor = supervisor_of(server)
        await plugin_hooks.emit("npc:vanished", 1)
        await plugin_hooks.emit("app:shutdown")
        await plugin_hooks.emit(event, *payload)
        await until(lambda: supervisor.starts == 1)
        heard = (await client.get("/api/v1/late/heard")).json()
        assert heard == (payload or ["called"])
        assert supervisor.starts == 1


async def test_one_that_is_idle_says_good_bye_and_comes_back(
    confined: Serve, open_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is disabled before it is stopped; what it listened to starts it again, and so does a request."""
    impatient = replace(LAZY, heartbeat=0.05, idle_stop=0.1)
    async with serve(confined, open_dir, settings=impatient) as server, server.client() as client:
        supervisor = supervisor_of(server)
        pids = []
        for _ in range(2):
            pids.append((await client.get("/api/v1/late/pid")).json())
            await until(lambda: supervisor.phase == "idle" and not is_alive(pids[-1]))
            assert f"good bye of {pids[-1]}" in caplog.text
        await plugin_hooks.emit("npc:spawned", 7)
        await until(lambda: supervisor.starts == 3)
        assert pids[0] != pids[1]
        assert not list(supervisor.crashes)


async def test_one_that_does_not_run_is_configured(confined: Serve, open_dir: Path) -> None:
    """It is started for its code to check what is set, and stopped again; then that is in force in the next process."""
    impatient = replace(LAZY, heartbeat=0.05, idle_stop=0.1)
    async with serve(confined, open_dir, CONFIGURED, settings=impatient) as server, server.client() as client:
        supervisor = supervisor_of(server)
        assert "greeting" in server.manager.settings_schema("late")["properties"]
        assert supervisor.starts == 0
        with pytest.raises(PluginSettingsError, match="greeting"):
            await server.manager.change_settings("late", {"greeting": "much too long"})
        await server.manager.change_settings("late", {"greeting": "hi"})
        await until(lambda: supervisor.phase == "idle")
        assert (await client.get("/api/v1/late/greeting")).json() == "hi"
        assert supervisor.starts > 1


CONFIGURED = """
from pydantic import BaseModel, Field
from pixsim7_backend.infrastructure.plugins import plugin_settings

class settings_model(BaseModel):
    greeting: str = Field("hello", max_length=5)

@router.get("/greeting")
def greeting() -> str:
    return plugin_settings().greeting
"""


async def test_one_that_cannot_be_enabled_is_a_crash(confined: Serve, open_dir: Path) -> None:
    """The request that would have started it is refused; the plugin is quarantined with the reason."""
    code = CODE.replace('plugin_hooks.register("npc:spawned", heard.append)', 'raise ValueError("not today")')
    breaker = BreakerSettings(pause=600, max_pause=600)
    settings = replace(LAZY, crashes=2)
    async with serve(confined, open_dir, code, settings=settings, breaker=breaker) as server, server.client() as client:
        refused = await client.get("/api/v1/late/pid")
        assert refused.status_code == 503
        crashes = [crash.what for crash in supervisor_of(server).crashes]
        assert len(crashes) == 2
        assert crashes[0].startswith("it did not start: on_enable of plugin 'late' raised ValueError: not today")
        await until(lambda: server.manager.get("late").state is PluginState.FAILED)
        reason = server.manager.get("late").reason
        assert isinstance(reason, QuarantinedError)
        assert "not today" in str(reason)


async def test_one_that_nobody_needed_can_be_switched(confined: Serve, open_dir: Path) -> None:
    """Off, without any process; on again, as it was; and off while it is being started for somebody."""
    async with serve(confined, open_dir) as server, server.client() as client:
        await server.manager.disable("late")
        assert (await client.get("/api/v1/late/pid")).status_code in {404, 503}
        await server.manager.enable("late")
        supervisor = supervisor_of(server)
        assert supervisor.starts == 0
        asked = asyncio.create_task(client.get("/api/v1/late/pid"))
        await until(lambda: supervisor.phase == "starting")
        await server.manager.disable("late")
        assert (await asked).json()
        assert (supervisor.phase, supervisor.process) == ("off", None)
