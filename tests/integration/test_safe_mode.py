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
