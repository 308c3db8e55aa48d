"""Replacing code while it serves: built beside, published at once, rolled back by itself."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pixsim7_backend.infrastructure.plugins import PluginState, _replacement, plugin_hooks, ports
from pixsim7_backend.infrastructure.plugins._ledger.ownership import running_as_host
from pixsim7_backend.infrastructure.plugins.errors import (
    ImportTimeoutError,
    PluginError,
    ReplacementRefusedError,
    RouteConflictError,
    StateNotHandedOverError,
    StoppingError,
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


COUNTING = """
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


async def test_state_is_handed_over_explicitly(tmp_path: Path) -> None:
    """What on_unload returns comes to the new on_load; on_load without that parameter works as ever."""
    write_plugin(tmp_path, "quest", COUNTING)
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


FAILING_STATE = """
def on_unload():
    raise KeyError("lost")
def on_load(app, state=None):
    app.state.quest_state = state
"""


@pytest.mark.parametrize("replace", ["beside", "stop-first"])
async def test_code_that_cannot_hand_over_its_state_is_replaced_only_without_it(replace: str, tmp_path: Path) -> None:
    """The error says where it failed and what to do; the old code serves on, until its state may be lost."""
    write_plugin(tmp_path, "quest", version(1, FAILING_STATE), replace=replace)
    async with plugin_host(tmp_path) as host:
        write_plugin(tmp_path, "quest", version(2, FAILING_STATE), replace=replace)
        with pytest.raises(StateNotHandedOverError) as refused:
            await host.manager.reload("quest")
        manifest = tmp_path / "quest" / "manifest.py"
        line = version(1, FAILING_STATE).splitlines().index('    raise KeyError("lost")')
        header = manifest.read_text().partition("\nVERSION")[0].count("\n") + 1
        assert str(refused.value) == (
            "plugin 'quest' was not replaced, since its state would be lost: on_unload of plugin 'quest' raised"
            f" KeyError: 'lost' ({manifest}:{header + line});"
            " to lose it, `pixsim7 plugins reload quest --discard-state`"
        )
        assert (await host.client.get("/api/v1/quest/version")).json() == 1
        host.assert_state("quest", PluginState.ENABLED)
        await host.manager.reload("quest", discard_state=True)
        assert (await host.client.get("/api/v1/quest/version")).json() == 2
        assert host.app.state.quest_state is None


async def test_state_is_handed_over_when_the_old_code_stops_first(tmp_path: Path) -> None:
    """It is asked for after on_disable; when the new code fails, the old one gets it back."""
    counting = (
        COUNTING
        + """
    {more}
def on_disable():
    global COUNT
    COUNT += 10
"""
    )
    write_plugin(tmp_path, "quest", counting.replace("{more}", ""), replace="stop-first")
    async with plugin_host(tmp_path) as host:
        assert (await host.client.post("/api/v1/quest/count")).json() == 1
        await host.manager.reload("quest")
        assert (await host.client.post("/api/v1/quest/count")).json() == 12
        write_plugin(tmp_path, "quest", counting.replace("{more}", "raise RuntimeError('no')"), replace="stop-first")
        with pytest.raises(PluginError, match="no"):
            await host.manager.reload("quest")
        assert host.assert_state("quest", PluginState.ENABLED).generation == 2
        assert (await host.client.post("/api/v1/quest/count")).json() == 23


async def test_code_that_leaves_something_behind_runs_again_when_its_replacement_fails(tmp_path: Path) -> None:
    """A hook that fails on the way down does not take away what the old code is needed for."""
    code = "def on_disable(): raise RuntimeError('stuck')"
    write_plugin(tmp_path, "quest", version(1, code), replace="stop-first")
    async with plugin_host(tmp_path) as host:
        write_plugin(tmp_path, "quest", "def on_load(app): raise RuntimeError('new')", replace="stop-first")
        with pytest.raises(PluginError, match="new"):
            await host.manager.reload("quest")
        assert (await host.client.get("/api/v1/quest/version")).json() == 1


