"""Installing, upgrading, rolling back and removing plugins: asks the parts in order, decides from the plan.

Files are changed by whoever runs the command; a server that runs is told afterwards, and when the new
code does not start there, the files become what they were.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from ._archive import unpack
from ._checkout import copy_checkout, copy_folder, is_checkout
from ._install_directory import CHECKPOINTS, Checkpoint, InstallDirectory, finish_interrupted
from ._manifest_source import DynamicManifest, parse_manifest
from ._members import Limits, Roster
from ._plan import Candidate, Plan
from .errors import InvalidManifestError, PluginError, PluginNotFoundError
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
from .types import PluginManifest, normalize_plugin_id

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


class DataMode(StrEnum):
    """What becomes of the rows of a plugin that is removed."""

    KEEP = "keep"
    EXPORT = "export"
    DROP = "drop"


class PluginData(Protocol):
    """What the host knows of the data of plugins; ``folder`` is where the plugin's files are at that moment."""

    def revision(self, plugin_id: str, folder: Path) -> str | None:
        """Return at which revision the plugin's tables stand."""

    def downgrade(self, plugin_id: str, folder: Path, revision: str | None) -> None:
        """Take the plugin's tables back to a revision; None is before the first."""

    def export(self, plugin_id: str, folder: Path) -> Path | None:
        """Write the rows of the plugin's tables to a file, whole or not at all; None when it has no tables."""

    def drop(self, plugin_id: str, folder: Path) -> None:
        """Delete the plugin's tables. Doing it twice is fine."""


