"""What a change will do, as a value that can be shown before it is done. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from pixsim7_backend.infrastructure.plugins.records import PluginRecord
from pixsim7_backend.infrastructure.plugins.states import PluginState

from .plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The steps from what runs now to a plan: first ``stop``, then ``replace``, then ``start``, each in order."""

    plan: Plan
    stop: tuple[str, ...] = ()
    replace: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    why: Mapping[str, str] = field(default_factory=dict)
    """The reason for each step, by id."""

    @property
    def is_empty(self) -> bool:
        return not (self.stop or self.replace or self.start)

    def to_json(self) -> dict[str, Any]:
        """Return the change as JSON-able values, for the command line and the admin API."""
        return {
            "stop": [{"id": each, "why": self.why[each]} for each in self.stop],
            "replace": [{"id": each, "why": self.why[each]} for each in self.replace],
            "start": [{"id": each, "why": self.why[each]} for each in self.start],
            "held": {each: str(reason) for each, reason in sorted(self.plan.held.items())},
        }


def make_change(
    records: Mapping[str, PluginRecord], before: Plan, plan: Plan, *, asked: str = "", replace: Collection[str] = ()
) -> Change:
    """Return the steps that lead from what the records say to what ``plan`` says.

    Args:
        records: what every plugin is now, by id.
        before: the plan in force; its order decides the order of stopping.
        plan: the plan to come.
        asked: the plugin that somebody asked for, for the reasons.
        replace: running plugins that get new code, in any order.
    """
    running = {each for each, record in records.items() if record.state is PluginState.ENABLED}
    place = {each: number for number, each in enumerate(before.order)}
    stop = sorted(running - set(plan.order), key=lambda each: -place.get(each, len(place)))
    start = [each for each in plan.order if each not in running]
    kept = [each for each in plan.order if each in running and each in replace]
    why = {each: str(plan.held[each]) if each in plan.held else f"{each!r} is no longer there" for each in stop}
    why |= {each: "asked for" if each == asked else _why_start(each, plan, start) for each in start}
    why |= {each: "asked for" if each == asked else f"it imports from {asked!r}" for each in kept}
    return Change(plan=plan, stop=tuple(stop), replace=tuple(kept), start=tuple(start), why=why)


def _why_start(plugin_id: str, plan: Plan, start: Collection[str]) -> str:
    cause = next((needed for needed in plan.requires[plugin_id] if needed in start), None)
    return f"its dependency {cause!r} starts" if cause else "nothing holds it back any more"
