"""Installing, upgrading, rolling back and removing plugins: asks the parts in order, decides from the plan.

Files are changed by whoever runs the command; a server that runs is told afterwards, and when the new
code does not start there, the files become what they were.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from ._install_directory import CHECKPOINTS, Checkpoint, InstallDirectory, finish_interrupted
from ._installation import DataMode, Installation, LiveServer, PluginData, Removal
from ._members import Limits
from ._offer import Offer, read_manifest_of, require_existing, stage
from ._plan import Candidate, Plan
from .errors import PluginError, PluginNotFoundError
from .errors.installing import (
    AlreadyInstalledError,
    ArchiveRefusedError,
    DependantsInstalledError,
    FolderTakenError,
    InstalledElsewhereError,
    InstallRefusedError,
    NoFormerVersionError,
    NotRemovableError,
    RolledBackError,
)
from .records import PluginSource
from .states import PluginState
from .types import normalize_plugin_id

__all__ = [
    "CHECKPOINTS",
    "DataMode",
    "Installation",
    "Installer",
    "Limits",
    "LiveServer",
    "PluginData",
    "Removal",
    "finish_interrupted",
]

Revise = Callable[[Sequence[Candidate]], Iterable[Candidate]]
MakePlan = Callable[[Revise], Plan]
"""Returns the plan of a start-up, with the candidates that were found revised."""


class Installer:
    """Changes which plugins one plugin directory holds.

    Args:
        into: the plugin directory; it is made when something is put there.
        make_plan: plans a start-up with all plugin directories of the host.
        limits: how large a plugin may be.
        live: the server that runs, if one does.
        stored: what the host knows of plugins' data; None where it keeps none.
        checkpoint: is told of every step, for tests.
    """

    def __init__(
        self,
        into: Path,
        *,
        make_plan: MakePlan,
        limits: Limits | None = None,
        live: LiveServer | None = None,
        stored: PluginData | None = None,
        checkpoint: Checkpoint = lambda _step: None,
    ) -> None:
        self._into = into
        self._make_plan = make_plan
        self._limits = limits or Limits()
        self._live = live
        self._stored = stored
        self._reached = checkpoint
        self._directory = InstallDirectory(into, checkpoint=checkpoint)

    # --- adding -----------------------------------------------------------------------------------

    def preview_add(self, source: Path, *, upgrade: bool = False, allow_dirty: bool = False) -> Installation:
        """Return what :meth:`add` would do; the errors are the same. Nothing is written into the directory."""
        self._require_outside(source)
        with tempfile.TemporaryDirectory(prefix="pixsim7-") as scratch:
            offer = stage(source, Path(scratch), self._limits, allow_dirty=allow_dirty)
            return replace(self._decide(offer, may_upgrade=upgrade), is_dry_run=True)

    def add(self, source: Path, *, upgrade: bool = False, allow_dirty: bool = False) -> Installation:
        """Install the plugin in a folder, an archive or a git checkout; with ``upgrade`` also over a former version.

        Raises:
            MemberRefusedError, ArchiveRefusedError: what is offered is not acceptable.
            InvalidManifestError: its manifest is not, or only running it would tell.
            AlreadyInstalledError: it is there, and ``upgrade`` is not set.
            InstallRefusedError: plugins that run could not run beside it.
            RolledBackError: the running server could not start it; the files are what they were.
            PluginError: somebody else is installing, or the place is taken.
        """
        self._require_outside(source)
        with self._directory.locked():
            staging = self._directory.new_staging()
            try:
                offer = stage(source, staging, self._limits, allow_dirty=allow_dirty)
                decided = self._decide(offer, may_upgrade=upgrade)
                return self._carry_out(decided, lambda: self._move_in(offer, decided))
            finally:
                shutil.rmtree(staging, ignore_errors=True)

    def _move_in(self, offer: Offer, decided: Installation) -> None:
        move = self._directory.put if decided.former_version is None else self._directory.swap
        move(offer.staged, offer.folder, offer.receipt)

    def _require_outside(self, source: Path) -> None:
        require_existing(source)
        if source.is_dir() and source.resolve().is_relative_to(self._into.resolve()):
            raise ArchiveRefusedError(source=str(source), reason=f"lies in the plugin directory {self._into} already")

    # --- deciding ---------------------------------------------------------------------------------

    def _decide(self, offer: Offer, *, may_upgrade: bool) -> Installation:
        """Return what installing it means; refuse what must not be."""
        target = self._into / offer.folder
        before = self._make_plan(lambda found: found)
        present = before.candidates.get(offer.manifest.id)
        self._check_place(offer, target, present, may_upgrade=may_upgrade)
        candidate = Candidate(id=offer.manifest.id, source=_source_at(target), manifest=offer.manifest)
        after = self._make_plan(lambda found: [*_others(found, target), candidate])
        _refuse_stopping(before, after, offer.manifest.id)
        former = present.manifest if present else None
        asked_before = former.permissions if former else ()
        return Installation(
            action="upgrade" if present else "add",
            plugin=offer.manifest.id,
            name=offer.manifest.name,
            version=offer.manifest.version,
            former_version=(former.version if former else "") if present else None,
            directory=target,
            permissions=offer.manifest.permissions,
            new_permissions=tuple(each for each in offer.manifest.permissions if each not in asked_before),
            starts=tuple(each for each in after.order if each not in before.order),
            held={each: str(error) for each, error in sorted(after.held.items()) if each not in before.held},
            left_out=offer.left_out,
            will_run=offer.manifest.id in after.order,
        )

    def _check_place(self, offer: Offer, target: Path, present: Candidate | None, *, may_upgrade: bool) -> None:
        plugin, version = offer.manifest.id, offer.manifest.version
        if present is None:
            if target.exists() or target.is_symlink():
                raise FolderTakenError(plugin=plugin, directory=target)
            return
        directory = present.source.path
        if directory.resolve() != target.resolve() or target.is_symlink():
            raise InstalledElsewhereError(plugin=plugin, directory=directory, into=self._into)
        if not may_upgrade:
            installed = present.manifest.version if present.manifest else ""
            raise AlreadyInstalledError(plugin=plugin, installed=installed, offered=version, directory=directory)

    # --- doing ------------------------------------------------------------------------------------

    def _carry_out(self, decided: Installation, change_files: Callable[[], None]) -> Installation:
        """Change the files, then let the running server follow; when it cannot, take the files back."""
        folder, had_former = decided.directory.name, decided.former_version is not None
        stood_at = self._revision(decided.plugin, decided.directory) if had_former else None
        change_files()
        try:
            if self._live is not None:
                self._live.refresh(decided.directory)
        except PluginError as error:
            if not decided.will_run and error.state is not PluginState.FAILED:
                return decided  # as the plan said
            try:
                self._take_tables_back(decided, stood_at)
            finally:
                self._directory.take_back(folder, had_former=had_former)
                self._refresh_quietly(decided.directory)
            raise RolledBackError(plugin=decided.plugin, version=decided.version, cause=error) from error
        if had_former:
            self._directory.keep_one_former(folder)
        return replace(decided, is_live=self._live is not None)

    def _refresh_quietly(self, folder: Path) -> None:
        """Let the server see the files that it saw before; whatever it says of them it has said before."""
        if self._live is not None:
            with suppress(PluginError):
                self._live.refresh(folder)

    def _revision(self, plugin_id: str, folder: Path) -> str | None:
        return self._stored.revision(plugin_id, folder) if self._stored else None

    def _take_tables_back(self, decided: Installation, revision: str | None) -> None:
        """Undo the migrations that the new version has run, while its files are there."""
        if self._stored and self._revision(decided.plugin, decided.directory) != revision:
            self._stored.downgrade(decided.plugin, decided.directory, revision)

    def preview_roll_back(self, plugin_id: str) -> Installation:
        """Return what :meth:`roll_back` would do; the errors are the same."""
        return replace(self._decide_roll_back(plugin_id), is_dry_run=True)

    def roll_back(self, plugin_id: str) -> Installation:
        """Put the former version of a plugin back; the present one becomes the former.

        Tables are taken back only where a running server refuses the former code.

        Raises:
            NoFormerVersionError: none is kept.
            PluginError: as :meth:`add`.
        """
        with self._directory.locked():
            decided = self._decide_roll_back(plugin_id)
            return self._carry_out(decided, lambda: _forget_result(self._directory.swap_back(decided.directory.name)))

    def _decide_roll_back(self, plugin_id: str) -> Installation:
        wanted = normalize_plugin_id(plugin_id)
        former = self._directory.find_former(wanted.replace("-", "_"))
        if former is None:
            raise NoFormerVersionError(plugin=wanted)
        manifest = read_manifest_of(former, wanted)
        return replace(self._decide(Offer(staged=former, manifest=manifest), may_upgrade=True), action="roll back")

    # --- removing ---------------------------------------------------------------------------------

    def preview_remove(self, plugin_id: str, *, data: DataMode, cascade: bool = False) -> Removal:
        """Return what :meth:`remove` would do; the errors are the same."""
        plan = self._make_plan(lambda found: found)
        wanted = normalize_plugin_id(plugin_id)
        candidate = plan.candidates.get(wanted)
        if candidate is None:
            raise PluginNotFoundError(plugin=wanted)
        self._check_removable(candidate)
        stops = tuple(each for each in plan.shutdown_order(wanted) if each in plan.order)
        dependants = [each for each in stops if each != wanted]
        if dependants and not cascade:
            raise DependantsInstalledError(plugin=wanted, dependants=dependants)
        version = candidate.manifest.version if candidate.manifest else ""
        return Removal(
            plugin=wanted, version=version, directory=candidate.source.path, data=data, stops=stops, is_dry_run=True
        )

    def remove(self, plugin_id: str, *, data: DataMode, cascade: bool = False) -> Removal:
        """Remove a plugin's files, and with them what ``data`` says of its rows; with ``cascade`` stop what needs it.

        It is stopped first where a server runs. When anything goes wrong, it is there again and runs again.

        Raises:
            PluginNotFoundError: there is no such plugin.
            DependantsInstalledError: others need it, and ``cascade`` is not set.
            NotRemovableError: it belongs to the host or to an installed package.
        """
        with self._directory.locked():
            decided = self.preview_remove(plugin_id, data=data, cascade=cascade)
            away = self._directory.taken_away(decided.directory.name)
            with self._withdrawn(decided, cascade=cascade), away as removed:
                exported = self._treat_data(decided, removed)
            return replace(decided, exported_to=exported, is_live=self._live is not None, is_dry_run=False)

    @contextmanager
    def _withdrawn(self, decided: Removal, *, cascade: bool) -> Iterator[None]:
        """Let the running server stop the plugin; on an error it starts again."""
        if self._live is not None:
            self._live.withdraw(decided.plugin, cascade=cascade)
        try:
            yield
        except BaseException:
            self._refresh_quietly(decided.directory)
            raise
        if self._live is not None and decided.data is DataMode.DROP:
            self._live.forget(decided.plugin)

    def _treat_data(self, decided: Removal, folder: Path) -> Path | None:
        exported = None
        if self._stored is not None and decided.data is DataMode.EXPORT:
            exported = self._stored.export(decided.plugin, folder)
            self._reached("exported")
        if self._stored is not None and decided.data is DataMode.DROP:
            self._stored.drop(decided.plugin, folder)
            self._reached("dropped")
        return exported

    def _check_removable(self, candidate: Candidate) -> None:
        source = candidate.source
        if source.path.parent.resolve() != self._into.resolve() or source.path.is_symlink():
            raise NotRemovableError(plugin=candidate.id, owner=f"{source.path.parent}, not to {self._into}")
        is_ours = source.package.startswith("pixsim7_backend.")
        if is_ours and not self._directory.read_receipt(source.folder):
            raise NotRemovableError(plugin=candidate.id, owner="the backend itself")


def _source_at(target: Path) -> PluginSource:
    return PluginSource(folder=target.name, path=target, package=target.name)


def _others(found: Iterable[Candidate], target: Path) -> list[Candidate]:
    return [each for each in found if each.source.path.resolve() != target.resolve()]


def _refuse_stopping(before: Plan, after: Plan, plugin: str) -> None:
    stopped = [each for each in before.order if each not in after.order and each != plugin]
    if stopped:
        raise InstallRefusedError(plugin=plugin, stopped=stopped, because=str(after.held[stopped[0]]))


def _forget_result(_result: object) -> None:
    """Make an expression with a result a step without one."""
