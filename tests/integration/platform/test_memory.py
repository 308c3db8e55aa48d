"""Old code dies; what cannot die is named, with who keeps it."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import tracemalloc
from pathlib import Path
from types import ModuleType

import pytest

from pixsim7_backend.infrastructure.plugins.testing import PluginHost, plugin_host, write_plugin

pytestmark = pytest.mark.anyio

EVERYTHING = """
import abc
import contextvars
import enum
import functools
import logging
from typing import Annotated, Any, Generic, TypeVar
from pydantic import BaseModel, Field
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Mapped, Session, mapped_column
from pixsim7_backend.db.models import RowVersion, Timestamps, plugin_base

VERSION = {version}
T = TypeVar("T")
here = contextvars.ContextVar("here")
log = logging.getLogger(__name__)
Base = plugin_base("quest")

class Quest(Timestamps, RowVersion, Base):
    __tablename__ = "quests"
    id: Mapped[int] = mapped_column(primary_key=True)
    flags: Mapped[dict[str, Any]] = mapped_column(default=dict)

class Kind(enum.StrEnum):
    MAIN = "main"

class Body(BaseModel):
    name: str = Field(min_length=1)
    kind: Kind = Kind.MAIN

class Page(BaseModel, Generic[T]):
    items: list[T]
    version: int = VERSION

class Source(abc.ABC):
    @abc.abstractmethod
    def read(self) -> int: ...

class Fixed(Source):
    def read(self) -> int:
        return VERSION

@functools.cache
def limit() -> int:
    return VERSION

def get_limit(most: int = 3) -> int:
    return limit() + most

@router.post("/quests")
def add(body: Body, most: Annotated[int, Depends(get_limit)]) -> Page[Body]:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Quest(flags={{}}))
        session.flush()
        session.scalars(select(Quest).where(Quest.id == 1)).all()
    engine.dispose()
    assert isinstance(Fixed(), Source) and not isinstance(3, Source)
    return Page[Body](items=[body])

@router.get("/fails")
def fails() -> int:
    raise HTTPException(409, "on purpose")

async def on_enable():
    here.set(Fixed())
    plugin_hooks.register("quest:asked", limit)
    app_task = asyncio.create_task(asyncio.sleep(60))
    log.debug("enabled")
"""


async def use(host: PluginHost, version: int) -> None:
    """Replace the plugin and let everything of it run once."""
    await host.manager.reload("quest")
    await host.manager.settle()
    answer = await host.client.post("/api/v1/quest/quests", json={"name": "x"})
    assert answer.json() == {"items": [{"name": "x", "kind": "main"}], "version": version}
    assert (await host.client.get("/api/v1/quest/fails")).status_code == 409
    await host.client.get("/openapi.json")


async def test_memory_is_flat_over_reloads(tmp_path: Path) -> None:
    """Routes, models, bodies, handlers and tasks come and go: at most 5 KB stay of a reload, and no code."""
    write_plugin(tmp_path, "quest", EVERYTHING.format(version=0))
    async with plugin_host(tmp_path) as host:

        async def reload(versions: range) -> int:
            for version in versions:
                write_plugin(tmp_path, "quest", EVERYTHING.format(version=version))
                await use(host, version)
            for _ in range(3):  # pydantic's cache of generic models lets go of its keys one round later
                gc.collect()
            return tracemalloc.get_traced_memory()[0]

        logging.disable(logging.CRITICAL)  # pytest keeps every line
        tracemalloc.start()
        try:
            before = await reload(range(1, 12))
            after = await reload(range(12, 32))
        finally:
            tracemalloc.stop()
            logging.disable(logging.NOTSET)
        assert (after - before) / 20 <= 5 * 1024
        assert host.manager.find_leaks() == ()


async def test_code_that_is_kept_is_named_with_its_keeper(tmp_path: Path) -> None:
    """A function that a plugin put into somebody else's list is found, with the way from that list to it."""
    registry = sys.modules["pixsim7_test_registry"] = ModuleType("pixsim7_test_registry")
    registry.__dict__["HANDLERS"] = []
    leaking = """
import pixsim7_test_registry
def kept() -> None: ...
pixsim7_test_registry.HANDLERS.append({"it": kept})
"""
    try:
        write_plugin(tmp_path, "quest", leaking)
        async with plugin_host(tmp_path) as host:
            assert host.manager.find_leaks() == ()
            await host.manager.reload("quest")
            await host.manager.settle()
            (report,) = host.manager.find_leaks()
            assert report.plugin == "quest"
            (leak,) = [each for each in report.leaks if each.name.endswith(".kept")]
            assert leak.kind == "code"
            assert leak.why.startswith(
                "generation 1 is kept by pixsim7_test_registry.HANDLERS → list → dict → function "
            )
            del leak, report
            registry.__dict__["HANDLERS"].clear()
            await host.manager.reload("quest")
            await host.manager.settle()
            registry.__dict__["HANDLERS"].clear()
            assert host.manager.find_leaks() == ()
    finally:
        del sys.modules["pixsim7_test_registry"]


async def test_failed_code_is_given_up_too(tmp_path: Path) -> None:
    """Nothing stays of generations that never served."""
    write_plugin(tmp_path, "quest")
    async with plugin_host(tmp_path) as host:
        write_plugin(tmp_path, "quest", "def on_load(app): raise RuntimeError('no')")
        for _ in range(3):
            with pytest.raises(Exception, match="no"):
                await host.manager.reload("quest")
        await asyncio.sleep(0)  # asyncio keeps the last exception of a task until another one has its turn
        assert host.manager.find_leaks() == ()
