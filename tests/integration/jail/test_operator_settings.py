"""What operators set of confined plugins, from the settings of the backend to the kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from pixsim7_backend.db import Database
from pixsim7_backend.infrastructure.plugins import DesiredState, PluginState
from pixsim7_backend.infrastructure.plugins.testing import MemoryStateStore, write_plugin
from pixsim7_backend.jails import make_backend_jails
from pixsim7_backend.settings import load_settings
from tests.integration.platform.live import live_server

pytestmark = pytest.mark.anyio

CODE = """
import resource
from fastapi import Body
from pixsim7_backend.community.sdk import http_client

@router.get("/bounds")
def bounds() -> list[int]:
    kinds = (resource.RLIMIT_DATA, resource.RLIMIT_AS, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE)
    return [resource.getrlimit(kind)[0] for kind in kinds]

@router.post("/size")
async def size(content: bytes = Body()) -> int:
    return len(content)

@router.get("/plain")
def plain() -> str:
    with http_client() as client:
        try:
            return client.get("http://localhost/").text
        except Exception as error:
            return str(error)
"""
WANTED = ["net:localhost"]


async def test_what_is_set_holds(open_dir: Path, tmp_path: Path) -> None:
    """Limits of all and of one plugin, in the kernel and over HTTP; when it starts; plain http to what was granted."""
    write_plugin(open_dir, "quest", CODE, permissions=WANTED)
    (tmp_path / "none").mkdir()
    settings = load_settings(
        data_dir=tmp_path,
        community_plain_http=True,
        jail_start="first-request",
        jail_limits="memory=200MiB,quest.open-files=33,quest.request-size=1KiB,other.file-size=1MiB",
    )
    database = Database(settings.database)
    made = make_backend_jails(settings, database)
    store = MemoryStateStore(DesiredState(grants={"quest": {"granted": WANTED, "declined": []}}))
    async with live_server(
        tmp_path / "none", community_directory=open_dir, jails=lambda: made, store=store, hook_timeout=60
    ) as server:
        assert server.manager.get("quest").state is PluginState.ENABLED, server.manager.get("quest").reason
        assert made.supervisors["quest"].phase == "idle"
        async with server.client() as client:
            assert (await client.get("/api/v1/quest/bounds")).json() == [200 << 20, (200 + 768) << 20, 33, 16 << 20]
            assert (await client.post("/api/v1/quest/size", content=bytes(2000))).status_code == 413
            assert "localhost is not out in the world" in (await client.get("/api/v1/quest/plain")).json()
    await database.aclose()
