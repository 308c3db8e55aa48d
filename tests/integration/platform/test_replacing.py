"""Replacing code while it serves: built beside, published at once, rolled back by itself."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest

from pixsim7_backend.infrastructure.plugins import PluginState, plugin_hooks, ports
from pixsim7_backend.infrastructure.plugins._ownership import running_as_host
from pixsim7_backend.infrastructure.plugins.errors import (
    PluginError,
    ReplacementRefusedError,
    RouteConflictError,
    UndeclaredImportError,
)
from pixsim7_backend.infrastructure.plugins.testing import plugin_host, write_plugin

pytestmark = pytest.mark.anyio


def version(number: int, more: str = "") -> str:
    return f"""
VERSION = {number}
@router.get("/version")
async def version() -> int:
    return VERSION
{more}
"""


async def test_a_reload_serves_the_new_code_in_the_same_place(tmp_path: Path) -> None:
    """The record counts generations; routes that are gone are gone, new ones are there."""
    write_plugin(tmp_path, "quest", version(1, "@router.get('/old')\ndef old() -> int: return 1"))
    async with plugin_host(tmp_path) as host:
        write_plugin(tmp_path, "quest", version(2, "@router.get('/new')\ndef new() -> int: return 2"), version="2.0.0")
        record = await host.manager.reload("quest")
        assert (record.state, record.generation, record.version) == (PluginState.ENABLED, 2, "2.0.0")
        assert (await host.client.get("/api/v1/quest/version")).json() == 2
        assert (await host.client.get("/api/v1/quest/new")).status_code == 200
        assert (await host.client.get("/api/v1/quest/old")).status_code == 404
        assert sorted((await host.client.get("/openapi.json")).json()["paths"]) == [
            "/api/v1/quest/new",
            "/api/v1/quest/version",
        ]


BROKEN = {
    "syntax": "def broken(:",
    "import": "import no_such_module",
    "raises": "raise RuntimeError('no')",
    "no-router": "router = None",
    "on_load": "def on_load(app): raise RuntimeError('no')",
    "on_enable": "async def on_enable(): raise RuntimeError('no')",
    "hangs": "async def on_enable(): await asyncio.sleep(60)",
    "health": "async def health(): return False",
    "health-raises": "def health(): raise RuntimeError('no')",
    "lifespan": """
from contextlib import asynccontextmanager
@asynccontextmanager
async def lifespan(app):
    raise RuntimeError("no")
    yield
router = APIRouter(prefix="/quest", lifespan=lifespan)
""",
}


@pytest.mark.parametrize("case", BROKEN)
async def test_new_code_that_fails_leaves_the_old_one_serving(case: str, tmp_path: Path) -> None:
    """Nothing of the failed code stays: no module, handler, port, key, route or task; the next try works."""
    registers = """
def on_load(app):
    app.state.quest_version = VERSION
async def on_enable():
    plugin_hooks.register("quest:asked", lambda: VERSION)
    ports.provide("quest", VERSION)
    asyncio.create_task(asyncio.sleep(60), name=f"quest {VERSION}")
