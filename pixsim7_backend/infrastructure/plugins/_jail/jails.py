"""The jails of one app: what each confined plugin is started with, and what its calls reach."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.types import Scope

from pixsim7_backend.infrastructure.plugins._code.loader import PluginCode
from pixsim7_backend.infrastructure.plugins._generation import ReadSettings
from pixsim7_backend.infrastructure.plugins._grants.permissions import Grants
from pixsim7_backend.infrastructure.plugins._hooks.bus import HookBus
from pixsim7_backend.infrastructure.plugins._ledger.ownership import Owner
from pixsim7_backend.infrastructure.plugins._plan.plan import Candidate

from .allowances import Allowances
from .application import JailedApplication
from .broker import Broker, BrokerLimits, JailIdentity, Meter, Service
from .errors import JailProtocolError
from .excess import find_excess
from .jailed import load_jailed
from .loading import Launcher
from .process import JailProcess
from .services.events import JailEvents
from .services.log import JailLog, LogLimits
from .spec import JailSpec
from .supervision import Crash, SupervisorSettings
from .supervisor import JailSupervisor
from .usage import JailUsage

__all__ = ["JailSettings", "Jails"]

logger = logging.getLogger("pixsim7.plugins.jail")

_PACKAGE = "pixsim7_jailed"


ScopeExtension = Callable[[Scope, Grants], Awaitable[Mapping[str, Any]]]
"""Tells what a plugin may know of a caller: what is added to the scope of a request."""


async def _nothing(_scope: Scope, _grants: Grants) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class JailSettings:
    """How confined plugins are run."""

    services: tuple[Service, ...] = ()
    inside: tuple[str, ...] = ()
    """What runs in every jail before its plugin is imported, as ``module:function``."""
    extend: ScopeExtension = _nothing
    allowances: Allowances = field(default_factory=Allowances)
    calls: BrokerLimits = field(default_factory=BrokerLimits)
    log: LogLimits = field(default_factory=LogLimits)
    supervision: SupervisorSettings = field(default_factory=SupervisorSettings)
    hook_timeout: float = 10.0


class Jails:
    """Loads confined plugins for one app. ``on_given_up`` is told of plugins whose jails crashed too often, and why.

    Args:
        launcher: starts the processes.
        settings: for all of them.
        hooks: where events of the host are heard.
    """

    def __init__(self, launcher: Launcher, settings: JailSettings, hooks: HookBus) -> None:
        self.on_given_up: Callable[[str, str], None] = lambda _plugin, _evidence: None
        self.supervisors: dict[str, JailSupervisor] = {}
        """Of the generations in memory, the latest of each plugin."""
        self._launcher = launcher
        self._settings = settings
        self._hooks = hooks
        self._usages: dict[str, JailUsage] = {}
        self._grants: dict[str, Grants] = {}
        """What each plugin may do now, whichever of its jails asks."""
        self._brokers: dict[str, weakref.WeakSet[Broker]] = {}
        self._events: dict[str, weakref.WeakSet[JailEvents]] = {}

    def load(self, candidate: Candidate, owner: Owner, grants: Grants, read_settings: ReadSettings) -> PluginCode:
        """Let a jail load the plugin; return code that stands for it, also where its settings are wrong. Blocks.

        Raises:
            JailedPluginError: it cannot be loaded.
        """
        assert candidate.manifest is not None, "the manifest of a confined plugin is read, never computed"
        supervisor, events = self._supervisor(candidate, owner, grants)
        application = JailedApplication(
            supervisor,
            self._settings.allowances.of(candidate.id).http,
            extend=lambda scope: self._settings.extend(scope, self._grants[candidate.id]),
            on_misbehaviour=lambda error: _log_misbehaviour(candidate.id, error),
        )
        usage = self._usage(candidate.id)

        def on_up() -> None:
            if self._settings.supervision.is_lazy:
                events.expect(supervisor.subscriptions, self._grants[candidate.id])

        code = load_jailed(
            supervisor,
            candidate.manifest,
            application,
            find_current=lambda: owner.settings.current,
            read_settings=read_settings,
            on_up=on_up,
            read_figures=lambda: usage.read(supervisor),
        )
        self.supervisors[candidate.id] = supervisor
        owner.ledger.add_release("jail", candidate.id, lambda: self._discard(supervisor))
        return code

    async def regrant(self, plugin: str, grants: Grants) -> None:
        """Let other grants count for all jails of a plugin, at once and also for what is under way in them."""
        self._grants[plugin] = grants
        for events in tuple(self._events.get(plugin, ())):
            events.limit(grants)
        await asyncio.gather(*(broker.regrant(grants) for broker in tuple(self._brokers.get(plugin, ()))))

    def forget(self, plugin: str) -> None:
        """Forget what a plugin that was removed has used; what ends of it still counts for what it was."""
        self._usages.pop(plugin, None)

    def _usage(self, plugin: str) -> JailUsage:
        meter = Meter(self._settings.calls.per_minute_of(plugin), plugin=plugin)
        return self._usages.setdefault(plugin, JailUsage(meter))

    def _discard(self, supervisor: JailSupervisor) -> None:
        supervisor.discard()
        if self.supervisors.get(supervisor.plugin) is supervisor:
            del self.supervisors[supervisor.plugin]

    def _supervisor(self, candidate: Candidate, owner: Owner, grants: Grants) -> tuple[JailSupervisor, JailEvents]:
        assert candidate.manifest is not None
        mine, plugin, manifest = self._settings, candidate.id, candidate.manifest
        limits = mine.allowances.of(plugin).jail
        usage = self._usage(plugin)
        events = JailEvents(owner, self._hooks, manifest.events, lambda *asked: supervisor.ask(*asked))  # noqa: PLW0108 - it is made below
        log = JailLog(plugin, mine.log)
        owner.ledger.add_release("log", plugin, log.close)
        services: tuple[Service, ...] = (*mine.services, events)
        self._events.setdefault(plugin, weakref.WeakSet()).add(events)
        self._grants[plugin] = grants

        def identify(scratch: str) -> JailIdentity:
            return JailIdentity(
                plugin=plugin, generation=owner.generation, directory=candidate.source.path, scratch=Path(scratch)
            )

        def make_broker(process: JailProcess, reply: Callable[[int, bool, Any], None]) -> Broker:
            usage.starts += 1
            jail = identify(process.spec.scratch)
            broker = Broker(jail, self._grants[plugin], services, reply=reply, limits=mine.calls, meter=usage.meter)
            self._brokers.setdefault(plugin, weakref.WeakSet()).add(broker)
            return broker

        spec = JailSpec(
            plugin=plugin,
            folder=candidate.source.folder,
            path=str(candidate.source.path),
            package=f"{_PACKAGE}.{candidate.source.folder}",
            prefix=manifest.prefix,
            inside=(*mine.inside, *(each.inside for each in services if each.inside)),
            services={each.family: dict(each.describe(identify(""), grants)) for each in services},
            hook_timeout=mine.hook_timeout,
            limits=limits,
        )
        supervisor = JailSupervisor(
            plugin,
            spec,
            self._launcher,
            mine.supervision,
            make_broker=make_broker,
            on_log=log,
            find_settings=lambda: owner.settings.current.sent if owner.settings.current is not None else None,
            on_up=events.confirm,
            on_rest=events.rest,
            on_given_up=lambda crashes: self.on_given_up(plugin, _evidence(crashes)),
            on_crash=usage.note_crash,
            find_excess=find_excess,
        )
        return supervisor, events


def _evidence(crashes: tuple[Crash, ...]) -> str:
    last = crashes[-1]
    said = f"; the last that it wrote: {last.stderr.strip()}" if last.stderr.strip() else ""
    return f"its jail ended {len(crashes)} times, at last it {last.what}{said}"


def _log_misbehaviour(plugin: str, error: JailProtocolError) -> None:
    logger.error("Plugin %s misbehaved in its jail: %s", plugin, error)
