"""Changes that are cancelled at any await: afterwards nothing contradicts, and the next try works."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pixsim7_backend.infrastructure.plugins import PluginManager, PluginState
from pixsim7_backend.infrastructure.plugins.testing import PluginHost, plugin_host
from tests.faults.consistency import assert_consistent
from tests.faults.interrupting import break_off
from tests.faults.scenes import ROUNDS, write_chain, write_everything

pytestmark = pytest.mark.anyio

Change = Callable[[PluginManager], Coroutine[Any, Any, Any]]


def _inner(change: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return a change as it is without the task of its own that shields it from its caller."""
    inner: Callable[..., Coroutine[Any, Any, Any]] = change.__wrapped__  # type: ignore[attr-defined]
    return inner


def _enable(manager: PluginManager) -> Coroutine[Any, Any, Any]:
    return _inner(type(manager).enable)(manager, "base")


def _disable(manager: PluginManager) -> Coroutine[Any, Any, Any]:
    return _inner(type(manager).disable)(manager, "base", cascade=True)


def _reload(manager: PluginManager) -> Coroutine[Any, Any, Any]:
    return _inner(type(manager).reload)(manager, "base")


CHANGES: dict[str, tuple[Change, bool, str]] = {
    "enable": (_enable, False, "beside"),
    "disable": (_disable, True, "beside"),
    "reload": (_reload, True, "beside"),
    "reload-stop-first": (_reload, True, "stop-first"),
}


@asynccontextmanager
async def _scene(directory: Path, *, is_on: bool, replace: str) -> AsyncIterator[PluginHost]:
    write_chain(directory)
    write_everything(directory, "base", replace=replace)
    async with plugin_host(directory, task_timeout=0.5) as host:
        if not is_on:
            await host.manager.disable("base", cascade=True)
        assert_consistent(host.manager)
        write_chain(directory, version=2)
        write_everything(directory, "base", 2, replace=replace)
        yield host


async def _assert_mendable(host: PluginHost) -> None:
    """Whatever happened before, asking for everything to run makes everything run the new code."""
    manager = host.manager
    await manager.settle()
    assert_consistent(manager)
    for each in ("base", "middle", "top", "other"):
        if manager.get(each).state is not PluginState.ENABLED:
            await manager.enable(each)
        await manager.reload(each)
    await manager.settle()
    assert_consistent(manager)
    for each in ("base", "middle", "top", "other"):
        host.assert_state(each, PluginState.ENABLED)
        assert (await host.client.get(f"/api/v1/{each}/version")).json() == 2


@pytest.mark.parametrize("times", [1, 1000], ids=["once", "again-and-again"])
@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_broken_off_at_any_await_leaves_no_contradiction(name: str, times: int, tmp_path: Path) -> None:
    """Cancelled once, or at each further await too, as cancel scopes do it; asked again it succeeds."""
    change, is_on, replace = CHANGES[name]
    for at in itertools.count(step=1 if ROUNDS > 1 else 3):
        directory = tmp_path / str(at)
        async with _scene(directory, is_on=is_on, replace=replace) as host:
            broken = await break_off(change(host.manager), at, times=times)
            await host.manager.settle()
            assert_consistent(host.manager)
            await _assert_mendable(host)
        if broken.awaits <= at:
            break
    assert at > 5, "the change has awaits"


SLOW = """
async def on_enable(): await asyncio.sleep(0.3)
async def on_disable(): await asyncio.sleep(0.3)
"""


@pytest.mark.parametrize("name", ["enable", "disable", "reload"])
async def test_who_stops_waiting_for_a_change_does_not_stop_it(name: str, tmp_path: Path) -> None:
    """A change that has begun goes on when its caller is cancelled; one that waits for its turn never begins."""
    write_everything(tmp_path, "base", more=SLOW)
    async with plugin_host(tmp_path) as host:
        manager = host.manager
        if name == "enable":
            await manager.disable("base")
        caller = asyncio.create_task(getattr(manager, name)("base"))
        waiting = asyncio.create_task(manager.disable("base"))
        await asyncio.sleep(0.1)
        version = manager.desired.state.version
        waiting.cancel()
        caller.cancel()
        await asyncio.wait({caller, waiting})
        assert caller.cancelled()
        assert waiting.cancelled()
        assert manager._turns._lock.locked()
        async with manager._turns._lock:
            pass
        await manager.settle()
        assert_consistent(manager)
        host.assert_state("base", PluginState.DISABLED if name == "disable" else PluginState.ENABLED)
        assert manager.desired.state.version == version


async def test_a_plugin_may_be_disabled_by_its_own_request_or_task(tmp_path: Path) -> None:
    """The change is nobody's: undoing the plugin does not end the change that undoes it."""
    code = """
from builtins import fault_manager
@router.post("/quit")
async def quit() -> None:
    task = asyncio.create_task(leave())
async def leave():
    await fault_manager().disable("{id}")
async def on_enable():
    plugin_hooks.register("app:startup", lambda: asyncio.create_task(leave()) and None)
"""
    import builtins

    write_everything(tmp_path, "base", more=code.replace("{id}", "base"))
    managers: list[PluginManager] = []
    builtins.fault_manager = lambda: managers[0]  # type: ignore[attr-defined]
    try:
        async with plugin_host(tmp_path, enable=False, task_timeout=0.5) as host:
            managers.append(host.manager)
            await host.manager.enable_all()
            await asyncio.sleep(0.1)
            async with host.manager._turns._lock:
                pass
            assert_consistent(host.manager)
            host.assert_state("base", PluginState.DISABLED)
    finally:
        del builtins.fault_manager  # type: ignore[attr-defined]


@pytest.mark.parametrize("at", range(0, 30, 3 if ROUNDS > 1 else 9))
async def test_a_start_broken_off_at_any_await_can_be_repeated(at: int, tmp_path: Path) -> None:
    """What was enabled serves, the rest is undone or waits; enabling all of it again goes on from there."""
    write_chain(tmp_path)
    async with plugin_host(tmp_path, enable=False, task_timeout=0.5) as host:
        await break_off(host.manager.enable_all(), at)
        assert_consistent(host.manager)
        await host.manager.enable_all()
        for each in ("base", "middle", "top", "other"):
            if host.record(each).state is not PluginState.ENABLED:
                await host.manager.enable(each)
        assert_consistent(host.manager)


@pytest.mark.parametrize("at", range(0, 30, 3 if ROUNDS > 1 else 9))
async def test_a_stop_broken_off_at_any_await_can_be_repeated(at: int, tmp_path: Path) -> None:
    """Nothing is half-way down, and stopping again stops the rest."""
    write_chain(tmp_path)
    async with plugin_host(tmp_path, task_timeout=0.5) as host:
        await break_off(host.manager.disable_all(), at)
        await host.manager.settle()
        assert_consistent(host.manager)
        await host.manager.disable_all()
        assert_consistent(host.manager)
        assert not any(each.state is PluginState.ENABLED for each in host.manager.iter_records())
