"""``pixsim7 plugins`` against a server that runs, and without one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pixsim7_backend.cli.plugins_settings import read_patch
from pixsim7_backend.cli.plugins_top import render, render_confined
from pixsim7_backend.infrastructure.plugins.testing import write_plugin
from tests import plain_http
from tests.command_line import SETTING_NAMES, CommandLine, Done
from tests.services import free_port, wait_until

ROOT = Path(__file__).parents[2]
SETTINGS = """
from pydantic import BaseModel, SecretStr
class Settings(BaseModel):
    level: int = 1
    key: SecretStr = SecretStr("")
settings_model = Settings
"""

NEEDED = (
    "error: plugin 'base' is needed by top; disable them first, or all at once (--cascade; the API: cascade=true)\n"
)


def write_plugins(path: Path) -> None:
    write_plugin(path / "plugins", "base", '@router.get("/hi")\ndef hi() -> str: return "one"')
    write_plugin(path / "plugins", "top", dependencies=["base"])
    write_plugin(path / "plugins", "sky", SETTINGS)
    write_plugin(path / "plugins", "wrong", "this is no Python")


@pytest.fixture(autouse=True)
def configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting from outside but where the plugins are."""
    for name in SETTING_NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PLUGINS_DIR", "plugins")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Plugins and no server."""
    write_plugins(tmp_path)
    monkeypatch.chdir(tmp_path)
    return CommandLine(tmp_path, monkeypatch, capsys, ("plugins",))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The working directory and the URL of a server."""
    path, port = tmp_path_factory.mktemp("live"), free_port()
    write_plugins(path)
    kept = {name: value for name, value in os.environ.items() if name not in SETTING_NAMES}
    command = [sys.executable, "-m", "pixsim7_backend", "serve", "--port", str(port)]
    with (path / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=path, env=kept | {"PYTHONPATH": str(ROOT), "PLUGINS_DIR": "plugins"}, stdout=log, stderr=log
        )
    try:
        is_up = wait_until((path / "data" / "control.sock").exists, 60)
        assert is_up, (path / "log").read_text()
        yield path, f"http://127.0.0.1:{port}/api/v1"
    finally:
        process.terminate()
        process.wait(30)
    assert not (path / "data" / "control.sock").exists()


@pytest.fixture
def live(
    server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[CommandLine, str]:
    """Plugins and a server; its URL."""
    path, url = server
    monkeypatch.chdir(path)
    return CommandLine(path, monkeypatch, capsys, ("plugins",)), url


def hi(url: str) -> int:
    deadline = time.monotonic() + 30
    while True:
        try:
            return plain_http.get(f"{url}/base/hi").status_code
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


# --- with a server --------------------------------------------------------------------------------


def test_switching_a_running_server(live: tuple[CommandLine, str]) -> None:
    """Disabling is refused with the list, planned, asked about, and done; enabling brings all back."""
    place, url = live
    refused = place("disable", "base")
    assert refused == Done(
        1,
        "",
        NEEDED,
    )
    planned = place("disable", "base", "--cascade", "--dry-run")
    assert planned.status == 0
    assert planned.out.splitlines()[0].startswith("stop     top   plugin 'top' requires 'base'")
    assert planned.out.splitlines()[1] == "stop     base  asked for"
    unsure = place("disable", "base", "--cascade")
    assert unsure == Done(2, "", "error: this also concerns top; add --yes, or look first with --dry-run\n")
    assert hi(url) == 200
    done = place("disable", "base", "--cascade", "--yes")
    assert (done.status, done.out.splitlines()[-1]) == (0, "base is disabled")
    assert hi(url) == 404
    listed = {row["id"]: row for row in place("list", "--json").json}
    assert (listed["base"]["state"], listed["base"]["desired"]) == ("disabled", {"on": False, "by": "operator"})
    assert (listed["top"]["state"], listed["top"]["desired"]["on"]) == ("blocked", True)
    assert "off (operator)" in place("list").out
    done = place("enable", "base", "--json")
    assert (done.json["live"], [step["id"] for step in done.json["change"]["start"]]) == (True, ["base", "top"])
    assert hi(url) == 200
    assert place("enable", "bose").err == "error: no plugin 'bose' is installed; did you mean 'base'?\n"


def test_reload_and_retry_on_a_running_server(live: tuple[CommandLine, str]) -> None:
    """New code is served after a reload; a plugin that was mended runs after a retry, and not before."""
    place, url = live
    manifest = place.path / "plugins" / "base" / "manifest.py"
    manifest.write_text(manifest.read_text().replace("one", "another one"))
    assert place("reload", "base", "--yes").out.splitlines()[-1] == "base is enabled"
    assert plain_http.get(f"{url}/base/hi").json() == "another one"
    failed = place("retry", "wrong")
    assert (failed.status, "syntax error" in failed.err) == (1, True)
    write_plugin(place.path / "plugins", "wrong")
    assert place("retry", "wrong").out.splitlines()[-1] == "wrong is enabled"


def test_settings_of_a_running_server(live: tuple[CommandLine, str]) -> None:
    """Settings are shown, tried, changed, refused and taken back; secrets are never shown."""
    place, _ = live
    assert place("settings", "sky", "--json").json["values"]["level"] == 1
    tried = place("settings", "sky", "--set", "level=2", "--dry-run")
    assert tried.out == "the plugin would accept these settings; nothing was changed\n"
    changed = place("settings", "sky", "--set", "level=2", "--set", "key=geheim", "--json")
    assert changed.json["settings"]["values"] == {"level": 2, "key": "**********"}
    assert "geheim" not in changed.out
    wrong = place("settings", "sky", "--set", "level=high")
    assert (wrong.status, wrong.out) == (1, "")
    assert "settings of plugin 'sky': level" in wrong.err
    shown = place("settings", "sky").out
    assert [line.split() for line in shown.splitlines() if "level" in line] == [["level", "2", "stored", "settings"]]
    assert place("settings", "sky", "--unset", "level", "--json").json["settings"]["values"]["level"] == 1


def test_watching_a_running_server(live: tuple[CommandLine, str]) -> None:
    """Happenings, leaks and figures are shown as tables and as JSON."""
    place, url = live
    assert hi(url) == 200
    events = place("events", "--plugin", "base", "--json").json
    assert "enabled" in {each["kind"] for each in events["happenings"]}
    assert {each["plugin"] for each in events["happenings"]} == {"base"}
    assert "enabled" in place("events").out
    assert place("leaks").status == 0
    figures = {each["plugin"]: each for each in place("top", "--json").json}
    assert figures["base"]["requests"] >= 1
    assert "requests" in place("top", "--once").out


# --- without one ----------------------------------------------------------------------------------


def test_switching_for_the_next_start(place: CommandLine) -> None:
    """Without a server the next start's difference is shown and stored; the plan then follows it."""
    assert [row["startup"] for row in place("list", "--json").json] == ["ready", "ready", "ready", "failed"]
    assert not (place.path / "data").exists()
    refused = place("disable", "base")
    assert refused.err == NEEDED
    planned = place("disable", "base", "--cascade", "--dry-run")
    assert planned.out.startswith("no server runs here; what the next start will do differently:\nstop     top ")
    assert place("plan", "--json").json["order"] == ["base", "sky", "top"]
    assert place("disable", "base", "--cascade").status == 2
    done = place("disable", "base", "--cascade", "--yes")
    assert (done.status, done.out.splitlines()[-1]) == (0, "noted that base shall be disabled")
    assert place("plan", "--json").json["order"] == ["sky"]
    assert place("enable", "top").status == 1
    answer = place("enable", "base", "--json").json
    assert (answer["live"], [step["id"] for step in answer["change"]["start"]]) == (False, ["base", "top"])
    assert place("enable", "wrong").status == 1
    assert place("enable", "bose").err == "error: no plugin 'bose' is installed; did you mean 'base'?\n"


