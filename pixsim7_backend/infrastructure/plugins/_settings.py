"""How the platform treats plugins in one app: the operator's choices, with their defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ._resources import ResourceCheck
from .records import PluginRecord

Prepare = Callable[[PluginRecord, Path], None]
"""The host's own step before a plugin is first enabled (its migrations): record and folder; may raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginSettings:
    """All durations are in seconds."""

    disabled: frozenset[str] = frozenset()
    """Ids that the operator wants off, normalised."""
    on_plugin_error: Literal["tolerate", "strict"] = "tolerate"
    """``tolerate``: the app starts without what is wrong. ``strict``: start-up aborts with all problems."""
    resources: Mapping[str, ResourceCheck] = field(default_factory=dict)
    """The host's own checks of ``"db"`` and ``"redis"``."""
    prepare: Prepare | None = None
    hook_timeout: float = 10.0
    """How long ``on_load``, ``on_enable``, ``on_disable`` and a router's lifespan may take."""
    drain_timeout: float = 10.0
    """How long disabling waits for requests that the plugin is still answering."""
    task_timeout: float = 5.0
    """How long disabling waits for the plugin's cancelled tasks."""
