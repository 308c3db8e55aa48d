"""What installing is about: what was done, what becomes of data, and the faces of the host that it asks. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

__all__ = ["DataMode", "Installation", "LiveServer", "PluginData", "Removal"]


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
