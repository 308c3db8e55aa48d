"""The private app in which a plugin is tried: it and what it requires, nothing else."""

from __future__ import annotations

import ast
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI

from pixsim7_backend.infrastructure.plugins import PluginManager, plugin_hooks
from pixsim7_backend.infrastructure.plugins._discovery.sources import Discovery, discover_directory
from pixsim7_backend.infrastructure.plugins._limits.settings import LimitSettings
from pixsim7_backend.infrastructure.plugins._plan.plan import Candidate
from pixsim7_backend.infrastructure.plugins._reporter import LogReporter
from pixsim7_backend.infrastructure.plugins._resources import ResourceCheck
from pixsim7_backend.infrastructure.plugins._settings.layers import SettingsSources
from pixsim7_backend.infrastructure.plugins._settings.platform import PluginSettings, Prepare
from pixsim7_backend.infrastructure.plugins._store import MemoryStateStore
from pixsim7_backend.infrastructure.plugins.errors import MissingManifestError
from pixsim7_backend.infrastructure.plugins.types import normalize_plugin_id

from .verdicts import Finding

if TYPE_CHECKING:
    import httpx


@dataclass(frozen=True, slots=True, kw_only=True)
class ConformanceHost:
    """What the host gives to the plugins that are tried."""

    make_app: Callable[[], FastAPI] = FastAPI
    resources: Mapping[str, ResourceCheck] = field(default_factory=dict)
    """The checks of ``"db"`` and ``"redis"``."""
    prepare: Prepare | None = None
    """The host's own step before a plugin is first enabled (its migrations)."""
    check_migrations: Callable[[Sequence[tuple[str, Path]]], list[Finding] | None] | None = None
    """Gets id and folder of what the plugin requires, in load order, at last the plugin's. None: it has no tables.

    The plugin is enabled meanwhile."""
    check_permissions: Callable[[Candidate], list[Finding]] = lambda _plugin: []
    """Says what the plugin asks for and could not use."""
    sources: SettingsSources = field(default_factory=SettingsSources)
    """Where the settings of the plugins come from."""
    sign_in: Callable[[httpx.AsyncClient], Awaitable[Mapping[str, str]]] | None = None
    """Returns headers with which requests are let in, as far as that is possible here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Who takes part: the plugin, what it requires in load order, and everybody known by package."""

    plugin: Candidate
    required: tuple[Candidate, ...]
    packages: Mapping[str, str]
    """Package → id of every plugin found, required or not."""

    @property
    def folder(self) -> Path:
        return self.plugin.source.path

    def trees(self) -> dict[str, ast.Module]:
        """Return the syntax trees of the plugin's files but its tests; what does not parse is left to the import."""
        found = {}
        for file in sorted(self.folder.rglob("*.py")):
            if "tests" not in file.relative_to(self.folder).parts[:-1]:
                try:
                    found[str(file)] = ast.parse(file.read_bytes(), filename=str(file))
                except (SyntaxError, ValueError):
                    continue
        return found


def gather(folder: Path, directories: Sequence[Path]) -> Cast:
    """Find the plugin in ``folder``; what it requires is looked for beside it first, then in ``directories``.

    Raises:
        MissingManifestError: there is no plugin in the folder.
        PluginDirectoryError: a directory cannot be read.
    """
    beside = discover_directory(folder.parent) if folder.is_dir() else []
    plugin = next((each for each in beside if each.source.folder == folder.name), None)
    if plugin is None:
        raise MissingManifestError(plugin=normalize_plugin_id(folder.name), directory=folder)
    pool: dict[str, Candidate] = {}
    for each in (*beside, *(found for directory in directories for found in discover_directory(directory))):
        if each.id != plugin.id:
            pool.setdefault(each.id, each)
    packages = {each.source.package: each.id for each in (plugin, *pool.values())}
    return Cast(plugin=plugin, required=_required(plugin, pool), packages=packages)


def _required(plugin: Candidate, pool: Mapping[str, Candidate]) -> tuple[Candidate, ...]:
    found: dict[str, Candidate] = {}

    def add(candidate: Candidate) -> None:
        for requirement in candidate.manifest.requirements if candidate.manifest else ():
            other = pool.get(requirement.plugin)
            if other is not None and other.id not in found:
                add(other)
                found.setdefault(other.id, other)

    add(plugin)
    return tuple(found.values())


def make_manager(cast: Cast, host: ConformanceHost) -> PluginManager:
    """Return a manager that knows what the plugin requires, and not yet the plugin."""
    app = host.make_app()
    settings = PluginSettings(
        resources=host.resources,
        prepare=host.prepare,
        sources=host.sources,
        drain_timeout=2.0,
        task_timeout=2.0,
        limits=LimitSettings(rates={each.id: None for each in (cast.plugin, *cast.required)}),
    )
    discovery = Discovery(candidates=cast.required)
    store = MemoryStateStore()
    manager = PluginManager(app, discovery, settings, store=store, hooks=plugin_hooks, reporter=LogReporter())
    app.state.plugin_manager = manager
    return manager