@pytest.mark.parametrize("replace", ["beside", "stop-first"])
async def test_manifests_change_with_the_code(replace: str, tmp_path: Path) -> None:
    """A plugin, and one that imports from it, need a third one from now on: reloading the first is enough."""
    write_plugin(tmp_path, "third", "NUMBER = 3")
    write_plugin(tmp_path, "base", version(1), replace=replace)
    importer = "from ..base.manifest import VERSION\n@router.get('/base')\ndef base() -> int: return VERSION"
    write_plugin(tmp_path, "top", importer, dependencies=["base"])
    async with plugin_host(tmp_path) as host:
        number = "from ..third.manifest import NUMBER\n"
        write_plugin(tmp_path, "base", number + version(2), replace=replace, dependencies=["third"])
        more = importer.replace("return VERSION", "return VERSION + NUMBER")
        write_plugin(tmp_path, "top", number + more, dependencies=["base", "third"])
        await host.manager.reload("base")
        assert (await host.client.get("/api/v1/top/base")).json() == 5
        assert host.manager.plan().order == ("third", "base", "top")
        assert host.record("top").generation == 2


async def test_what_does_not_run_is_imported_anew_when_it_starts(tmp_path: Path) -> None:
    """A plugin that is off, or waits for one that is off, changes on disk: what starts later is the new code."""
    write_plugin(tmp_path, "base", version(1))
    write_plugin(tmp_path, "top", version(1), dependencies=["base"])
    async with plugin_host(tmp_path) as host:
        await host.manager.disable("base", cascade=True)
        for plugin, more in (("base", {}), ("top", {"dependencies": ["base"]})):
            write_plugin(tmp_path, plugin, version(2), version="1.1.0", **more)
            with pytest.raises(PluginError):
                await host.manager.reload(plugin)
            assert host.record(plugin).version == "1.1.0"
        await host.manager.enable("base")
        for plugin in ("base", "top"):
            assert (await host.client.get(f"/api/v1/{plugin}/version")).json() == 2


async def test_importers_of_importers_are_replaced_too(tmp_path: Path) -> None:
    """Three deep, whatever their names are: all of them serve what the first one says now."""
    write_plugin(tmp_path, "zero", version(1))
    for plugin, needed in (("third", "zero"), ("second", "third"), ("first", "second")):
        code = f"from ..{needed}.manifest import VERSION\n@router.get('/it')\ndef it() -> int: return VERSION"
        write_plugin(tmp_path, plugin, code, dependencies=[needed])
    async with plugin_host(tmp_path) as host:
        write_plugin(tmp_path, "zero", version(2))
        assert host.manager.preview_reload("zero").replace == ("zero", "third", "second", "first")
        await host.manager.reload("zero")
        for plugin in ("third", "second", "first"):
            assert (await host.client.get(f"/api/v1/{plugin}/it")).json() == 2


RAISING = {
    "interrupt": "raise KeyboardInterrupt",
    "exit": "import sys; sys.exit(3)",
    "cancelled": "raise asyncio.CancelledError",
    "generator": "raise GeneratorExit",
    "own": "class Own(BaseException): ...\nraise Own",
}
PLACES = {
    "import": "{code}",
    "on_load": "def on_load(app):\n    raise_it()",
    "on_unload": "def on_unload():\n    raise_it()",
    "on_enable": "async def on_enable():\n    raise_it()",
    "health": "async def health():\n    raise_it()",
    "lifespan": """
from contextlib import asynccontextmanager
@asynccontextmanager
async def lifespan(app):
    sys.exit(3)
    yield
router = APIRouter(prefix="/quest", lifespan=lifespan)
""",
}


@pytest.mark.parametrize(
    ("place", "what"),
    [
        *(("import", what) for what in RAISING),
        *(("on_load", what) for what in RAISING if what != "interrupt"),  # in the main thread it is the operator's
        *(("on_enable", what) for what in ("exit", "cancelled")),
        ("health", "exit"),
        ("lifespan", "exit"),
    ],
)
async def test_no_exception_gets_out_of_new_code(place: str, what: str, tmp_path: Path) -> None:
    """Whatever it raises refuses the reload and nothing else: neither the loop nor the change takes it for its own."""
    write_plugin(tmp_path, "quest", version(1))
    async with plugin_host(tmp_path) as host:
        function = "import sys\ndef raise_it():\n    " + RAISING[what].replace("\n", "\n    ") + "\n"
        code = PLACES[place].format(code=RAISING[what]) if place == "import" else PLACES[place]
        write_plugin(tmp_path, "quest", version(2, function + code))
        with pytest.raises(PluginError):
            await host.manager.reload("quest")
        assert (await host.client.get("/api/v1/quest/version")).json() == 1
        write_plugin(tmp_path, "quest", version(3))
        await host.manager.reload("quest")
        assert (await host.client.get("/api/v1/quest/version")).json() == 3


