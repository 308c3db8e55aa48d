from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI

from pixsim7_backend.db import default_database
from pixsim7_backend.infrastructure.plugins.testing import write_plugin
from pixsim7_backend.main import create_app
from pixsim7_backend.settings import Settings, load_settings
from tests.databases import fresh_database
from tests.plain_http import answers
from tests.services import free_port, wait_until

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
FIRST_PARTY = ["auth", "game-locations", "game-npcs", "game-scenes", "game-sessions", "game-stealth", "game-worlds"]


def settings_for(place: Path, **values: Any) -> Settings:
    return Settings(data_dir=place / "data", log_format="console", **values)


@asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client


@pytest.fixture(autouse=True)
def no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory of its own, and no setting from outside."""
    monkeypatch.chdir(tmp_path)
    for name in (*Settings.model_fields, "disabled_plugins", "on_plugin_error"):
        monkeypatch.delenv(name.upper(), raising=False)


async def test_backend_is_ready_with_all_its_plugins(tmp_path: Path) -> None:
    """Started in an empty place the backend makes its database and serves every first-party plugin."""
    app = create_app(settings_for(tmp_path))
    async with running(app) as client:
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["ready"]) == (200, True)
        assert {check["state"] for check in ready.json()["checks"]} == {"ok"}
        loaded = [record.id for record in app.state.plugin_manager.list_plugins()]
        assert sorted(loaded) == [*FIRST_PARTY, "users"]
        assert (await client.post("/api/v1/game/stealth/pickpocket", content=b"{}")).status_code == 401
    assert (tmp_path / "data" / "pixsim7.sqlite3").exists()


async def test_environment_names_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without settings in hand the app reads them when it starts, not when it is made."""
    app = create_app()
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "elsewhere"))
    async with running(app):
        assert default_database().file == tmp_path / "elsewhere" / "pixsim7.sqlite3"
    assert (tmp_path / "elsewhere" / "pixsim7.sqlite3").exists()


async def test_bad_plugin_degrades_but_does_not_unready(tmp_path: Path) -> None:
    """A plugin of somebody else that cannot be loaded is listed with its reason; the backend keeps serving."""
    folder = write_plugin(tmp_path / "more", "broken", "this is no Python")
    app = create_app(settings_for(tmp_path, extra_plugins_dirs=(str(folder.parent),)))
    async with running(app) as client:
        answer = await client.get("/readyz")
        assert answer.status_code == 200
        [check] = [each for each in answer.json()["checks"] if each["name"] == "plugin broken"]
        assert check["state"] == "degraded"
        assert "invalid syntax" in check["reason"]


async def test_disabled_required_plugin_makes_unready(tmp_path: Path) -> None:
    """While a required plugin is off the backend is not ready, and says which it is."""
    write_plugin(tmp_path / "own", "vital", required=True)
    write_plugin(tmp_path / "own", "other")
    app = create_app(settings_for(tmp_path, plugins_dir=str(tmp_path / "own")))
    async with running(app) as client:
        assert (await client.get("/readyz")).status_code == 200
        await app.state.plugin_manager.disable("vital")
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["checks"][-1]["name"] == "plugin vital"
        assert answer.json()["checks"][-1]["state"] == "failing"


async def test_no_plugin_at_all_is_not_ready(tmp_path: Path) -> None:
    """A backend without a single enabled plugin answers nothing and says so."""
    (tmp_path / "own").mkdir()
    app = create_app(settings_for(tmp_path, plugins_dir=str(tmp_path / "own")))
    async with running(app) as client:
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["checks"][-1]["reason"] == "no plugin is enabled; the log of the start-up says why"


async def test_redis_is_looked_at_where_it_is_configured(tmp_path: Path) -> None:
    """A configured Redis that does not answer makes the backend unready; an unconfigured one is not mentioned."""
    write_plugin(tmp_path / "own", "other")
    (tmp_path / "config.yaml").write_text(f"REDIS_URL: redis://127.0.0.1:{free_port()}/0\n")
    app = create_app(load_settings(data_dir=tmp_path / "data", plugins_dir=str(tmp_path / "own")))
    async with running(app) as client:
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        [check] = [each for each in answer.json()["checks"] if each["name"] == "redis"]
        assert check["state"] == "failing"
        assert "REDIS_URL" in check["reason"]


