"""Turns a FastAPI app into a host whose features are plugins.

In the app's lifespan::

    plugin_manager = init_plugin_manager(app, "pixsim7_backend/plugins")
    await plugin_manager.enable_all()
    yield
    await plugin_manager.disable_all()

Start reading at :meth:`PluginManager.enable`.
"""

from __future__ import annotations

from . import ports
from ._hooks import HandlerFailure, HookBus, Outcome, Subscription
from ._ledger import Leak, LeakReport
from ._ownership import current_owner, running_as_host
from ._reporter import LogReporter, Reporter
from ._resources import ResourceCheck
from .errors import PluginError
from .events import PluginEvents
from .records import PluginRecord, PluginSource, SourceRank
from .states import PluginState
from .types import PluginManifest, Requirement, normalize_plugin_id

__all__ = [
    "HandlerFailure",
    "HookBus",
    "Leak",
    "LeakReport",
    "Outcome",
    "PluginError",
    "PluginEvents",
    "PluginManifest",
    "PluginRecord",
    "PluginSource",
    "PluginState",
    "Requirement",
    "SourceRank",
    "Subscription",
    "current_owner",
    "normalize_plugin_id",
    "plugin_hooks",
    "ports",
    "running_as_host",
]

plugin_hooks = HookBus()
"""The hook bus of this process: delivers to the app whose code is running, and to all where none is."""
