from __future__ import annotations

import functools
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio.to_thread
import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from pixsim7_backend.db import Database
from pixsim7_backend.infrastructure.plugins import PluginManager, PluginState, ports
from pixsim7_backend.infrastructure.plugins.admin import request
from pixsim7_backend.main import create_app
from pixsim7_backend.settings import Settings
from tests.services import free_port, wait_until

pytestmark = pytest.mark.anyio
AT = "/api/v1/admin/plugins"
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory of its own, no setting from outside, and passwords that cost next to nothing."""
    monkeypatch.chdir(tmp_path)
    for name in (*Settings.model_fields, "disabled_plugins", "on_plugin_error"):
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in {"TIME": "1", "MEMORY_KIB": "8", "LANES": "1"}.items():
        monkeypatch.setenv(f"AUTH_ARGON2_{name}", value)


@dataclass(frozen=True, kw_only=True)
class Operated:
    app: FastAPI
    client: httpx.AsyncClient
    admin: dict[str, str]
    user: dict[str, str]
    socket: Path

    @property
    def manager(self) -> PluginManager:
        manager: PluginManager = self.app.state.plugin_manager
        return manager

    async def ask(self, **message: Any) -> dict[str, Any]:
        """Send a request to the control socket."""
        return await anyio.to_thread.run_sync(functools.partial(request, self.socket, message, timeout=30))


@asynccontextmanager
async def operated(place: Path, **values: Any) -> AsyncIterator[Operated]:
    """The real backend, with an admin and a user."""
    app = create_app(Settings(data_dir=place / "data", log_format="console", **values))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            admin, user = [await _register(client, name) for name in ("admin", "user")]
            await anyio.to_thread.run_sync(_make_admin, app.state.database)
            yield Operated(app=app, client=client, admin=admin, user=user, socket=place / "data" / "control.sock")


async def _register(client: httpx.AsyncClient, name: str) -> dict[str, str]:
    account = {"email": f"{name}@example.com", "username": name, "password": "correct horse battery"}
    answer = await client.post("/api/v1/auth/register", json=account)
    assert answer.status_code == 201, answer.text
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def _make_admin(database: Database) -> None:
    with database.session() as session:
        session.execute(text("UPDATE users SET role = 'admin' WHERE username = 'admin'"))


async def test_only_admins_operate(tmp_path: Path) -> None:
    """Nobody is 401 (with the scheme), a forged token too, a user is 403; an admin sees and switches plugins."""
    async with operated(tmp_path) as backend:
        client = backend.client
        for headers, status in (({}, 401), ({"Authorization": "Bearer nonsense"}, 401), (backend.user, 403)):
            for method, path in (("GET", AT), ("GET", f"{AT}/plan"), ("POST", f"{AT}/game-stealth/disable")):
                answer = await client.request(method, path, headers=headers)
                assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
                if status == 401:
                    assert answer.headers["www-authenticate"] == "Bearer"
        answer = await client.patch(f"{AT}/users/settings", content=b"{broken")
        assert answer.status_code == 401
        assert backend.manager.get("game-stealth").state is PluginState.ENABLED
        answer = await client.post(f"{AT}/game-stealth/disable", headers=backend.admin)
        assert answer.json()["plugin"]["state"] == "disabled"
        assert (await client.post("/api/v1/game/stealth/pickpocket", json={})).status_code == 404
        assert (await client.post(f"{AT}/game-stealth/enable", headers=backend.admin)).status_code == 200
        assert (await client.post("/api/v1/game/stealth/pickpocket", json={})).status_code == 401
        refused = await client.post(f"{AT}/game-npcs/disable", headers=backend.admin)
        assert (refused.status_code, refused.json()["error"]["dependants"]) == (409, ["game-stealth"])
        assert refused.json()["request_id"]


async def test_desired_state_survives_a_restart(tmp_path: Path) -> None:
    """What was switched by the API is still so after a restart, and the record says by whom."""
    async with operated(tmp_path) as backend:
        await backend.client.post(f"{AT}/game-npcs/disable?cascade=true", headers=backend.admin)
    app = create_app(Settings(data_dir=tmp_path / "data", log_format="console"))
    async with app.router.lifespan_context(app):
        shown = app.state.plugin_manager.describe("game-npcs")
        assert (shown["state"], shown["desired"]) == ("disabled", {"on": False, "by": "operator"})
        assert app.state.plugin_manager.describe("game-stealth")["state"] == "blocked"


async def test_socket_works_while_nobody_can_log_in(tmp_path: Path) -> None:
    """Without the auth plugin the API answers 503 and names the way in, which is open; then all is as before."""
    async with operated(tmp_path) as backend:
        stopped = await backend.ask(command="disable", id="auth", cascade=True)
        assert len(stopped["result"]["change"]["stop"]) == len(list(backend.manager.iter_records()))
        answer = await backend.client.get(AT, headers=backend.admin)
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
        assert "the auth plugin does not run" in answer.json()["detail"]
        assert "`pixsim7 plugins list`" in answer.json()["detail"]
        assert (await backend.ask(command="enable", id="auth"))["ok"] is True
        assert (await backend.client.get(AT, headers=backend.admin)).status_code == 200
        assert {each.state for each in backend.manager.iter_records()} == {PluginState.ENABLED}


async def test_guard_follows_a_reloaded_auth_plugin(tmp_path: Path) -> None:
    """After the auth plugin was replaced its new code guards; nobody else gets in."""
    async with operated(tmp_path) as backend:
        before = backend.manager.get("auth").generation
        answer = await backend.client.post(f"{AT}/auth/reload", headers=backend.admin)
        assert answer.status_code == 200, answer.text
        assert backend.manager.get("auth").generation == before + 1
        assert (await backend.client.get(AT, headers=backend.admin)).status_code == 200
        assert (await backend.client.get(AT, headers=backend.user)).status_code == 403
        assert (await backend.client.get(AT)).status_code == 401


async def test_broken_guard_lets_nobody_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard that fails is answered by 503 without what it raised, and keeps the socket open."""

    async def guard(*_: object) -> None:
        raise RuntimeError("secret detail")

    async with operated(tmp_path) as backend:
        monkeypatch.setattr(ports, "find", lambda _: guard)
        answer = await backend.client.get(AT, headers=backend.admin)
        assert answer.status_code == 503
        assert "secret detail" not in answer.text
        assert (await backend.ask(command="plan"))["ok"] is True


