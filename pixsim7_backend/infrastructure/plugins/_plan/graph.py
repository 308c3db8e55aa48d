"""Planning: which plugins run, in which order, and what holds the others back. Pure.

All problems are found in one go, and each holds back only the plugin it concerns and what requires it.
The steps, in the order in which they decide:

1. ids: of several candidates for one id the most trusted keeps it; equally trusted ones all fail;
2. wishes: what ``DISABLED_PLUGINS`` or the manifest switches off has no further problems;
3. each on its own: its error, the policy, the platform's version, resources, missing or outdated requirements,
   circles;
4. requirements: whoever requires something held is held;
5. conflicts: see :func:`_settle_conflicts`;
6. order: topological, ties by id; ``after`` never holds anything back.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from itertools import groupby
from types import MappingProxyType

from packaging.specifiers import SpecifierSet

from pixsim7_backend.infrastructure.plugins.errors import (
    CircularDependencyError,
    DependencyVersionError,
    DuplicatePluginError,
    HostVersionError,
    MissingDependencyError,
    PluginConflictError,
    PluginDisabledError,
    PluginError,
    ResourceMissingError,
)
from pixsim7_backend.infrastructure.plugins.states import PluginState
from pixsim7_backend.infrastructure.plugins.types import PluginManifest, Requirement, normalize_plugin_id

from .plan import Candidate, Plan, held_by
from .topology import cycles, knots, topological_order, with_soft_edges

__all__ = ["Candidate", "Plan", "make_plan", "nearest_name"]

_SUGGESTIONS = 25  # comparing names is slow; past so many misspelt ones nobody reads the hints

_Reasons = dict[str, list[PluginError]]


def make_plan(
    candidates: Iterable[Candidate],
    *,
    disabled: AbstractSet[str] = frozenset(),
    switched: Mapping[str, bool] = MappingProxyType({}),
    resource_problems: Mapping[str, str] = MappingProxyType({}),
    host_version: str,
    policy: Callable[[Candidate], Iterable[PluginError]] = lambda _candidate: (),
) -> Plan:
    """Decide what to load, in which order, and what to hold back.

    The answer depends on what is given, not on the order in which it is given.

    Args:
        candidates: what was found; an id may occur more than once.
        disabled: what ``DISABLED_PLUGINS`` names, in any spelling.
        switched: what the operator switched on or off at run time, by id; overrules the manifest's wish.
        resource_problems: ``"db"`` or ``"redis"`` → why it cannot be used; absent when it can.
        host_version: PEP 440 version of the platform.
        policy: returns what holds back a plugin that nobody switched off.
    """
    owners, rejected, reasons = _settle_ids(candidates)
    off = {normalize_plugin_id(name) for name in disabled}
    planning = _Planning(owners, reasons, off, switched)
    planning.apply_wishes()
    planning.check_each(resource_problems, host_version, policy)
    found_cycles = planning.check_cycles()
    planning.spread()
    planning.settle_conflicts()
    order, dropped = planning.load_order()
    return Plan(
        candidates=owners,
        order=tuple(order),
        held={plugin_id: reasons[plugin_id][0] for plugin_id in sorted(reasons)},
        requires=planning.requires,
        problems=planning.problems(rejected),
        rejected=rejected,
        cycles=found_cycles,
        warnings=(*_unknown_names(off, owners), *planning.unwanted_required(), *dropped),
    )


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Return the known id that ``name`` was probably meant to be, or an empty string."""
    return next(iter(difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.7)), "")


# --- ids ----------------------------------------------------------------------------------------


def _settle_ids(
    candidates: Iterable[Candidate],
) -> tuple[dict[str, Candidate], tuple[tuple[Candidate, PluginError], ...], _Reasons]:
    """Give each id to one candidate; return the owners by id, the rejected and the first reasons."""
    owners: dict[str, Candidate] = {}
    rejected: list[tuple[Candidate, PluginError]] = []
    reasons: _Reasons = {}
    for plugin_id, group in groupby(sorted(candidates, key=_claim), key=lambda each: each.id):
        first, *others = group
        owners[plugin_id] = first
        if first.error:
            reasons[plugin_id] = [first.error]
        if others and _claim(others[0])[:-1] == _claim(first)[:-1] and not first.error:
            reasons[plugin_id] = [_twice(first, others[0])]
        rejected += [(other, other.error or _twice(other, first)) for other in others]
    return owners, tuple(rejected), reasons


def _claim(candidate: Candidate) -> tuple[str, int, bool, bool, str]:
    """Sort key: the id, then who has the better right to it.

    Of equally trusted ones a broken folder, which may not really mean its id, steps back, and so
    does one that is switched off.
    """
    is_off = candidate.manifest is not None and not candidate.manifest.enabled
    return candidate.id, candidate.source.rank, candidate.error is not None, is_off, str(candidate.source)


def _twice(loser: Candidate, other: Candidate) -> DuplicatePluginError:
    return DuplicatePluginError(plugin=loser.id, location=str(loser.source), other=str(other.source))


