"""What goes wrong between an operator and the server: requests that make no sense, a socket that cannot be used."""

from __future__ import annotations

from pathlib import Path

from .base import PluginError


class CommandRefusedError(PluginError):
    """A request on the control socket is malformed, too long, or from somebody who may not ask."""

    def __init__(self, *, problem: str) -> None:
        super().__init__(problem, plugin="", problem=problem)


class ControlSocketError(PluginError):
    """The control socket cannot be opened, or the server behind it does not answer as one of ours."""

    def __init__(self, *, path: Path, problem: str) -> None:
        super().__init__(f"control socket {path}: {problem}", plugin="", path=path, problem=problem)


class NoServerError(ControlSocketError):
    """No server listens at the control socket."""

    def __init__(self, *, path: Path) -> None:
        super().__init__(path=path, problem="no server listens there; start one with `pixsim7 serve`")


class ServerRunsError(ControlSocketError):
    """Another server already answers at the control socket."""

    def __init__(self, *, path: Path) -> None:
        super().__init__(
            path=path, problem="another server listens there; stop it, or give this one a DATA_DIR of its own"
        )
