"""Makes candidates for plans out of a few words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pixsim7_backend.infrastructure.plugins._plan.plan import Candidate
from pixsim7_backend.infrastructure.plugins.errors import MissingManifestError
from pixsim7_backend.infrastructure.plugins.records import PluginSource, SourceRank
from pixsim7_backend.infrastructure.plugins.types import PluginManifest

FIRST_PARTY, ENTRY_POINT, COMMUNITY = SourceRank.FIRST_PARTY, SourceRank.ENTRY_POINT, SourceRank.COMMUNITY


def source(plugin_id: str, rank: SourceRank = FIRST_PARTY, directory: str = "/plugins") -> PluginSource:
    """Where a plugin of this id would be found."""
    folder = plugin_id.replace("-", "_")
    return PluginSource(folder=folder, path=Path(directory) / folder, package=f"plugins.{folder}", rank=rank)


def candidate(plugin_id: str, rank: SourceRank = FIRST_PARTY, directory: str = "/plugins", **fields: Any) -> Candidate:
    """A good candidate whose manifest has these fields."""
    manifest = PluginManifest(id=plugin_id, **{"version": "1.0.0", **fields})
    return Candidate(id=plugin_id, source=source(plugin_id, rank, directory), manifest=manifest)


def broken(plugin_id: str, rank: SourceRank = FIRST_PARTY, directory: str = "/plugins") -> Candidate:
    """A folder without manifest."""
    where = source(plugin_id, rank, directory)
    return Candidate(id=plugin_id, source=where, error=MissingManifestError(plugin=plugin_id, directory=where.path))
