"""The manager with real plugins on disk: loading, enabling, disabling, failing, and what is left behind."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from pixsim7_backend.infrastructure.plugins import PluginEvents, PluginState, init_plugin_manager, plugin_hooks, ports
from pixsim7_backend.infrastructure.plugins._ledger.ownership import running_as_host
from pixsim7_backend.infrastructure.plugins.errors import (
    AppWideRegistrationError,
    AsyncHookError,
    CircularDependencyError,
    DependantsEnabledError,
    DependencyHeldError,
    HookTimeoutError,
    InvalidManifestError,
    MissingDependencyError,
    MissingExportError,
    PluginBusyError,
    PluginDisabledError,
    PluginHookError,
    PluginLoadError,
    PluginNotFoundError,
    PluginStartupError,
    ResourceMissingError,
    RouteConflictError,
    UndeclaredImportError,
)
from pixsim7_backend.infrastructure.plugins.testing import plugin_host, write_plugin

pytestmark = pytest.mark.anyio

HELLO = """
@router.get("/hello")
def hello() -> dict[str, str]:
    return {"message": "hello"}
"""


async def test_a_folder_is_a_feature(tmp_path: Path) -> None:
    """Its routes answer under prefix and router prefix, its record says enabled, and OpenAPI knows it."""
    write_plugin(tmp_path, "quest", HELLO)
    async with plugin_host(tmp_path) as host:
        assert (await host.client.get("/api/v1/quest/hello")).json() == {"message": "hello"}
        record = host.assert_state("quest", PluginState.ENABLED)
        assert (record.id, record.name, record.version, record.generation) == ("quest", "Quest", "1.0.0", 1)
        assert [each.id for each in host.manager.list_plugins()] == ["quest"]
        assert "/api/v1/quest/hello" in (await host.client.get("/openapi.json")).json()["paths"]
        assert host.app.state.plugin_manager is host.manager


async def test_an_edit_within_a_second_counts_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled code is told by whole seconds and size: what was compiled before the edit is not taken for it."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    second = 1_700_000_000
    for number, word in enumerate(("hello", "salut")):
        file = write_plugin(tmp_path, "quest", HELLO.replace('"hello"}', f'"{word}"}}')) / "manifest.py"
        os.utime(file, ns=(0, second * 10**9 + 10**8 * (5 * number + 1)))
        async with plugin_host(tmp_path) as host:
            assert (await host.client.get("/api/v1/quest/hello")).json() == {"message": word}
        compiled = Path(importlib.util.cache_from_source(str(file)))
        os.utime(compiled, ns=(0, second * 10**9 + 10**8 * (5 * number + 3)))


async def test_nothing_serves_before_it_is_enabled_nor_after_it_is_disabled(tmp_path: Path) -> None:
    """A loaded plugin has no routes yet; a disabled one has none any more, in the schema neither."""
    write_plugin(tmp_path, "quest", HELLO)
    async with plugin_host(tmp_path, enable=False) as host:
        host.assert_state("quest", PluginState.LOADED)
        assert (await host.client.get("/api/v1/quest/hello")).status_code == 404
        await host.manager.enable_all()
        assert (await host.client.get("/api/v1/quest/hello")).status_code == 200
        report = await host.manager.disable("quest")
        assert report.is_clean
        assert (await host.client.get("/api/v1/quest/hello")).status_code == 404
        assert "/api/v1/quest/hello" not in (await host.client.get("/openapi.json")).json()["paths"]
        record = host.assert_state("quest", PluginState.DISABLED)
        assert isinstance(record.reason, PluginDisabledError)
        await host.manager.enable("quest")
        assert (await host.client.get("/api/v1/quest/hello")).status_code == 200


async def test_hooks_and_events_come_in_order(tmp_path: Path) -> None:
    """on_load at loading; loaded for all, enabled for each once true, startup; shutdown first, then in reverse."""
    code = """
    def on_load(app):
        app.state.log.append("{id} on_load")
    async def on_enable():
        LOG.append("{id} on_enable")
    async def on_disable():
        LOG.append("{id} on_disable")
    from builtins import plugin_test_log as LOG
    """
    import builtins

    log: list[str] = []
    builtins.plugin_test_log = log  # type: ignore[attr-defined]
    write_plugin(tmp_path, "a-first", code.replace("{id}", "a-first"), dependencies=["b-second"])
    write_plugin(tmp_path, "b-second", code.replace("{id}", "b-second"))
    app = FastAPI()
    app.state.log = log
    subscriptions = [
        plugin_hooks.register(event, lambda *args, event=event: log.append(" ".join([event, *args])))
        for event in (
            PluginEvents.PLUGIN_LOADED,
            PluginEvents.PLUGIN_ENABLED,
            PluginEvents.PLUGIN_DISABLED,
            PluginEvents.APP_STARTUP,
            PluginEvents.APP_SHUTDOWN,
        )
    ]
    try:
        async with plugin_host(tmp_path, app=app):
            pass
    finally:
        for subscription in subscriptions:
            subscription.cancel()
        del builtins.plugin_test_log  # type: ignore[attr-defined]
    assert log == [
        "b-second on_load",
        "a-first on_load",
        "plugin:loaded b-second",
        "plugin:loaded a-first",
        "b-second on_enable",
        "plugin:enabled b-second",
        "a-first on_enable",
        "plugin:enabled a-first",
        "app:startup",
        "app:shutdown",
        "a-first on_disable",
        "plugin:disabled a-first",
        "b-second on_disable",
        "plugin:disabled b-second",
    ]


BROKEN: dict[str, tuple[str, type[Exception], str]] = {
    "syntax": ("def broken(:\n    pass", InvalidManifestError, "manifest.py"),
    "import": ("import no_such_module", PluginLoadError, "No module named 'no_such_module'"),
    "raise": ("raise SystemExit(3)", PluginLoadError, "SystemExit: 3"),
    "no-router": ("router = None", MissingExportError, "`router` is missing; export an APIRouter"),
    "router-type": ("router = 'api'", MissingExportError, "`router` is a str, not an APIRouter"),
    "hook-type": ("on_enable = 3", MissingExportError, "`on_enable` is an int, not a function"),
    "async-load": ("async def on_load(app): ...", AsyncHookError, "make it `def on_load(app)`"),
    "load-raises": (
        "def on_load(app): raise KeyError('x')",
        PluginHookError,
        "on_load of plugin 'broken' raised KeyError",
    ),
    "middleware": (
        "def on_load(app): app.add_middleware(object)",
        AppWideRegistrationError,
        "export `middleware = [Middleware(...)]` from the plugin instead",
    ),
    "handler": (
        "def on_load(app):\n    @app.exception_handler(ValueError)\n    def handler(request, error): ...",
        AppWideRegistrationError,
        "export `exception_handlers",
    ),
    "enable-raises": (
        "async def on_enable(): raise OSError('no')",
        PluginHookError,
        "on_enable of plugin 'broken' raised OSError: no",
    ),
    "sync-enable-raises": (
        "def on_enable(): raise OSError('no')",
        PluginHookError,
        "on_enable of plugin 'broken' raised OSError: no",
    ),
    "enable-hangs": (
        "async def on_enable(): await asyncio.sleep(60)",
        HookTimeoutError,
        "on_enable of plugin 'broken' was cancelled",
    ),
    "load-slow": (
        "def on_load(app):\n    import time\n    time.sleep(0.5)",
        HookTimeoutError,
        "on_load of plugin 'broken' took 0.5 s",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_broken_plugin_fails_alone(case: str, tmp_path: Path) -> None:
    """Its record says why and where, what needs it is blocked by name, everything else serves, nothing is left."""
    code, kind, text = BROKEN[case]
    write_plugin(tmp_path, "broken", code)
    write_plugin(tmp_path, "needs-broken", HELLO, dependencies=["broken"])
    write_plugin(tmp_path, "healthy", HELLO)
    async with plugin_host(tmp_path, hook_timeout=0.2) as host:
        record = host.assert_state("broken", PluginState.FAILED)
        assert isinstance(record.reason, kind), record.reason
        assert text in str(record.reason)
        blocked = host.assert_state("needs-broken", PluginState.BLOCKED)
        assert isinstance(blocked.reason, DependencyHeldError)
        assert "requires 'broken', which is failed" in str(blocked.reason)
        host.assert_state("healthy", PluginState.ENABLED)
        assert (await host.client.get("/api/v1/healthy/hello")).status_code == 200
        assert (await host.client.get("/api/v1/needs-broken/hello")).status_code == 404
        assert not [name for name in sys.modules if name.endswith((".broken", ".needs_broken"))]


ENDLESS = """
async def forever():
    await asyncio.sleep(60)  # here

