"""Import a plugin's package and take from it what a plugin exports."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ValidationError
from starlette.middleware import Middleware

from pixsim7_backend.infrastructure.plugins._attribution.culprit import place_of
from pixsim7_backend.infrastructure.plugins._attribution.figures import ConfinedFigures
from pixsim7_backend.infrastructure.plugins._discovery.manifest_source import check_complete, explain_problems
from pixsim7_backend.infrastructure.plugins._dispatch.claims import Description
from pixsim7_backend.infrastructure.plugins._interruption import is_interrupt
from pixsim7_backend.infrastructure.plugins._settings.form import ModelForm, SettingsForm
from pixsim7_backend.infrastructure.plugins.errors import (
    AsyncHookError,
    InvalidManifestError,
    MissingExportError,
    PluginLoadError,
)
from pixsim7_backend.infrastructure.plugins.records import PluginSource
from pixsim7_backend.infrastructure.plugins.types import PluginManifest

from .modules import drop_stale_code, take_out


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginCode:
    """What one generation of a plugin exports."""

    manifest: PluginManifest
    routers: tuple[APIRouter, ...]
    on_load: Callable[..., object] | None = None
    on_unload: Callable[[], Any] | None = None
    on_enable: Callable[[], Any] | None = None
    on_disable: Callable[[], Any] | None = None
    health: Callable[[], Any] | None = None
    middleware: tuple[Middleware, ...] = ()
    exception_handlers: Mapping[Any, Callable[..., Any]] = field(default_factory=dict)
    settings_model: type[BaseModel] | None = None

    @property
    def description(self) -> Description | None:
        """What it serves, where its routes cannot be asked themselves."""
        return None

    @property
    def settings(self) -> SettingsForm | None:
        """What it says of its settings; None where it has none."""
        return ModelForm(self.manifest.id, self.settings_model) if self.settings_model is not None else None

    def read_figures(self) -> ConfinedFigures | None:
        """Return what it uses, where it runs confined."""
        return None


def load_code(source: PluginSource, plugin: str) -> PluginCode:
    """Import the plugin and check its exports.

    A name is taken from the package or, where its ``__init__`` does not export it, from its
    ``manifest`` module. When anything is wrong, the package is out of ``sys.modules`` again.

    Raises:
        PluginLoadError: importing it raised.
        MissingExportError: ``manifest`` or ``router`` is missing, or an export has the wrong type.
        AsyncHookError: ``on_load`` is a coroutine function.
        InvalidManifestError: the imported manifest leaves fields out, or has another id than was read before.
    """
    try:
        modules = _import_package(source, plugin)
        return _Exports(source, plugin, modules).collect()
    except BaseException:
        take_out(source.package)
        raise


def _import_package(source: PluginSource, plugin: str) -> tuple[ModuleType, ...]:
    _provide_parent(source)
    drop_stale_code(source.path)
    importlib.invalidate_caches()
    try:
        package = importlib.import_module(source.package)
        return package, importlib.import_module(f"{source.package}.manifest")
    except BaseException as error:  # importing runs the plugin's own code, which may raise anything
        if is_interrupt(error):
            raise
        file, line = _culprit(error, source)
        if isinstance(error, ValidationError) and error.title == PluginManifest.__name__:
            problems = explain_problems(error)
            raise InvalidManifestError(plugin=plugin, file=file, line=line, problems=problems) from error
        raise PluginLoadError(plugin=plugin, file=file, line=line, cause=error) from error


def _provide_parent(source: PluginSource) -> None:
    """Make the synthetic parent package of a directory that belongs to no importable package."""
    parent = source.package.rpartition(".")[0]
    if not parent or parent in sys.modules or "." in parent or importlib.util.find_spec(parent) is not None:
        return
    module = ModuleType(parent, f"Plugins found in {source.path.parent}.")
    module.__path__ = [str(source.path.parent)]
    sys.modules[parent] = module


def _culprit(error: BaseException, source: PluginSource) -> tuple[Path, int | None]:
    """Return file and line of the last place in the plugin's own code."""
    if isinstance(error, SyntaxError) and error.filename:
        return Path(error.filename), error.lineno
    directory = os.path.join(source.path, "")  # noqa: PTH118  # with the separator: "a" is not the start of "ab"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.startswith(directory):
            return Path(frame.filename), frame.lineno
    return source.manifest_file, None


