"""What a start-up would do, without doing it: nothing of a plugin is imported, nothing is registered."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ._bisect import Ending, Finding, Verdict, find_culprits
from ._config import read_config
from ._discovery import discover
from ._plan import Plan
from ._plan_text import render_graph, render_plan
from ._planning import plan_here
from ._resources import ResourceCheck
from ._safe_mode import essential_plugins
from .types import normalize_plugin_id

__all__ = [
    "Ending",
    "Finding",
    "Plan",
    "ResourceCheck",
    "Verdict",
    "essential_plugins",
    "find_culprits",
    "preview",
    "render_graph",
    "render_plan",
]


def preview(
    directories: Iterable[str | os.PathLike[str]],
    *,
    disabled: Iterable[str] | None = None,
    resources: Mapping[str, ResourceCheck] | None = None,
) -> Plan:
    """Return the plan that ``init_plugin_manager`` would carry out, with its parameters.

    A plugin whose manifest is not written with literals has no manifest here: only importing it
    would tell.

    Raises:
        PluginDirectoryError: a directory does not exist.
        ConfigurationError: the environment or ``config.yaml`` has an unusable value.
    """
    config = read_config(os.environ, Path.cwd())
    off = config.disabled_plugins if disabled is None else map(normalize_plugin_id, disabled)
    return plan_here(discover(directories).candidates, disabled=frozenset(off), resources=resources)