@pytest.mark.parametrize("command", [["reload", "base"], ["retry", "base"], ["leaks"], ["events"], ["top"]])
def test_what_needs_a_server_says_so(place: CommandLine, command: list[str]) -> None:
    """Commands about what runs name the socket they looked at and the way out."""
    done = place(*command)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("error: no server runs here (nobody answers at data/control.sock); start one with")


def test_settings_without_a_server(place: CommandLine) -> None:
    """Stored settings are shown and can be removed; setting them is left to a server, with another way out."""
    refused = place("settings", "sky", "--set", "level=3")
    assert (refused.status, refused.out) == (1, "")
    assert "PLUGIN_SKY__<KEY>" in refused.err
    assert place("settings", "sky", "--json").json == {
        "live": False, "plugin": "sky", "stored": {}, "dry_run": False,
    }  # fmt: skip
    assert place("settings", "sky", "--unset", "level").status == 0
    assert place("settings", "sky", "--set", "level").status == 2
    assert "no plugin 'skye' is installed; did you mean 'sky'?" in place("settings", "skye").err


# --- pieces ---------------------------------------------------------------------------------------


def test_arguments_become_a_merge_patch() -> None:
    """Values are JSON or else texts, dots lead into objects, and unset ones are null."""
    values = ["level=3", "name=sky", "on=true", "colours.day=blue", "colours.night=[1]", "text==x"]
    assert read_patch(values, ["gone", "colours.dusk"]) == {
        "level": 3,
        "name": "sky",
        "on": True,
        "colours": {"day": "blue", "night": [1], "dusk": None},
        "text": "=x",
        "gone": None,
    }


