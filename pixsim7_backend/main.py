"""The backend as an ASGI app: ``uvicorn pixsim7_backend.main:app``.

Importing this module reads no settings, opens no file and no database; all of that is the
lifespan's, so that tools and tests can import the app for nothing.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

from fastapi import FastAPI

from pixsim7_backend import __version__, health, operating
from pixsim7_backend.curl_json import CurlJson
from pixsim7_backend.db import Database
from pixsim7_backend.db.migrations import find_source
from pixsim7_backend.infrastructure.plugins import (
    JailLoader,
    PluginManager,
    StartupJournal,
    init_plugin_manager,
    watch_plugins,
)
from pixsim7_backend.infrastructure.plugins.preview import ResourceCheck
from pixsim7_backend.logging import configure_logging
from pixsim7_backend.plugin_migrations import PluginMigrations
from pixsim7_backend.plugin_store import MIGRATIONS, DatabaseStateStore
from pixsim7_backend.problems import PROBLEM_RESPONSES, install_problem_handlers
from pixsim7_backend.rate_limits import limits_of, warn_of_unknown
from pixsim7_backend.request_ids import RequestIds
from pixsim7_backend.resources import CHECKS, configured, enforcer_of
from pixsim7_backend.settings import Settings, load_settings
from pixsim7_backend.settings_cipher import settings_cipher
from pixsim7_backend.startup_errors import PlainStartupErrors
from pixsim7_backend.workers import counted_worker

logger = logging.getLogger("pixsim7.main")


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the backend; without ``settings`` they are read when the app starts."""
    app = FastAPI(
        title="PixSim7 backend",
        version=__version__,
        lifespan=lifespan,
        responses=PROBLEM_RESPONSES,
        strict_content_type=False,  # safe, since no cookie authenticates; see CurlJson
    )
    app.state.settings = settings
    app.include_router(health.router)
    app.include_router(operating.plugin_routes())
    install_problem_handlers(app)
    app.add_middleware(CurlJson)
    app.add_middleware(RequestIds)
    app.add_middleware(PlainStartupErrors)
    return app


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the database, load and enable the plugins; on the way out the reverse."""
    settings = app.state.settings = app.state.settings or load_settings()
    undo_logging = configure_logging(settings.log_format, settings.log_level)
    try:
        async with (
            open_database(app, settings) as database,
            counted_worker(settings.data_dir) as is_only_worker,
            limits_of(settings) as limits,
        ):
            migrations = PluginMigrations(
                database, is_embedded=settings.is_embedded, migrates_live=settings.reload_migrations
            )
            plugin_manager = init_plugin_manager(
                app,
                settings.plugins_dir,
                more_directories=settings.extra_plugins_dirs,
                community_directory=settings.community_plugins_dir,
                isolation=settings.isolation,
                community_floor=settings.community_floor,
                resources=CHECKS,
                prepare=migrations,
                hook_timeout=settings.hook_timeout,
                store=DatabaseStateStore(database, migrates=settings.is_embedded),
                cipher=settings_cipher(settings),
                allow_live_changes=lambda: settings.workers == 1 and is_only_worker(),
                safe_mode=settings.safe_mode,
                breaker=settings.breaker,
                limits=limits,
                startup_journal=StartupJournal(settings.starts_dir if settings.remember_crashes else None),
                jails=lambda: confine(settings, database),
                enforcer=enforcer_of(settings),
            )
            logger.info(f"Loaded {len(plugin_manager.list_plugins())} plugins")  # noqa: G004  # as the guide writes it
            warn_of_unknown(settings, plugin_manager)
            await plugin_manager.enable_all()
            migrations.is_live = True
            app.state.readiness_checks = readiness_checks(settings, database, plugin_manager)
            try:
                async with live_reload(plugin_manager, settings), operating.control_socket(plugin_manager, settings):
                    yield
            finally:
                await plugin_manager.disable_all()
    finally:
        undo_logging()


def confine(settings: Settings, database: Database) -> JailLoader:
    """Return what runs confined plugins; imported only where there is one."""
    from pixsim7_backend.jails import make_backend_jails

    return make_backend_jails(settings, database)


@asynccontextmanager
async def open_database(app: FastAPI, settings: Settings) -> AsyncIterator[Database]:
    """Make the settings' database the app's; close its connections in the end."""
    with configured(settings) as database:
        app.state.database = database
        try:
            yield database
        finally:
            await database.aclose()


@asynccontextmanager
async def live_reload(manager: PluginManager, settings: Settings) -> AsyncIterator[None]:
    """Follow the plugin directories, where the settings ask for it."""
    async with watch_plugins(manager) if settings.reload_plugins else nullcontext():
        yield


def readiness_checks(settings: Settings, database: Database, manager: PluginManager) -> dict[str, ResourceCheck]:
    """Return what must answer for the backend to be ready."""
    checks = {"database": CHECKS["db"]}
    if settings.redis_url.get_secret_value():
        checks["redis"] = CHECKS["redis"]
    if not settings.is_embedded:
        trusted = [each for each in manager.list_plugins() if not each.source.is_confined]  # migrations are code
        found = [find_source(record.id, record.source.path) for record in trusted]
        checks["migrations"] = health.MigrationsCheck(database, [*(source for source in found if source), MIGRATIONS])
    return checks


app = create_app()
