"""What happens before anybody asks: the secret, the first admin, the tables."""

from __future__ import annotations

import importlib
import stat
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from pixsim7_backend.db import Database
from pixsim7_backend.db.migrations import schema_differences
from pixsim7_backend.db.models import PluginBase, community_access, iter_plugin_bases
from pixsim7_backend.infrastructure.plugins.errors import PluginStartupError
from pixsim7_backend.main import create_app
from pixsim7_backend.settings import Settings
from tests.plugins.conftest import PASSWORD, PLUGINS_DIR, Backend

pytestmark = pytest.mark.anyio

AUTH = "/api/v1/auth"
STRONG = "kJ8-vW2_pQ7xZt4mNc6bRf1yLd9sHg3aTe5uIo0w"


def settings(directory: Path, **changes: Any) -> Settings:
    return Settings(data_dir=directory, plugins_dir=str(PLUGINS_DIR), database_url=SecretStr(""), **changes)


def auth() -> Any:
    """Return the plugin's package as it is loaded now."""
    return importlib.import_module("pixsim7_backend.plugins.auth")


@pytest.mark.usefixtures("backend_environment")
@pytest.mark.parametrize("weak", ["changeme", "secret" * 10, "your-secret-key-change-in-production-1234"])
async def test_a_known_secret_keeps_the_server_from_starting(tmp_path: Path, weak: str) -> None:
    """Outside debug start-up is aborted with a text that names the setting, not its value; in debug it goes on."""
    app = create_app(settings(tmp_path, secret_key=SecretStr(weak)))
    with pytest.raises(PluginStartupError, match="SECRET_KEY") as caught:
        async with app.router.lifespan_context(app):
            pytest.fail("it has started")
    assert weak not in str(caught.value).replace("secret_key", "")
    app = create_app(settings(tmp_path, secret_key=SecretStr(weak), debug=True))
    async with app.router.lifespan_context(app):
        assert app.state.plugin_manager.get("auth").state == "enabled"


async def test_the_embedded_default_has_a_private_secret(backend: Backend) -> None:
    """It was made at the first start and is readable for the owner only."""
    path = backend.settings.data_dir / "secret_key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_text()) >= 43


async def test_a_token_survives_a_restart(tmp_path: Path, backend_environment: None) -> None:
    """The kept secret and the stored session outlive the process; another secret voids all tokens."""
    tokens: list[str] = []
    for changes, status in (({}, 200), ({}, 200), ({"secret_key": SecretStr(STRONG)}, 401)):
        app = create_app(settings(tmp_path, **changes))
        async with app.router.lifespan_context(app):
            client = Backend(settings(tmp_path), Database(settings(tmp_path).database), "http://backend.test", app=app)
            if not tokens:
                tokens.append((await client.sign_up("ann")).token)
            answer = await client.get(f"{AUTH}/me", headers={"Authorization": f"Bearer {tokens[0]}"})
            assert answer.status_code == status
            client.database.close()
            await client.aclose()


async def test_the_first_admin_is_made_beside_the_server(backend: Backend) -> None:
    """The account that `create_admin` stores logs in and administers."""
    with backend.database.session() as session:
        made = auth().create_admin(session, email="Root@Example.com", username="root", password=PASSWORD)
    assert (made.email, made.username, str(made.role)) == ("Root@example.com", "root", "admin")
    answer = await backend.post(f"{AUTH}/login", json={"email": "root@example.com", "password": PASSWORD})
    assert answer.json()["user"]["role"] == "admin"
    users = await backend.get("/api/v1/users/", headers={"Authorization": f"Bearer {answer.json()['access_token']}"})
    assert users.status_code == 200


async def test_an_admin_with_a_taken_name_is_refused(backend: Backend) -> None:
    """A duplicate says which field it is, and the session stays usable."""
    await backend.sign_up("ann")
    with backend.database.session() as session:
        with pytest.raises(auth().DuplicateAccountError) as caught:
            auth().create_admin(session, email="other@example.com", username="ANN", password=PASSWORD)
        assert caught.value.field == "username"
        auth().create_admin(session, email="other@example.com", username="other", password=PASSWORD)
    assert backend.execute("SELECT username, role FROM users ORDER BY id") == [("ann", "user"), ("other", "admin")]


async def test_an_admin_with_unusable_values_is_refused(backend: Backend) -> None:
    """One line per field, and the password is in none of them."""
    with backend.database.session() as session, pytest.raises(auth().InvalidAccountError) as caught:
        auth().create_admin(session, email="nobody", username="x", password="hunter2")
    lines = str(caught.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["email", "username", "password"]
    assert lines[2] == "password: a password has 8 to 128 characters, not 7"
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("plugin", ["auth", "users"])
async def test_the_migrations_make_what_the_models_say(backend: Backend, plugin: str) -> None:
    """No table, column, index or constraint differs."""
    bases = [base for base in iter_plugin_bases(plugin) if base.metadata.tables]
    assert bases
    for base in bases:
        assert schema_differences(backend.database, base.metadata) == []


async def test_nothing_secret_is_open_to_community_plugins(backend: Backend) -> None:
    """Of accounts they may be granted the public names; of tokens, hashes, addresses and attempts nothing, ever."""
    models: dict[str, type[PluginBase]] = {
        mapper.class_.__tablename__: mapper.class_
        for plugin in ("auth", "users")
        for base in iter_plugin_bases(plugin)
        for mapper in base.registry.mappers
    }
    open_columns = {name: community_access(model) for name, model in models.items()}
    assert {name: set(access.read) for name, access in open_columns.items() if access.read} == {
        "users": {"id", "username", "display_name"}
    }
    assert not any(access.write for access in open_columns.values())
    assert {"users", "auth_sessions", "auth_login_attempts", "user_preferences"} <= set(models)
