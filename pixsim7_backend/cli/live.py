"""The server that runs with these settings, if one does: the command line asks it at its control socket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pixsim7_backend.cli.output import CommandError
from pixsim7_backend.infrastructure.plugins.admin import SOCKET_NAME, has_server, is_supported, request
from pixsim7_backend.settings import Settings

_SECONDS = 600.0
"""For one answer: a change waits for the hooks and the requests of every plugin that it touches."""


class LiveServer:
    """A running server."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def ask(self, command: str, **fields: Any) -> Any:
        """Return the server's result.

        Raises:
            CommandError: the server refuses, in its words; or it cannot be asked.
        """
        reply = request(self.path, {"command": command, **fields}, timeout=_SECONDS)
        if not reply["ok"]:
            raise CommandError(str(reply["error"]["message"]))
        return reply["result"]


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
