"""What holds for every first-party plugin, whatever it does."""

from __future__ import annotations

import ast
import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from pixsim7_backend.db import Database
from pixsim7_backend.db.migrations import downgrade, find_source, pending, schema_differences, upgrade
from pixsim7_backend.db.models import iter_plugin_bases
from pixsim7_backend.infrastructure.plugins import PluginEvents, PluginManager, PluginState, plugin_hooks
from pixsim7_backend.infrastructure.plugins.preview import preview
from pixsim7_backend.main import create_app
from pixsim7_backend.settings import Settings
from tests.databases import KINDS, fresh_database
from tests.plugins.conftest import PLUGINS_DIR

pytestmark = pytest.mark.anyio

PLAN = preview([PLUGINS_DIR], disabled=(), resources={"db": lambda: None, "redis": lambda: None})
WITH_MIGRATIONS = [each for each in PLAN.order if find_source(each, PLAN.candidates[each].source.path)]
METHODS = ("get", "post", "put", "patch", "delete")


@pytest.fixture(scope="module")
async def app(tmp_path_factory: pytest.TempPathFactory, backend_environment: None) -> AsyncIterator[FastAPI]:
    """The backend with all its plugins enabled."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("contract"), database_url=SecretStr(""))
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
def manager(app: FastAPI) -> PluginManager:
    manager: PluginManager = app.state.plugin_manager
    return manager


def test_the_plan_holds_nothing_back() -> None:
    """Every folder of the plugin directory becomes a plugin that can run."""
    assert not PLAN.held
    assert not PLAN.problems
    assert not PLAN.warnings


@pytest.mark.parametrize("plugin", PLAN.order)
def test_the_folder_says_who_it_is(plugin: str) -> None:
    """Folder and id agree, and the manifest can be read without running the plugin."""
    candidate = PLAN.candidates[plugin]
    assert candidate.source.folder == plugin.replace("-", "_")
    assert candidate.manifest is not None
    assert not candidate.warnings


@pytest.mark.parametrize("plugin", PLAN.order)
async def test_disabling_leaves_nothing_and_enabling_brings_all_back(
    plugin: str, app: FastAPI, manager: PluginManager
) -> None:
    """No route, schema, subscription, port, task, thread, handler or state key of it remains; then it is as before."""
    before = _present(app, manager)
    report = await manager.disable(plugin, cascade=True)
    try:
        assert report.is_clean, report.leaks
        off = [record.id for record in manager.iter_records() if record.state is not PluginState.ENABLED]
        assert set(off) == {plugin, *PLAN.dependants_of(plugin, transitive=True)}
        for each in off:
            assert not [owner for owner in _owners() if owner == each]
            mine = set(before["paths_of"][each])
            assert not mine & set(app.openapi()["paths"])
            assert manager.find_report(each).is_clean  # type: ignore[union-attr]
    finally:
        await manager.enable(plugin)
    assert _present(app, manager) == before


_OTHERS = ("Task-", "anyio", "keeping ")


def _present(app: FastAPI, manager: PluginManager) -> dict[str, Any]:
    schema = app.openapi()
    return {
        "paths": sorted(schema["paths"]),
        "schemas": sorted(schema["components"]["schemas"]),
        "paths_of": {each: _paths_of(schema, each) for each in PLAN.order},
        "subscriptions": sorted(_owners()),
        # those without a name of their own come and go with servers of other tests on this loop
        "tasks": sorted(name for task in asyncio.all_tasks() if not (name := task.get_name()).startswith(_OTHERS)),
        "threads": sorted(thread.name for thread in threading.enumerate() if not thread.name.startswith("AnyIO")),
        "handlers": len(logging.root.handlers),
        "state": sorted(app.state._state),
    }


def _owners() -> list[str]:
    return [each.owner.plugin for each in plugin_hooks.iter_subscriptions() if each.owner is not None]


def _paths_of(schema: dict[str, Any], plugin: str) -> list[str]:
    manifest = PLAN.candidates[plugin].manifest
    assert manifest is not None
    tags = set(manifest.tags or (plugin,))
    return sorted(
        path
        for path, operations in schema["paths"].items()
        if any(tags & set(operation.get("tags", ())) for operation in operations.values())
    )


@pytest.mark.parametrize("plugin", PLAN.order)
def test_every_operation_is_documented(plugin: str, app: FastAPI) -> None:
    """Each has a description and an own operation id, and belongs to exactly this plugin's tags, once."""
    schema = app.openapi()
    manifest = PLAN.candidates[plugin].manifest
    assert manifest is not None
    paths = _paths_of(schema, plugin)
    assert paths, f"{plugin} serves nothing"
    for path in paths:
        assert path.startswith(manifest.prefix)
        for method in set(METHODS) & set(schema["paths"][path]):
            operation = schema["paths"][path][method]
            assert operation.get("description"), f"{method} {path} has no description"
            assert len(operation["tags"]) == len(set(operation["tags"]))


async def test_collections_answer_with_and_without_a_final_slash(app: FastAPI) -> None:
    """Nobody is sent round by a redirect, which plain curl and some clients do not follow."""
    collections = [path for path in app.openapi()["paths"] if path.startswith("/api/v1/") and path.endswith("/")]
    assert len(collections) >= 6
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://contract.test") as client:
        for path in collections:
            assert {(await client.get(each)).status_code for each in (path, path.rstrip("/"))} == {401}, path


def test_operation_ids_are_unique(app: FastAPI) -> None:
    """Generated clients have one function for each."""
    ids = [
        operation["operationId"] for operations in app.openapi()["paths"].values() for operation in operations.values()
    ]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("plugin", PLAN.order)
def test_only_documented_events_are_emitted(plugin: str) -> None:
    """What its code emits is one of PluginEvents, or declared in its manifest."""
    candidate = PLAN.candidates[plugin]
    assert candidate.manifest is not None
    known = {f"PluginEvents.{event.name}" for event in PluginEvents} | {repr(e) for e in candidate.manifest.events}
    emitted = {event for file in candidate.source.path.rglob("*.py") for event in _emitted(file)}
    assert emitted <= known


def _emitted(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            place = {"emit": 0, "emit_after_commit": 1}.get(node.func.attr)
            if place is not None and len(node.args) > place:
                yield ast.unparse(node.args[place])


@pytest.mark.parametrize("kind", KINDS)
def test_migrations_make_what_the_models_say_and_can_be_taken_back(kind: str, app: FastAPI, tmp_path: Path) -> None:
    """In load order up, no difference to the models, in reverse down, and up again."""
    sources = [find_source(each, PLAN.candidates[each].source.path) for each in WITH_MIGRATIONS]
    found = [source for source in sources if source is not None]
    with fresh_database(kind, tmp_path) as url:
        database = Database(url)
        try:
            for _ in range(2):
                upgrade(database, found)
                for source in found:
                    assert pending(database, source) == ()
                    for base in iter_plugin_bases(source.plugin_id):
                        assert schema_differences(database, base.metadata) == []
                for source in reversed(found):
                    downgrade(database, source)
        finally:
            database.close()