# --- everything else ------------------------------------------------------------------------------


class _Planning:
    """The state of one planning: who is held so far, and why."""

    def __init__(
        self,
        owners: Mapping[str, Candidate],
        reasons: _Reasons,
        off: AbstractSet[str],
        switched: Mapping[str, bool],
    ) -> None:
        self.manifests = {each.id: each.manifest for each in owners.values() if each.manifest}
        self.requirements = {plugin_id: manifest.requirements for plugin_id, manifest in self.manifests.items()}
        self.requires = {
            plugin_id: tuple(
                dict.fromkeys(r.plugin for r in self.requirements.get(plugin_id, ()) if r.plugin in owners)
            )
            for plugin_id in owners
        }
        self.owners = owners
        self.reasons = reasons
        self.off = off
        self.switched = switched
        self.similar: dict[str, str] = {}

    def hold(self, plugin_id: str, error: PluginError) -> None:
        self.reasons.setdefault(plugin_id, []).append(error)

    def running(self) -> list[str]:
        """The ids that nothing holds so far, sorted."""
        return [plugin_id for plugin_id in self.owners if plugin_id not in self.reasons]

    def problems(self, rejected: Iterable[tuple[Candidate, PluginError]]) -> tuple[PluginError, ...]:
        """Everything that is wrong, by id, but nothing of a plugin that is switched off."""
        off = {p for p, errors in self.reasons.items() if errors[0].state is PluginState.DISABLED}
        held = (error for errors in self.reasons.values() for error in errors)
        found = [*held, *(error for _, error in rejected)]
        return tuple(sorted((e for e in found if e.plugin not in off), key=lambda error: error.plugin))

    # wishes

    def apply_wishes(self) -> None:
        """Hold what is switched off; whatever else is wrong with it does not matter."""
        for plugin_id in self.owners:
            manifest = self.manifests.get(plugin_id)
            if plugin_id in self.off:
                self.reasons[plugin_id] = [PluginDisabledError(plugin=plugin_id, by="DISABLED_PLUGINS")]
            elif self.switched.get(plugin_id) is False:
                self.reasons[plugin_id] = [PluginDisabledError(plugin=plugin_id, by="the operator")]
            elif self.switched.get(plugin_id) or self.owners[plugin_id].error:
                continue
            elif manifest and not manifest.enabled:
                self.reasons[plugin_id] = [PluginDisabledError(plugin=plugin_id, by="manifest")]

    def unwanted_required(self) -> list[str]:
        """Warn of required plugins that somebody switched off: that is not an error, but hardly meant."""
        return [
            f"plugin {plugin_id!r} is required, but {errors[0]}"
            for plugin_id, errors in sorted(self.reasons.items())
            if isinstance(errors[0], PluginDisabledError)
            and (manifest := self.manifests.get(plugin_id))
            and manifest.required
        ]

    # each on its own

    def check_each(
        self,
        resource_problems: Mapping[str, str],
        host_version: str,
        policy: Callable[[Candidate], Iterable[PluginError]],
    ) -> None:
        """Hold what the policy, the platform's version, a resource or a requirement stops."""
        for plugin_id in self.running():
            for error in policy(self.owners[plugin_id]):
                self.hold(plugin_id, error)
            manifest = self.manifests.get(plugin_id)
            if manifest is None:
                continue
            if not SpecifierSet(manifest.requires_host).contains(host_version, prereleases=True):
                self.hold(
                    plugin_id,
                    HostVersionError(plugin=plugin_id, required=manifest.requires_host, installed=host_version),
                )
            for resource in _resources(manifest):
                if problem := resource_problems.get(resource):
                    self.hold(plugin_id, ResourceMissingError(plugin=plugin_id, resource=resource, problem=problem))
            for requirement in manifest.requirements:
                self._check_requirement(plugin_id, requirement)

    def _check_requirement(self, plugin_id: str, requirement: Requirement) -> None:
        if requirement.plugin not in self.owners:
            similar = self._similar(requirement.plugin)
            self.hold(plugin_id, MissingDependencyError(plugin=plugin_id, missing=requirement.plugin, similar=similar))
        elif not self._satisfies(requirement):
            installed = self.manifests[requirement.plugin].version
            self.hold(
                plugin_id,
                DependencyVersionError(
                    plugin=plugin_id, requirement=str(requirement), installed=installed, dependency=requirement.plugin
                ),
            )

    def _satisfies(self, requirement: Requirement) -> bool:
        """Tell whether the named plugin is in the range; one whose version nobody knows is."""
        manifest = self.manifests.get(requirement.plugin)
        return manifest is None or requirement.accepts(manifest.version)

    def _similar(self, name: str) -> str:
        if name not in self.similar:
            self.similar[name] = nearest_name(name, self.owners) if len(self.similar) < _SUGGESTIONS else ""
        return self.similar[name]

    # circles and what follows from requirements

    def _wanted(self) -> dict[str, list[str]]:
        """The graph of requirements among plugins that are neither disabled nor failed."""
        wanted = {p for p in self.owners if p not in self.reasons or self.reasons[p][0].state is PluginState.BLOCKED}
        return {p: [needed for needed in self.requires[p] if needed in wanted] for p in self.owners if p in wanted}

    def check_cycles(self) -> tuple[tuple[str, ...], ...]:
        """Hold every member of a circle of requirements; the circle is its first reason."""
        found = cycles(self._wanted())
        for cycle in found:
            for member in dict.fromkeys(cycle):
                reasons = self.reasons.setdefault(member, [])
                if not reasons or not isinstance(reasons[0], CircularDependencyError):
                    reasons.insert(0, CircularDependencyError(plugin=member, cycle=cycle))
        return tuple(found)

    def spread(self) -> None:
        """Hold whoever requires something held; members of one circle do not accuse each other."""
        graph = self._wanted()
        knot_of = {member: number for number, knot in enumerate(knots(graph)) for member in knot}
        acyclic = {
            p: [n for n in needed if p not in knot_of or knot_of[p] != knot_of.get(n)] for p, needed in graph.items()
        }
        for plugin_id in topological_order(acyclic):
            accused = {error.fields.get("dependency") for error in self.reasons.get(plugin_id, ())}
            for needed in self.requires[plugin_id]:
                is_mate = plugin_id in knot_of and knot_of[plugin_id] == knot_of.get(needed)
                if needed in self.reasons and needed not in accused and not is_mate:
                    self.hold(plugin_id, held_by(plugin_id, needed, self.reasons[needed][0]))

    # conflicts

    def settle_conflicts(self) -> None:
        """Of two plugins that exclude each other hold one, and whoever requires it.

        The plugins that could run take their places one by one and keep out whom they conflict with:
        the more trusted first, then in load order. A plugin is as little trusted as the least trusted
        one that it requires, so that what is required always sits before it. One that was kept out
        keeps nobody out.
        """
        exclusions = self._exclusions()
        if not exclusions:
            return
        order, _ = self.load_order()
        rank: dict[str, int] = {}
        for plugin_id in order:
            rank[plugin_id] = max([self.owners[plugin_id].source.rank, *(rank[n] for n in self.requires[plugin_id])])
        seated: set[str] = set()
        for plugin_id in sorted(order, key=rank.__getitem__):  # stable: load order within a rank
            for needed in self.requires[plugin_id]:
                if needed in self.reasons:
                    self.hold(plugin_id, held_by(plugin_id, needed, self.reasons[needed][0]))
            for other, declared_by in sorted(exclusions.get(plugin_id, {}).items()):
                if other in seated:
                    self.hold(plugin_id, PluginConflictError(plugin=plugin_id, other=other, declared_by=declared_by))
            if plugin_id not in self.reasons:
                seated.add(plugin_id)

    def _exclusions(self) -> dict[str, dict[str, str]]:
        """Return id → {id it cannot run beside: the smallest id that declares so}, both ways round."""
        pairs: dict[str, dict[str, str]] = {}
        running = self.running()
        for plugin_id in running:
            manifest = self.manifests.get(plugin_id)
            for exclusion in manifest.exclusions if manifest else ():
                other = exclusion.plugin
                if other != plugin_id and other in self.manifests and self._satisfies(exclusion):
                    pairs.setdefault(plugin_id, {}).setdefault(other, plugin_id)
                    pairs.setdefault(other, {}).setdefault(plugin_id, plugin_id)
        return pairs

    # order

    def load_order(self) -> tuple[list[str], list[str]]:
        """Return the running ids in load order, and a warning for each ``after`` that cannot be honoured."""
        running = set(self.running())
        firm = {p: self.requires[p] for p in sorted(running)}
        soft = [
            (plugin_id, other)
            for plugin_id in firm
            if (manifest := self.manifests.get(plugin_id))
            for other in manifest.after
            if other in running
        ]
        graph, left_out = with_soft_edges(firm, soft)
        warnings = [
            f"plugin {plugin_id!r} is not loaded after {other!r} as its manifest says (`after`),"
            f" because {other!r} has to be loaded after it; remove one of the two"
            for plugin_id, other in left_out
        ]
        confined = {p for p in running if self.owners[p].source.is_confined}  # they are told what the others open
        return topological_order(graph, last=confined), warnings


def _resources(manifest: PluginManifest) -> list[str]:
    wanted = {"db": manifest.requires_db, "redis": manifest.requires_redis}
    return [resource for resource, is_wanted in wanted.items() if is_wanted]


def _unknown_names(off: AbstractSet[str], owners: Mapping[str, Candidate]) -> list[str]:
    """Warn of names in DISABLED_PLUGINS that no plugin has."""
    warnings = []
    for name in sorted(off - owners.keys()):
        near = nearest_name(name, owners)
        hint = f"; did you mean {near!r}?" if near else ""
        warnings.append(f"DISABLED_PLUGINS names {name!r}, which is not installed{hint}")
    return warnings
