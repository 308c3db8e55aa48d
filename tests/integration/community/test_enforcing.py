"""PostgreSQL follows what is decided about plugins in real jails, or it is said what keeps it from that."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pixsim7_backend.community.database.openness import openness_of
from pixsim7_backend.community.database.roles import remove_role, role_of
from pixsim7_backend.community.database.service import DatabaseService
from pixsim7_backend.community.enforcing import CommunityEnforcer
from pixsim7_backend.db import Database
from pixsim7_backend.infrastructure.plugins.testing import write_plugin
from tests.integration.community.game import MODELS
from tests.integration.community.halves import grants_of
from tests.integration.jail.conftest import Serve, confined, launcher, open_dir
from tests.integration.platform.live import LiveServer

__all__ = ["confined", "launcher", "open_dir"]

pytestmark = pytest.mark.anyio
OPEN = openness_of(MODELS)
PLUGIN = """
    from sqlalchemy import text
    from pixsim7_backend.db import ReadOnlyDb

    def ask(db, statement):
        try:
            return str(db.scalar(text(statement)))
        except Exception as error:
            return str(error)

    @router.get("/heroes")
    def heroes(db: ReadOnlyDb) -> str:
        return ask(db, "SELECT count(name) FROM heroes")

    @router.get("/endless")
    def endless(db: ReadOnlyDb) -> str:
        return ask(db, "SELECT count(*) FROM heroes, generate_series(1, 100000000) a, generate_series(1, 100000000) b")
"""


@pytest.fixture
def database_kind() -> str:
    """All of this is about PostgreSQL."""
    return "postgresql"


@pytest.fixture
def url(game: Database, tmp_path: Path) -> Iterator[str]:
    """The URL of the game's database; the plugin's role is deleted afterwards."""
    address = game.url.set(drivername="postgresql").render_as_string(hide_password=False)
    yield address
    remove_role(address, "watch", data_dir=tmp_path)


@pytest.fixture
def watch(game: Database, url: str, confined: Serve, open_dir: Path, tmp_path: Path) -> Any:
    """Returns a server with the plugin ``watch``, whose decisions this login of PostgreSQL carries out."""
    write_plugin(open_dir, "watch", dedent(PLUGIN), permissions=["db:read", "db:own"])

    @asynccontextmanager
    async def serve(login: str) -> AsyncIterator[tuple[LiveServer, Any]]:
        service = DatabaseService(lambda: game, data_dir=tmp_path, openness=lambda: OPEN)
        enforcer = CommunityEnforcer(login, data_dir=tmp_path, openness=lambda: OPEN)
        async with (
            confined(jails={"services": (service,)}, enforcer=enforcer) as server,
            server.client() as client,
        ):

            async def ask(path: str) -> str:
                return str((await client.get(f"/api/v1/watch/{path}")).json())

            yield server, ask

    return serve


def may_read(url: str) -> bool:
    """Tell whether the plugin's role may read heroes."""
    with psycopg.connect(url) as connection:
        role = role_of(connection.info.dbname, "watch")
        found = connection.execute("SELECT has_column_privilege(%s, 'heroes', 'name', 'SELECT')", [role]).fetchone()
    return found == (True,)


async def until_it_runs(url: str) -> None:
    """Wait until the plugin's long statement is under way."""
    with psycopg.connect(url, autocommit=True) as connection:
        running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%generate_series(1, 1%'"
        while connection.execute(running).fetchone() == (1,):  # noqa: ASYNC110 - this question alone; nobody tells
            await asyncio.sleep(0.01)


async def test_the_database_follows_at_once(watch: Any, url: str) -> None:
    """Granting makes the role before the plugin starts; taking back ends what runs, and the role may no more either."""
    async with watch(url) as (server, ask):
        await server.manager.enable("watch", grant=["all"])
        assert await ask("heroes") == "2"
        [told] = server.manager.describe("watch")["enforcement"]
        assert (told["problem"], any("CREATE ROLE" in change for change in told["changes"])) == (None, True)
        endless = asyncio.create_task(ask("endless"))
        await until_it_runs(url)
        await server.manager.grant("watch", ["db:own"])
        assert "what was granted has changed meanwhile" in await endless
        assert "permission denied" in await ask("heroes")
        assert not may_read(url)


async def test_who_may_not_manage_roles_is_told_who_must(watch: Any, url: str, tmp_path: Path) -> None:
    """The decision counts in the server; its record says that the database lags behind until somebody mends it."""
    name = f"pixsim7_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(url, autocommit=True) as admin:
        owner, database = sql.Identifier(name), sql.Identifier(admin.info.dbname)
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'host'").format(owner))
        try:
            admin.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(database, owner))
            admin.execute(sql.SQL("ALTER TABLE heroes OWNER TO {}").format(owner))
            admin.execute(sql.SQL("GRANT USAGE ON SCHEMA public TO {}").format(owner))
            for kept in ("EXECUTE ON ALL FUNCTIONS", "SELECT ON ALL TABLES"):  # another test may have taken them
                admin.execute(sql.SQL(f"GRANT {kept} IN SCHEMA pg_catalog TO {{}}").format(owner))
            own = f"postgresql://{name}:host@{admin.info.host}:{admin.info.port}/{admin.info.dbname}"
            async with watch(own) as (server, ask):
                await server.manager.enable("watch", grant=["db:read"])
                [told] = server.manager.describe("watch")["enforcement"]
                assert f"the login '{name}' of DATABASE_URL may not: CREATE ROLE" in told["problem"]
                assert "DATABASE_URL=postgresql://ADMIN:PASSWORD@" in told["way_out"]
                assert "host cannot log in" in await ask("heroes")
                CommunityEnforcer(url, data_dir=tmp_path, openness=lambda: OPEN).apply("watch", grants_of("db:read"))
                await server.manager.follow_grants()
                assert server.manager.describe("watch")["enforcement"][0]["problem"] is None
                assert await ask("heroes") == "2"
                await server.manager.grant("watch", ["db:own"])
                [told] = server.manager.describe("watch")["enforcement"]
                assert "CREATE SCHEMA" in told["problem"]
                assert not may_read(url)
        finally:
            admin.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(owner))
            admin.execute(sql.SQL("DROP OWNED BY {}").format(owner))
            admin.execute(sql.SQL("DROP ROLE {}").format(owner))
