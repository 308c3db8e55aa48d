"""``pixsim7 plugins`` against a server that runs, and without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from pixsim7_backend.cli import main
from pixsim7_backend.cli.plugins_settings import read_patch
from pixsim7_backend.cli.plugins_top import render
from pixsim7_backend.infrastructure.plugins.testing import write_plugin
from pixsim7_backend.settings import Settings
from tests.services import free_port, wait_until

ROOT = Path(__file__).parents[2]
SETTINGS = """
from pydantic import BaseModel, SecretStr
class Settings(BaseModel):
    level: int = 1
    key: SecretStr = SecretStr("")
settings_model = Settings
"""


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Place:
    """A working directory with plugins, and how commands run there."""

    path: Path
    patch: pytest.MonkeyPatch
    captured: pytest.CaptureFixture[str]

    def run(self, *arguments: str) -> Done:
        """Run ``pixsim7 plugins`` with these arguments, and nobody at the keyboard."""
        self.patch.setattr(sys, "argv", ["pixsim7", "plugins", *arguments])
        self.captured.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        text = self.captured.readouterr()
        return Done(int(end.value.code or 0), text.out, text.err)


def write_plugins(path: Path) -> None:
    write_plugin(path / "plugins", "base", '@router.get("/hi")\ndef hi() -> str: return "one"')
    write_plugin(path / "plugins", "top", dependencies=["base"])
    write_plugin(path / "plugins", "sky", SETTINGS)
    write_plugin(path / "plugins", "wrong", "this is no Python")


@pytest.fixture(autouse=True)
def configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting from outside but where the plugins are."""
    for name in (*Settings.model_fields, "disabled_plugins", "on_plugin_error"):
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("PLUGINS_DIR", "plugins")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Place:
    """Plugins and no server."""
    write_plugins(tmp_path)
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path, monkeypatch, capsys)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The working directory and the URL of a server."""
    path, port = tmp_path_factory.mktemp("live"), free_port()
    write_plugins(path)
    names = {name.upper() for name in (*Settings.model_fields, "disabled_plugins", "on_plugin_error")}
    kept = {name: value for name, value in os.environ.items() if name not in names}
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
) -> tuple[Place, str]:
    """Plugins and a server; its URL."""
    path, url = server
    monkeypatch.chdir(path)
    return Place(path, monkeypatch, capsys), url


def hi(url: str) -> int:
    deadline = time.monotonic() + 30
    while True:
        try:
            return httpx.get(f"{url}/base/hi", trust_env=False).status_code
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


# --- with a server --------------------------------------------------------------------------------


def test_switching_a_running_server(live: tuple[Place, str]) -> None:
    """Disabling is refused with the list, planned, asked about, and done; enabling brings all back."""
    place, url = live
    refused = place.run("disable", "base")
    assert refused == Done(
        1, "", "error: plugin 'base' is needed by top; disable them first, or disable with cascade\n"
    )
    planned = place.run("disable", "base", "--cascade", "--dry-run")
    assert planned.status == 0
    assert planned.out.splitlines()[0].startswith("stop     top   plugin 'top' requires 'base'")
    assert planned.out.splitlines()[1] == "stop     base  asked for"
    unsure = place.run("disable", "base", "--cascade")
    assert unsure == Done(2, "", "error: this also concerns top; add --yes, or look first with --dry-run\n")
    assert hi(url) == 200
    done = place.run("disable", "base", "--cascade", "--yes")
    assert (done.status, done.out.splitlines()[-1]) == (0, "base is disabled")
    assert hi(url) == 404
    listed = {row["id"]: row for row in place.run("list", "--json").json}
    assert (listed["base"]["state"], listed["base"]["desired"]) == ("disabled", {"on": False, "by": "operator"})
    assert (listed["top"]["state"], listed["top"]["desired"]["on"]) == ("blocked", True)
    assert "off (operator)" in place.run("list").out
    done = place.run("enable", "base", "--json")
    assert (done.json["live"], [step["id"] for step in done.json["change"]["start"]]) == (True, ["base", "top"])
    assert hi(url) == 200
    assert place.run("enable", "bose").err == "error: no plugin 'bose' is installed; did you mean 'base'?\n"


def test_reload_and_retry_on_a_running_server(live: tuple[Place, str]) -> None:
    """New code is served after a reload; a plugin that was mended runs after a retry, and not before."""
    place, url = live
    manifest = place.path / "plugins" / "base" / "manifest.py"
    manifest.write_text(manifest.read_text().replace("one", "another one"))
    assert place.run("reload", "base", "--yes").out.splitlines()[-1] == "base is enabled"
    assert httpx.get(f"{url}/base/hi", trust_env=False).json() == "another one"
    failed = place.run("retry", "wrong")
    assert (failed.status, "syntax error" in failed.err) == (1, True)
    write_plugin(place.path / "plugins", "wrong")
    assert place.run("retry", "wrong").out.splitlines()[-1] == "wrong is enabled"


def test_settings_of_a_running_server(live: tuple[Place, str]) -> None:
    """Settings are shown, tried, changed, refused and taken back; secrets are never shown."""
    place, _ = live
    assert place.run("settings", "sky", "--json").json["values"]["level"] == 1
    tried = place.run("settings", "sky", "--set", "level=2", "--dry-run")
    assert tried.out == "the plugin would accept these settings; nothing was changed\n"
    changed = place.run("settings", "sky", "--set", "level=2", "--set", "key=geheim", "--json")
    assert changed.json["settings"]["values"] == {"level": 2, "key": "**********"}
    assert "geheim" not in changed.out
    wrong = place.run("settings", "sky", "--set", "level=high")
    assert (wrong.status, wrong.out) == (1, "")
    assert "settings of plugin 'sky': level" in wrong.err
    shown = place.run("settings", "sky").out
    assert [line.split() for line in shown.splitlines() if "level" in line] == [["level", "2", "stored", "settings"]]
    assert place.run("settings", "sky", "--unset", "level", "--json").json["settings"]["values"]["level"] == 1


def test_watching_a_running_server(live: tuple[Place, str]) -> None:
    """Happenings, leaks and figures are shown as tables and as JSON."""
    place, url = live
    assert hi(url) == 200
    events = place.run("events", "--plugin", "base", "--json").json
    assert "enabled" in {each["kind"] for each in events["happenings"]}
    assert {each["plugin"] for each in events["happenings"]} == {"base"}
    assert "enabled" in place.run("events").out
    assert place.run("leaks").status == 0
    figures = {each["plugin"]: each for each in place.run("top", "--json").json}
    assert figures["base"]["requests"] >= 1
    assert "requests" in place.run("top", "--once").out


# --- without one ----------------------------------------------------------------------------------


def test_switching_for_the_next_start(place: Place) -> None:
    """Without a server the next start's difference is shown and stored; the plan then follows it."""
    assert [row["startup"] for row in place.run("list", "--json").json] == ["ready", "ready", "ready", "failed"]
    assert not (place.path / "data").exists()
    refused = place.run("disable", "base")
    assert refused.err == "error: plugin 'base' is needed by top; disable them first, or disable with cascade\n"
    planned = place.run("disable", "base", "--cascade", "--dry-run")
    assert planned.out.startswith("no server runs here; what the next start will do differently:\nstop     top ")
    assert place.run("plan", "--json").json["order"] == ["base", "sky", "top"]
    assert place.run("disable", "base", "--cascade").status == 2
    done = place.run("disable", "base", "--cascade", "--yes")
    assert (done.status, done.out.splitlines()[-1]) == (0, "noted that base shall be disabled")
    assert place.run("plan", "--json").json["order"] == ["sky"]
    assert place.run("enable", "top").status == 1
    answer = place.run("enable", "base", "--json").json
    assert (answer["live"], [step["id"] for step in answer["change"]["start"]]) == (False, ["base", "top"])
    assert place.run("enable", "wrong").status == 1
    assert place.run("enable", "bose").err == "error: no plugin 'bose' is installed; did you mean 'base'?\n"


