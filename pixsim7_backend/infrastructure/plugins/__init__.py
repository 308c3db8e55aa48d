"""Turns a FastAPI app into a host whose features are plugins.

An app calls :func:`init_plugin_manager` when its lifespan starts, awaits ``enable_all()`` of what it
returns before it serves, and ``disable_all()`` when it ends.

Start reading at :meth:`PluginManager.enable`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from fastapi import FastAPI

from . import ports
from ._attribution.breaker import BreakerSettings
from ._attribution.figures import Latency, PluginFigures, Stall
from ._discovery.sources import Community, Isolation, discover, find_directory
from ._generation import DeferredJails, JailLoader
from ._grants.enforcing import Enforcement, Enforcer
from ._hooks.bus import HandlerFailure, HookBus, Outcome, Subscription
from ._installing.directory import finish_interrupted
from ._jail.allowances import Allowances
from ._jail.code import find_exposed
from ._jail.level import ConfinementReport
from ._jail.machine import probe_machine
from ._jail.supervision import JailStart
from ._ledger.ledger import Leak, LeakReport
from ._ledger.ownership import current_owner, running_as_host
from ._limits.rate import Rate, Verdict
from ._limits.settings import LimitSettings
from ._limits.shared import RatesUnavailableError, SharedRates
from ._manager import PluginManager
from ._metrics import PluginMetrics
from ._plan.plan import Plan
from ._prepare import installed_prepare
from ._reporter import LogReporter, Reporter
from ._resources import ResourceCheck
from ._settings.config import read_config, read_config_file
from ._settings.layers import SettingsSources
from ._settings.platform import Checkpoint, PluginSettings, Prepare, no_checkpoint
from ._settings.plugin import SettingsView
from ._settings.reader import plugin_settings
from ._settings.sealing import Cipher, mask_stored
from ._startup_journal import StartupJournal
from ._store import FILE_NAME, DesiredState, FileStateStore, StateStore
from ._watch import watch_plugins
from .errors import PluginError
from .events import PluginEvents
from .records import PluginRecord, PluginSource, SourceRank
from .states import PluginState
from .types import PluginManifest, Requirement, normalize_plugin_id

__all__ = [
    "Allowances",
    "BreakerSettings",
    "Latency",
    "PluginFigures",
    "PluginMetrics",
    "Stall",
    "Cipher",
    "DesiredState",
    "Enforcement",
    "Enforcer",
    "FileStateStore",
    "HandlerFailure",
    "HookBus",
    "Isolation",
    "LogReporter",
    "Leak",
    "LeakReport",
    "JailLoader",
    "JailStart",
    "LimitSettings",
    "Outcome",
    "Plan",
    "PluginError",
    "PluginEvents",
    "PluginManager",
    "PluginManifest",
    "PluginRecord",
    "PluginSettings",
    "PluginSource",
    "PluginState",
    "Reporter",
    "Rate",
    "RatesUnavailableError",
    "Requirement",
    "ResourceCheck",
    "SettingsView",
    "SharedRates",
    "SourceRank",
    "StartupJournal",
    "StateStore",
    "Subscription",
    "Verdict",
    "current_owner",
    "init_plugin_manager",
    "mask_stored",
    "normalize_plugin_id",
    "plugin_hooks",
    "plugin_settings",
    "ports",
    "read_config_file",
    "running_as_host",
    "watch_plugins",
]

plugin_hooks = HookBus()
"""The hook bus of this process: delivers to the app whose code is running, and to all where none is."""

_BREAKER = BreakerSettings()


def init_plugin_manager(
    app: FastAPI,
    directory: str | os.PathLike[str],
    *,
    more_directories: Iterable[str | os.PathLike[str]] = (),
    community_directory: str | os.PathLike[str] | None = None,
    isolation: Mapping[str, Isolation] = MappingProxyType({}),
    community_floor: str = "confined",
    confinement: Callable[[], ConfinementReport] = probe_machine,
    disabled: Iterable[str] | None = None,
    on_plugin_error: Literal["tolerate", "strict"] | None = None,
    resources: Mapping[str, ResourceCheck] | None = None,
    prepare: Prepare | None = None,
    hook_timeout: float = 10.0,
    drain_timeout: float = 10.0,
    end_streams: bool = True,
    task_timeout: float = 5.0,
    stall_threshold: float | None = 0.25,
    breaker: BreakerSettings | None = _BREAKER,
    limits: LimitSettings | None = None,
    reporter: Reporter | None = None,
    store: StateStore | None = None,
    cipher: Cipher | None = None,
    allow_live_changes: bool | Callable[[], bool] = True,
    safe_mode: bool = False,
    startup_journal: StartupJournal | None = None,
    checkpoint: Checkpoint = no_checkpoint,
    jails: Callable[[], JailLoader] | None = None,
    enforcer: Enforcer | None = None,
) -> PluginManager:
    """Discover, plan and load the plugins of ``directory`` for ``app``; return their manager.

    Synchronous, also inside a running lifespan. Nothing serves before
    :meth:`PluginManager.enable_all`. A second call for the same app closes the first manager.

    Args:
        app: the host. ``app.state.plugin_manager`` becomes the manager.
        directory: looked up under the working directory, else beside the installed package.
        more_directories: searched after ``directory``.
        community_directory: where strangers' plugins are, in the working directory if it is relative; it may be
            missing. They run in jails, with the permissions that the operator grants.
        isolation: ``"in-process"`` for those of them, by id, whose code the operator trusts as the server's own.
        community_floor: the level of confinement that this machine must reach for jails to be started: ``"none"``,
            ``"limits"``, ``"landlock"``, ``"confined"`` or ``"namespaced"``.
        confinement: tells which level that is.
        disabled: ids that shall stay off; default: ``DISABLED_PLUGINS`` from the environment or ``config.yaml``.
        on_plugin_error: ``"tolerate"`` starts without what is wrong, ``"strict"`` aborts with all
            problems; default: ``ON_PLUGIN_ERROR`` from the same places, else ``"tolerate"``.
        resources: checks of ``"db"`` and ``"redis"``; default: those that installed distributions offer.
        prepare: called with record and folder before a plugin is first enabled; may raise. Default: what
            installed distributions do (ours migrates the embedded database).
        hook_timeout: seconds that a lifecycle hook may take.
        drain_timeout: seconds that disabling waits for requests under way.
        end_streams: whether event streams and WebSockets of a plugin that is replaced or disabled are told to
            end at once, or only after ``drain_timeout``.
        task_timeout: seconds that disabling waits for cancelled tasks.
        stall_threshold: seconds for which the event loop may stand still before the log names who blocks
            it; None: it is not watched.
        breaker: when a plugin is quarantined; None: never.
        limits: how much clients may ask of which plugin; default: what the manifests say.
        reporter: is told of progress; default: the log.
        store: keeps what is switched and configured at run time; default: the file ``plugin-state.json``
            in the directory that ``DATA_DIR`` names, else in ``./data``.
        cipher: encrypts the plugins' secret settings for storage; without one they are not stored.
        allow_live_changes: False, or what returns it, while several processes serve the app; changes are refused
            then.
        safe_mode: start only what the required first-party plugins need; problems abort nothing then.
        startup_journal: remembers which plugin a start died in, so that the next one goes without it.
        checkpoint: is told of each step of a change; fault tests stop the process there.
        jails: makes what runs confined plugins, when the first one is loaded; default: jails with the services that
            installed distributions offer.
        enforcer: lets others who enforce grants, like a database with roles, follow what is decided about them.

    Raises:
        PluginDirectoryError: a directory does not exist.
        ConfigurationError: the community's directory is one of the trusted ones, or a setting cannot be used.
        StateFileError: what is stored cannot be used.
        PluginStartupError: the policy is strict and something is wrong, or a required plugin cannot run.
    """
    config = read_config(os.environ, Path.cwd())
    settings = PluginSettings(
        confinement=confinement,
        community_floor=community_floor,
        disabled=frozenset(map(normalize_plugin_id, config.disabled_plugins if disabled is None else disabled)),
        on_plugin_error="tolerate" if safe_mode else on_plugin_error or config.on_plugin_error or "tolerate",
        resources=resources or {},
        prepare=prepare or installed_prepare(),
        hook_timeout=hook_timeout,
        drain_timeout=drain_timeout,
        end_streams=end_streams,
        task_timeout=task_timeout,
        stall_threshold=stall_threshold,
        breaker=breaker,
        limits=limits or LimitSettings(),
        sources=SettingsSources(
            config=config.plugins, config_file=config.file, environ=dict(os.environ), cipher=cipher
        ),
        may_change_live=allow_live_changes if callable(allow_live_changes) else lambda: bool(allow_live_changes),
        safe_mode=safe_mode,
        startup_journal=startup_journal or StartupJournal(),
        checkpoint=checkpoint,
        enforcer=enforcer,
        jails=DeferredJails(jails or (lambda: _usual_jails(community_floor, hook_timeout))),
    )
    former = getattr(app.state, "plugin_manager", None)
    if isinstance(former, PluginManager):
        former.close()
    directories, community = [directory, *more_directories], Community.at(community_directory, isolation)
    finish_interrupted([*map(find_directory, directories), *([community.directory] if community else [])])
    discovery = discover(directories, community=community, exposed=find_exposed() if community else ())
    manager = PluginManager(
        app,
        discovery,
        settings,
        store=store or FileStateStore(Path(config.data_dir or "data", FILE_NAME)),
        hooks=plugin_hooks,
        reporter=reporter or LogReporter(),
    )
    app.state.plugin_manager = manager
    manager.load_all()
    return manager


def _usual_jails(floor: str, hook_timeout: float) -> JailLoader:
    from ._jail.default import make_jails  # only where there are confined plugins

    return make_jails(plugin_hooks, floor=floor, hook_timeout=hook_timeout)
