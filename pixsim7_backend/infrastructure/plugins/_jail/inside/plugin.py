"""One plugin in its jail: the platform itself, with nothing but this plugin, steered by the host's questions."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from pixsim7_backend.infrastructure.plugins import plugin_hooks
from pixsim7_backend.infrastructure.plugins._discovery.sources import Discovery, read_folder
from pixsim7_backend.infrastructure.plugins._hooks.bus import HookBus
from pixsim7_backend.infrastructure.plugins._jail.spec import JailSpec
from pixsim7_backend.infrastructure.plugins._ledger.ledger import LeakReport
from pixsim7_backend.infrastructure.plugins._limits.settings import LimitSettings
from pixsim7_backend.infrastructure.plugins._manager import PluginManager
from pixsim7_backend.infrastructure.plugins._reporter import Reporter
from pixsim7_backend.infrastructure.plugins._settings.layers import SettingsSources
from pixsim7_backend.infrastructure.plugins._settings.platform import PluginSettings
from pixsim7_backend.infrastructure.plugins._store import MemoryStateStore
from pixsim7_backend.infrastructure.plugins.errors import MissingManifestError, NoSettingsError
from pixsim7_backend.infrastructure.plugins.records import PluginRecord, PluginSource
from pixsim7_backend.infrastructure.plugins.states import PluginState

from . import events

_LONGEST_LINE = 8192
_Method = Callable[..., Awaitable[Any]]


class PluginInJail:
    """The plugin of ``spec`` with the platform around it; :attr:`app` answers its requests."""

    def __init__(self, spec: JailSpec) -> None:
        self.app = FastAPI(title=spec.plugin, openapi_url=None)
        self._spec = spec

    # --- what the host asks -------------------------------------------------------------------------

    @property
    def methods(self) -> Mapping[str, Callable[..., Awaitable[Any]]]:
        """Everything that the host may ask for."""
        return {
            "load": self.load,
            "enable": self.enable,
            "disable": self.disable,
            "configure": self.configure,
            "event": self.event,
            "ping": self.ping,
        }

    async def load(self) -> dict[str, Any]:
        """Import the plugin and run ``on_load``; return what it serves."""
        self.app.state.services = self._spec.services
        for place in self._spec.inside:
            module, _, function = place.partition(":")
            getattr(importlib.import_module(module), function)(self.app)
        self._manager = self._make_manager()
        self._manager.load_all()
        self._require(PluginState.LOADED)
        mount = self._manager.mount_of(self._spec.plugin)
        return {
            "routes": [[claim.method, claim.path, claim.endpoint] for claim in mount.iter_routes()],
            "openapi": get_openapi(title=self._spec.plugin, version="0", routes=mount.routes),
            "settings": self._settings_schema(),
            "events": events.heard(),
        }

    def _settings_schema(self) -> dict[str, Any] | None:
        try:
            return self._manager.settings_schema(self._spec.plugin)
        except NoSettingsError:
            return None

    async def enable(self) -> list[str]:
        """Start the plugin; return the events that it listens to."""
        await self._manager.enable_all()
        self._require(PluginState.ENABLED)
        return await events.announce()

    async def disable(self) -> dict[str, Any]:
        """Stop the plugin; return its leak report."""
        await self._manager.disable_all()
        report = self._manager.find_report(self._spec.plugin) or LeakReport(self._spec.plugin)
        return report.to_json()

    async def configure(self, settings: dict[str, Any]) -> None:
        """Put other settings in force."""
        await self._manager.change_settings(self._spec.plugin, settings)

    async def event(self, name: str, args: list[Any], kwargs: dict[str, Any]) -> list[str]:
        """Run the plugin's handlers of an event; return what went wrong in them."""
        outcome = await HookBus.emit(plugin_hooks, name, *args, **kwargs)  # here only: the host has heard it
        return [str(failure) for failure in outcome.failures]

    async def ping(self) -> None:
        """The event loop turns."""

    # --- the platform around the plugin -------------------------------------------------------------

    def _make_manager(self) -> PluginManager:
        spec = self._spec
        source = PluginSource(folder=spec.folder, path=Path(spec.path), package=spec.package)
        candidate = read_folder(source)
        if candidate is None:
            raise MissingManifestError(plugin=spec.plugin, directory=source.path)
        if candidate.manifest is not None:  # the host has seen to what it needs of others
            alone = {"dependencies": (), "after": (), "conflicts": (), "requires_db": False, "requires_redis": False}
            candidate = replace(candidate, manifest=candidate.manifest.model_copy(update=alone))
        settings = PluginSettings(
            hook_timeout=spec.hook_timeout,
            stall_threshold=None,
            breaker=None,
            limits=LimitSettings(rates={spec.plugin: None}),  # the host has counted already, and knows the clients
            sources=SettingsSources(config={spec.plugin: spec.settings}),
        )
        # Its own bus is deaf: what the host emits comes over the channel, to the process's bus.
        return PluginManager(
            self.app,
            Discovery(candidates=(candidate,)),
            settings,
            store=MemoryStateStore(),
            hooks=HookBus(),
            reporter=cast("Reporter", _Silent()),
        )

    def _require(self, state: PluginState) -> PluginRecord:
        record = self._manager.get(self._spec.plugin)
        if record.state is not state and record.reason is not None:
            raise record.reason
        return record


class _Silent:
    """A reporter that tells nobody: what happens here, the host reports."""

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_: None
