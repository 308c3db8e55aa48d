"""A plugin in a real jail, with sessions of the database as any plugin has them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from textwrap import dedent

import pytest
from sqlalchemy import select

from pixsim7_backend.community.database.openness import openness_of
from pixsim7_backend.community.database.roles import apply_grants, remove_role
from pixsim7_backend.community.database.service import DatabaseService
from pixsim7_backend.db import Database
from pixsim7_backend.infrastructure.plugins import DesiredState
from pixsim7_backend.infrastructure.plugins._store import MemoryStateStore
from tests.integration.community.game import MODELS, Hero
from tests.integration.community.halves import grants_of
from tests.integration.jail.conftest import Serve, confined, launcher, open_dir

__all__ = ["confined", "launcher", "open_dir"]

pytestmark = pytest.mark.anyio

GRANTED = ("db:own", "db:read", "db:write")
PLUGIN = """
    from fastapi import APIRouter, Depends
    from sqlalchemy import select, update
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Mapped, Session, mapped_column

    from pixsim7_backend.community.tables import open_table
    from pixsim7_backend.db import default_database, get_async_db_readonly, get_db, get_db_readonly
    from pixsim7_backend.db.models import plugin_base

    Base = plugin_base("hero-book")
    heroes = open_table("heroes")
    router = APIRouter(prefix="/heroes")

    class Page(Base):
        __tablename__ = "pages"
        id: Mapped[int] = mapped_column(primary_key=True)
        text: Mapped[str]

    def on_enable():
        Base.metadata.create_all(default_database().engine)

    @router.get("/names")
    def names(db: Session = Depends(get_db_readonly)):
        return list(db.scalars(select(heroes.c.name).order_by(heroes.c.id)))

    @router.get("/async-names")
    async def async_names(db: AsyncSession = Depends(get_async_db_readonly)):
        return list(await db.scalars(select(heroes.c.name).order_by(heroes.c.id)))

    @router.put("/states")
    async def states(hp: int, db: Session = Depends(get_db)):
        db.execute(update(heroes).values(state={"hp": hp}))
        db.add(Page(text=f"now {hp}"))
        db.flush()
        return len(db.scalars(select(Page)).all())
"""


async def test_a_confined_plugin_uses_sessions_as_any_does(
    game: Database, confined: Serve, open_dir: Path, tmp_path: Path
) -> None:
    """Sync and async endpoints read, write and store in own tables; an async one with a sync session does not hang."""
    folder = open_dir / "hero_book"
    folder.mkdir()
    (folder / "__init__.py").write_text(dedent(PLUGIN))
    (folder / "manifest.py").write_text(
        "from pixsim7_backend.infrastructure.plugins.types import PluginManifest\n"
        "manifest = PluginManifest(id='hero-book', name='Hero book', version='1.0.0', description='Writes of heroes.',"
        f" permissions={GRANTED!r})\n"
    )
    openness, url = openness_of(MODELS), game.url.render_as_string(hide_password=False)
    service = DatabaseService(lambda: game, data_dir=tmp_path, openness=lambda: openness)
    state = DesiredState(grants={"hero-book": {"granted": list(GRANTED), "declined": []}})
    if not game.is_sqlite:
        apply_grants(url, "hero-book", grants_of(*GRANTED), openness, data_dir=tmp_path)
    try:
        async with (
            confined(jails={"services": (service,)}, store=MemoryStateStore(state)) as server,
            server.client() as client,
        ):
            names = await asyncio.gather(
                *(client.get(f"/api/v1/heroes/{path}") for path in ["names", "async-names"] * 5)
            )
            assert [answer.json() for answer in names] == [["Ada", "Bob"]] * 10
            stored = await asyncio.gather(*(client.put("/api/v1/heroes/states?hp=7") for _ in range(5)))
            assert sorted(answer.json() for answer in stored) == [1, 2, 3, 4, 5]
        with game.readonly_session() as session:
            assert session.scalars(select(Hero.state)).all() == [{"hp": 7}, {"hp": 7}]
    finally:
        if not game.is_sqlite:
            remove_role(url, "hero-book", data_dir=tmp_path)
