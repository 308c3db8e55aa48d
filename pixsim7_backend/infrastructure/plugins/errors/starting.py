"""Why a start goes on without a plugin: an earlier start ended in it, or the operator wants only the essential ones."""

from __future__ import annotations

from pathlib import Path

from pixsim7_backend.infrastructure.plugins.states import PluginState

from .base import PluginError


class SuspectedCrashError(PluginError):
    """An earlier start ended, without finishing, while it was at this plugin; ``at`` is when (ISO 8601).

    ``file`` is the note of it, which keeps the plugin out of the next starts.
    """

    def __init__(self, *, plugin: str, step: str, at: str, file: Path) -> None:
        super().__init__(
            f"the process ended at {at} while plugin {plugin!r} was being {step}, before the start had finished;"
            f" the server starts without it until its code changes, you run `pixsim7 plugins retry {plugin}`,"
            f" or delete {file}",
            plugin=plugin,
            step=step,
            at=at,
            file=file,
        )


class SafeModeError(PluginError):
    """The server was started in safe mode, and no required plugin needs this one."""

    state = PluginState.BLOCKED

    def __init__(self, *, plugin: str) -> None:
        super().__init__(
            f"plugin {plugin!r} is left out in safe mode; to use it, enable it by hand,"
            " or start without --safe-mode (setting SAFE_MODE)",
            plugin=plugin,
        )