def test_top_puts_the_busiest_first() -> None:
    """Rates are since the look before; who used the loop most stands first."""

    def figures(plugin: str, requests: int, loop: float) -> dict[str, Any]:
        latency = {"bounds": [0.005, 10.0], "counts": [requests, 0, 0], "p50": 0.005, "p95": None}
        return {
            "plugin": plugin, "requests": requests, "errors": 0, "refused": {"rate": 2, "concurrency": 1},
            "in_flight": 0, "latency": latency,
            "loop_seconds": loop, "stalls": 1, "stalled_seconds": 0.25, "tasks": 0, "subscriptions": 2,
            "memory_bytes": 2048,
        }  # fmt: skip

    before = [figures("calm", 10, 1.0), figures("busy", 10, 1.0)]
    table = render([figures("calm", 12, 1.1), figures("busy", 30, 2.0)], before, seconds=2.0)
    cells = [[str(cell) for cell in column.cells] for column in table.columns]
    assert [column[0] for column in cells] == [
        "busy", "30", "10.0", "0", "3", "≤ 5 ms", "> 10000 ms", "0", "50.0%", "1 (0.2 s)", "0", "2", "2 KiB",
    ]  # fmt: skip
    assert cells[0] == ["busy", "calm"]


def test_confined_plugins_are_shown_with_their_processes_and_calls() -> None:
    """Rates are since the look before; the share of the minute that is used up most is named."""

    def figures(cpu: float, calls: int, phase: str = "up") -> dict[str, Any]:
        confined = {
            "phase": phase, "starts": 2, "crashes": 1, "cpu_seconds": cpu, "memory_bytes": 40 << 20, "threads": 3,
            "scratch_bytes": 1 << 20,
            "calls": {"db.calls": calls, "db.statements": 4, "db.rows": 9, "http.calls": 1},
            "calls_this_minute": {"db.rows": 9, "http.calls": 1}, "calls_per_minute": {"db.rows": 10, "http.calls": 2},
            "calls_refused": {"db.rows": 5},
        }  # fmt: skip
        return {"plugin": "census", "confined": confined}

    table = render_confined([figures(3.0, 14), {"plugin": "own", "confined": None}], [figures(2.0, 10)], seconds=2.0)
    assert [[str(cell) for cell in column.cells] for column in table.columns] == [
        ["census"], ["up"], ["2"], ["1"], ["50.0%"], ["3.0 s"], ["40.0 MiB"], ["3"], ["1.0 MiB"],
        ["15"], ["2.0"], ["4"], ["9"], ["90% db.rows"], ["5"],
    ]  # fmt: skip