class _Exports:
    """Reads and checks a plugin's exports one by one; each error names the file and the export."""

    def __init__(self, source: PluginSource, plugin: str, modules: Sequence[ModuleType]) -> None:
        self._source = source
        self._plugin = plugin
        self._modules = modules

    def collect(self) -> PluginCode:
        routers = self._routers()
        return PluginCode(
            manifest=self._manifest(),
            routers=routers,
            on_load=self._sync_hook("on_load"),
            on_unload=self._sync_hook("on_unload"),
            on_enable=self._hook("on_enable"),
            on_disable=self._hook("on_disable"),
            health=self._health(routers),
            middleware=self._middleware(),
            exception_handlers=self._exception_handlers(),
            settings_model=self._settings_model(),
        )

    def _find(self, name: str) -> Any:
        for module in self._modules:
            value = vars(module).get(name)
            if value is not None and not isinstance(value, ModuleType):
                return value
        return None

    def _wrong(self, name: str, expected: str, found: Any = None) -> MissingExportError:
        return MissingExportError(
            plugin=self._plugin,
            file=self._source.manifest_file,
            name=name,
            expected=expected,
            found="" if found is None else _describe_type(found),
        )

    def _manifest(self) -> PluginManifest:
        manifest = self._find("manifest")
        if not isinstance(manifest, PluginManifest):
            raise self._wrong("manifest", "a PluginManifest: `manifest = PluginManifest(id=..., ...)`", manifest)
        if manifest.id != self._plugin:
            problem = f"`id` is {manifest.id!r} once imported, not {self._plugin!r}; write it as a literal text"
            raise InvalidManifestError(plugin=self._plugin, file=self._source.manifest_file, problems=[problem])
        check_complete(manifest, file=self._source.manifest_file, plugin=self._plugin)
        return manifest

    def _routers(self) -> tuple[APIRouter, ...]:
        router, routers = self._find("router"), self._find("routers")
        if router is None and routers is None:
            raise self._wrong("router", "an APIRouter: `router = APIRouter(...)`")
        found = ([router] if router is not None else []) + (
            list(routers) if isinstance(routers, (list, tuple)) else [] if routers is None else [routers]
        )
        for one in found:
            if not isinstance(one, APIRouter):
                raise self._wrong("router", "an APIRouter: `router = APIRouter(...)`", one)
        return tuple({id(one): one for one in found}.values())  # routers compare by value and have no hash

    def _hook(self, name: str) -> Callable[..., Any] | None:
        hook = self._find(name)
        if hook is None:
            return None
        if not callable(hook):
            raise self._wrong(name, f"a function: `def {name}(...)`", hook)
        checked: Callable[..., Any] = hook
        return checked

    def _health(self, routers: tuple[APIRouter, ...]) -> Callable[..., Any] | None:
        """Return the hook ``health()``; an endpoint of that name is not one."""
        health = self._find("health")
        endpoints = {id(getattr(route, "endpoint", None)) for router in routers for route in router.routes}
        return self._hook("health") if id(health) not in endpoints else None

    def _sync_hook(self, name: str) -> Callable[..., Any] | None:
        hook = self._hook(name)
        if inspect.iscoroutinefunction(hook):
            raise AsyncHookError(plugin=self._plugin, hook=name, where=place_of(hook))
        return hook

    def _settings_model(self) -> type[BaseModel] | None:
        found = self._find("settings_model")
        if found is None:
            return None
        if not isinstance(found, type) or not issubclass(found, BaseModel):
            raise self._wrong("settings_model", "a class derived from pydantic.BaseModel", found)
        return found

    def _middleware(self) -> tuple[Middleware, ...]:
        found = self._find("middleware")
        if found is None:
            return ()
        if not isinstance(found, (list, tuple)) or not all(isinstance(one, Middleware) for one in found):
            raise self._wrong("middleware", "a list of starlette.middleware.Middleware", found)
        return tuple(found)

    def _exception_handlers(self) -> Mapping[Any, Callable[..., Any]]:
        found = self._find("exception_handlers")
        if found is None:
            return {}
        if not isinstance(found, Mapping) or not all(callable(handler) for handler in found.values()):
            raise self._wrong("exception_handlers", "a dict of exception class or status code to function", found)
        return dict(found)


def _describe_type(value: Any) -> str:
    return f"{'an' if type(value).__name__[0] in 'AEIOUaeiou' else 'a'} {type(value).__name__}"
