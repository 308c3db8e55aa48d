"""What a start-up would do, without doing it: nothing of a plugin is imported, nothing is registered."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from ._discovery.sources import Community, Isolation, discover
from ._grants.permissions import Grants
from ._jail.code import find_exposed
from ._jail.level import ConfinementReport
from ._jail.machine import probe_machine
from ._plan.bisect import Ending, Finding, Verdict, find_culprits
from ._plan.change import Change, make_change
from ._plan.graph import nearest_name
from ._plan.plan import Candidate, Plan
from ._plan.safe_mode import essential_plugins, held_in_safe_mode
from ._plan.text import render_graph, render_plan
from ._planning import CommunityPolicy, plan_here
from ._resources import ResourceCheck
from ._settings.config import read_config
from ._startup_journal import StartupJournal
from .errors import PluginError, PluginNotFoundError
from .records import PluginRecord
from .states import PluginState
from .types import normalize_plugin_id

__all__ = [
    "Candidate",
    "Change",
    "ConfinementReport",
    "Ending",
    "Finding",
    "Plan",
    "ResourceCheck",
    "Verdict",
    "essential_plugins",
    "find_culprits",
    "preview",
    "preview_switch",
    "probe_machine",
    "render_graph",
    "render_plan",
]


def _nothing_decided(_plugin_id: str) -> Grants:
    return Grants()


def preview(
    directories: Iterable[str | os.PathLike[str]],
    *,
    disabled: Iterable[str] | None = None,
    switched: Mapping[str, bool] = MappingProxyType({}),
    grants: Callable[[str], Grants] = _nothing_decided,
    community_directory: str | os.PathLike[str] | None = None,
    isolation: Mapping[str, Isolation] = MappingProxyType({}),
    community_floor: str = "confined",
    confinement: Callable[[], ConfinementReport] = probe_machine,
    resources: Mapping[str, ResourceCheck] | None = None,
    safe_mode: bool = False,
    startup_journal: StartupJournal | None = None,
    revise: Callable[[Sequence[Candidate]], Iterable[Candidate]] = iter,
) -> Plan:
    """Return the plan that ``init_plugin_manager`` would carry out, with its parameters.

    ``switched`` is what the operator switched on or off and ``grants`` what was granted to whom, as the store
    keeps them.
    ``revise`` may change what was found, to see what a plugin would do that is not there yet; nothing
    that a start died in is known of its new candidates.

    A plugin whose manifest is not written with literals has no manifest here: only importing it
    would tell.

    Raises:
        PluginDirectoryError: a directory does not exist.
        ConfigurationError: the environment or ``config.yaml`` has an unusable value.
    """
    config = read_config(os.environ, Path.cwd())
    off = frozenset(map(normalize_plugin_id, config.disabled_plugins if disabled is None else disabled))
    community = Community.at(community_directory, isolation)
    found = discover(directories, community=community, exposed=find_exposed() if community else ()).candidates
    folders = {each.id: each.source.path for each in found}
    suspects = startup_journal.suspects(folders) if startup_journal else {}
    candidates = tuple(revise(_held(found, suspects)))
    policy = CommunityPolicy(grants=grants, confinement=confinement, floor=community_floor)

    def plan_of(candidates: Iterable[Candidate]) -> Plan:
        return plan_here(candidates, disabled=off, switched=switched, resources=resources, policy=policy)

    plan = plan_of(candidates)
    return plan_of(_held(candidates, held_in_safe_mode(plan))) if safe_mode else plan


def _held(candidates: Iterable[Candidate], errors: Mapping[str, PluginError]) -> list[Candidate]:
    """Return the candidates, with these errors where they have none of their own."""
    return [replace(each, error=each.error or errors.get(each.id)) for each in candidates]


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
