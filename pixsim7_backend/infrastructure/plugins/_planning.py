"""Plan for this installation: its platform version, and the resources that the plugins need of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from pixsim7_backend import __version__

from ._grants.permissions import Grants, Permission
from ._plan.graph import make_plan
from ._plan.plan import Candidate, Plan
from ._resources import ResourceCheck, check_resources
from .errors import ConfinementError, EventTakenError, GrantNeededError, PluginError
from .events import PluginEvents

if TYPE_CHECKING:
    from ._jail.level import ConfinementReport


@dataclass(frozen=True, slots=True, kw_only=True)
class CommunityPolicy:
    """What must be so before a confined plugin may run: the machine can hold it, and its permissions are decided."""

    grants: Callable[[str], Grants]
    """What was decided about a plugin's permissions, by its id."""
    confinement: Callable[[], ConfinementReport] | None = None
    """How well this machine confines plugins; asked only where there is one to confine. None: nobody asks."""
    floor: str = "confined"
    """The name of the level that it must reach."""
    running: Collection[str] = ()
    """The plugins that run now: a stranger's event stays its own when another stranger declares it, too."""

    def of(
        self, candidates: Sequence[Candidate], wanted: Collection[str]
    ) -> Callable[[Candidate], Iterator[PluginError]]:
        """Return what holds one of these plugins back; those that are ``wanted`` are switched on."""
        owners = {str(event): "the host" for event in PluginEvents}
        ranked = sorted(candidates, key=lambda each: (each.source.is_confined, each.id not in self.running, each.id))
        for each in ranked:
            if each.manifest is not None and (each.id in wanted or not each.source.is_confined):
                for event in each.manifest.events:
                    owners.setdefault(event, f"plugin {each.id!r}")
        return partial(self._check, owners)

    def _check(self, owners: Mapping[str, str], candidate: Candidate) -> Iterator[PluginError]:
        if not candidate.source.is_confined or candidate.manifest is None:
            return
        for event in candidate.manifest.events:
            owner = owners.get(event, "")
            if owner and owner != f"plugin {candidate.id!r}":
                yield EventTakenError(plugin=candidate.id, event=event, owner=owner)
        report = self.confinement() if self.confinement else None
        if report is not None and not report.reaches(self.floor):
            level = report.level.name.lower()
            yield ConfinementError(plugin=candidate.id, level=level, floor=self.floor, notes=report.notes)
        grants = self.grants(candidate.id)
        undecided = grants.undecided(map(Permission.parse, candidate.manifest.permissions))
        if undecided:
            yield GrantNeededError(
                plugin=candidate.id,
                undecided=tuple(map(str, undecided)),
                granted=tuple(sorted(map(str, grants.granted))),
            )


def plan_here(
    candidates: Iterable[Candidate],
    *,
    disabled: AbstractSet[str],
    switched: Mapping[str, bool] = MappingProxyType({}),
    resources: Mapping[str, ResourceCheck] | None,
    policy: CommunityPolicy,
) -> Plan:
    """Return the plan for what was found; only resources that an enabled plugin requires are asked for."""
    found = tuple(candidates)
    wanted = {
        each.id: each.manifest
        for each in found
        if each.manifest and each.id not in disabled and switched.get(each.id, each.manifest.enabled)
    }
    needed = {name for name in ("db", "redis") if any(getattr(each, f"requires_{name}") for each in wanted.values())}
    problems = check_resources(needed, resources)
    return make_plan(
        found,
        disabled=disabled,
        switched=switched,
        resource_problems=problems,
        host_version=__version__,
        policy=policy.of(found, wanted),
    )