async def on_enable():
    await forever()
"""


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("async def on_load(app): ...  # here", "is async"),
        ("def on_load(app):  # here\n    return asyncio.sleep(0)", "is async"),
        (ENDLESS, "was cancelled after 0.1 s"),
        ("def on_enable():  # here\n    import time\n    time.sleep(0.2)", "took 0."),
        ('@router.get("/healthy/hello")  # here\ndef mine(): ...', "GET /api/v1/healthy/hello of plugin 'zealous'"),
    ],
)
async def test_errors_about_hooks_and_routes_name_file_and_line(code: str, line: str, tmp_path: Path) -> None:
    """A hook of the wrong kind, one that does not end, and a route that is taken are shown where they are written."""
    write_plugin(tmp_path, "healthy", HELLO)
    file = write_plugin(tmp_path, "zealous", f"router = APIRouter()\n{code}") / "manifest.py"
    number = next(number for number, text in enumerate(file.read_text().splitlines(), 1) if "# here" in text)
    async with plugin_host(tmp_path, hook_timeout=0.1) as host:
        reason = str(host.assert_state("zealous", PluginState.FAILED).reason)
        assert line in reason
        assert f"{file}:{number})" in reason


async def test_what_a_failing_hook_had_registered_is_undone(tmp_path: Path) -> None:
    """State keys, routes, subscriptions, ports, logging handlers and tasks of a half-done on_enable go."""
    write_plugin(
        tmp_path,
        "broken",
        """
        import logging
        def on_load(app):
            app.state.quests = {}
            app.state.kept = "theirs"
            @app.get("/direct")
            def direct(): return "direct"
        async def on_enable():
            plugin_hooks.register("quest:finished", print)
            ports.provide("quests", object())
            logging.getLogger("quests").addHandler(logging.NullHandler())
            asyncio.create_task(asyncio.sleep(60), name="quest task")
            raise RuntimeError("half done")
        """,
    )
    app = FastAPI()
    app.state.kept = "ours"
    async with plugin_host(tmp_path, app=app) as host:
        host.assert_state("broken", PluginState.FAILED)
        assert not hasattr(app.state, "quests")
        assert app.state.kept == "ours"
        assert (await host.client.get("/direct")).status_code == 404
        assert plugin_hooks.iter_subscriptions("quest:finished") == ()
        with running_as_host(host.manager._key):
            assert ports.find("quests") is None
        assert logging.getLogger("quests").handlers == []
        assert "quest task" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_disabling_undoes_everything_and_enabling_brings_it_back(tmp_path: Path) -> None:
    """The ledger of routes, subscriptions, ports, tasks, handlers and state is emptied, and filled again."""
    write_plugin(
        tmp_path,
        "quest",
        HELLO
        + """
