"""Plan for this installation: its platform version, and the resources that the plugins need of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType

from pixsim7_backend import __version__

from ._graph import make_plan
from ._plan import Candidate, Plan
from ._resources import ResourceCheck, check_resources


def plan_here(
    candidates: Iterable[Candidate],
    *,
    disabled: AbstractSet[str],
    switched: Mapping[str, bool] = MappingProxyType({}),
    resources: Mapping[str, ResourceCheck] | None,
) -> Plan:
    """Return the plan for what was found; only resources that an enabled plugin requires are asked for."""
    found = tuple(candidates)
    wanted = [
        each.manifest
        for each in found
        if each.manifest and each.id not in disabled and switched.get(each.id, each.manifest.enabled)
    ]
    needed = {name for name in ("db", "redis") if any(getattr(each, f"requires_{name}") for each in wanted)}
    problems = check_resources(needed, resources)
    return make_plan(found, disabled=disabled, switched=switched, resource_problems=problems, host_version=__version__)
