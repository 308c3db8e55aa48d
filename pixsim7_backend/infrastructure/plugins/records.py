"""What the host knows of a plugin: where it was found, what it claims, its state and the reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

from .errors import IllegalTransitionError, PluginError
from .states import PluginState, can_become
from .types import PluginManifest


class SourceRank(IntEnum):
    """How far a source is trusted; of two plugins with one id the lower number wins."""

    FIRST_PARTY = 0
    ENTRY_POINT = 1
    COMMUNITY = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginSource:
    """Where a plugin was found.

    ``folder`` is the name printed by the guide's log lines, ``package`` the dotted name under which
    its code is imported, ``path`` its folder (for an entry point that of the imported package).
    """

    folder: str
    path: Path
    package: str
    rank: SourceRank = SourceRank.FIRST_PARTY
    is_confined: bool = False
    """Its code never runs in the host's process."""

    @property
    def manifest_file(self) -> Path:
        return self.path / "manifest.py"

    @property
    def is_trusted(self) -> bool:
        return self.rank is not SourceRank.COMMUNITY

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginRecord:
    """One plugin as the host sees it now. Frozen: a change is a new record (:meth:`to`)."""

    id: str
    source: PluginSource
    manifest: PluginManifest | None = None
    state: PluginState = PluginState.DISCOVERED
    reason: PluginError | None = None
    generation: int = 0
    """How many times its code has been loaded."""
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.manifest.name if self.manifest else self.id

    @property
    def version(self) -> str:
        return self.manifest.version if self.manifest else ""

    def to(self, state: PluginState, reason: PluginError | None = None, **changes: Any) -> PluginRecord:
        """Return the record in another state.

        Raises:
            IllegalTransitionError: the state table does not allow it.
        """
        if not can_become(self.state, state):
            raise IllegalTransitionError(plugin=self.id, current=self.state, wanted=state)
        return replace(self, state=state, reason=reason, **changes)

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON-able values, for the command line and the admin API."""
        return {
            "id": self.id,
            "name": self.name,
            "version": self.version,
            "state": str(self.state),
            "reason": self.reason.to_json() if self.reason else None,
            "generation": self.generation,
            "source": {
                "folder": self.source.folder,
                "path": str(self.source.path),
                "rank": self.source.rank.name.lower(),
                "is_confined": self.source.is_confined,
            },
            "warnings": list(self.warnings),
            "manifest": self.manifest.model_dump(mode="json") if self.manifest else None,
        }