import logging
def on_load(app):
    app.state.quests = {}
    @app.get("/direct")
    def direct(): return "direct"
    logging.getLogger("quests").addHandler(logging.NullHandler())
async def on_enable():
    plugin_hooks.register("quest:finished", print)
    ports.provide("quests", object())
    asyncio.create_task(asyncio.sleep(60), name="quest task")
""",
    )

    async with plugin_host(tmp_path) as host:

        async def present() -> list[Any]:
            with running_as_host(host.manager._key):
                port = ports.find("quests")
            return [
                hasattr(host.app.state, "quests"),
                (await host.client.get("/direct")).status_code == 200,
                (await host.client.get("/api/v1/quest/hello")).status_code == 200,
                len(plugin_hooks.iter_subscriptions("quest:finished")) == 1,
                port is not None,
                len(logging.getLogger("quests").handlers) == 1,
                "quest task" in {task.get_name() for task in asyncio.all_tasks()},
            ]

        assert await present() == [True] * 7
        report = await host.manager.disable("quest")
        assert await present() == [False] * 7
        assert report.is_clean
        assert len(report.undone) == 6
        await host.manager.enable("quest")
        assert await present() == [True] * 7


async def test_the_leak_report_names_what_will_not_die(tmp_path: Path) -> None:
    """A task that swallows its cancellation and a thread are reported with their lines."""
    write_plugin(
        tmp_path,
        "leaky",
        """
        import threading
        END = threading.Event()
        def work():
            END.wait(60)
        async def stubborn():
            while not END.is_set():
                try:
                    await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    pass
        async def on_enable():
            asyncio.create_task(stubborn())
            threading.Thread(target=work, name="leaky thread").start()
        def end():
            END.set()
        """,
    )
    async with plugin_host(tmp_path, task_timeout=0.05) as host:
        module = sys.modules[f"{host.record('leaky').source.package}.manifest"]
        report = await host.manager.disable("leaky")
        module.end()
        kinds = {leak.kind: str(leak) for leak in report.leaks}
        assert set(kinds) == {"task", "thread"}
        assert "stubborn" in kinds["task"]
        assert "leaky thread" in kinds["thread"]
        assert host.manager.find_report("leaky") is report
        await asyncio.sleep(0.05)


async def test_requests_under_way_are_answered_before_the_plugin_stops(tmp_path: Path) -> None:
    """Disabling drains: the slow request gets its answer, a new one finds nothing."""
    write_plugin(
        tmp_path,
        "slow",
        """
        @router.get("/wait")
        async def wait() -> str:
            await asyncio.sleep(0.2)
            return "done"
        """,
    )
    async with plugin_host(tmp_path) as host:
        slow = asyncio.create_task(host.client.get("/api/v1/slow/wait"))
        await asyncio.sleep(0.05)
        disabling = asyncio.create_task(host.manager.disable("slow"))
        await asyncio.sleep(0.05)
        assert (await host.client.get("/api/v1/slow/wait")).status_code == 404
        assert (await disabling).is_clean
        assert (await slow).json() == "done"


async def test_a_request_that_does_not_end_is_reported(tmp_path: Path) -> None:
    """After the drain deadline the plugin is disabled all the same, and the request is in the leak report."""
    write_plugin(
        tmp_path,
        "slow",
        """
        @router.get("/wait")
        async def wait() -> str:
            await asyncio.sleep(1)
            return "done"
        """,
    )
    async with plugin_host(tmp_path, drain_timeout=0.05) as host:
        slow = asyncio.create_task(host.client.get("/api/v1/slow/wait"))
        await asyncio.sleep(0.05)
        report = await host.manager.disable("slow")
        assert [leak.kind for leak in report.leaks] == ["request"]
        assert "/api/v1/slow/wait" in report.leaks[0].name
        assert (await slow).json() == "done"


async def test_what_others_need_is_not_disabled_unless_asked(tmp_path: Path) -> None:
    """The refusal lists the dependants; a cascade stops them first; they come back with what they need."""
    write_plugin(tmp_path, "base", HELLO)
    write_plugin(tmp_path, "middle", HELLO, dependencies=["base"])
    write_plugin(tmp_path, "top", HELLO, dependencies=["middle"])
    async with plugin_host(tmp_path) as host:
        with pytest.raises(DependantsEnabledError, match="'base' is needed by top, middle"):
            await host.manager.disable("base")
        host.assert_state("base", PluginState.ENABLED)
        await host.manager.disable("base", cascade=True)
        host.assert_state("base", PluginState.DISABLED)
        for plugin in ("middle", "top"):
            host.assert_state(plugin, PluginState.BLOCKED)
        with pytest.raises(DependencyHeldError, match="requires 'middle', which is blocked"):
            await host.manager.enable("top")
        change = host.manager.preview_enable("base")
        assert (change.stop, change.start) == ((), ("base", "middle", "top"))
        assert change.why["top"] == "its dependency 'middle' starts"
        await host.manager.enable("base")
        assert (await host.client.get("/api/v1/top/hello")).status_code == 200


async def test_a_plugin_disabled_in_its_manifest_is_not_imported_but_can_be_enabled(tmp_path: Path) -> None:
    """Its code runs only once somebody enables it; DISABLED_PLUGINS cannot be overruled that way."""
    write_plugin(tmp_path, "quest", "import sys; sys.quest_was_imported = True" + HELLO, enabled=False)
    write_plugin(tmp_path, "beta", "raise AssertionError('imported')")
    async with plugin_host(tmp_path, disabled=["beta"]) as host:
        host.assert_state("quest", PluginState.DISABLED)
        assert not hasattr(sys, "quest_was_imported")
        await host.manager.enable("quest")
        assert sys.__dict__.pop("quest_was_imported") is True
        assert (await host.client.get("/api/v1/quest/hello")).status_code == 200
        with pytest.raises(PluginDisabledError, match="DISABLED_PLUGINS"):
            await host.manager.enable("beta")
        with pytest.raises(PluginNotFoundError, match="did you mean 'quest'"):
            await host.manager.enable("quests")


async def test_a_manifest_that_is_computed_is_imported_to_be_known(tmp_path: Path) -> None:
    """A trusted plugin may compute its manifest; order and dependencies hold all the same."""
    folder = write_plugin(tmp_path, "quest", HELLO)
    text = (folder / "manifest.py").read_text(encoding="utf-8")
    (folder / "manifest.py").write_text(
        text.replace("version='1.0.0'", "version='.'.join(['2', '1'])").replace(
            "id='quest'", "id='quest', dependencies=[str('base')]"
        ),
        encoding="utf-8",
    )
    write_plugin(tmp_path, "base", HELLO)
    async with plugin_host(tmp_path) as host:
        assert host.assert_state("quest", PluginState.ENABLED).version == "2.1"
        assert host.manager.plan().order == ("base", "quest")


async def test_undeclared_imports_are_refused_and_declared_ones_work(tmp_path: Path) -> None:
    """The error names both plugins, the line, and what to add to the manifest."""
    write_plugin(tmp_path, "base", HELLO + "\nPRICE = 3\n")
    write_plugin(tmp_path, "thief", "from ..base.manifest import PRICE" + HELLO)
    write_plugin(tmp_path, "shop", "from ..base.manifest import PRICE" + HELLO, dependencies=["base"])
    async with plugin_host(tmp_path) as host:
        reason = host.assert_state("thief", PluginState.FAILED).reason
        assert isinstance(reason, UndeclaredImportError)
        assert "plugin 'thief' imports plugin 'base'" in str(reason)
        assert 'add "base" to `dependencies`' in str(reason)
        host.assert_state("shop", PluginState.ENABLED)


@pytest.mark.parametrize(
    "code",
    [
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    {}",
        "try:\n    pass\nfinally:\n    {}",
        "match 1:\n    case 1:\n        {}",
        "def late():\n    with open('x'):\n        {}",
        "class Late:\n    async def run(self):\n        while True:\n            pass\n        else:\n            {}",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    {}",
    ],
)
async def test_undeclared_imports_are_found_wherever_a_statement_can_be(tmp_path: Path, code: str) -> None:
    """In every kind of block, also in the one that runs where types are not checked."""
    write_plugin(tmp_path, "base", HELLO + "\nPRICE = 3\n")
    write_plugin(tmp_path, "thief", code.format("from ..base.manifest import PRICE") + HELLO)
    async with plugin_host(tmp_path) as host:
        assert isinstance(host.assert_state("thief", PluginState.FAILED).reason, UndeclaredImportError)


async def test_two_plugins_cannot_serve_the_same_route(tmp_path: Path) -> None:
    """The later in load order fails, and what needs it is blocked; the first one serves."""
    route = '@router.get("/same")\ndef {name}() -> str: return "{name}"\n'
    write_plugin(tmp_path, "alpha", "router = APIRouter(prefix='/shared')\n" + route.replace("{name}", "alpha"))
    write_plugin(tmp_path, "beta", "router = APIRouter(prefix='/shared')\n" + route.replace("{name}", "beta"))
    write_plugin(tmp_path, "gamma", HELLO, dependencies=["beta"])
    async with plugin_host(tmp_path) as host:
        reason = host.assert_state("beta", PluginState.FAILED).reason
        assert isinstance(reason, RouteConflictError)
        assert "GET /api/v1/shared/same of plugin 'beta'" in str(reason)
        assert "alpha" in str(reason)
        host.assert_state("gamma", PluginState.BLOCKED)
        assert (await host.client.get("/api/v1/shared/same")).json() == "alpha"


async def test_missing_dependencies_cycles_and_resources_block(tmp_path: Path) -> None:
    """Each is blocked with its own reason; the plan shows all problems at once."""
    write_plugin(tmp_path, "orphan", HELLO, dependencies=["nobody"])
    write_plugin(tmp_path, "hen", HELLO, dependencies=["egg"])
    write_plugin(tmp_path, "egg", HELLO, dependencies=["hen"])
    write_plugin(tmp_path, "stored", HELLO, requires_db=True)
    write_plugin(tmp_path, "fine", HELLO)
    async with plugin_host(tmp_path, resources={"db": lambda: "set DATABASE_URL"}) as host:
        reasons = {record.id: record.reason for record in host.manager.iter_records()}
        assert isinstance(reasons["orphan"], MissingDependencyError)
        assert isinstance(reasons["hen"], CircularDependencyError)
        assert isinstance(reasons["stored"], ResourceMissingError)
        assert "set DATABASE_URL" in str(reasons["stored"])
        assert reasons["fine"] is None
        assert len(host.manager.plan().problems) >= 3


async def test_strict_lists_every_problem_and_leaves_the_app_untouched(tmp_path: Path) -> None:
    """For CI: start-up aborts with all problems; nothing of any plugin remains."""
    write_plugin(tmp_path, "broken", "raise RuntimeError('one')")
    write_plugin(tmp_path, "orphan", HELLO, dependencies=["nobody"])
    write_plugin(tmp_path, "fine", HELLO)
    app = FastAPI()
    routes = list(app.router.routes)
    with pytest.raises(PluginStartupError) as caught:
        init_plugin_manager(app, tmp_path, on_plugin_error="strict", disabled=())
    assert "RuntimeError: one" in str(caught.value)
    assert "requires 'nobody'" in str(caught.value)
    assert app.router.routes == routes


@pytest.mark.parametrize("code", ["raise RuntimeError('down')", "async def on_enable(): raise RuntimeError('down')"])
async def test_a_required_plugin_that_cannot_run_aborts_the_start(code: str, tmp_path: Path) -> None:
    """Also when the policy tolerates errors, and also when only enabling fails."""
    write_plugin(tmp_path, "vital", code, required=True)
    write_plugin(tmp_path, "fine", HELLO)
    with pytest.raises(PluginStartupError, match=r"required plugins cannot run \(vital\)"):
        async with plugin_host(tmp_path):
            pass


async def test_changes_happen_one_at_a_time_and_never_inside_one_another(tmp_path: Path) -> None:
    """Concurrent switches end in a clean state; a hook that switches plugins is told so instead of hanging."""
    write_plugin(
        tmp_path,
        "meddler",
        """
        def on_load(app):
            meddler.app = app
        class meddler: app = None
        async def on_enable():
            await meddler.app.state.plugin_manager.disable("fine")
        """,
    )
    write_plugin(tmp_path, "fine", HELLO)
    async with plugin_host(tmp_path) as host:
        assert isinstance(host.assert_state("meddler", PluginState.FAILED).reason, PluginBusyError)
        await asyncio.gather(
            *(host.manager.disable("fine") if n % 2 else host.manager.enable("fine") for n in range(20))
        )
        assert host.record("fine").state in (PluginState.ENABLED, PluginState.DISABLED)


async def test_router_lifespans_run_with_the_plugin_and_their_state_reaches_its_requests(tmp_path: Path) -> None:
    """Entered before on_enable, left after on_disable, in one task; what they yield is request.state."""
    write_plugin(
        tmp_path,
        "quest",
        """
        from contextlib import asynccontextmanager
        LOG = []
        @asynccontextmanager
        async def lifespan(app):
            LOG.append(("enter", asyncio.current_task()))
            yield {"treasure": "gold"}
            LOG.append(("leave", asyncio.current_task()))
        router = APIRouter(prefix="/quest", lifespan=lifespan)
        @router.get("/treasure")
        def treasure(request: Request) -> str: return request.state.treasure
        async def on_enable(): LOG.append(("on_enable", None))
        async def on_disable(): LOG.append(("on_disable", None))
        """,
    )
    write_plugin(
        tmp_path,
        "other",
        "@router.get('/has')\ndef has(request: Request) -> bool: return hasattr(request.state, 'treasure')",
    )
    async with plugin_host(tmp_path) as host:
        log = sys.modules[f"{host.record('quest').source.package}.manifest"].LOG
        assert (await host.client.get("/api/v1/quest/treasure")).json() == "gold"
        assert (await host.client.get("/api/v1/other/has")).json() is False
        await host.manager.disable("quest")
        assert [step for step, _ in log] == ["enter", "on_enable", "on_disable", "leave"]
        assert log[0][1] is log[3][1]
        await host.manager.enable("quest")
        assert (await host.client.get("/api/v1/quest/treasure")).json() == "gold"


async def test_a_failing_on_disable_is_reported_and_everything_is_undone(tmp_path: Path) -> None:
    """The report has the hook's error, the routes are gone; it is loaded afresh when it is enabled again."""
    write_plugin(tmp_path, "quest", HELLO + "async def on_disable(): raise RuntimeError('stuck')")
    async with plugin_host(tmp_path) as host:
        report = await host.manager.disable("quest")
        assert "on_disable of plugin 'quest' raised RuntimeError: stuck" in str(report.leaks[0])
        host.assert_state("quest", PluginState.DISABLED)
        assert (await host.client.get("/api/v1/quest/hello")).status_code == 404
        record = await host.manager.enable("quest")
        assert (record.state, record.generation) == (PluginState.ENABLED, 2)


