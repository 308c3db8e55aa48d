"""The ways out when a plugin makes the backend useless: safe mode, and the search for the culprit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from pixsim7_backend.infrastructure.plugins import StartupJournal
from pixsim7_backend.infrastructure.plugins.testing import write_plugin
from pixsim7_backend.main import create_app, lifespan
from pixsim7_backend.settings import load_settings
from tests.command_line import CommandLine

PIXSIM7 = [sys.executable, "-m", "pixsim7_backend"]


@pytest.mark.anyio
async def test_safe_mode_serves_auth_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend is ready with required plugins only; readyz names the mode, and every plugin it leaves out."""
    monkeypatch.setenv("SAFE_MODE", "1")
    app = create_app(load_settings(data_dir=tmp_path))
    transport = httpx.ASGITransport(app=app)
    async with lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://backend.test") as client:
        answer = await client.get("/readyz")
        login = await client.post("/api/v1/auth/login", json={"username": "nobody", "password": "wrong"})
    assert answer.status_code == 200
    checks = {each["name"]: each for each in answer.json()["checks"]}
    assert checks["safe mode"]["state"] == "degraded"
    assert "left out in safe mode" in checks["plugin game-worlds"]["reason"]
    assert "plugin auth" not in checks
    assert login.status_code in (401, 422)


