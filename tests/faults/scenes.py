"""Plugins that register something of every kind, and the long and short of fault tests."""

from __future__ import annotations

import os
from pathlib import Path

from pixsim7_backend.infrastructure.plugins.testing import write_plugin

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "1"))
"""How much longer than in the suite to try."""

_EVERYTHING = """
from contextlib import asynccontextmanager
{imports}
VERSION = {version}
@asynccontextmanager
async def lifespan(app):
    await asyncio.sleep(0)
    yield {{"lifespan": VERSION}}
    await asyncio.sleep(0)
router = APIRouter(prefix="/{id}", lifespan=lifespan)
@router.get("/version")
async def version() -> int:
    return VERSION
async def tick():
    while True:
        await asyncio.sleep(60)
def on_load(app):
    app.state.{key} = VERSION
    @app.get("/extra/{id}")
    async def extra() -> int:
        return VERSION
async def on_enable():
    plugin_hooks.register("{id}:asked", lambda: VERSION)
    ports.provide("{id}", VERSION)
    asyncio.create_task(tick(), name="tick of {id}")
    await asyncio.sleep(0)
async def on_disable():
    await asyncio.sleep(0)
def on_unload():
    return VERSION
{more}
"""


def write_everything(
    directory: Path, plugin: str, version: int = 1, more: str = "", uses: str = "", **fields: object
) -> None:
    """Write a plugin with routes, lifespan, state, task, port and handler; it imports from ``uses``, if given."""
    key = plugin.replace("-", "_")
    imports = f"from ..{uses.replace('-', '_')} import manifest as {uses.replace('-', '_')}_manifest" if uses else ""
    code = _EVERYTHING.format(id=plugin, key=key, version=version, more=more, imports=imports)
    dependencies = [uses] if uses else []
    write_plugin(directory, plugin, code, **({"dependencies": dependencies, "version": f"{version}.0.0"} | fields))


def write_chain(directory: Path, version: int = 1) -> None:
    """Write ``base``, ``middle`` that imports from it, ``top`` that needs ``middle``, and ``other``."""
    write_everything(directory, "base", version)
    write_everything(directory, "middle", version, uses="base")
    write_everything(directory, "top", version, dependencies=["middle"])
    write_everything(directory, "other", version)