class LiveServer(Protocol):
    """A server that runs; each method raises PluginError when it could not be done there."""

    def refresh(self, folder: Path) -> None:
        """Follow what happened to a plugin's folder; returns when the new code serves, or the old one is gone."""

    def withdraw(self, plugin_id: str, *, cascade: bool) -> None:
        """Stop a plugin whose folder is about to go; with ``cascade`` first what needs it."""

    def forget(self, plugin_id: str) -> None:
        """Forget how the plugin was switched and configured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What an installation, upgrade or roll-back does, or has done."""

    action: str
    """``add``, ``upgrade`` or ``roll back``."""
    plugin: str
    name: str
    version: str
    former_version: str | None
    directory: Path
    permissions: tuple[str, ...]
    new_permissions: tuple[str, ...]
    """Those that the former version did not ask for."""
    starts: tuple[str, ...]
    """What a start-up loads now that it did not load before, in load order."""
    held: Mapping[str, str]
    """What is held back now that was not, by id, and why."""
    left_out: tuple[str, ...] = ()
    """Compiled files that were not copied."""
    will_run: bool = True
    """A start-up loads it; else ``held`` or the operator's own choice says why not."""
    is_live: bool = False
    """A running server serves it already."""
    is_dry_run: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the installation as JSON-able values."""
        names = ("action", "plugin", "name", "version", "former_version", "will_run", "is_live", "is_dry_run")
        lists = ("permissions", "new_permissions", "starts", "left_out")
        return {
            **{name: getattr(self, name) for name in names},
            **{name: list(getattr(self, name)) for name in lists},
            "directory": str(self.directory),
            "held": dict(self.held),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What a removal does, or has done."""

    plugin: str
    version: str
    directory: Path
    data: DataMode
    stops: tuple[str, ...]
    """What stops with it, in that order, itself included."""
    exported_to: Path | None = None
    is_live: bool = False
    is_dry_run: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the removal as JSON-able values."""
        return {
            "plugin": self.plugin,
            "version": self.version,
            "directory": str(self.directory),
            "data": str(self.data),
            "stops": list(self.stops),
            "exported_to": str(self.exported_to) if self.exported_to else None,
            "is_live": self.is_live,
            "is_dry_run": self.is_dry_run,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offer:
    """A plugin in staging, read."""

    staged: Path
    manifest: PluginManifest
    receipt: dict[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        return self.manifest.id.replace("-", "_")


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
        with tempfile.TemporaryDirectory(prefix="pixsim7-") as scratch:
            offer = self._stage(source, Path(scratch), allow_dirty=allow_dirty)
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
        _require_existing(source)
        with self._directory.locked():
            staging = self._directory.new_staging()
            try:
                offer = self._stage(source, staging, allow_dirty=allow_dirty)
                decided = self._decide(offer, may_upgrade=upgrade)
                return self._carry_out(decided, lambda: self._move_in(offer, decided))
            finally:
                shutil.rmtree(staging, ignore_errors=True)

    def _move_in(self, offer: _Offer, decided: Installation) -> None:
        move = self._directory.put if decided.former_version is None else self._directory.swap
        move(offer.staged, offer.folder, offer.receipt)

    def _stage(self, source: Path, staging: Path, *, allow_dirty: bool) -> _Offer:
        roster = self._copy(source, staging, allow_dirty=allow_dirty)
        staged = _find_root(staging, roster)
        manifest = _read_manifest(staged, roster)
        receipt = {
            "plugin": manifest.id,
            "version": manifest.version,
            "from": str(source),
            "sha256": _digest(source) if source.is_file() else None,
            "added_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        return _Offer(staged=staged, manifest=manifest, receipt=receipt, left_out=tuple(roster.left_out))

    def _copy(self, source: Path, staging: Path, *, allow_dirty: bool) -> Roster:
        if source.is_file():
            return unpack(source, staging, self._limits)
        _require_existing(source)
        if source.resolve().is_relative_to(self._into.resolve()):
            raise ArchiveRefusedError(source=str(source), reason=f"lies in the plugin directory {self._into} already")
        if is_checkout(source):
            return copy_checkout(source, staging, self._limits, allow_dirty=allow_dirty)
        return copy_folder(source, staging, self._limits)

    # --- deciding ---------------------------------------------------------------------------------

    def _decide(self, offer: _Offer, *, may_upgrade: bool) -> Installation:
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

    def _check_place(self, offer: _Offer, target: Path, present: Candidate | None, *, may_upgrade: bool) -> None:
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
            self._take_tables_back(decided, stood_at)
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
        manifest = _read_manifest(former, Roster(wanted, self._limits))
        return replace(self._decide(_Offer(staged=former, manifest=manifest), may_upgrade=True), action="roll back")

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


def _require_existing(source: Path) -> None:
    if not (source.is_file() or source.is_dir()):
        raise ArchiveRefusedError(source=str(source), reason="does not exist; name a folder or an archive")


def _find_root(staging: Path, roster: Roster) -> Path:
    """Return the folder in which the plugin lies: the staging folder, or the only one in it."""
    if (staging / "manifest.py").is_file():
        return staging
    inside = list(staging.iterdir())
    if len(inside) == 1 and (inside[0] / "manifest.py").is_file():
        return inside[0]
    names = ", ".join(sorted(ascii(each.name) for each in inside)[:5]) or "nothing"
    raise roster.refusal(f"holds no manifest.py at its top, nor one folder with one (it holds {names})")


def _read_manifest(staged: Path, roster: Roster) -> PluginManifest:
    """Read the manifest without running anything; one that would have to be run is refused."""
    shown = Path(roster.source) / "manifest.py"
    manifest = parse_manifest((staged / "manifest.py").read_bytes(), file=shown, plugin=roster.source)
    if isinstance(manifest, DynamicManifest):
        problem = f"{manifest.what}, but nothing is run to find out what is installed; write it as a literal"
        raise InvalidManifestError(plugin=roster.source, file=shown, line=manifest.line, problems=[problem])
    return manifest


def _source_at(target: Path) -> PluginSource:
    return PluginSource(folder=target.name, path=target, package=target.name)


def _others(found: Iterable[Candidate], target: Path) -> list[Candidate]:
    return [each for each in found if each.source.path.resolve() != target.resolve()]


def _refuse_stopping(before: Plan, after: Plan, plugin: str) -> None:
    stopped = [each for each in before.order if each not in after.order and each != plugin]
    if stopped:
        raise InstallRefusedError(plugin=plugin, stopped=stopped, because=str(after.held[stopped[0]]))


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _forget_result(_result: object) -> None:
    """Make an expression with a result a step without one."""
