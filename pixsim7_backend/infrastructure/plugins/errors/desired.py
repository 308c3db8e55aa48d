"""What the operator wants cannot be read, kept or changed now."""

from __future__ import annotations

from pathlib import Path

from .base import PluginError


class StateConflictError(PluginError):
    """Somebody else changed the same thing first; nothing was done."""

    def __init__(self, *, plugin: str, expected: int, found: int) -> None:
        what = f"plugin {plugin!r}" if plugin else "the desired state"
        super().__init__(
            f"{what} was changed meanwhile (version {found}, not {expected}); look at it again, then repeat the change",
            plugin=plugin,
            expected=expected,
            found=found,
        )


class StateFileError(PluginError):
    """The file that keeps the desired state cannot be used; it is left as it is."""

    def __init__(self, *, file: Path, problem: str) -> None:
        super().__init__(
            f"{file}: {problem}; restore it from a backup, or move it away to start with what the manifests wish",
            plugin="",
            file=file,
            problem=problem,
        )


class StateUnavailableError(PluginError):
    """The desired state cannot be reached; until it can, nothing is switched or configured."""

    def __init__(self, *, place: str, problem: str, way_out: str) -> None:
        super().__init__(
            f"the desired state of the plugins in {place} cannot be used: {problem}; {way_out}",
            plugin="",
            place=place,
            problem=problem,
            way_out=way_out,
        )


class LiveChangesRefusedError(PluginError):
    """Several server processes share the work, and a change would reach only one of them."""

    def __init__(self, *, plugin: str) -> None:
        super().__init__(
            f"plugin {plugin!r} cannot be changed while several workers serve, since only one of them would change;"
            " run with WORKERS=1 and without --workers, or make the change while the server is stopped",
            plugin=plugin,
        )
