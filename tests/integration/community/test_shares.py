"""A plugin that has used its share of the minute: what its code sees, and what its clients are told."""

from __future__ import annotations

import uuid
from pathlib import Path
from textwrap import dedent
from typing import Any

import httpx
import pytest
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from pixsim7_backend import redis as backend_redis
from pixsim7_backend.community.database.openness import openness_of
from pixsim7_backend.community.database.roles import apply_grants, remove_role
from pixsim7_backend.community.database.service import DatabaseService
from pixsim7_backend.community.http.inside import async_http_client, http_client
from pixsim7_backend.community.http.service import HttpService
from pixsim7_backend.community.redis import inside
from pixsim7_backend.community.redis.service import RedisService
from pixsim7_backend.community.sdk import ShareUsedUpError
from pixsim7_backend.db import Database
from pixsim7_backend.infrastructure.plugins import DesiredState
from pixsim7_backend.infrastructure.plugins._jail.broker import BrokerLimits
from pixsim7_backend.infrastructure.plugins._jail.inside.services import call
from pixsim7_backend.infrastructure.plugins._store import MemoryStateStore
from pixsim7_backend.infrastructure.plugins.testing import write_plugin
from pixsim7_backend.redis import get_redis, new_async_redis
from tests.integration.community.conftest import Enter
from tests.integration.community.game import MODELS
from tests.integration.community.halves import entered, grants_of
from tests.integration.jail.conftest import Serve, confined, launcher, open_dir
from tests.services import redis_url

__all__ = ["confined", "launcher", "open_dir"]

anyio = pytest.mark.anyio


def assert_used_up(error: ShareUsedUpError, plugin: str, what: str) -> None:
    """Look at the fields of an error."""
    assert error.fields == {"plugin": plugin, "what": what, "allowed": 1, "retry_after": error.fields["retry_after"]}
    assert 1 <= error.fields["retry_after"] <= 60
    assert str(error).startswith(f"plugin {plugin!r} has used its 1 {what} of this minute; try again in ")


@anyio
async def test_sessions_tell_it(enter: Enter) -> None:
    """Sync and async ones raise the platform's error, which is one of SQLAlchemy's; what was begun is ended."""
    jail = enter(broker=BrokerLimits(per_minute={"db.rows": 1}))
    with jail.database.readonly_session() as session:
        assert session.scalars(text("SELECT name FROM heroes ORDER BY id")).all() == ["Ada", "Bob"]
        with pytest.raises(ShareUsedUpError) as failure:
            session.execute(text("SELECT 1"))
        session.rollback()
    assert_used_up(failure.value, "quest-stats", "db.rows")
    assert isinstance(failure.value, OperationalError)
    with pytest.raises(OperationalError) as as_library:
        async with jail.database.async_readonly_session() as other:
            await other.execute(text("SELECT 1"))
    assert isinstance(as_library.value, ShareUsedUpError)
    jail.wait_until_over()


@anyio
async def test_redis_tells_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client raises the platform's error, which is one of Redis's."""
    plugin = f"quest-stats-{uuid.uuid4().hex[:12]}"
    for name in ("make", "make_async", "client"):
        monkeypatch.setattr(backend_redis._Process, name, None)
    service, limits = RedisService(redis_url, data_dir=tmp_path), BrokerLimits(per_minute={"redis.calls": 1})
    with entered(
        [service], grants_of("redis:read"), tmp_path, monkeypatch, inside.install, limits=limits, plugin=plugin
    ):
        assert get_redis().get("hits") is None
        with pytest.raises(ShareUsedUpError) as failure:
            get_redis().get("hits")
        assert_used_up(failure.value, plugin, "redis.calls")
        with pytest.raises(RedisError) as as_library:
            await new_async_redis().get("hits")
        assert isinstance(as_library.value, ShareUsedUpError)


@anyio
async def test_the_web_tells_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client raises the platform's error, which is one of httpx and knows its request."""
    limits = BrokerLimits(per_minute={"http.calls": 1})
    with entered(
        [HttpService()], grants_of("net:api.example.test"), tmp_path, monkeypatch, lambda _: None, limits=limits
    ):
        call("http.close", 1)
        with http_client() as client, pytest.raises(ShareUsedUpError) as failure:
            client.get("https://api.example.test/")
        assert_used_up(failure.value, "quest-stats", "http.calls")
        async with async_http_client() as other:
            with pytest.raises(httpx.HTTPError) as as_library:
                await other.get("https://api.example.test/there")
        assert isinstance(as_library.value, ShareUsedUpError)
        assert as_library.value.request.url.path == "/there"


CODE = dedent(
    """
    from fastapi import Depends
    from sqlalchemy import select
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session
    from pixsim7_backend.community.sdk import ShareUsedUpError
    from pixsim7_backend.community.tables import open_table
    from pixsim7_backend.db import get_async_db_readonly, get_db_readonly

    heroes = open_table("heroes")

    @router.get("/names")
    def names(db: Session = Depends(get_db_readonly)) -> list[str]:
        return list(db.scalars(select(heroes.c.name).order_by(heroes.c.id)))

    @router.get("/async-names")
    async def async_names(db: AsyncSession = Depends(get_async_db_readonly)) -> list[str]:
        return list(await db.scalars(select(heroes.c.name).order_by(heroes.c.id)))

    @router.get("/kept")
    def kept(db: Session = Depends(get_db_readonly)) -> dict:
        try:
            return {"names": names(db)}
        except ShareUsedUpError as error:
            return error.to_json()

    @router.get("/say")
    async def say() -> None:
        for _ in range(2):
            await plugin_hooks.emit("hero-book:said")
    """
)


@anyio
async def test_clients_are_told_when_to_come_again(
    game: Database, confined: Serve, open_dir: Path, tmp_path: Path
) -> None:
    """503 with ``Retry-After``, since it is not this client who asked too much; what needs none of it serves on."""
    write_plugin(open_dir, "hero_book", CODE, permissions=["db:read"], events=["hero-book:said"])
    openness, url = openness_of(MODELS), game.url.render_as_string(hide_password=False)
    service = DatabaseService(lambda: game, data_dir=tmp_path, openness=lambda: openness)
    state = DesiredState(grants={"hero-book": {"granted": ["db:read"], "declined": []}})
    jails: dict[str, Any] = {
        "services": (service,),
        "calls": BrokerLimits(per_minute={"db.rows": 1, "events.calls": 1}),
        "inside": ("pixsim7_backend.community.alike:install",),
    }
    if not game.is_sqlite:
        apply_grants(url, "hero-book", grants_of("db:read"), openness, data_dir=tmp_path)
    try:
        async with confined(jails=jails, store=MemoryStateStore(state)) as server, server.client() as client:
            assert (await client.get("/api/v1/hero-book/names")).json() == ["Ada", "Bob"]
            for path, what in (("names", "db.rows"), ("async-names", "db.rows"), ("say", "events.calls")):
                answer = await client.get(f"/api/v1/hero-book/{path}")
                told = answer.json()
                assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
                assert 1 <= int(answer.headers["retry-after"]) <= 60
                assert told["detail"].startswith(f"plugin 'hero-book' has used its 1 {what} of this minute; try again")
                assert (told["plugin"], told["error"]["type"], told["error"]["what"]) == (
                    "hero-book", "ShareUsedUpError", what,
                )  # fmt: skip
            kept = (await client.get("/api/v1/hero-book/kept")).json()
            assert (kept["type"], kept["what"], kept["allowed"]) == ("ShareUsedUpError", "db.rows", 1)
    finally:
        if not game.is_sqlite:
            remove_role(url, "hero-book", data_dir=tmp_path)
