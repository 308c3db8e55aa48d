"""Several operators at once, and clients that go away in the middle: changes take turns and answer everybody."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from pixsim7_backend.infrastructure.plugins import PluginError, PluginState
from pixsim7_backend.infrastructure.plugins._control.server import ControlServer
from pixsim7_backend.infrastructure.plugins._control.socket import request
from pixsim7_backend.infrastructure.plugins.testing import PluginHost, plugin_host
from tests.faults.consistency import assert_consistent
from tests.faults.scenes import ROUNDS, write_chain, write_everything

pytestmark = pytest.mark.anyio

IDS = ("base", "middle", "top", "other")


async def _ask(host: PluginHost, chance: random.Random) -> None:
    """One operator: some change of some plugin, perhaps without waiting for its end."""
    manager, plugin = host.manager, chance.choice(IDS)
    changes: list[Callable[[], Awaitable[object]]] = [
        lambda: manager.enable(plugin),
        lambda: manager.disable(plugin),
        lambda: manager.disable(plugin, cascade=True),
        lambda: manager.reload(plugin),
        lambda: manager.retry(plugin),
    ]
    try:
        async with asyncio.timeout(chance.choice([0.0, 0.005, 0.05, 10, 10])):
            await chance.choice(changes)()
    except (PluginError, TimeoutError):
        return  # refused for a reason, or the operator has gone


@pytest.mark.parametrize("seed", range(4 * ROUNDS))
async def test_operators_who_change_the_same_plugins_at_once_take_turns(seed: int, tmp_path: Path) -> None:
    """Any changes by eight operators, some of whom go away: afterwards all agree, and everything can be enabled."""
    chance = random.Random(seed)
    write_chain(tmp_path)
    async with plugin_host(tmp_path, task_timeout=0.5) as host:
        for _ in range(3):
            if chance.random() < 0.5:
                write_everything(tmp_path, "base", chance.randint(1, 9))
            await asyncio.gather(*(_ask(host, chance) for _ in range(8)))
            async with host.manager._turns._lock:
                pass
            await host.manager.settle()
            assert_consistent(host.manager)
        for each in IDS:
            if host.record(each).state is not PluginState.ENABLED:
                await host.manager.enable(each)
        assert_consistent(host.manager)


async def test_the_second_of_two_equal_wishes_finds_it_done(tmp_path: Path) -> None:
    """Both who disable get an answer, the wish is stored once; so for enabling."""
    write_chain(tmp_path)
    async with plugin_host(tmp_path) as host:
        manager = host.manager
        await asyncio.gather(manager.disable("other"), manager.disable("other"))
        host.assert_state("other", PluginState.DISABLED)
        assert manager.desired.state.version == 1
        await asyncio.gather(manager.enable("other"), manager.enable("other"))
        host.assert_state("other", PluginState.ENABLED)
        assert manager.desired.state.version == 2
        assert_consistent(manager)


SLOW = """
@router.get("/slow")
async def slow() -> int:
    await asyncio.sleep(0.2)
    return VERSION
"""


async def test_requests_that_are_cancelled_while_their_plugin_is_replaced(tmp_path: Path) -> None:
    """Clients that go away before, during and after the swap leave no request behind; the others are answered."""
    write_everything(tmp_path, "base", more=SLOW)
    async with plugin_host(tmp_path, drain_timeout=2.0) as host:
        for version in range(2, 4):
            requests = [asyncio.create_task(host.client.get("/api/v1/base/slow")) for _ in range(12)]
            await asyncio.sleep(0.01)
            write_everything(tmp_path, "base", version, more=SLOW)
            old = host.manager._plugins.generations["base"].mount
            reload = asyncio.create_task(host.manager.reload("base"))
            for number, request in enumerate(requests):
                await asyncio.sleep(0.003)
                if number % 2:
                    request.cancel()
            await reload
            answers = await asyncio.gather(*requests, return_exceptions=True)
            assert [getattr(each, "status_code", None) for each in answers[::2]] == [200] * 6
            await host.manager.settle()
            assert old.in_flight == 0
            assert_consistent(host.manager)
            report = host.manager.find_report("base")
            assert report is not None
            assert report.is_clean, report.leaks


async def test_two_clients_of_the_control_socket_at_once(tmp_path: Path) -> None:
    """Each request is answered by what it did, or by why it was refused; a client that hangs up stops nothing."""
    plugins, socket = tmp_path / "plugins", tmp_path / "control.sock"
    write_chain(plugins)
    async with plugin_host(plugins, task_timeout=0.5) as host:
        server = ControlServer(host.manager, socket)
        await server.start()
        try:
            asked = [{"command": chance, "id": "base"} for chance in ("disable", "enable", "reload", "retry") * 3]
            answers = await asyncio.gather(*(asyncio.to_thread(request, socket, each) for each in asked))
            assert all(each["ok"] or each["error"]["message"] for each in answers)
            _, writer = await asyncio.open_unix_connection(str(socket))
            writer.write(b'{"command": "disable", "id": "base", "cascade": true}\n')
            await writer.drain()
            await asyncio.sleep(0.1)
            writer.close()
            async with host.manager._turns._lock:
                pass
            await host.manager.settle()
            assert_consistent(host.manager)
            host.assert_state("base", PluginState.DISABLED)
        finally:
            await server.close()
