"""Jails that end, hang or grow: started again, given up, and nobody else's trouble."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from pixsim7_backend.infrastructure.plugins import BreakerSettings, PluginState
from pixsim7_backend.infrastructure.plugins._jail.allowances import Allowance, Allowances
from pixsim7_backend.infrastructure.plugins._jail.confine.probe import probe_level
from pixsim7_backend.infrastructure.plugins._jail.jails import Jails
from pixsim7_backend.infrastructure.plugins._jail.launcher import Launcher
from pixsim7_backend.infrastructure.plugins._jail.loading import Loading
from pixsim7_backend.infrastructure.plugins._jail.process import JailProcess
from pixsim7_backend.infrastructure.plugins._jail.spec import JailLimits, JailSpec
from pixsim7_backend.infrastructure.plugins._jail.supervision import SupervisorSettings
from pixsim7_backend.infrastructure.plugins._jail.supervisor import JailSupervisor
from pixsim7_backend.infrastructure.plugins.errors import QuarantinedError
from pixsim7_backend.infrastructure.plugins.testing import write_plugin
from tests.integration.platform.live import LiveServer
from tests.services import wait_until

from .conftest import PATIENT, Serve

pytestmark = pytest.mark.anyio

CODE = """
import os
import sys
import threading
import time
from pathlib import Path

@router.get("/pid")
def pid() -> int:
    return os.getpid()

@router.get("/die")
def die() -> None:
    print("last words", file=sys.stderr, flush=True)
    os._exit(7)

@router.get("/spin")
async def spin() -> None:
    while True:
        pass

@router.get("/fill")
def fill() -> None:
    for number in range(4):
        Path(f"file{number}").write_bytes(bytes(1 << 20))

@router.get("/threads")
async def threads() -> None:
    for _ in range(30):
        threading.Thread(target=threading.Event().wait, daemon=True).start()

@router.get("/slow")
async def slow() -> int:
    await asyncio.sleep(0.3)
    return os.getpid()
"""


def supervisor_of(server: LiveServer) -> JailSupervisor:
    """Return what keeps the only jail of a server."""
    jails: Any = server.manager.settings.jails
    made: Jails = jails.made
    return made.supervisors["rough"]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Tell whether the process runs; a jail's own number for itself is the host's, too."""
    return Path(f"/proc/{pid}").exists()


async def ask(client: httpx.AsyncClient, what: str) -> httpx.Response:
    return await client.get(f"/api/v1/rough/{what}")


async def test_one_that_ends_is_started_again(confined: Serve, open_dir: Path) -> None:
    """Who asked it is told; who comes next waits for the next process, and is answered."""
    write_plugin(open_dir, "rough", CODE)
    async with confined() as server, server.client() as client:
        first = (await ask(client, "pid")).json()
        died = await ask(client, "die")
        assert (died.status_code, died.json()["detail"]) == (502, "plugin 'rough' ended before it had answered")
        answers = await asyncio.gather(*(ask(client, "pid") for _ in range(10)))
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.json() for answer in answers} != {first}
        await until(lambda: not is_alive(first))
        [crash] = supervisor_of(server).crashes
        assert (crash.what, crash.stderr.strip()) == ("exited with code 7", "last words")
        assert server.manager.get("rough").state is PluginState.ENABLED


async def test_one_that_hangs_is_ended(confined: Serve, open_dir: Path) -> None:
    """A loop that stands still is noticed by its silence; meanwhile the host serves others."""
    write_plugin(open_dir, "rough", CODE)
    write_plugin(open_dir, "calm", CODE)
    settings = {"supervision": replace(PATIENT, heartbeat=0.2, missed_heartbeats=3)}
    async with confined(jails=settings) as server, server.client() as client:
        spinning = asyncio.create_task(ask(client, "spin"))
        while not spinning.done():
            assert (await client.get("/api/v1/calm/pid")).status_code == 200
            await asyncio.sleep(0.02)
        assert (await spinning).status_code == 502
        assert "event loop has stood still" in supervisor_of(server).crashes[0].what
        assert (await ask(client, "pid")).status_code == 200


async def test_one_that_fills_its_scratch_is_ended(confined: Serve, open_dir: Path) -> None:
    """What it wrote goes with it."""
    write_plugin(open_dir, "rough", CODE)
    settings = {
        "supervision": replace(PATIENT, heartbeat=0.1),
        "allowances": Allowances(Allowance(jail=JailLimits(scratch=1 << 20))),
    }
    async with confined(jails=settings) as server, server.client() as client:
        process = supervisor_of(server).process
        assert process is not None
        await ask(client, "fill")
        await until(lambda: len(supervisor_of(server).crashes) > 0)
        assert "its scratch directory has" in supervisor_of(server).crashes[0].what
        await until(lambda: not os.path.lexists(process.spec.scratch))
        assert (await ask(client, "pid")).status_code == 200