async def test_a_second_init_closes_the_first_manager(tmp_path: Path) -> None:
    """The same app never serves a plugin twice; a lifespan may run again."""
    write_plugin(tmp_path, "quest", HELLO)
    app = FastAPI()
    for _ in range(3):
        async with plugin_host(tmp_path, app=app) as host:
            assert (await host.client.get("/api/v1/quest/hello")).status_code == 200
            again = init_plugin_manager(app, tmp_path, disabled=())
            assert (await host.client.get("/api/v1/quest/hello")).status_code == 404
            await again.enable_all()
            assert (await host.client.get("/api/v1/quest/hello")).status_code == 200
            assert len((await host.client.get("/openapi.json")).json()["paths"]) == 1
            await again.disable_all()


async def test_prepare_runs_once_before_a_plugin_is_first_enabled(tmp_path: Path) -> None:
    """In load order, off the event loop; when it raises, only that plugin fails."""
    for plugin in ("one", "two"):
        write_plugin(tmp_path, plugin, HELLO)
    prepared: list[str] = []

    def prepare(record: Any, folder: Path) -> None:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        prepared.append(f"{record.id} {folder.name}")
        if record.id == "two":
            raise RuntimeError("no migration")

    async with plugin_host(tmp_path, prepare=prepare) as host:
        host.assert_state("one", PluginState.ENABLED)
        assert "no migration" in str(host.assert_state("two", PluginState.FAILED).reason)
        await host.manager.disable("one")
        await host.manager.enable("one")
    assert prepared == ["one one", "two two"]