async def test_external_database_waits_for_its_migrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On PostgreSQL the server changes no table: it is unready until `pixsim7 db upgrade` has run."""
    with fresh_database("postgresql", tmp_path) as url:
        monkeypatch.setenv("DATABASE_URL", url)
        app = create_app()
        async with running(app) as client:
            before = await client.get("/readyz")
            assert before.status_code == 503
            [check] = [each for each in before.json()["checks"] if each["name"] == "migrations"]
            assert check["reason"].startswith("pending for auth, ")
            assert check["reason"].endswith("run `pixsim7 db upgrade`")
            command = [sys.executable, "-m", "pixsim7_backend", "db", "upgrade"]
            await anyio.run_process(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
            assert (await client.get("/readyz")).status_code == 200


def test_guide_lines_are_visible_under_plain_uvicorn(tmp_path: Path) -> None:
    """`uvicorn pixsim7_backend.main:app` prints the guide's lines, serves, and stops cleanly on SIGTERM."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "pixsim7_backend.main:app", "--port", str(port)]
    environment = {**os.environ, "LOG_FORMAT": "console", "PYTHONPATH": str(ROOT)}
    log = tmp_path / "log.txt"
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=stderr, stdout=stderr)
    try:
        assert wait_until(lambda: answers(f"http://127.0.0.1:{port}/healthz")), log.read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    text = log.read_text()
    assert re.search(r"INFO: Discovered 8 plugins: \['auth', 'game_locations', ", text)
    assert "INFO: Loaded plugin: Game Stealth & Pickpocket v1.0.0\n" in text
    assert "INFO: Loaded 8 plugins\n" in text
    assert "Application shutdown complete" in text
    assert "Traceback" not in text


def test_workers_share_the_embedded_database(tmp_path: Path) -> None:
    """`WORKERS=3 pixsim7 serve` in an empty place migrates once, serves, and stops all its processes."""
    port = free_port()
    environment = {**os.environ, "WORKERS": "3", "PORT": str(port), "LOG_FORMAT": "console", "PYTHONPATH": str(ROOT)}
    log = tmp_path / "log.txt"
    with log.open("wb") as stderr:
        command = [sys.executable, "-m", "pixsim7_backend", "serve"]
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=stderr)
    try:
        assert wait_until(lambda: log.read_text().count("Application startup complete") == 3, 60), log.read_text()
        assert answers(f"http://127.0.0.1:{port}/healthz")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    text = log.read_text()
    assert text.count("Migrated the tables of auth to 0001") == 1
    assert text.count("Application shutdown complete") == 3
    assert "Traceback" not in text


@pytest.mark.parametrize("workers", ["1", "2"])
def test_start_that_fails_says_why_in_a_sentence(tmp_path: Path, workers: str) -> None:
    """A start-up that cannot succeed ends with status 1 and the reason: no traceback, no second try."""
    environment = {**os.environ, "SECRET_KEY": "short", "LOG_FORMAT": "console", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pixsim7_backend", "serve", "--port", str(free_port()), "--workers", workers]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "SECRET_KEY has fewer than 32 bytes; set it to " in done.stderr
    assert "ERROR: start-up aborted, required plugins cannot run (auth); the lines above say why\n" in done.stderr
    assert "Traceback" not in done.stderr


def test_unusable_setting_under_plain_uvicorn_is_a_sentence(tmp_path: Path) -> None:
    """Also where uvicorn is started directly, a wrong setting is told without a traceback."""
    command = [sys.executable, "-m", "uvicorn", "pixsim7_backend.main:app", "--port", str(free_port())]
    environment = {**os.environ, "WORKERS": "many", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert "start-up aborted: WORKERS: input should be a valid integer" in done.stderr
    assert "Traceback" not in done.stderr


async def test_bug_in_a_start_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody foresaw is reported with the place in the code."""

    def broken() -> Settings:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("pixsim7_backend.main.load_settings", broken)
    sent: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises(ZeroDivisionError):
        await create_app()({"type": "lifespan", "state": {}}, receive, send)
    assert sent[0]["type"] == "lifespan.startup.failed"
    assert "ZeroDivisionError: a bug" in sent[0]["message"]