def bisect(directory: Path, *arguments: str, command: str) -> tuple[int, Any, str]:
    """Run the search over the plugins of a directory with a Python program; return status, JSON and progress."""
    done = subprocess.run(
        [
            *PIXSIM7,
            "plugins",
            "bisect",
            "--json",
            "--dir",
            str(directory),
            *arguments,
            "--",
            sys.executable,
            "-c",
            command,
        ],
        env={**os.environ, "DATA_DIR": str(directory / "data")},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


def bad_with(*plugins: str) -> str:
    """Return a program that fails where these plugins are all enabled."""
    return f"""
import os, sys
off = set(os.environ["DISABLED_PLUGINS"].split(","))
assert os.environ["REMEMBER_CRASHES"] == "false"
sys.exit(3 if not off & {set(plugins)!r} else 0)
"""


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Twenty plugins, each of which requires the one before the last."""
    for number in range(20):
        write_plugin(tmp_path, f"p{number:02}", dependencies=[f"p{number - 2:02}"] if number > 1 else [])
    return tmp_path


def test_bisect_finds_one_culprit_among_many(many: Path) -> None:
    """With a few runs, each told in a line; the exit status says that it was found."""
    status, found, progress = bisect(many, command=bad_with("p13"))
    assert (status, found["ending"], found["culprits"]) == (0, "found", ["p13"])
    assert len(found["runs"]) <= 8
    assert progress.splitlines()[0].startswith("run 1: 20 plugins: bad (ended with 3, ")


def test_bisect_finds_two_that_are_bad_only_together(many: Path) -> None:
    """Both are named, and nothing else."""
    status, found, _ = bisect(many, command=bad_with("p04", "p11"))
    assert (status, found["culprits"]) == (0, ["p04", "p11"])


def test_bisect_says_when_there_is_nothing_to_find(many: Path) -> None:
    """A command that never fails, or always, blames no plugin; one that cannot be run ends the search."""
    assert bisect(many, command="")[:2][0] == 1
    status, found, _ = bisect(many, command="raise SystemExit(1)")
    assert (status, found["ending"], len(found["runs"])) == (1, "always bad", 2)
    status, found, error = bisect(many, command="raise SystemExit(127)")
    assert (status, found) == (2, None)
    assert "was not found (exit status 127)" in error


def test_a_crash_is_forgotten_when_somebody_says_so_without_a_server(tmp_path: Path) -> None:
    """The way out that the reason names works while nothing runs; a second time there is nothing to forget."""
    journal = StartupJournal(tmp_path / "starts")
    journal.begin({})
    with suppress(KeyboardInterrupt), journal.at("game-stealth", "loaded"):
        raise KeyboardInterrupt
    journal.finish()
    later = StartupJournal(tmp_path / "starts")
    assert list(later.begin({})) == ["game-stealth"]
    later.finish()

    def retry() -> subprocess.CompletedProcess[str]:
        command = [*PIXSIM7, "plugins", "retry", "game_stealth"]
        environ = {**os.environ, "DATA_DIR": str(tmp_path)}
        return subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = retry()
    assert (done.returncode, done.stdout) == (0, "the next start tries game-stealth again\n"), done.stderr
    assert StartupJournal(tmp_path / "starts").begin({}) == {}
    assert retry().returncode == 1


def died_in(directory: Path, plugin: str) -> None:
    """Leave what a start leaves that is killed while it loads a plugin."""
    code = (
        "import os, sys; from pathlib import Path; from pixsim7_backend.infrastructure.plugins import StartupJournal\n"
        "journal = StartupJournal(Path(sys.argv[1])); journal.begin({})\n"
        "with journal.at(sys.argv[2], 'loaded'): os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(directory / "data" / "starts"), plugin], check=False)


def test_the_command_line_says_what_the_next_start_leaves_out_after_a_crash(run: CommandLine) -> None:
    """Who, when, why and the way out, for people and programs; the way out works before any other start."""
    write_plugin(run.path / "mine", "bad")
    write_plugin(run.path / "mine", "needs", dependencies=["bad"])
    run.patch.setenv("PLUGINS_DIR", "mine")
    assert {row["startup"] for row in run("plugins", "list", "--json").json} == {"ready"}
    died_in(run.path, "bad")
    rows = {row["id"]: row for row in run("plugins", "list", "--json").json}
    assert (rows["bad"]["startup"], rows["needs"]["startup"]) == ("failed", "blocked")
    assert "while plugin 'bad' was being loaded, before the start had finished" in rows["bad"]["reason"]
    assert "you run `pixsim7 plugins retry bad`" in rows["bad"]["reason"]
    assert "before the start had finished" in run("plugins", "list").out
    planned = run("plugins", "plan", "--json")
    assert (planned.status, planned.json["held"]["bad"]["type"]) == (1, "SuspectedCrashError")
    assert "pixsim7 plugins retry bad" in run("plugins", "plan").out
    assert "pixsim7 plugins retry bad" in run("plugins", "enable", "bad").err
    run.patch.setenv("REMEMBER_CRASHES", "false")
    assert run("plugins", "plan").status == 0
    run.patch.delenv("REMEMBER_CRASHES")
    assert run("plugins", "retry", "bad", "--dry-run").out == "the next start would try bad again\n"
    assert run("plugins", "plan").status == 1
    assert run("plugins", "retry", "bad", "--json").json == {"live": False, "plugin": "bad", "dry_run": False}
    assert run("plugins", "plan").status == 0


def test_the_way_out_works_before_another_start_has_looked(run: CommandLine) -> None:
    """What a dead start left counts at once, not only after the next start has turned it into a suspect."""
    write_plugin(run.path / "mine", "bad")
    run.patch.setenv("PLUGINS_DIR", "mine")
    died_in(run.path, "bad")
    assert run("plugins", "retry", "bad").out == "the next start tries bad again\n"


def test_the_command_line_plans_for_safe_mode(run: CommandLine) -> None:
    """Where the setting is on, list and plan show what it leaves out."""
    run.patch.setenv("SAFE_MODE", "true")
    rows = {row["id"]: row for row in run("plugins", "list", "--json").json}
    assert rows["auth"]["startup"] == "ready"
    assert "left out in safe mode" in rows["game-stealth"]["reason"]


def test_code_that_was_upgraded_is_no_longer_suspected(run: CommandLine, tmp_path: Path) -> None:
    """Another version is another chance, also when it is an older one that was rolled back to."""
    run.patch.setenv("EXTRA_PLUGINS_DIRS", "mine")
    run.path.joinpath("mine").mkdir()
    for version in ("1.0.0", "2.0.0"):
        source = write_plugin(tmp_path / version, "quest", version=version)
        assert run("plugins", "add", str(source), "--upgrade", "--into", "mine").status == 0
    died_in(run.path, "quest")
    assert run("plugins", "rollback", "quest", "--dry-run", "--json").json["will_run"] is True
    assert run("plugins", "plan").status == 1
    assert run("plugins", "rollback", "quest").status == 0
    assert run("plugins", "plan").status == 0
