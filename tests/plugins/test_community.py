"""A stranger's plugin in the backend, on both databases: what it is granted it can do, and nothing beside it."""

from __future__ import annotations

import os
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from pixsim7_backend.community.database.openness import present_openness
from pixsim7_backend.community.database.roles import apply_grants, remove_role
from pixsim7_backend.infrastructure.plugins._grants.permissions import Grants, Permission
from pixsim7_backend.settings import Settings
from tests.plugins.conftest import Backend, Client

pytestmark = pytest.mark.anyio

ASKED = ("db:read:game_locations", "events:subscribe:session:*", "user:read")
URL = "/api/v1/admin/plugins/stats"
MANIFEST = f"""
import asyncio
import os
from fastapi import APIRouter, Depends, HTTPException
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session
from pixsim7_backend.community.sdk import CurrentUser
from pixsim7_backend.community.tables import open_table
from pixsim7_backend.db import get_db_readonly
from pixsim7_backend.infrastructure.plugins import PluginEvents, plugin_hooks
from pixsim7_backend.infrastructure.plugins.types import PluginManifest

manifest = PluginManifest(
    id="stats", name="Stats", version="1.0.0", description="Counts things", permissions={list(ASKED)!r}
)
router = APIRouter(prefix="/stats", tags=["stats"])
heard: list = []
came = asyncio.Event()

async def hear(session_id) -> None:
    heard.append(session_id)
    came.set()

async def on_enable() -> None:
    plugin_hooks.register(PluginEvents.SESSION_CREATED, hear)

@router.get("/locations")
def locations(db: Session = Depends(get_db_readonly)) -> int:
    return db.scalar(select(func.count()).select_from(open_table("game_locations")))

@router.get("/secrets")
def secrets(db: Session = Depends(get_db_readonly)) -> list:
    return [list(row) for row in db.execute(text("SELECT * FROM auth_users"))]

@router.get("/environment")
def environment() -> dict:
    return dict(os.environ)

@router.get("/me")
def me(user: CurrentUser) -> dict:
    return {{"id": user.id, "role": user.role}}

@router.get("/heard")
async def list_heard() -> list:
    await asyncio.wait_for(came.wait(), 20)
    return heard

@router.get("/refused")
def refused() -> None:
    raise HTTPException(409, "no")
"""


@pytest.fixture(scope="module", autouse=True)
def tolerant(backend_environment: None) -> Iterator[None]:
    """Start although something waits for a decision."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ON_PLUGIN_ERROR", "tolerate")
        yield


@pytest.fixture(scope="module")
def backend_settings(backend_settings: Settings) -> Iterator[Settings]:
    """The backend's settings, with a directory of strangers' plugins."""
    with tempfile.TemporaryDirectory(prefix="community-", dir="/var/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        folder = directory / "stats"
        folder.mkdir()
        (folder / "manifest.py").write_text(textwrap.dedent(MANIFEST), encoding="utf-8")
        (folder / "__init__.py").write_text("from .manifest import manifest, on_enable, router\n", encoding="utf-8")
        yield backend_settings.model_copy(update={"community_plugins_dir": str(directory)})


@pytest.fixture
def role(backend_settings: Settings, backend: Backend) -> Iterator[None]:
    """The plugin's role, where the database has roles, as `pixsim7 plugins grants apply` makes it."""
    if backend_settings.is_embedded:
        yield
        return
    grants = Grants(frozenset(map(Permission.parse, ASKED)))
    apply_grants(backend_settings.database, "stats", grants, present_openness(), data_dir=backend_settings.data_dir)
    yield
    remove_role(backend_settings.database, "stats", data_dir=backend_settings.data_dir)


@pytest.fixture
async def granted(admin_client: Client, role: None) -> Client:
    """An admin who has granted the plugin what it asks for."""
    answer = await admin_client.post(f"{URL}/enable", params={"grant": list(ASKED)})
    assert answer.status_code == 200, answer.text
    return admin_client


async def test_it_waits_for_the_operators_decision(admin_client: Client) -> None:
    """Nothing of it runs before; its record says what it asks for, and how to decide."""
    record = (await admin_client.get(URL)).json()
    if record["state"] == "blocked":  # before another test has decided
        assert record["reason"]["undecided"] == list(ASKED)
        assert "pixsim7 plugins enable stats --grant" in record["reason"]["message"]
        refused = await admin_client.post(f"{URL}/enable")
        assert refused.status_code == 409
    assert record["source"]["is_confined"]


async def test_it_does_what_was_granted(granted: Client, user_client: Client) -> None:
    """It reads the table, hears the event, and knows who asks; anonymous callers are nobody."""
    made = await granted.post("/api/v1/game/locations", json={"name": "Harbour"})
    assert made.status_code == 201, made.text
    assert (await user_client.get("/api/v1/stats/locations")).json() == 1
    scene = {"title": "Gate", "entry_node_id": "gate", "nodes": [{"id": "gate"}], "edges": []}
    played = (await granted.post("/api/v1/game/scenes", json=scene)).json()
    session = await user_client.post("/api/v1/game/sessions", json={"scene_id": played["id"]})
    assert session.status_code == 201, session.text
    assert (await user_client.get("/api/v1/stats/heard")).json()[-1] == session.json()["id"]
    assert (await user_client.get("/api/v1/stats/me")).json()["role"] == "user"
    assert (await granted.get("/api/v1/stats/me")).json()["role"] == "admin"


async def test_it_does_nothing_else(granted: Client, backend: Backend) -> None:
    """Accounts are closed to it, its environment holds nothing of the host's, and the host serves on."""
    answer = await granted.get("/api/v1/stats/secrets")
    assert answer.status_code == 500
    assert "argon2" not in answer.text
    environment = (await granted.get("/api/v1/stats/environment")).json()
    assert not environment.keys() & (os.environ.keys() - {"PATH", "LANG", "HOME", "TMPDIR", "LC_ALL"})
    assert (await backend.get("/api/v1/stats/me")).status_code == 401
    assert (await backend.get("/healthz")).status_code == 200


async def test_its_errors_read_as_all_others(granted: Client) -> None:
    """Problems of the plugin have the backend's form."""
    answer = await granted.get("/api/v1/stats/refused")
    assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")
    assert answer.json()["detail"] == "no"
