"""Starts that do not finish: the next one goes on without the plugin that the last one died in."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from pixsim7_backend.infrastructure.plugins import StartupJournal
from pixsim7_backend.infrastructure.plugins.testing import write_plugin
from tests.faults.zygote import Start, Zygote

DEATHS = {
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "exited": "import os; os._exit(3)",
    "segfault": "import ctypes; ctypes.string_at(0)",
    "hung-and-killed": "import os, signal, time; signal.setitimer(signal.ITIMER_REAL, 0.2); time.sleep(60)",
}
PLACES = {
    "import": ("{death}", "loaded"),
    "on_load": ("def on_load(app): {death}", "loaded"),
    "on_enable": ("async def on_enable(): {death}", "enabled"),
    "lifespan": (
        """
from contextlib import asynccontextmanager
@asynccontextmanager
async def lifespan(app):
    {death}
    yield
router = APIRouter(prefix="/bad", lifespan=lifespan)
""",
        "enabled",
    ),
    "app:startup": (
        """
async def greet() -> None:
    {death}
async def on_enable() -> None:
    plugin_hooks.register("app:startup", greet)
""",
        "told of app:startup",
    ),
    "plugin:enabled": (
        """
def greet(plugin: str) -> None:
    {death}
async def on_enable() -> None:
    plugin_hooks.register("plugin:enabled", greet)
""",
        "told of plugin:enabled",
    ),
}


class Server:
    """Starts one installation again and again."""

    def __init__(self, zygote: Zygote, directory: Path) -> None:
        self.plugins, self.data = directory / "plugins", directory / "data"
        self.plugins.mkdir()
        self._zygote = zygote

    def write(self, plugin: str, code: str = "", *, old: bool = True, **fields: Any) -> None:
        """Write a plugin, an hour ago unless it is a new one."""
        folder = write_plugin(self.plugins, plugin, code, **fields)
        for file in folder.rglob("*.py") if old else ():
            os.utime(file, (time.time() - 3600, time.time() - 3600))

    def start(self, *changes: tuple[str, ...], **options: Any) -> Any:
        start = Start(plugins=str(self.plugins), data=str(self.data), changes=changes, options=options)
        return self._zygote.run(start)

    def start_many(self, count: int) -> list[Any]:
        start = Start(plugins=str(self.plugins), data=str(self.data))
        return self._zygote.run_all([start] * count)


@pytest.fixture
def server(zygote: Zygote, tmp_path: Path) -> Server:
    return Server(zygote, tmp_path)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("death", DEATHS)
def test_the_plugin_that_a_start_died_in_is_left_out(death: str, place: str, server: Server) -> None:
    """The next start names it with step, time and way out, blocks what needs it, and serves the rest."""
    code, step = PLACES[place]
    server.write("a-first")
    server.write("bad", code.format(death=DEATHS[death]))
    server.write("needs-bad", dependencies=["bad"])
    crashed = server.start()
    assert crashed.signal or crashed.status == 3
    end = server.start()
    assert end.states == {"a-first": "enabled", "bad": "failed", "needs-bad": "blocked"}
    reason = end.reason("bad")
    assert (reason["type"], reason["step"]) == ("SuspectedCrashError", step)
    assert reason["at"][:10] in reason["message"]
    assert "`pixsim7 plugins retry bad`" in reason["message"]
    assert Path(reason["file"]).is_file()
    assert end.said["contradictions"] == []
    assert server.start().states["bad"] == "failed"


def test_who_is_told_of_something_is_to_answer_for_it(server: Server) -> None:
    """Also while another plugin is being enabled, whose hook waits for it; afterwards it is that one's turn again."""
    hook = "async def on_enable() -> None:\n    "
    told = f"async def greet() -> None:\n    {{}}\n{hook}plugin_hooks.register('a:asked', greet)"
    asks = f"{hook}await plugin_hooks.emit('a:asked')\n    {{}}"
    server.write("a", told.format(DEATHS["killed"]))
    server.write("b", asks.format("pass"))
    assert server.start().signal == 9
    assert server.start().reason("a")["step"] == "told of a:asked"
    StartupJournal(server.data / "starts").forget("a")
    server.write("a", told.format("pass"))
    server.write("b", asks.format(DEATHS["killed"]))
    assert server.start().signal == 9
    assert server.start().states == {"a": "enabled", "b": "failed"}


def test_a_second_culprit_is_left_out_too(server: Server) -> None:
    """Each start that dies adds a suspect, until one comes up."""
    death = f"def on_load(app): {DEATHS['killed']}"
    server.write("bad-one", death)
    server.write("bad-two", death)
    server.write("good")
    assert [server.start().signal for _ in range(2)] == [9, 9]
    assert server.start().states == {"bad-one": "failed", "bad-two": "failed", "good": "enabled"}


def test_a_plugin_whose_code_has_changed_gets_another_chance(server: Server) -> None:
    """Mending it is enough; nobody has to say so as well."""
    server.write("bad", f"def on_load(app): {DEATHS['killed']}")
    assert server.start().signal == 9
    assert server.start().states == {"bad": "failed"}
    time.sleep(2.1)  # as old as the note is rounded to
    server.write("bad", old=False)
    assert server.start().states == {"bad": "enabled"}
    assert list((server.data / "starts").iterdir()) == []


