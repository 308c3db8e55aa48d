"""The server that runs with these settings, if one does: the command line asks it at its control socket."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pixsim7_backend.cli.output import CommandError
from pixsim7_backend.infrastructure.plugins import PluginError, PluginState, errors
from pixsim7_backend.infrastructure.plugins.admin import SOCKET_NAME, has_server, is_supported, request
from pixsim7_backend.settings import Settings

_SECONDS = 600.0
"""For one answer: a change waits for the hooks and the requests of every plugin that it touches."""


class LiveServer:
    """A running server; all methods raise PluginError when it refuses, in its words, or cannot be asked."""

    is_live = True

    def __init__(self, path: Path) -> None:
        self.path = path

    def ask(self, command: str, **fields: Any) -> Any:
        """Return the server's result; a refusal has the state that it would give the plugin."""
        reply = request(self.path, {"command": command, **fields}, timeout=_SECONDS)
        if not reply["ok"]:
            raise _error_of(reply["error"])
        return reply.get("result")

    def refresh(self, plugin_id: str, folder: Path, grant: Collection[str] | None = None) -> None:
        """Let it follow what happened to a plugin's folder."""
        self.ask("refresh", folder=str(folder), grant=None if grant is None else list(grant))

    def withdraw(self, plugin_id: str, *, cascade: bool) -> None:
        """Let it stop a plugin whose folder is about to go."""
        self.ask("withdraw", id=plugin_id, cascade=cascade)

    def revoke(self, plugin_id: str) -> None:
        """Let it forget what was granted to the plugin."""
        self.ask("revoke", id=plugin_id)

    def forget(self, plugin_id: str) -> None:
        """Let it forget how the plugin was switched and configured."""
        self.ask("forget", id=plugin_id)


def _error_of(told: Mapping[str, Any]) -> PluginError:
    kind = getattr(errors, str(told.get("type")), None)
    error = PluginError(str(told.get("message")), plugin=str(told.get("plugin", "")))
    state: PluginState = getattr(kind, "state", PluginState.FAILED)
    error.state = state  # type: ignore[misc]  # of this one error, whose type is known by name only
    return error


def find_server(settings: Settings) -> LiveServer | None:
    """Return the server that runs with these settings, None when there is none.

    Raises:
        ControlSocketError: there may be one, but it is somebody else's.
    """
    path = settings.data_dir / SOCKET_NAME
    return LiveServer(path) if is_supported() and has_server(path) else None


def get_server(settings: Settings) -> LiveServer:
    """Return the server that runs with these settings.

    Raises:
        CommandError: there is none.
    """
    server = find_server(settings)
    if server is None:
        raise CommandError(
            f"no server runs here (nobody answers at {settings.data_dir / SOCKET_NAME});"
            " start one with `pixsim7 serve`, or set DATA_DIR to that of the one you mean"
        )
    return server
