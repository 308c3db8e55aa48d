"""What installing is about: what was done, what becomes of data, and the faces of the host that it asks. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from pixsim7_backend.infrastructure.plugins._grants.deciding import GrantsView, view_json

__all__ = ["DataMode", "Follower", "Installation", "PluginData", "Removal"]


class DataMode(StrEnum):
    """What becomes of the rows of a plugin that is removed."""

    KEEP = "keep"
    EXPORT = "export"
    DROP = "drop"


class PluginData(Protocol):
    """What the host has stored of plugins; ``folder`` is where the plugin's files are at that moment."""

    def revision(self, plugin_id: str, installed_as: str) -> str | None:
        """Return at which revision the tables of the plugin in this folder stand; None is before the first."""

    def pending(self, plugin_id: str, folder: Path, installed_as: str, *, version: str) -> tuple[str, ...]:
        """Return the revisions that these files of ``version`` would bring to the tables; nothing of them is run.

        Raises:
            TablesAheadError: the tables stand at a revision that the files do not know.
        """

    def downgrade(self, plugin_id: str, folder: Path, revision: str | None) -> None:
        """Take the plugin's tables back to a revision; None is before the first."""

    def export(self, plugin_id: str, folder: Path) -> Path | None:
        """Write rows, switch and settings of the plugin to a file, whole or not at all; None when there are none."""

    def drop(self, plugin_id: str, folder: Path) -> None:
        """Delete the plugin's tables. Doing it twice is fine."""


class Follower(Protocol):
    """What runs the plugins: a server now, or the next start. Methods raise PluginError when it could not be done."""

    @property
    def is_live(self) -> bool:
        """A server runs, and has followed when a method returns."""

    def refresh(self, plugin_id: str, folder: Path, grant: Collection[str] | None = None) -> None:
        """Follow what happened to a plugin's folder; returns when the new code serves, or the old one is gone.

        ``grant`` decides first about those of a confined plugin's requests that it names; where an error takes the
        files back, it takes that decision back, too.
        """

    def withdraw(self, plugin_id: str, *, cascade: bool) -> None:
        """Stop a plugin whose folder is about to go; with ``cascade`` first what needs it."""

    def revoke(self, plugin_id: str) -> None:
        """Forget what was granted to a plugin. Doing it twice is fine."""

    def forget(self, plugin_id: str) -> None:
        """Forget how the plugin was switched and configured. Doing it twice is fine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What an installation, upgrade or roll-back does, or has done."""

    action: str
    """``add``, ``upgrade``, ``replace`` (by the same version), ``downgrade`` or ``roll back``."""
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
    grants: GrantsView | None = None
    """What was decided about what it asks for; None for one that runs in process."""
    migrations: tuple[str, ...] = ()
    """Revisions that its tables do not have yet, in order; who runs them depends on the settings."""
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
        lists = ("permissions", "new_permissions", "starts", "migrations", "left_out")
        return {
            **{name: getattr(self, name) for name in names},
            **{name: list(getattr(self, name)) for name in lists},
            "directory": str(self.directory),
            "held": dict(self.held),
            "grants": view_json(self.grants),
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
    is_confined: bool = False
    """What was granted to it is forgotten, whatever becomes of its rows."""
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
