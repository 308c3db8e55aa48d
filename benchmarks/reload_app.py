"""The app that the reload benchmark serves: the plugins of a folder, followed while it runs or not.

``BENCH_PLUGINS`` names the folder; with ``BENCH_WATCH`` set, plugins are replaced as their files change.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

from fastapi import FastAPI

from pixsim7_backend.infrastructure.plugins import init_plugin_manager, watch_plugins


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Serve the plugins of the folder."""
    manager = init_plugin_manager(app, os.environ["BENCH_PLUGINS"], disabled=())
    await manager.enable_all()
    async with watch_plugins(manager) if os.environ.get("BENCH_WATCH") else nullcontext():
        yield
    await manager.disable_all()


def make_app() -> FastAPI:
    """Return the app."""
    return FastAPI(lifespan=lifespan)