"""
    write_plugin(tmp_path, "quest", version(1, registers))
    async with plugin_host(tmp_path, hook_timeout=0.3) as host:
        modules = {name: module for name, module in sys.modules.items() if "quest" in name}
        write_plugin(tmp_path, "quest", version(2, registers + BROKEN[case]))
        with pytest.raises(PluginError):
            await host.manager.reload("quest")
        record = host.assert_state("quest", PluginState.ENABLED)
        assert record.generation == 1
        assert (await host.client.get("/api/v1/quest/version")).json() == 1
        assert list(await plugin_hooks.emit("quest:asked")) == [1]
        assert host.app.state.quest_version == 1
        with running_as_host(host.manager._key):
            assert ports.find("quest") == 1
        assert {name: module for name, module in sys.modules.items() if "quest" in name} == modules
        assert [t.get_name() for t in asyncio.all_tasks() if t.get_name().startswith("quest ")] == ["quest 1"]
        write_plugin(tmp_path, "quest", version(3, registers))
        await host.manager.reload("quest")
        await host.manager.settle()
        assert (await host.client.get("/api/v1/quest/version")).json() == 3
        assert list(await plugin_hooks.emit("quest:asked")) == [3]
        assert host.app.state.quest_version == 3
        with running_as_host(host.manager._key):
            assert ports.find("quest") == 3
        assert [t.get_name() for t in asyncio.all_tasks() if t.get_name().startswith("quest ")] == ["quest 3"]
    assert not hasattr(host.app.state, "quest_version")


async def test_registrations_of_new_code_are_invisible_until_it_is_published(tmp_path: Path) -> None:
    """While on_enable of the new generation runs, events, ports and state are the old one's; it sees its own."""
    registers = """
SEEN = []
def on_load(app):
    app.state.quest = VERSION
    SEEN.append(app.state.quest)
async def on_enable():
    plugin_hooks.register("quest:asked", lambda: VERSION)
    ports.provide("quest", VERSION)
    SEEN.append(ports.find("quest"))
    if VERSION == 2:
        await asyncio.sleep(0.3)
"""
    write_plugin(tmp_path, "quest", version(1, registers))
    async with plugin_host(tmp_path) as host:
        write_plugin(tmp_path, "quest", version(2, registers))
        reloading = asyncio.create_task(host.manager.reload("quest"))
        await asyncio.sleep(0.15)
        assert not reloading.done()

        async def seen() -> list[Any]:
            with running_as_host(host.manager._key):
                port = ports.find("quest")
            answer = (await host.client.get("/api/v1/quest/version")).json()
            return [answer, list(await plugin_hooks.emit("quest:asked")), port, host.app.state.quest]

        assert await seen() == [1, [1], 1, 1]
        await reloading
        assert await seen() == [2, [2], 2, 2]
        assert sys.modules[f"{host.record('quest').source.package}.manifest"].SEEN == [2, 2]


async def test_requests_under_way_are_answered_by_the_code_they_began_with(tmp_path: Path) -> None:
    """A slow request gets the old answer although new code is in service; then the old code goes."""
    slow = """
@router.get("/slow")
async def slow() -> int:
    await asyncio.sleep(0.3)
    return VERSION
STOPPED = []
async def on_disable():
    STOPPED.append(VERSION)
"""
    write_plugin(tmp_path, "quest", version(1, slow))
    async with plugin_host(tmp_path) as host:
        old = sys.modules[f"{host.record('quest').source.package}.manifest"]
        request = asyncio.create_task(host.client.get("/api/v1/quest/slow"))
        await asyncio.sleep(0.05)
        write_plugin(tmp_path, "quest", version(2, slow))
        await host.manager.reload("quest")
        assert (await host.client.get("/api/v1/quest/version")).json() == 2
        assert old.STOPPED == []
        assert (await request).json() == 1
        await host.manager.settle()
        assert old.STOPPED == [1]
        report = host.manager.find_report("quest")
        assert report is not None
        assert report.is_clean


async def test_plugins_that_import_from_it_are_replaced_with_it(tmp_path: Path) -> None:
    """The importer runs with the new code of what it imports; one that only depends on it is left alone."""
    write_plugin(tmp_path, "base", version(1))
    importer = "from ..base.manifest import VERSION\n@router.get('/base')\ndef base() -> int: return VERSION"
    write_plugin(tmp_path, "importer", importer, dependencies=["base"])
    write_plugin(tmp_path, "neighbour", version(1), dependencies=["base"])
    async with plugin_host(tmp_path) as host:
        write_plugin(tmp_path, "base", version(2))
        change = host.manager.preview_reload("base")
        assert change.replace == ("base", "importer")
        assert change.why["importer"] == "it imports from 'base'"
        await host.manager.reload("base")
        assert (await host.client.get("/api/v1/importer/base")).json() == 2
        assert [host.record(each).generation for each in ("base", "importer", "neighbour")] == [2, 2, 1]
        write_plugin(tmp_path, "base", "")
        with pytest.raises(PluginError, match="cannot import name 'VERSION'"):
            await host.manager.reload("base")
        assert (await host.client.get("/api/v1/importer/base")).json() == 2