@pytest.mark.parametrize("command", [["reload", "base"], ["retry", "base"], ["leaks"], ["events"], ["top"]])
def test_what_needs_a_server_says_so(place: Place, command: list[str]) -> None:
    """Commands about what runs name the socket they looked at and the way out."""
    done = place.run(*command)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("error: no server runs here (nobody answers at data/control.sock); start one with")


def test_settings_without_a_server(place: Place) -> None:
    """Stored settings are shown and can be removed; setting them is left to a server, with another way out."""
    refused = place.run("settings", "sky", "--set", "level=3")
    assert (refused.status, refused.out) == (1, "")
    assert "PLUGIN_SKY__<KEY>" in refused.err
    assert place.run("settings", "sky", "--json").json == {
        "live": False, "plugin": "sky", "stored": {}, "dry_run": False,
    }  # fmt: skip
    assert place.run("settings", "sky", "--unset", "level").status == 0
    assert place.run("settings", "sky", "--set", "level").status == 2


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
            "plugin": plugin, "requests": requests, "errors": 0, "in_flight": 0, "latency": latency,
            "loop_seconds": loop, "stalls": 1, "stalled_seconds": 0.25, "tasks": 0, "subscriptions": 2,
            "memory_bytes": 2048,
        }  # fmt: skip

    before = [figures("calm", 10, 1.0), figures("busy", 10, 1.0)]
    table = render([figures("calm", 12, 1.1), figures("busy", 30, 2.0)], before, seconds=2.0)
    cells = [[str(cell) for cell in column.cells] for column in table.columns]
    assert [column[0] for column in cells] == [
        "busy", "30", "10.0", "0", "≤ 5 ms", "> 10000 ms", "0", "50.0%", "1 (0.2 s)", "0", "2", "2 KiB",
    ]  # fmt: skip
    assert cells[0] == ["busy", "calm"]
