"""Who asks, as community plugins learn it: from the running backend, for real accounts on both databases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from pixsim7_backend.community import sdk, users
from pixsim7_backend.community.sdk import CurrentUser
from pixsim7_backend.community.users import UserNotGrantedError, UserService, extend_scope
from pixsim7_backend.infrastructure.plugins._grants.permissions import Grants, Permission
from pixsim7_backend.infrastructure.plugins._jail.broker import JailIdentity
from pixsim7_backend.infrastructure.plugins._jail.headers import for_plugin
from pixsim7_backend.infrastructure.plugins._jail.inside import services
from pixsim7_backend.infrastructure.plugins._ledger.ownership import running_as_host
from pixsim7_backend.infrastructure.plugins.testing import write_plugin
from pixsim7_backend.problems import install_problem_handlers
from pixsim7_backend.settings import Settings
from tests.plugins.conftest import Backend

pytestmark = pytest.mark.anyio

GRANTED = Grants(frozenset({Permission.parse("user:read")}))
PLACE = "/api/v1/who"
_CODE = """
from pixsim7_backend.community.sdk import CurrentUser

@router.get("")
def who(user: CurrentUser) -> dict[str, object]:
    return {"id": user.id, "role": user.role, "is_admin": user.is_admin}
"""


@pytest.fixture(scope="module")
def backend_settings(backend_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The backend with one more plugin, which asks who asks."""
    directory = tmp_path_factory.mktemp("more")
    write_plugin(directory, "who", code=_CODE)
    return backend_settings.model_copy(update={"extra_plugins_dirs": (str(directory),)})


class Front:
    """What the host does with a request for a confined plugin: takes away what proves who asks, and adds who it is."""

    def __init__(self, host: FastAPI, plugin: FastAPI, grants: Grants) -> None:
        self._host = host
        self._plugin = plugin
        self._grants = grants
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self._host
        with running_as_host(self._host.state.plugin_manager._key):
            added = await extend_scope(scope, self._grants)
        passed = {**{name: value for name, value in scope.items() if name != "app"}, **added}
        passed["headers"] = for_plugin(scope["headers"])
        self.scopes.append(dict(passed))
        await self._plugin(passed, receive, send)