@pytest.mark.skipif(os.geteuid() != 0 and bool(probe_level().namespaces), reason="the kernel counts them here")
async def test_one_that_has_too_many_threads_is_ended(confined: Serve, open_dir: Path) -> None:
    """Where jails share a user, the kernel counts no threads of each: the host does."""
    write_plugin(open_dir, "rough", CODE)
    settings = {
        "supervision": replace(PATIENT, heartbeat=0.1),
        "allowances": Allowances(Allowance(jail=JailLimits(threads=20))),
    }
    launcher = Launcher(uids=None)
    async with confined(jails=settings, launcher=launcher) as server, server.client() as client:
        await ask(client, "threads")
        await until(lambda: len(supervisor_of(server).crashes) > 0)
        assert re.fullmatch(r"it has [2-4]\d threads; 20 are allowed", supervisor_of(server).crashes[0].what)
        assert (await ask(client, "pid")).status_code == 200
    launcher.close()


async def test_one_that_ends_again_and_again_is_quarantined(confined: Serve, open_dir: Path) -> None:
    """With how often and why, and the last that it wrote; a retry by hand begins anew."""
    write_plugin(open_dir, "rough", CODE)
    settings = {"supervision": replace(PATIENT, crashes=3)}
    breaker = BreakerSettings(pause=600, max_pause=600)
    async with confined(jails=settings, breaker=breaker) as server, server.client() as client:
        manager = server.manager
        for _ in range(3):
            assert (await ask(client, "die")).status_code == 502
        await until(lambda: manager.get("rough").state is PluginState.FAILED)
        reason = manager.get("rough").reason
        assert isinstance(reason, QuarantinedError)
        assert "its jail ended 3 times, at last it exited with code 7" in str(reason)
        assert "last words" in str(reason)
        refused = await ask(client, "pid")
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        await manager.retry("rough")
        assert (await ask(client, "pid")).status_code == 200


async def test_one_that_nobody_needs_is_stopped_until_it_is_needed(confined: Serve, open_dir: Path) -> None:
    """An idle jail takes no memory; the next request starts it, and waits for that."""
    write_plugin(open_dir, "rough", CODE)
    settings = {"supervision": replace(PATIENT, heartbeat=0.05, idle_stop=0.1)}
    async with confined(jails=settings) as server, server.client() as client:
        first = (await ask(client, "pid")).json()
        await until(lambda: supervisor_of(server).phase == "idle")
        await until(lambda: not is_alive(first))
        answers = await asyncio.gather(*(ask(client, "pid") for _ in range(5)))
        assert len({answer.json() for answer in answers} - {first}) == 1
        assert not list(supervisor_of(server).crashes)


async def test_requests_under_way_are_answered_before_it_stops(confined: Serve, open_dir: Path) -> None:
    """Disabling drains a confined plugin like any other; then its process is gone."""
    write_plugin(open_dir, "rough", CODE)
    async with confined() as server, server.client() as client:
        slow = [asyncio.create_task(ask(client, "slow")) for _ in range(5)]
        await until(lambda: server.manager.metrics.of("rough").in_flight == 5)
        await server.manager.disable("rough")
        [pid] = {(await each).json() for each in slow}
        await until(lambda: not is_alive(pid))


def test_a_start_that_nobody_waits_for_any_more_leaves_no_process(launcher: Launcher, open_dir: Path) -> None:
    """Also where the event loop has ended meanwhile: a server that stops while it starts a jail again."""
    started: list[JailProcess] = []
    may_go = threading.Event()

    class Slow:
        def spawn(self, spec: JailSpec) -> JailProcess:
            may_go.wait(30)
            started.append(launcher.spawn(spec))
            return started[0]

    folder = write_plugin(open_dir, "quest", CODE)
    spec = JailSpec(plugin="quest", folder="quest", path=str(folder), package="pixsim7_jailed.quest")
    loading = Loading(spec, Slow(), SupervisorSettings(), on_log=lambda *_: None, find_settings=lambda: None)

    async def begin() -> None:
        asyncio.get_running_loop().create_task(loading.start())
        await asyncio.sleep(0.05)

    asyncio.run(begin())
    may_go.set()
    assert wait_until(lambda: bool(started))
    assert started[0].wait(30) is not None
    assert started[0].connection.fileno() == -1
