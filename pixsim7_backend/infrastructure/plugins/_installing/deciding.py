"""What installing, rolling back or removing a plugin means, worked out from plans before a file is touched."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from packaging.version import Version

from pixsim7_backend.infrastructure.plugins._grants.deciding import GrantsView, decided_beside, trusted_error
from pixsim7_backend.infrastructure.plugins._grants.permissions import Grants
from pixsim7_backend.infrastructure.plugins._plan.graph import nearest_name
from pixsim7_backend.infrastructure.plugins._plan.plan import Candidate, Plan
from pixsim7_backend.infrastructure.plugins.errors import PluginNotFoundError
from pixsim7_backend.infrastructure.plugins.errors.installing import (
    AlreadyInstalledError,
    DependantsInstalledError,
    FolderTakenError,
    IdTakenError,
    InstalledElsewhereError,
    InstallRefusedError,
    NotRemovableError,
)
from pixsim7_backend.infrastructure.plugins.records import PluginSource
from pixsim7_backend.infrastructure.plugins.types import normalize_plugin_id

from .directory import InstallDirectory
from .installation import DataMode, Installation, PluginData, Removal
from .offer import Offer

__all__ = ["Decider", "MakePlan", "Revise"]

Revise = Callable[[Sequence[Candidate]], Iterable[Candidate]]


class MakePlan(Protocol):
    """Plans a start-up."""

    def __call__(self, revise: Revise, grants: Mapping[str, Grants] = MappingProxyType({}), /) -> Plan:
        """Return the plan with the candidates that were found revised, and these grants instead of those stored."""


@dataclass(frozen=True, slots=True)
class Decider:
    """Says what a change of one plugin directory means for the next start, and refuses what must not be."""

    directory: InstallDirectory
    make_plan: MakePlan
    stored: PluginData
    place: Callable[[Candidate], Candidate]
    """Returns a candidate of the directory as discovery would: with how far it is trusted."""
    granted: Callable[[str], Grants]
    """Returns what was decided before about a plugin's permissions."""

    def installation(self, offer: Offer, *, may_upgrade: bool, grant: Collection[str] | None = None) -> Installation:
        """Return what installing an offer means, with what ``grant`` names decided.

        Raises:
            GrantRefusedError: something is granted that it does not ask for, or to a plugin that is not confined.
            PluginError: the place or the id is taken, others would stop, or its tables are newer than it knows.
        """
        manifest = offer.manifest
        target = self.directory.path / offer.folder
        before = self.make_plan(lambda found: found)
        present = before.candidates.get(manifest.id)
        self._check_place(offer, target, present, may_upgrade=may_upgrade)
        candidate = self.place(Candidate(id=manifest.id, source=_source_at(target), manifest=manifest))
        is_confined = candidate.source.is_confined  # the host runs no migrations of strangers: they are code
        migrations = () if is_confined else self._pending(offer, target)
        grants = self._decided(candidate, grant)
        after = self.make_plan(lambda found: [*_others(found, target), candidate], {manifest.id: grants})
        _refuse_stopping(before, after, manifest.id)
        former = present.manifest if present else None
        asked_before = former.permissions if former else ()
        return Installation(
            action=_action(former.version if former else "", manifest.version) if present else "add",
            plugin=manifest.id,
            name=manifest.name,
            version=manifest.version,
            former_version=(former.version if former else "") if present else None,
            directory=target,
            permissions=manifest.permissions,
            new_permissions=tuple(each for each in manifest.permissions if each not in asked_before),
            starts=tuple(each for each in after.order if each not in before.order),
            held={
                each: str(error)
                for each, error in sorted(after.held.items())
                if each not in before.held or (each == manifest.id and is_confined)
            },
            grants=GrantsView.of(manifest, grants) if is_confined else None,
            migrations=migrations,
            left_out=offer.left_out,
            will_run=manifest.id in after.order,
        )

    def _decided(self, candidate: Candidate, grant: Collection[str] | None) -> Grants:
        before = self.granted(candidate.id)
        if grant is None:
            return before
        if not candidate.source.is_confined:
            raise trusted_error(candidate.id)
        return decided_beside(candidate.id, candidate.manifest, grant, before)

    def _pending(self, offer: Offer, target: Path) -> tuple[str, ...]:
        manifest = offer.manifest
        return self.stored.pending(manifest.id, offer.staged, target.name, version=manifest.version)

    def removal(self, plugin_id: str, *, data: DataMode, cascade: bool) -> Removal:
        """Return what removing a plugin means.

        Raises:
            PluginNotFoundError: there is no such plugin.
            DependantsInstalledError: others need it, and ``cascade`` is not set.
            NotRemovableError: it belongs to the host or to an installed package.
        """
        plan = self.make_plan(lambda found: found)
        candidate = _candidate_of(plan, plugin_id)
        self._check_removable(candidate)
        plugin = candidate.id
        stops = tuple(each for each in plan.shutdown_order(plugin) if each in plan.order)
        dependants = [each for each in stops if each != plugin]
        if dependants and not cascade:
            raise DependantsInstalledError(plugin=plugin, dependants=dependants)
        version = candidate.manifest.version if candidate.manifest else ""
        return Removal(
            plugin=plugin,
            version=version,
            directory=candidate.source.path,
            data=data,
            stops=stops,
            is_confined=candidate.source.is_confined,
        )

    def get(self, plugin_id: str) -> Candidate:
        """Return the plugin of this id that is installed; PluginNotFoundError where none is."""
        return _candidate_of(self.make_plan(lambda found: found), plugin_id)

    # --- whose place it is --------------------------------------------------------------------------

    def _check_place(self, offer: Offer, target: Path, present: Candidate | None, *, may_upgrade: bool) -> None:
        plugin, version = offer.manifest.id, offer.manifest.version
        if present is None:
            if target.exists() or target.is_symlink():
                raise FolderTakenError(plugin=plugin, directory=target)
            return
        directory = present.source.path
        if self._is_the_hosts(present):
            raise IdTakenError(plugin=plugin, directory=directory)
        if directory.resolve() != target.resolve() or target.is_symlink():
            raise InstalledElsewhereError(plugin=plugin, directory=directory, into=self.directory.path)
        if not may_upgrade:
            installed = present.manifest.version if present.manifest else ""
            raise AlreadyInstalledError(plugin=plugin, installed=installed, offered=version, directory=directory)

    def _check_removable(self, candidate: Candidate) -> None:
        source, into = candidate.source, self.directory.path
        if self._is_the_hosts(candidate):
            raise NotRemovableError(plugin=candidate.id, owner="the backend itself")
        if source.path.parent.resolve() != into.resolve() or source.path.is_symlink():
            raise NotRemovableError(plugin=candidate.id, owner=f"{source.path.parent}, not to {into}")

    def _is_the_hosts(self, candidate: Candidate) -> bool:
        """Tell whether a plugin came with the backend: it lies in its package, and nobody has added it there."""
        source = candidate.source
        is_inside = source.package.startswith("pixsim7_backend.")
        return is_inside and not InstallDirectory(source.path.parent).read_receipt(source.folder)


def _candidate_of(plan: Plan, plugin_id: str) -> Candidate:
    wanted = normalize_plugin_id(plugin_id)
    candidate = plan.candidates.get(wanted)
    if candidate is None:
        raise PluginNotFoundError(plugin=wanted, similar=nearest_name(wanted, plan.candidates))
    return candidate


def _action(former: str, version: str) -> str:
    if not former or Version(former) < Version(version):
        return "upgrade"
    return "replace" if Version(former) == Version(version) else "downgrade"


def _source_at(target: Path) -> PluginSource:
    return PluginSource(folder=target.name, path=target, package=target.name)


def _others(found: Iterable[Candidate], target: Path) -> list[Candidate]:
    return [each for each in found if each.source.path.resolve() != target.resolve()]


def _refuse_stopping(before: Plan, after: Plan, plugin: str) -> None:
    stopped = [each for each in before.order if each not in after.order and each != plugin]
    if stopped:
        raise InstallRefusedError(plugin=plugin, stopped=stopped, because=str(after.held[stopped[0]]))
