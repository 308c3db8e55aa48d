"""The process in which ``pixsim7 plugins check`` runs a plugin: a directory has its request, and gets its results.

Results are written after each check: when the plugin takes the process down, what was found until
then is there, and during which check it happened.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from pydantic import SecretStr

from pixsim7_backend.cli.check_permissions import useless_permissions
from pixsim7_backend.db import Database
from pixsim7_backend.db.migrations import (
    MigrationError,
    MigrationSource,
    downgrade,
    find_source,
    schema_differences,
    upgrade,
)
from pixsim7_backend.db.models import iter_plugin_bases
from pixsim7_backend.infrastructure.plugins import PluginError, PluginRecord
from pixsim7_backend.infrastructure.plugins._conformance import (
    CheckResult,
    ConformanceHost,
    Finding,
    check_plugin,
)
from pixsim7_backend.infrastructure.plugins._settings.config import read_config
from pixsim7_backend.infrastructure.plugins._settings.layers import SettingsSources
from pixsim7_backend.main import create_app
from pixsim7_backend.resources import CHECKS, configured
from pixsim7_backend.settings import Settings, load_settings
from pixsim7_backend.settings_cipher import settings_cipher

_ACCOUNT = {"email": "check@example.com", "username": "check", "password": "a private app's only account"}


def main(place: Path) -> None:
    """Run the checks that ``place``/request.json asks for."""
    gc.freeze()  # libraries: collecting what a plugin leaves, after each of its reloads, need not go through them
    request = json.loads((place / "request.json").read_text())
    settings = load_settings(data_dir=place, database_url=SecretStr(os.environ["DATABASE_URL"]))
    with configured(settings) as database:
        asyncio.run(_check(place, request, settings, database))


def _leave() -> None:
    """End the process at once: the tasks and threads that a plugin has left could hold up its end for ever."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


async def _check(place: Path, request: dict[str, Any], settings: Settings, database: Database) -> None:
    folder = Path(request["folder"])

    def write(**values: Any) -> None:
        (place / "results.part").write_text(json.dumps(values))
        (place / "results.part").replace(place / "results.json")

    def progress(running: str, results: Sequence[CheckResult]) -> None:
        write(plugin=folder.name, running=running, results=[each.to_json() for each in results])

    host = ConformanceHost(
        make_app=lambda: _make_app(settings, database),
        resources=CHECKS,
        prepare=lambda record, package_dir: _migrate(database, record, package_dir),
        check_permissions=lambda plugin: useless_permissions(place, plugin, request["directories"]),
        check_migrations=lambda plugins: check_migrations(f"sqlite:///{place / 'migrations.sqlite3'}", plugins),
        sources=_sources(settings),
        sign_in=_sign_in,
    )
    directories = [Path(each) for each in request["directories"]]
    try:
        report = await check_plugin(
            folder, directories=directories, host=host, reloads=request["reloads"], progress=progress
        )
    except PluginError as error:
        write(error=str(error))
    else:
        write(plugin=report.plugin, results=[each.to_json() for each in report.results])
    _leave()


def _make_app(settings: Settings, database: Database) -> FastAPI:
    app = create_app(settings)
    app.state.database = database
    return app


def _migrate(database: Database, record: PluginRecord, package_dir: Path) -> None:
    source = find_source(record.id, package_dir)
    if source is not None:
        upgrade(database, [source])


def _sources(settings: Settings) -> SettingsSources:
    """Take the plugins' settings from where a server started here would take them."""
    config = read_config(os.environ, Path.cwd())
    return SettingsSources(
        config=config.plugins,
        config_file=config.file,
        environ=dict(os.environ),
        cipher=settings_cipher(settings),
    )


async def _sign_in(client: httpx.AsyncClient) -> Mapping[str, str]:
    """Make an account where ``auth`` is there; elsewhere requests stay anonymous."""
    answer = await client.post("/api/v1/auth/register", json=_ACCOUNT)
    return {"Authorization": f"Bearer {answer.json()['access_token']}"} if answer.status_code == 201 else {}


def check_migrations(url: str, plugins: Sequence[tuple[str, Path]]) -> list[Finding] | None:
    """Run the plugins' migrations in the empty database of ``url``, the last one's back and forth.

    Returns what is wrong with those of the last plugin, None when it has no tables.
    """
    plugin, folder = plugins[-1]
    tables = sorted({name for base in iter_plugin_bases(plugin) for name in base.metadata.tables})
    source = find_source(plugin, folder)
    if source is None:
        way = "add migrations/0001_initial.py, a plain Alembic revision that makes them"
        what = f"no migration makes the tables of its models: {', '.join(tables)}"
        return [Finding(what=what, way_out=way)] if tables else None
    before = [found for each in plugins[:-1] if (found := find_source(*each)) is not None]
    database = Database(url)
    try:
        upgrade(database, before)
        differences = [_back_and_forth(database, source) for _ in range(2)]
    except MigrationError as error:
        return [Finding(what=str(error), where=str(source.directory))]
    finally:
        database.close()
    way = "add a revision that makes them equal"
    distinct = dict.fromkeys(each for found in differences for each in found)
    return [Finding(what=f"models and migrations differ: {each}", way_out=way) for each in distinct]


def _back_and_forth(database: Database, source: MigrationSource) -> list[str]:
    """Run all migrations, compare with the models, and take them back."""
    upgrade(database, [source])
    bases = iter_plugin_bases(source.plugin_id)
    differences = [each for base in bases for each in schema_differences(database, base.metadata)]
    downgrade(database, source)
    return differences


if __name__ == "__main__":
    main(Path(sys.argv[1]))
