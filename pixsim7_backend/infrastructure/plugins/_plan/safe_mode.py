"""Safe mode: what the operator's own required plugins need runs, nothing else. Pure."""

from __future__ import annotations

from pixsim7_backend.infrastructure.plugins.errors import SafeModeError
from pixsim7_backend.infrastructure.plugins.records import SourceRank

from .plan import Plan
from .topology import reachable


def essential_plugins(plan: Plan) -> frozenset[str]:
    """Return the required first-party plugins and whatever they require."""
    required = [
        each.id
        for each in plan.candidates.values()
        if each.source.rank is SourceRank.FIRST_PARTY and each.manifest is not None and each.manifest.required
    ]
    return frozenset(reachable(plan.requires, required))


def held_in_safe_mode(plan: Plan) -> dict[str, SafeModeError]:
    """Return the reason of each plugin that safe mode leaves out."""
    essential = essential_plugins(plan)
    return {each: SafeModeError(plugin=each) for each in plan.candidates if each not in essential}