async def test_admin_api_is_described_once(tmp_path: Path) -> None:
    """OpenAPI shows the routes with the same login as the rest of the API, and names problems of changes."""
    async with operated(tmp_path) as backend:
        document = (await backend.client.get("/openapi.json")).json()
        assert list(document["components"]["securitySchemes"]) == ["bearer"]
        operation = document["paths"][f"{AT}/{{plugin_id}}/disable"]["post"]
        assert operation["security"] == [{"bearer": []}]
        assert {"200", "404", "409", "412"} <= operation["responses"].keys()
        assert {each["name"] for each in operation["parameters"]} == {"plugin_id", "cascade", "dry_run", "if-match"}


async def test_two_servers_with_one_data_directory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The second server serves without a control socket and says so; the first one keeps it."""
    async with operated(tmp_path) as backend:
        app = create_app(Settings(data_dir=tmp_path / "data", log_format="console"))
        async with app.router.lifespan_context(app):
            [warning] = [each for each in caplog.records if each.name == "pixsim7.operating"]
            assert warning.levelno == logging.WARNING
            assert "another server listens there" in warning.getMessage()
        assert (await backend.ask(command="plan"))["ok"] is True
    assert not backend.socket.exists()


async def test_workers_share_one_socket_and_refuse_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of several workers one answers, without a warning from the others; changes are refused with the way out."""
    settings = Settings(data_dir=tmp_path / "data", log_format="console", workers=2)
    one, two = create_app(settings), create_app(settings)
    async with one.router.lifespan_context(one), two.router.lifespan_context(two):
        ask = functools.partial(request, tmp_path / "data" / "control.sock", timeout=30)
        assert (await anyio.to_thread.run_sync(ask, {"command": "list"}))["ok"] is True
        refused = await anyio.to_thread.run_sync(ask, {"command": "disable", "id": "users"})
        assert "run with WORKERS=1" in json.dumps(refused)
        assert [each for each in caplog.records if each.name == "pixsim7.operating"] == []


@pytest.mark.parametrize(("options", "is_refused"), [(["--workers", "2"], True), (["--reload"], False)])
def test_workers_of_uvicorn_are_recognised(options: list[str], is_refused: bool, tmp_path: Path) -> None:
    """`uvicorn --workers 2` refuses changes although WORKERS says nothing; `--reload` serves from one process."""
    log, path = tmp_path / "log.txt", tmp_path / "data" / "control.sock"
    environment = {**os.environ, "LOG_FORMAT": "console", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "uvicorn", "pixsim7_backend.main:app", "--port", str(free_port()), *options]
    with log.open("wb") as output:
        server = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=output, stderr=output)
    try:
        started = 2 if is_refused else 1
        assert wait_until(lambda: log.read_text().count("Application startup complete") == started, 60), log.read_text()
        answer = request(path, {"command": "disable", "id": "game-stealth"}, timeout=30)
        assert answer["ok"] is not is_refused, answer
        if is_refused:
            assert "run with WORKERS=1 and without --workers" in answer["error"]["message"]
            assert request(path, {"command": "get", "id": "game-stealth"}, timeout=30)["result"]["state"] == "enabled"
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)
