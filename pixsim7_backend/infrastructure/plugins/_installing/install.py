"""Installing, upgrading, rolling back and removing plugins: asks the parts in order, decides from the plan.

Files are changed by whoever runs the command; what runs the plugins follows, and when the new code does
not start there, the files become what they were.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from pixsim7_backend.infrastructure.plugins._discovery.sources import Community
from pixsim7_backend.infrastructure.plugins._grants.permissions import Grants
from pixsim7_backend.infrastructure.plugins.errors import PluginError
from pixsim7_backend.infrastructure.plugins.errors.installing import (
    ArchiveRefusedError,
    NoFormerVersionError,
    RolledBackError,
)
from pixsim7_backend.infrastructure.plugins.states import PluginState

from .deciding import Decider, MakePlan
from .directory import CHECKPOINTS, Checkpoint, InstallDirectory, finish_interrupted
from .installation import DataMode, Follower, Installation, PluginData, Removal
from .members import Limits
from .offer import Offer, read_manifest_of, require_existing, stage

__all__ = [
    "CHECKPOINTS",
    "DataMode",
    "Follower",
    "Installation",
    "Installer",
    "Limits",
    "PluginData",
    "Removal",
    "finish_interrupted",
]


class Installer:
    """Changes which plugins one plugin directory holds.

    Args:
        into: the plugin directory; it is made when something is put there.
        make_plan: plans a start-up with all plugin directories of the host.
        follower: what runs the plugins: a server now, or the next start.
        stored: what the host knows of plugins' data.
        limits: how large a plugin may be.
        granted: what was decided before about a plugin's permissions.
        community: set where the directory is that of strangers' plugins.
        checkpoint: is told of every step, for tests.
    """

    def __init__(
        self,
        into: Path,
        *,
        make_plan: MakePlan,
        follower: Follower,
        stored: PluginData,
        limits: Limits | None = None,
        granted: Callable[[str], Grants] = lambda _plugin: Grants(),
        community: Community | None = None,
        checkpoint: Checkpoint = lambda _step: None,
    ) -> None:
        self._into = into
        self._limits = limits or Limits()
        self._follower = follower
        self._stored = stored
        self._reached = checkpoint
        self._directory = InstallDirectory(into, checkpoint=checkpoint)
        place = community.place if community else lambda candidate: candidate
        self._decide = Decider(self._directory, make_plan, self._stored, place, granted)

    # --- adding -----------------------------------------------------------------------------------

    def preview_add(
        self, source: Path, *, upgrade: bool = False, allow_dirty: bool = False, grant: Collection[str] | None = None
    ) -> Installation:
        """Return what :meth:`add` would do; the errors are the same. Nothing is written into the directory."""
        self._require_outside(source)
        with tempfile.TemporaryDirectory(prefix="pixsim7-") as scratch:
            offer = stage(source, Path(scratch), self._limits, allow_dirty=allow_dirty)
            return replace(self._decide.installation(offer, may_upgrade=upgrade, grant=grant), is_dry_run=True)

    def add(
        self, source: Path, *, upgrade: bool = False, allow_dirty: bool = False, grant: Collection[str] | None = None
    ) -> Installation:
        """Install the plugin in a folder, an archive or a git checkout; with ``upgrade`` also over a former version.

        ``grant`` decides about those of a confined plugin's requests that it names, before it starts.

        Raises:
            GrantRefusedError: something is granted that it does not ask for, or to a plugin that is not confined.
            MemberRefusedError, ArchiveRefusedError: what is offered is not acceptable.
            InvalidManifestError: its manifest is not, or only running it would tell.
            AlreadyInstalledError: it is there, and ``upgrade`` is not set.
            InstallRefusedError: plugins that run could not run beside it.
            TablesAheadError: the tables in the database are newer than it.
            RolledBackError: the running server could not start it; the files are what they were.
            PluginError: somebody else is installing, or the place is taken.
        """
        self._require_outside(source)
        with self._directory.locked():
            staging = self._directory.new_staging()
            try:
                offer = stage(source, staging, self._limits, allow_dirty=allow_dirty)
                decided = self._decide.installation(offer, may_upgrade=upgrade, grant=grant)
                return self._carry_out(decided, lambda: self._move_in(offer, decided), grant)
            finally:
                shutil.rmtree(staging, ignore_errors=True)

    def _move_in(self, offer: Offer, decided: Installation) -> None:
        move = self._directory.put if decided.former_version is None else self._directory.swap
        move(offer.staged, offer.folder, offer.receipt)

    def _require_outside(self, source: Path) -> None:
        require_existing(source)
        if source.is_dir() and source.resolve().is_relative_to(self._into.resolve()):
            raise ArchiveRefusedError(source=str(source), reason=f"lies in the plugin directory {self._into} already")

    def _carry_out(
        self, decided: Installation, change_files: Callable[[], object], grant: Collection[str] | None = None
    ) -> Installation:
        """Change the files, then let what runs the plugins follow; when it cannot, take the files back."""
        plugin, place = decided.plugin, decided.directory
        had_former = decided.former_version is not None
        stood_at = self._stored.revision(plugin, place.name) if self._follower.is_live else None
        change_files()
        try:
            self._follower.refresh(plugin, place, grant)
        except PluginError as error:
            if not decided.will_run and error.state is not PluginState.FAILED:
                return decided  # as the plan said
            try:
                self._take_tables_back(decided, stood_at)
            finally:
                self._directory.take_back(place.name, had_former=had_former)
                self._refresh_quietly(plugin, place)
                if grant is not None and not had_former:
                    with suppress(PluginError):
                        self._follower.revoke(plugin)  # who comes under its name later is somebody else
            raise RolledBackError(plugin=plugin, version=decided.version, cause=error) from error
        if had_former:
            self._directory.keep_one_former(place.name)
        return replace(decided, is_live=self._follower.is_live)

    def _take_tables_back(self, decided: Installation, revision: str | None) -> None:
        """Undo the migrations that the new version has run, while its files are there."""
        if self._stored.revision(decided.plugin, decided.directory.name) != revision:
            self._stored.downgrade(decided.plugin, decided.directory, revision)

    def _refresh_quietly(self, plugin_id: str, folder: Path) -> None:
        """Let the server see the files that it saw before; whatever it says of them it has said before."""
        with suppress(PluginError):
            self._follower.refresh(plugin_id, folder)

    # --- rolling back -----------------------------------------------------------------------------

    def preview_roll_back(self, plugin_id: str) -> Installation:
        """Return what :meth:`roll_back` would do; the errors are the same."""
        return replace(self._decide_roll_back(plugin_id), is_dry_run=True)

    def roll_back(self, plugin_id: str) -> Installation:
        """Put the former version of a plugin back; the present one becomes the former.

        Raises:
            PluginNotFoundError: there is no such plugin.
            NoFormerVersionError: none is kept.
            PluginError: as :meth:`add`.
        """
        with self._directory.locked():
            decided = self._decide_roll_back(plugin_id)
            return self._carry_out(decided, lambda: self._directory.swap_back(decided.directory.name))

    def _decide_roll_back(self, plugin_id: str) -> Installation:
        present = self._decide.get(plugin_id)
        former = self._directory.find_former(present.source.folder)
        if former is None:
            raise NoFormerVersionError(plugin=present.id)
        offer = Offer(staged=former, manifest=read_manifest_of(former, present.id))
        return replace(self._decide.installation(offer, may_upgrade=True), action="roll back")

    # --- removing ---------------------------------------------------------------------------------

    def preview_remove(self, plugin_id: str, *, data: DataMode, cascade: bool = False) -> Removal:
        """Return what :meth:`remove` would do; the errors are the same."""
        return replace(self._decide.removal(plugin_id, data=data, cascade=cascade), is_dry_run=True)

    def remove(self, plugin_id: str, *, data: DataMode, cascade: bool = False) -> Removal:
        """Remove a plugin's files, and with them what ``data`` says is stored of it; ``cascade`` stops what needs it.

        It is stopped first where a server runs. When anything goes wrong, it is there again and runs again.

        Raises:
            PluginNotFoundError: there is no such plugin.
            DependantsInstalledError: others need it, and ``cascade`` is not set.
            NotRemovableError: it belongs to the host or to an installed package.
        """
        with self._directory.locked():
            decided = self._decide.removal(plugin_id, data=data, cascade=cascade)
            away = self._directory.taken_away(decided.directory.name)
            with self._withdrawn(decided, cascade=cascade), away as removed:
                exported = self._treat_data(decided, removed)
            return replace(decided, exported_to=exported, is_live=self._follower.is_live)

    @contextmanager
    def _withdrawn(self, decided: Removal, *, cascade: bool) -> Iterator[None]:
        """Let the running server stop the plugin; on an error it starts again."""
        self._follower.withdraw(decided.plugin, cascade=cascade)
        try:
            yield
        except BaseException:
            self._refresh_quietly(decided.plugin, decided.directory)
            raise

    def _treat_data(self, decided: Removal, folder: Path) -> Path | None:
        """Export or drop what is stored of a plugin; what fails can be done again, since the files come back."""
        exported = None
        if decided.data is DataMode.EXPORT:
            exported = self._stored.export(decided.plugin, folder)
            self._reached("exported")
        if decided.is_confined:
            self._follower.revoke(decided.plugin)  # who comes under its name later is somebody else
        if decided.data is DataMode.DROP:
            self._follower.forget(decided.plugin)
            self._reached("forgotten")
            self._stored.drop(decided.plugin, folder)
            self._reached("dropped")
        return exported
