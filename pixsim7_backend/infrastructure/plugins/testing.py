"""Test a plugin in a few lines: write it, start an app with it, call it, assert on its record.

::

    write_plugin(tmp_path, "quest", '''
    @router.get("/open")
    def open_quests(limit: int = Depends(get_limit)) -> list[str]: ...
    ''', dependencies=["game-sessions"])

    async with plugin_host(tmp_path) as host:
        host.override("quest:get_limit", lambda: 3)
        answer = await host.client.get("/api/v1/quest/open")
        host.assert_state("quest", PluginState.ENABLED)

Needs ``httpx``, which the platform itself does not.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from . import PluginManager, PluginRecord, PluginState, init_plugin_manager, normalize_plugin_id
from ._store import MemoryStateStore
from .preview import preview

__all__ = ["MemoryStateStore", "PluginHost", "override_by_name", "plugin_host", "write_plugin"]

_HEADER = """\
import asyncio
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from pixsim7_backend.infrastructure.plugins import PluginEvents, plugin_hooks, ports
from pixsim7_backend.infrastructure.plugins.types import PluginManifest

manifest = PluginManifest(
{fields})

router = APIRouter(prefix="/{path}", tags=["{id}"])

{code}
"""


def write_plugin(directory: Path, plugin: str, code: str = "", **fields: Any) -> Path:
    """Write a plugin folder with a manifest and ``code`` below it; return the folder.

    ``code`` finds ``router`` (prefix ``/<id>``), ``manifest``, ``plugin_hooks``, ``PluginEvents``,
    ``ports``, ``asyncio`` and FastAPI's usual names. ``fields`` are fields of the manifest; those that must be
    there get sensible values. An existing folder of the same name gets the new code.
    """
    plugin_id = normalize_plugin_id(plugin)
    values = {
        "id": plugin_id,
        "name": plugin_id.replace("-", " ").title(),
        "version": "1.0.0",
        "description": f"Written for a test of {plugin_id}",
    } | fields
    folder = directory / plugin_id.replace("-", "_")
    folder.mkdir(parents=True, exist_ok=True)
    text = _HEADER.format(
        fields="".join(f"    {name}={value!r},\n" for name, value in values.items()),
        path=plugin_id,
        id=plugin_id,
        code=textwrap.dedent(code),
    )
    (folder / "manifest.py").write_text(text, encoding="utf-8")
    (folder / "__init__.py").write_text("from .manifest import manifest, router\n", encoding="utf-8")
    return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginHost:
    """A running app with plugins, and a client that talks to it."""

    app: FastAPI
    manager: PluginManager
    client: httpx.AsyncClient

    def record(self, plugin: str) -> PluginRecord:
        """Return the plugin's record; raise PluginNotFoundError when there is none."""
        return self.manager.get(plugin)

    def assert_state(self, plugin: str, state: PluginState) -> PluginRecord:
        """Assert the plugin's state (the message shows the reason it has instead); return the record."""
        record = self.record(plugin)
        assert record.state is state, f"{record.id} is {record.state}, not {state}: {record.reason}"
        return record

    def override(self, dependency: str, replacement: Callable[..., Any]) -> Callable[[], None]:
        """Replace a dependency by name, see :func:`override_by_name`; return the undo."""
        plugin, _, name = dependency.partition(":")
        return override_by_name(self.app, self.record(plugin).source.package, name, replacement)


class _OverridesByName(dict[Callable[..., Any], Callable[..., Any]]):
    """``app.dependency_overrides`` that also answers for functions known by package and name only."""

    def __init__(self, known: dict[Callable[..., Any], Callable[..., Any]]) -> None:
        super().__init__(known)
        self.by_name: dict[tuple[str, str], Callable[..., Any]] = {}

    def __bool__(self) -> bool:
        return bool(len(self) or self.by_name)

    def get(self, call: Any, default: Any = None) -> Any:
        if call in self:
            return self[call]
        module = getattr(call, "__module__", None) or ""
        for (package, name), replacement in self.by_name.items():
            if getattr(call, "__qualname__", None) == name and f"{module}.".startswith(f"{package}."):
                return replacement
        return default


def override_by_name(app: FastAPI, package: str, name: str, replacement: Callable[..., Any]) -> Callable[[], None]:
    """Replace the dependency called ``name`` anywhere in ``package``; return the undo.

    Unlike an entry of ``app.dependency_overrides`` it survives a reload, which makes a new function
    of the same name.
    """
    overrides = app.dependency_overrides
    if not isinstance(overrides, _OverridesByName):
        overrides = app.dependency_overrides = _OverridesByName(overrides)
    overrides.by_name[package, name] = replacement

    def undo() -> None:
        overrides.by_name.pop((package, name), None)

    return undo


def _others(directories: Iterable[str | os.PathLike[str]], plugin: str) -> set[str]:
    """Return the plugins of these directories that ``plugin`` does not require, directly or through others."""
    plan = preview(directories, disabled=(), resources={"db": lambda: None, "redis": lambda: None})
    needed, waiting = set[str](), {normalize_plugin_id(plugin)}
    while waiting:
        needed |= waiting
        waiting = {other for each in waiting for other in plan.requires.get(each, ())} - needed
    return set(plan.candidates) - needed


@asynccontextmanager
async def plugin_host(
    directory: str | os.PathLike[str],
    *,
    app: FastAPI | None = None,
    enable: bool = True,
    only: str | None = None,
    **options: Any,
) -> AsyncIterator[PluginHost]:
    """Start an app with the plugins of ``directory``; stop it, and all of them, at the end.

    ``options`` go to :func:`init_plugin_manager`; without a ``store`` nothing is kept. ``app`` is a host of
    your own. With ``enable=False`` the plugins are loaded only. With ``only`` a plugin's neighbours that it
    does not require stay off.
    """
    app = app or FastAPI()
    disabled = () if only is None else _others([directory, *options.get("more_directories", ())], only)
    manager = init_plugin_manager(app, directory, **({"disabled": disabled, "store": MemoryStateStore()} | options))
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://plugins.test") as client:
        try:
            if enable:
                await manager.enable_all()
            yield PluginHost(app=app, manager=manager, client=client)
        finally:
            await manager.disable_all()
            manager.close()