def test_a_suspect_that_is_enabled_by_hand_is_none_any_more(server: Server, tmp_path: Path) -> None:
    """A retry on the running server, or forgetting it while none runs, clears it for the next start."""
    death = f"import pathlib\nif pathlib.Path({str(tmp_path / 'deadly')!r}).exists(): {DEATHS['killed']}"
    server.write("bad", death)
    for forget in (
        lambda: server.start(("retry", "bad")).states,
        lambda: StartupJournal(server.data / "starts").forget("bad"),
    ):
        (tmp_path / "deadly").touch()
        assert server.start().signal == 9
        (tmp_path / "deadly").unlink()
        assert server.start().states == {"bad": "failed"}
        forget()
        assert server.start().states == {"bad": "enabled"}


def test_a_required_plugin_that_crashed_stops_the_start_with_its_reason(server: Server) -> None:
    """Without it the server cannot run; with it, it crashes: the error says which and what to do."""
    server.write("bad", f"def on_load(app): {DEATHS['killed']}", required=True)
    assert server.start().signal == 9
    aborted = server.start().said["aborted"]
    assert aborted["required"] == ["bad"]
    assert "while plugin 'bad' was being loaded" in aborted["message"]
    assert "`pixsim7 plugins retry bad`" in aborted["message"]


def test_a_start_that_dies_in_no_plugin_suspects_nobody(server: Server) -> None:
    """Dying before the plugins, between them, or after the start is no plugin's matter."""
    server.write("one")
    for moment in ("adopted", "up one"):
        end = server._zygote.run(Start(plugins=str(server.plugins), data=str(server.data), die_at=moment))
        assert end.signal == (9 if moment == "up one" else 0)
    assert server.start().states == {"one": "enabled"}
    assert list((server.data / "starts").iterdir()) == []


def test_a_hook_that_fails_in_order_suspects_nobody(server: Server) -> None:
    """A failed plugin is a failed plugin; the start has noticed and gone on."""
    server.write("bad", "def on_load(app): raise RuntimeError('no')")
    assert server.start().reason("bad")["type"] == "PluginHookError"
    assert server.start().reason("bad")["type"] == "PluginHookError"


def test_several_workers_start_at_once(server: Server) -> None:
    """Workers that come up together take none of each other for dead; all see what one has died in before."""
    server.write("slow", "async def on_enable(): await asyncio.sleep(0.2)")
    assert [end.states["slow"] for end in server.start_many(6)] == ["enabled"] * 6
    server.write("bad", f"def on_load(app): {DEATHS['killed']}")
    dead = [end for end in server.start_many(4) if end.signal]  # who comes a little later sees who died before
    assert dead
    assert [end.states for end in server.start_many(4)] == [{"slow": "enabled", "bad": "failed"}] * 4


def test_a_directory_that_cannot_be_used_stops_no_start(server: Server) -> None:
    """Without a journal the server starts all the same."""
    server.write("one")
    server.data.mkdir()
    (server.data / "starts").write_text("a file")
    assert server.start().states == {"one": "enabled"}


def test_foreign_files_in_the_directory_do_no_harm(server: Server) -> None:
    """What is not ours, torn or empty is no suspect."""
    server.write("one")
    starts = server.data / "starts"
    starts.mkdir(parents=True)
    (starts / "1-2-3.start").write_text('{"plugin": "one", "st')
    (starts / "2-2-3.start").write_text("[]\n")
    (starts / "one.json").write_text("{}")
    (starts / "two.json").write_text("nonsense")
    assert server.start().states == {"one": "enabled"}


def test_safe_mode_starts_what_is_required_and_nothing_else(server: Server) -> None:
    """Also where the policy is strict; the others say why, and can be enabled by hand."""
    server.write("auth", required=True, dependencies=["base"])
    for each in ("base", "extra", "more"):
        server.write(each)
    end = server.start(("enable", "more"), safe_mode=True, on_plugin_error="strict")
    assert end.states == {"auth": "enabled", "base": "enabled", "extra": "blocked", "more": "enabled"}
    assert end.reason("extra")["type"] == "SafeModeError"
    assert "start without --safe-mode" in end.reason("extra")["message"]
    assert end.said["contradictions"] == []


def test_notes_inside_each_other_and_side_by_side(tmp_path: Path) -> None:
    """The last one that was begun counts, in whatever order they end; nothing grows."""
    journal = StartupJournal(tmp_path)
    journal.begin({})
    (entry,) = tmp_path.glob("*.start")
    outer, first, second = journal.at("outer", "enabled"), journal.at("first", "told"), journal.at("second", "told")
    outer.__enter__()
    for _ in range(1000):
        with journal.at("inner", "told"):
            pass
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert json.loads(entry.read_bytes())["plugin"] == "second"
    second.__exit__(None, None, None)
    assert json.loads(entry.read_bytes())["plugin"] == "outer"
    outer.__exit__(None, None, None)
    assert entry.read_bytes() == b""
    journal.finish()


def test_noting_the_steps_costs_next_to_nothing(tmp_path: Path) -> None:
    """A start is noted with two writes a step, none of which waits for the disk."""
    journal = StartupJournal(tmp_path)
    assert journal.begin({}) == {}
    (entry,) = tmp_path.glob("*.start")
    with journal.at("one", "loaded"):
        assert b'"one"' in entry.read_bytes()
    assert entry.read_bytes() == b""
    journal.finish()
    assert list(tmp_path.iterdir()) == []
