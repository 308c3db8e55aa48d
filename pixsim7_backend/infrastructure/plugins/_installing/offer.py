"""Reading what somebody offers to install: copied into staging, its manifest read, nothing of it run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pixsim7_backend.infrastructure.plugins._discovery.manifest_source import DynamicManifest, parse_manifest
from pixsim7_backend.infrastructure.plugins.errors import InvalidManifestError
from pixsim7_backend.infrastructure.plugins.errors.installing import ArchiveRefusedError
from pixsim7_backend.infrastructure.plugins.types import PluginManifest

from .archive import unpack
from .checkout import copy_checkout, copy_folder, is_checkout
from .members import Limits, Roster

__all__ = ["Offer", "read_manifest_of", "require_existing", "stage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A plugin in staging, read."""

    staged: Path
    manifest: PluginManifest
    receipt: dict[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        return self.manifest.id.replace("-", "_")


def stage(source: Path, staging: Path, limits: Limits, *, allow_dirty: bool) -> Offer:
    """Copy a plugin into a staging folder and read it.

    Raises:
        MemberRefusedError, ArchiveRefusedError: it is not acceptable, or holds no plugin.
        InvalidManifestError: its manifest is not, or only running it would tell.
    """
    roster = _copy(source, staging, limits, allow_dirty=allow_dirty)
    staged = _find_root(staging, roster)
    manifest = read_manifest_of(staged, roster.source)
    receipt = {
        "plugin": manifest.id,
        "version": manifest.version,
        "from": str(source),
        "sha256": _digest(source) if source.is_file() else None,
        "added_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return Offer(staged=staged, manifest=manifest, receipt=receipt, left_out=tuple(roster.left_out))


def _copy(source: Path, staging: Path, limits: Limits, *, allow_dirty: bool) -> Roster:
    if source.is_file():
        return unpack(source, staging, limits)
    require_existing(source)
    if is_checkout(source):
        return copy_checkout(source, staging, limits, allow_dirty=allow_dirty)
    return copy_folder(source, staging, limits)


def require_existing(source: Path) -> None:
    """Refuse a path at which nothing is."""
    if not (source.is_file() or source.is_dir()):
        what = "is neither a folder nor a file" if source.exists() else "does not exist"
        raise ArchiveRefusedError(source=str(source), reason=f"{what}; name a folder or an archive")


def _find_root(staging: Path, roster: Roster) -> Path:
    """Return the folder in which the plugin lies: the staging folder, or the only one in it."""
    if (staging / "manifest.py").is_file():
        return staging
    inside = list(staging.iterdir())
    if len(inside) == 1 and (inside[0] / "manifest.py").is_file():
        return inside[0]
    names = ", ".join(sorted(ascii(each.name) for each in inside)[:5]) or "nothing"
    raise roster.refusal(f"holds no manifest.py at its top, nor one folder with one (it holds {names})")


def read_manifest_of(staged: Path, source: str) -> PluginManifest:
    """Read the manifest without running anything; one that would have to be run is refused."""
    shown = Path(source) / "manifest.py"
    manifest = parse_manifest((staged / "manifest.py").read_bytes(), file=shown, plugin=source)
    if isinstance(manifest, DynamicManifest):
        problem = f"{manifest.what}, but nothing is run to find out what is installed; write it as a literal"
        raise InvalidManifestError(plugin=source, file=shown, line=manifest.line, problems=[problem])
    return manifest


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