async def test_an_import_that_hangs_is_left_to_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says in which line; the old code serves, others can be changed, and the server can stop."""
    monkeypatch.setattr(_replacement, "_LONGEST_IMPORT", 0.3)
    event = sys.modules["pixsim7_test_event"] = ModuleType("pixsim7_test_event")
    ending = event.__dict__["ENDING"] = threading.Event()
    try:
        for plugin in ("quest", "other"):
            write_plugin(tmp_path, plugin, version(1))
        async with plugin_host(tmp_path) as host:
            folder = write_plugin(tmp_path, "quest", "import pixsim7_test_event\npixsim7_test_event.ENDING.wait()")
            lines = (folder / "manifest.py").read_text().splitlines()
            with pytest.raises(ImportTimeoutError) as refused:
                await host.manager.reload("quest")
            line = lines.index("pixsim7_test_event.ENDING.wait()") + 1
            assert f"is left to itself at {folder}/manifest.py:{line};" in str(refused.value)
            assert (await host.client.get("/api/v1/quest/version")).json() == 1
            write_plugin(tmp_path, "other", version(2))
            await host.manager.reload("other")
            assert (await host.client.get("/api/v1/other/version")).json() == 2
            (hanging,) = [each for each in threading.enumerate() if each.name == "importing quest"]
            ending.set()
            await asyncio.to_thread(hanging.join)
            write_plugin(tmp_path, "quest", version(2))
            await host.manager.reload("quest")
            assert (await host.client.get("/api/v1/quest/version")).json() == 2
    finally:
        ending.set()
        del sys.modules["pixsim7_test_event"]


async def test_changes_that_wait_when_the_server_stops_are_refused(tmp_path: Path) -> None:
    """The change under way ends, the one behind it does not begin, and nothing runs afterwards."""
    slow = "async def on_enable(): await asyncio.sleep(0.2)"
    write_plugin(tmp_path, "quest", version(1))
    async with plugin_host(tmp_path) as host:
        write_plugin(tmp_path, "quest", version(2, slow))
        under_way = asyncio.create_task(host.manager.reload("quest"))
        await asyncio.sleep(0.05)
        waiting = asyncio.create_task(host.manager.reload("quest"))
        await asyncio.sleep(0)
        stopping = asyncio.create_task(host.manager.disable_all())
        assert (await under_way).generation == 2
        with pytest.raises(StoppingError, match="'quest' was not changed, since the server stops"):
            await waiting
        await stopping
        with pytest.raises(StoppingError):
            await host.manager.enable("quest")
        host.assert_state("quest", PluginState.DISABLED)


async def test_many_generations_finish_at_once(tmp_path: Path) -> None:
    """Each answers the requests that it began, however many newer ones there are, and goes with its last answer."""
    waiting = """
import builtins
@router.get('/wait')
async def wait() -> int:
    await builtins.quest_gate.wait()
    return VERSION
"""
    import builtins

    gate = builtins.__dict__["quest_gate"] = asyncio.Event()
    try:
        write_plugin(tmp_path, "quest", version(1, waiting))
        async with plugin_host(tmp_path) as host:
            requests = []
            for number in range(2, 8):
                requests.append(asyncio.create_task(host.client.get("/api/v1/quest/wait")))
                await asyncio.sleep(0.01)
                write_plugin(tmp_path, "quest", version(number, waiting))
                await host.manager.reload("quest")
            gate.set()
            assert [(await request).json() for request in requests] == list(range(1, 7))
            await host.manager.settle()
            report = host.manager.find_report("quest")
            assert report is not None
            assert report.is_clean
            assert host.manager.find_leaks() == ()
    finally:
        del builtins.__dict__["quest_gate"]
