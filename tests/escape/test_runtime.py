"""94 to 100: Python itself, and what it leaves behind."""

from __future__ import annotations

import ast
import logging
import os
from pathlib import Path
from typing import Any

import pytest

import pixsim7_backend
from pixsim7_backend.infrastructure.plugins import PluginState
from pixsim7_backend.infrastructure.plugins._jail.launcher import Launcher
from pixsim7_backend.infrastructure.plugins.testing import write_plugin
from tests.escape.arena import BASE, CALM, Arena, confined_server
from tests.escape.attempts import resources, runtime
from tests.escape.attempts.world import World
from tests.integration.jail.forked import run_forked, run_fresh

pytestmark = pytest.mark.anyio

_UNPACKERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "jsonpickle"}


async def test_094_send_pickles(arena: Arena, caplog: pytest.LogCaptureFixture) -> None:
    """A pickle, as a frame or in one, is no frame; and nothing of the host could read it."""
    for attempt in (runtime.send_pickle, runtime.send_extension):
        outcome = await arena.confined(attempt)
        assert outcome.status == 502
        arena.note("contained", outcome.text)
        await arena.restart()
    assert not arena.around.home.joinpath("unpickled").exists()
    assert caplog.text.count("Plugin hostile crashed: it misbehaved") == 2
    package = Path(str(pixsim7_backend.__file__)).parent
    assert not [str(path) for path in package.rglob("*.py") if _imports(path) & _UNPACKERS]
    assert (await arena.bare(runtime.unpickle)).is_good


def _imports(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_bytes())))
    plain = {alias.name.partition(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {(node.module or "").partition(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize(
    "evil",
    [
        "os.environ['ESCAPED'] = '1'",
        "os._exit(3)",
        "sys.exit('bye')",
        pytest.param("while True: pass", marks=pytest.mark.thorough),
    ],
)
async def test_095_import(arena: Arena, launcher: Launcher, open_dir: Path, evil: str) -> None:
    """What a plugin does while it is imported, it does in its jail: the host stays, and starts the others."""
    write_plugin(open_dir, "hostile", f"import os, sys\n{evil}\n@router.get('/x')\ndef x() -> str:\n    return 'x'\n")
    write_plugin(open_dir, "calm", CALM)
    async with arena.watched(), confined_server(open_dir, launcher, load_time=3) as (server, _):
        async with server.client() as client:
            assert (await client.get("/api/v1/calm/open")).json() == [0, 1, 2]
        record = server.manager.get("hostile")
        assert "ESCAPED" not in os.environ
        if "environ" in evil:
            assert record.state is PluginState.ENABLED
        else:
            assert "hostile" in str(record.reason)
        arena.note("contained", str(record.reason or "only in its own process"))


def _search_in_copy(world: World, kept: str) -> Any:
    """Search in a copy of a process that has ``kept`` in its memory, as a jail would be a copy of its host."""
    outcome = run_forked(lambda: runtime.find_in_memory(world))
    return outcome.value if kept else None


async def test_096_patch_and_search(arena: Arena) -> None:
    """What it patches is patched in its jail, and in its memory there is nothing of the host to be found."""
    marker = arena.around.abstract
    kept = f"a value of the host, with {marker} in it"
    assert run_fresh(_search_in_copy, arena.world(token=marker), kept).value == kept
    outcome = await arena.confined(runtime.find_in_memory, token=marker)
    assert outcome.error == "Foiled"
    arena.note("denied", outcome.text)
    assert f"patched in {os.getpid()}" not in (await arena.confined(runtime.patch_everything)).value
    await arena.restart()


async def test_097_dump_core(arena: Arena) -> None:
    """No core is dumped, and no traceback is written outside."""
    await arena.denied(runtime.dump_traceback_outside)
    await arena.denied(runtime.dump_core)


async def test_098_start_with_environment(arena: Arena) -> None:
    """Variables that load code into programs load none: there are no programs, and the next jail has its own ones."""
    await arena.denied(runtime.start_with_environment)
    await arena.restart()
    async with arena.client() as client:
        environment = (await client.get(f"{BASE}/environment")).json()
    assert not {"PYTHONPATH", "PYTHONSTARTUP", "LD_PRELOAD"} & environment.keys()


async def test_099_show_exceptions(arena: Arena) -> None:
    """Exceptions and tracebacks tell nothing of the host, and clients are told none of them."""
    await arena.denied(runtime.show_exceptions)
    async with arena.watched() as client:
        answer = await client.get(f"{BASE}/files/nothing")
    assert answer.status_code == 500
    assert str(arena.directory) not in answer.text
    assert "Traceback" not in answer.text


async def test_100_forge_log_lines(arena: Arena, caplog: pytest.LogCaptureFixture) -> None:
    """A line of a plugin is one line, names it, and drives no terminal."""
    with caplog.at_level(logging.INFO):
        assert (await arena.confined(runtime.forge_log_lines, token="forged-by-plugin")).is_good
    lines = [each for each in caplog.records if "forged-by-plugin" in each.getMessage()]
    assert len(lines) == 1
    assert lines[0].name == "pixsim7.plugins.jail.hostile"
    assert lines[0].getMessage().isprintable()
    assert "audit" not in lines[0].name
    process = arena.supervisor.process
    assert process is not None
    assert "\x1b" not in process.stderr_tail()
    arena.note("contained", lines[0].getMessage())


async def test_it_serves_after_all_that(arena: Arena) -> None:
    """A plugin that has tried is still a plugin."""
    assert (await arena.confined(resources.open_many_files)).error == "OSError"
    async with arena.watched() as client:
        assert (await client.get(f"{BASE}/plain")).json() == "plain"
