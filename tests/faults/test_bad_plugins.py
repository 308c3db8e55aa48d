"""Plugins that misbehave while they are switched: whatever they do, everybody else goes on, and nothing contradicts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pixsim7_backend.infrastructure.plugins import PluginError, PluginState, plugin_hooks
from pixsim7_backend.infrastructure.plugins.testing import plugin_host
from tests.faults.consistency import assert_consistent
from tests.faults.scenes import write_chain, write_everything

pytestmark = pytest.mark.anyio

UNDO_RAISES = """
class Sticky:
    def cancel(self): raise RuntimeError("no")
from pixsim7_backend.infrastructure.plugins import current_owner
async def on_enable():
    def undo(): raise RuntimeError("no")
    current_owner().ledger.add("sticky", "thing", undo)
    plugin_hooks.register("base:asked", lambda: VERSION)
"""
SWALLOWS = """
async def stubborn():
    while asyncio.get_running_loop().time() < STOP:
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            pass
async def on_enable():
    global STOP
    STOP = asyncio.get_running_loop().time() + 1.0
    asyncio.create_task(stubborn(), name="stubborn")
"""
BAD = {
    "on_enable hangs": ("async def on_enable(): await asyncio.sleep(3600)", False),
    "on_enable swallows": (
        """
async def on_enable():
    end = asyncio.get_running_loop().time() + 1.5
    while asyncio.get_running_loop().time() < end:
        try: await asyncio.sleep(0.2)
        except asyncio.CancelledError: pass
""",
        False,
    ),
    "on_disable hangs": ("async def on_disable(): await asyncio.sleep(3600)", True),
    "on_disable raises": ("def on_disable(): raise RuntimeError('no')", True),
    "on_disable exits": ("def on_disable(): raise SystemExit(1)", True),
    "on_disable cancels itself": ("async def on_disable(): raise asyncio.CancelledError", True),
    "on_unload raises": ("def on_unload(): raise RuntimeError('no')", True),
    "lifespan hangs at the end": (
        """
@asynccontextmanager
async def lifespan(app):
    yield
    await asyncio.sleep(3600)
router = APIRouter(prefix="/base", lifespan=lifespan)
""",
        True,
    ),
    "undo raises": (UNDO_RAISES, True),
    "task swallows cancellation": (SWALLOWS, True),
    "handler hangs": (
        "async def on_enable():\n    plugin_hooks.register('plugin:disabled', lambda _: asyncio.sleep(3600))",
        True,
    ),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_plugin_that_misbehaves_is_switched_all_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Disabled, enabled again and replaced by code that behaves; what would not go away is in the leak report."""
    code, starts = BAD[name]
    monkeypatch.setattr(plugin_hooks, "handler_timeout", 0.1)
    write_chain(tmp_path)
    write_everything(tmp_path, "base", more=code)
    async with plugin_host(tmp_path, hook_timeout=0.15, task_timeout=0.1, drain_timeout=0.2) as host:
        manager = host.manager
        host.assert_state("base", PluginState.ENABLED if starts else PluginState.FAILED)
        host.assert_state("top", PluginState.ENABLED if starts else PluginState.BLOCKED)
        assert_consistent(manager)
        await manager.disable("base", cascade=True)
        assert_consistent(manager)
        try:
            await manager.enable("base")
        except PluginError:
            assert not starts
        await asyncio.sleep(0)
        assert_consistent(manager)
        write_everything(tmp_path, "base", 2)
        if name == "on_unload raises":  # its state would be lost: the old code serves on
            with pytest.raises(PluginError, match="on_unload"):
                await manager.reload("base")
            assert_consistent(manager)
            assert (await host.client.get("/api/v1/base/version")).json() == 1
            return
        await manager.reload("base")
        await manager.settle()
        assert (await host.client.get("/api/v1/base/version")).json() == 2
        await asyncio.sleep(1.6 if "swallows" in name else 0)  # such a task ends in the end; nothing outlives the test
        assert_consistent(manager)
        assert (await host.client.get("/api/v1/other/version")).json() == 1