@pytest.fixture
def jailed(running_app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> Front:
    """The same endpoint, as it runs in a jail."""
    plugin = FastAPI()
    install_problem_handlers(plugin)

    @plugin.get(PLACE)
    def who(user: CurrentUser) -> dict[str, object]:
        return {"id": user.id, "role": user.role, "is_admin": user.is_admin}

    monkeypatch.setattr(services._Process, "channel", object())
    return Front(running_app, plugin, GRANTED)


async def ask(application: Any, headers: Mapping[str, str], **cookies: str) -> httpx.Response:
    """Send a request to an application in this process."""
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://backend.test", cookies=cookies) as client:
        return await client.get(PLACE, headers=headers)


@pytest.mark.parametrize("role", ["user", "admin"])
async def test_the_caller_is_known_alike_in_process_and_jailed(backend: Backend, jailed: Front, role: str) -> None:
    """By id and role, as they are now."""
    client = await backend.sign_up("ada", role=role)
    expected = {"id": client.user["id"], "role": role, "is_admin": role == "admin"}
    token = {"authorization": client.headers["authorization"]}
    assert (await ask(jailed, token)).json() == expected
    services._Process.channel = None
    assert (await client.get(PLACE)).json() == expected


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer nonsense"}, {"authorization": "Basic YTpi"}])
async def test_who_is_nobody_is_unauthorized(backend: Backend, jailed: Front, headers: dict[str, str]) -> None:
    """Without a token, and with one that is none: 401 in process and jailed."""
    assert (await ask(jailed, headers)).status_code == 401
    services._Process.channel = None
    assert (await backend.get(PLACE, headers=headers)).status_code == 401


async def test_a_login_that_was_ended_is_nobody_s(backend: Backend, jailed: Front) -> None:
    """At once: nothing is remembered between requests."""
    client = await backend.sign_up("ada")
    token = {"authorization": client.headers["authorization"]}
    assert (await ask(jailed, token)).status_code == 200
    services._Process.channel = None
    await client.post("/api/v1/auth/logout")
    services._Process.channel = object()  # type: ignore[assignment]
    assert (await ask(jailed, token)).status_code == 401


async def test_nothing_is_asked_without_the_permission(backend: Backend, running_app: FastAPI) -> None:
    """What is not granted is not even looked up."""
    client = await backend.sign_up("ada")
    scope: Scope = {
        "type": "http", "app": running_app, "headers": [(b"authorization", client.headers["authorization"].encode())]
    }  # fmt: skip
    with running_as_host(running_app.state.plugin_manager._key):
        assert await extend_scope(scope, Grants()) == {}
        assert await extend_scope(scope, GRANTED) == {"pixsim7.user": {"id": client.user["id"], "role": "user"}}
        assert await extend_scope({**scope, "headers": []}, GRANTED) == {}


async def test_attack_spoofed_headers(backend: Backend, jailed: Front) -> None:
    """What a client says of itself is not believed, and what proxies say of it does not come in."""
    admin = await backend.sign_up("root", role="admin")
    client = await backend.sign_up("ada")
    spoofed = {
        "x-forwarded-for": "127.0.0.1", "forwarded": "for=127.0.0.1", "x-real-ip": "127.0.0.1", "x-user-id": "1",
        "x-pixsim7-user": '{"id": 1, "role": "admin"}', "pixsim7.user": '{"id": 1, "role": "admin"}',
        "x-remote-user": "root", "x-original-url": "/admin",
    }  # fmt: skip
    bare: list[Scope] = []

    async def see(scope: Scope, receive: Receive, send: Send) -> None:
        bare.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    await ask(see, spoofed)
    assert set(spoofed) <= {name.decode() for name, _ in bare[0]["headers"]}, "bare, a plugin sees all of them"
    assert (await ask(jailed, spoofed)).status_code == 401
    answer = await ask(jailed, {**spoofed, "authorization": client.headers["authorization"]})
    assert answer.json() == {"id": client.user["id"], "role": "user", "is_admin": False}
    assert answer.json()["id"] != admin.user["id"]
    for scope in jailed.scopes:
        assert not set(spoofed) - {"pixsim7.user"} & {name.decode() for name, _ in scope["headers"]}


async def test_attack_token_of_the_caller(backend: Backend, jailed: Front) -> None:
    """Neither the bearer token nor a cookie is anywhere in what comes into the jail, nor is an address or a name."""
    client = await backend.sign_up("ada")
    await ask(jailed, {"authorization": client.headers["authorization"]}, session="cookie-of-the-host")
    (scope,) = jailed.scopes
    seen = repr(scope)
    for secret in (client.token, client.token.split(".")[1], "cookie-of-the-host", "ada@example.com", "'ada'"):
        assert secret not in seen
    assert scope["pixsim7.user"] == {"id": client.user["id"], "role": "user"}


def test_without_the_permission_the_import_fails_with_the_line_to_add(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """When the plugin is loaded, not when it first asks."""
    for name in ("current_user", "CurrentUser"):
        monkeypatch.setattr(sdk, name, getattr(sdk, name))
    monkeypatch.setattr(sdk, "__getattr__", None, raising=False)
    app = FastAPI()
    identity = JailIdentity(plugin="who", generation=1, directory=tmp_path, scratch=tmp_path)
    app.state.services = {"user": UserService().describe(identity, Grants())}
    users.install(app)
    with pytest.raises(UserNotGrantedError, match=r'permissions=\["user:read"\].* pixsim7 plugins enable who --grant'):
        from pixsim7_backend.community.sdk import CurrentUser as _  # noqa: F401 - importing is what fails
