"""What a start-up would do, without doing it: nothing of a plugin is imported, nothing is registered."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from ._bisect import Ending, Finding, Verdict, find_culprits
from ._change import Change, make_change
from ._config import read_config
from ._discovery import discover
from ._graph import nearest_name
from ._plan import Candidate, Plan
from ._plan_text import render_graph, render_plan
from ._planning import plan_here
from ._resources import ResourceCheck
from ._safe_mode import essential_plugins
from .errors import PluginNotFoundError
from .records import PluginRecord
from .states import PluginState
from .types import normalize_plugin_id

__all__ = [
    "Candidate",
    "Change",
    "Ending",
    "Finding",
    "Plan",
    "ResourceCheck",
    "Verdict",
    "essential_plugins",
    "find_culprits",
    "preview",
    "preview_switch",
    "render_graph",
    "render_plan",
]


def preview(
    directories: Iterable[str | os.PathLike[str]],
    *,
    disabled: Iterable[str] | None = None,
    switched: Mapping[str, bool] = MappingProxyType({}),
    resources: Mapping[str, ResourceCheck] | None = None,
    revise: Callable[[Sequence[Candidate]], Iterable[Candidate]] = iter,
) -> Plan:
    """Return the plan that ``init_plugin_manager`` would carry out, with its parameters.

    ``switched`` is what the operator switched on or off, as the store keeps it.
    ``revise`` may change what was found, to see what a plugin would do that is not there yet.

    A plugin whose manifest is not written with literals has no manifest here: only importing it
    would tell.

    Raises:
        PluginDirectoryError: a directory does not exist.
        ConfigurationError: the environment or ``config.yaml`` has an unusable value.
    """
    config = read_config(os.environ, Path.cwd())
    off = config.disabled_plugins if disabled is None else map(normalize_plugin_id, disabled)
    found = revise(discover(directories).candidates)
    return plan_here(found, disabled=frozenset(off), switched=switched, resources=resources)


def preview_switch(before: Plan, after: Plan, plugin_id: str) -> Change:
    """Return the steps from a start-up that carries out ``before`` to one that carries out ``after``.

    Raises:
        PluginNotFoundError: there is no such plugin.
    """
    if plugin_id not in after.candidates:
        raise PluginNotFoundError(plugin=plugin_id, similar=nearest_name(plugin_id, after.candidates))
    running = {
        each: PluginRecord(id=each, source=before.candidates[each].source, state=PluginState.ENABLED)
        for each in before.order
    }
    return make_change(running, before, after, asked=plugin_id)
