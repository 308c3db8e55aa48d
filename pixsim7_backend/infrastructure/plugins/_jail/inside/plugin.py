"""One plugin in its jail: the platform itself, with nothing but this plugin, steered by the host's questions."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.telemetry import TelemetryConfig

from pixsim7_backend.infrastructure.plugins import plugin_hooks
from pixsim7_backend.infrastructure.plugins._discovery.sources import Discovery, read_folder
from pixsim7_backend.infrastructure.plugins._generation import Generation
from pixsim7_backend.infrastructure.plugins._hooks.bus import HookBus
from pixsim7_backend.infrastructure.plugins._jail.frames import Kind, encode
from pixsim7_backend.infrastructure.plugins._jail.spec import JailSpec
from pixsim7_backend.infrastructure.plugins._ledger.ledger import LeakReport
from pixsim7_backend.infrastructure.plugins._ledger.ownership import Entry, running_as
from pixsim7_backend.infrastructure.plugins._limits.settings import LimitSettings
from pixsim7_backend.infrastructure.plugins._manager import PluginManager
from pixsim7_backend.infrastructure.plugins._reporter import Reporter
from pixsim7_backend.infrastructure.plugins._settings.form import RefusedSettingsError, SettingsForm
from pixsim7_backend.infrastructure.plugins._settings.layers import SettingsSources
from pixsim7_backend.infrastructure.plugins._settings.platform import PluginSettings
from pixsim7_backend.infrastructure.plugins._store import MemoryStateStore
from pixsim7_backend.infrastructure.plugins.errors import MissingManifestError, PluginError
from pixsim7_backend.infrastructure.plugins.records import PluginRecord, PluginSource
from pixsim7_backend.infrastructure.plugins.states import PluginState

from . import events

_LONGEST_LINE = 2000
_MOST_FAULTS = 100
#: There is nobody whom it could be sent to; FastAPI would ask its environment for some with every request.
_NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
_Method = Callable[..., Awaitable[Any]]


class PluginInJail:
    """The plugin of ``spec`` with the platform around it; :attr:`app` answers its requests."""

    def __init__(self, spec: JailSpec) -> None:
        self.app = FastAPI(title=spec.plugin, openapi_url=None, telemetry=_NO_TELEMETRY)
        self._spec = spec
        self._manager: PluginManager | None = None
        self._generation: Generation | None = None
        self._in_force: dict[str, Any] = {}
        """The plugin's settings as the host has sent them, under its id."""

    # --- what the host asks -------------------------------------------------------------------------

    @property
    def methods(self) -> Mapping[str, Callable[..., Awaitable[Any]]]:
        """Everything that the host may ask for."""
        return {
            "load": self.load,
            "enable": self.enable,
            "disable": self.disable,
            "validate": self.validate,
            "configure": self.configure,
            "event": self.event,
            "ping": self.ping,
        }

    async def load(self, settings: dict[str, Any] | None = None) -> dict[str, Any]:
        """Import the plugin and run ``on_load``; return what it serves.

        One that has settings is only imported until it is given some that will do, and says what can be set.
        """
        form = self._import().code.settings
        if form is None:
            return self._load()
        told: dict[str, Any] = {"settings": dict(form.schema.json)}
        if settings is not None:
            told |= self._judge(form, settings)
        if "values" in told:
            self._in_force[self._spec.plugin] = settings
            told |= self._load()
        return _sayable(told)

    def _import(self) -> Generation:
        """Import the plugin, unless that has happened; it is loaded from there."""
        if self._generation is None:
            self.app.state.services = self._spec.services
            for place in self._spec.inside:
                module, _, function = place.partition(":")
                getattr(importlib.import_module(module), function)(self.app)
            self._manager = self._make_manager()
            self._generation = self._manager._plugins.import_code(self._spec.plugin)
        return self._generation

    def _load(self) -> dict[str, Any]:
        assert self._manager is not None, "import comes first"
        self._manager.load_all()
        self._require(PluginState.LOADED)
        mount = self._manager.mount_of(self._spec.plugin)
        return {
            "routes": [[claim.method, claim.path, claim.endpoint] for claim in mount.iter_routes()],
            "openapi": get_openapi(title=self._spec.plugin, version="0", routes=mount.routes),
            "events": events.heard(),
        }

    async def enable(self) -> list[str]:
        """Start the plugin; return the events that it listens to."""
        self._require(PluginState.LOADED)
        await self._running.enable_all()
        self._require(PluginState.ENABLED)
        return await events.announce()

    async def disable(self) -> dict[str, Any]:
        """Stop the plugin; return its leak report."""
        await self._running.disable_all()
        report = self._running.find_report(self._spec.plugin) or LeakReport(self._spec.plugin)
        return report.to_json()

    async def validate(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return what these settings would be, under ``values``, or why they will not do, under ``refused``."""
        form = self._import().code.settings
        return _sayable(self._judge(form, settings)) if form is not None else {"values": {}}

    def _judge(self, form: SettingsForm, settings: dict[str, Any]) -> dict[str, Any]:
        with running_as(self._import().owner, Entry.HOOK):
            try:
                return {"values": form.dump(form.validate(settings))}
            except RefusedSettingsError as error:
                faults = error.faults[:_MOST_FAULTS]
        return {"refused": [[each.kind, list(each.place), each.text[:_LONGEST_LINE]] for each in faults]}

    async def configure(self, settings: dict[str, Any]) -> None:
        """Put other settings in force; those before stay where they will not do."""
        before, self._in_force[self._spec.plugin] = self._in_force.get(self._spec.plugin, {}), settings
        try:
            self._import().configure()
        except PluginError:
            self._in_force[self._spec.plugin] = before
            raise

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
            sources=SettingsSources(config=self._in_force, are_read=True),
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

    @property
    def _running(self) -> PluginManager:
        assert self._manager is not None, "load comes first"
        return self._manager

    def _require(self, state: PluginState) -> PluginRecord:
        record = self._running.get(self._spec.plugin)
        if record.state is not state and record.reason is not None:
            raise record.reason
        return record


def _sayable(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer that fits into a frame; raise FrameError where it does not, which the host is told."""
    encode(Kind.ANSWER, 0, True, answer)
    return answer


class _Silent:
    """A reporter that tells nobody: what happens here, the host reports."""

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_: None