async def test_code_that_running_plugins_could_not_live_with_is_refused(tmp_path: Path) -> None:
    """A version out of range, a taken route, an undeclared import: the old code serves on, and the error says why."""
    write_plugin(tmp_path, "base", version(1))
    write_plugin(tmp_path, "top", version(1), dependencies=["base<2"])
    async with plugin_host(tmp_path) as host:
        write_plugin(tmp_path, "base", version(2), version="2.0.0")
        with pytest.raises(ReplacementRefusedError, match="since top would stop: plugin 'top' requires 'base<2'"):
            await host.manager.reload("base")
        taken = "router = APIRouter(prefix='/top')\n@router.get('/version')\ndef taken() -> int: return 2"
        write_plugin(tmp_path, "base", taken)
        with pytest.raises(RouteConflictError):
            await host.manager.reload("base")
        write_plugin(tmp_path, "base", "from ..top import manifest as other" + version(2))
        with pytest.raises(UndeclaredImportError):
            await host.manager.reload("base")
        assert (await host.client.get("/api/v1/base/version")).json() == 1
        assert (await host.client.get("/api/v1/top/version")).json() == 1


async def test_state_is_handed_over_explicitly(tmp_path: Path) -> None:
    """What on_unload returns comes to the new on_load; on_load without that parameter works as ever."""
    counting = """
COUNT = 0
@router.post("/count")
def count() -> int:
    global COUNT
    COUNT += 1
    return COUNT
def on_unload():
    return {"count": COUNT}
def on_load(app, state=None):
    global COUNT
    COUNT = state["count"] if state else 0
"""
    write_plugin(tmp_path, "quest", counting)
    async with plugin_host(tmp_path) as host:
        for expected in (1, 2):
            assert (await host.client.post("/api/v1/quest/count")).json() == expected
        await host.manager.reload("quest")
        assert (await host.client.post("/api/v1/quest/count")).json() == 3


async def test_exclusive_resources_are_given_up_before_the_new_code_takes_them(tmp_path: Path) -> None:
    """With replace="stop-first" old and new never run together; when the new one fails, the old one runs again."""
    exclusive = """
async def on_enable():
    import builtins
    assert not getattr(builtins, "quest_lock", None), "still held"
    builtins.quest_lock = VERSION
    if VERSION == 2:
        raise RuntimeError("cannot start")
async def on_disable():
    import builtins
    builtins.quest_lock = None
"""
    import builtins

    try:
        write_plugin(tmp_path, "quest", version(1, exclusive), replace="stop-first")
        async with plugin_host(tmp_path) as host:
            broken = exclusive.replace("builtins.quest_lock = VERSION", "pass")
            write_plugin(tmp_path, "quest", version(2, broken), replace="stop-first")
            with pytest.raises(PluginError, match="cannot start"):
                await host.manager.reload("quest")
            assert (await host.client.get("/api/v1/quest/version")).json() == 1
            assert host.assert_state("quest", PluginState.ENABLED).generation == 1
            write_plugin(tmp_path, "quest", version(3, exclusive), replace="stop-first")
            await host.manager.reload("quest")
            assert (await host.client.get("/api/v1/quest/version")).json() == 3
    finally:
        builtins.__dict__.pop("quest_lock", None)


async def test_a_plugin_that_failed_is_mended_by_a_reload_and_brings_its_dependants(tmp_path: Path) -> None:
    """The failed one gets another chance with what is on disk, and what was blocked by it starts."""
    write_plugin(tmp_path, "base", "raise RuntimeError('broken')")
    write_plugin(tmp_path, "top", version(1), dependencies=["base"])
    async with plugin_host(tmp_path) as host:
        host.assert_state("top", PluginState.BLOCKED)
        write_plugin(tmp_path, "base", version(1))
        await host.manager.reload("base")
        host.assert_state("base", PluginState.ENABLED)
        host.assert_state("top", PluginState.ENABLED)


async def test_old_code_dies(tmp_path: Path) -> None:
    """After the reload nothing keeps the old module, its functions and its router alive."""
    write_plugin(tmp_path, "quest", version(1))
    async with plugin_host(tmp_path) as host:
        await host.client.get("/api/v1/quest/version")
        await host.client.get("/openapi.json")
        module = sys.modules[f"{host.record('quest').source.package}.manifest"]
        watched = [weakref.ref(each) for each in (module, module.version, module.router)]
        del module
        write_plugin(tmp_path, "quest", version(2))
        await host.manager.reload("quest")
        await host.manager.settle()
        await host.client.get("/api/v1/quest/version")
        await host.client.get("/openapi.json")
        gc.collect()
        assert [each() for each in watched] == [None, None, None]