async def test_the_guides_log_lines_appear_literally(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Discovered and Failed with folder names, Loaded with name and version, skipped and cycles with ids."""
    write_plugin(tmp_path, "game-stealth", HELLO, name="Game Stealth")
    write_plugin(tmp_path, "my-feature", "raise RuntimeError('oops')")
    write_plugin(tmp_path, "experimental-feature", HELLO, enabled=False)
    write_plugin(tmp_path, "game-combat", HELLO, dependencies=["game-npcs"])
    write_plugin(tmp_path, "game-npcs", HELLO, dependencies=["game-combat"])
    with caplog.at_level(logging.INFO, logger="pixsim7.plugins"):
        async with plugin_host(tmp_path):
            pass
    lines = [f"{record.levelname}: {record.getMessage()}" for record in caplog.records]
    folders = ["experimental_feature", "game_combat", "game_npcs", "game_stealth", "my_feature"]
    assert f"INFO: Discovered 5 plugins: {folders}" in lines
    assert "INFO: Loaded plugin: Game Stealth v1.0.0" in lines
    assert any(line.startswith("ERROR: Failed to load plugin my_feature: RuntimeError: oops") for line in lines)
    assert lines.count("ERROR: Circular dependency detected: game-combat -> game-npcs -> game-combat") == 1
    assert "INFO: Skipping disabled plugin: experimental-feature" in lines


async def test_a_dependency_can_be_overridden_by_name(tmp_path: Path) -> None:
    """The testing module replaces it without importing the plugin, and the undo brings the real one back."""
    write_plugin(
        tmp_path,
        "quest",
        """
        def get_limit() -> int: return 10
        @router.get("/limit")
        def limit(limit: int = Depends(get_limit)) -> int: return limit
        """,
    )
    async with plugin_host(tmp_path) as host:
        undo = host.override("quest:get_limit", lambda: 3)
        assert (await host.client.get("/api/v1/quest/limit")).json() == 3
        undo()
        assert (await host.client.get("/api/v1/quest/limit")).json() == 10
