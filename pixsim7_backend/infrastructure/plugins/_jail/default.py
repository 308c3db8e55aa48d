"""Jails for an app that brings none of its own: one zygote for the process, and the services that are installed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any

from starlette.types import Scope

from pixsim7_backend.infrastructure.plugins._grants.permissions import Grants
from pixsim7_backend.infrastructure.plugins._hooks.bus import HookBus

from .allowances import Allowances
from .broker import PER_MINUTE, BrokerLimits, Service
from .cgroups import JailGroups, find_base
from .confine.probe import probe_level
from .jails import Jails, JailSettings, ScopeExtension
from .launcher import Launcher
from .level import ConfinementLevel
from .supervision import JailStart, SupervisorSettings
from .uids import UidPool

__all__ = ["ENTRY_POINT_GROUP", "installed_services", "make_jails"]

ENTRY_POINT_GROUP = "pixsim7.services"
_OVERHEAD = 10.0
"""Seconds that a process may take beside the plugin's own hook, also on a machine that is busy."""


def make_jails(
    hooks: HookBus,
    *,
    services: Iterable[Service] | None = None,
    inside: Iterable[str] = (),
    extend: Iterable[ScopeExtension] = (),
    calls: Mapping[str, int | None] = MappingProxyType({}),
    floor: str = "confined",
    hook_timeout: float = 10.0,
    start: JailStart = "with-plugin",
    idle: float | None = None,
    allowances: Allowances | None = None,
) -> Jails:
    """Return the jails of one app.

    Args:
        hooks: where events of the host are heard.
        services: what the plugins may call; default: what installed distributions offer.
        inside: what runs in every jail before its plugin is imported, as ``module:function``; given the FastAPI app.
        extend: tell what plugins may know of a caller.
        calls: what they may use in a minute by calling, where that is not the usual; see ``BrokerLimits.per_minute``.
        floor: the name of the level of confinement below which no jail runs.
        hook_timeout: seconds for each of a plugin's hooks.
        start: when a plugin's process is started: with the plugin, or by the first request or event.
        idle: seconds without either after which it is ended, until the next one; None: it stays.
        allowances: what each plugin may use.
    """
    offered = installed_services() if services is None else tuple(services)
    places = (*inside, *(each.inside for each in offered if each.inside))
    preload = tuple(sorted({each.partition(":")[0] for each in places}))
    settings = JailSettings(
        services=offered,
        inside=tuple(inside),
        extend=_all(tuple(extend)),
        allowances=allowances or Allowances(),
        calls=BrokerLimits(per_minute={**PER_MINUTE, **calls}),
        supervision=SupervisorSettings(
            is_lazy=start == "first-request",
            load_time=hook_timeout + _OVERHEAD,
            hook_time=hook_timeout + _OVERHEAD,
            idle_stop=idle,
        ),
        hook_timeout=hook_timeout,
    )
    return Jails(_launcher(preload, ConfinementLevel[floor.upper()]), settings, hooks)


@cache
def _launcher(preload: tuple[str, ...], floor: ConfinementLevel) -> Launcher:
    """Return the launcher that the apps of this process share; its zygote ends with the process."""
    return Launcher(
        preload=preload,
        floor=floor,
        uids=UidPool() if os.geteuid() == 0 else None,
        groups=JailGroups(find_base()) if probe_level().cgroup else None,
    )


def installed_services() -> tuple[Service, ...]:
    """Return the services that installed distributions offer in the group ``pixsim7.services``, by name."""
    found = sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda each: each.name)
    return tuple(each.load()() for each in found)


def _all(extensions: tuple[ScopeExtension, ...]) -> ScopeExtension:
    async def extend(scope: Scope, grants: Grants) -> Mapping[str, Any]:
        added: dict[str, Any] = {}
        for each in extensions:
            added.update(await each(scope, grants))
        return added

    return extend
