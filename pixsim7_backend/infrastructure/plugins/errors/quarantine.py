"""The plugin ran, and what it did was too much."""

from __future__ import annotations

from .base import PluginError


class QuarantinedError(PluginError):
    """The plugin was taken out of service for failing too often, overrunning, or blocking the event loop.

    ``evidence`` says what happened, within ``window`` seconds where that is known, ``last_fault`` the last thing
    that went wrong with file and line; after ``pause`` seconds it is tried again.
    """

    def __init__(
        self, *, plugin: str, evidence: str, window: float | None, last_fault: str, pause: float, trips: int = 1
    ) -> None:
        last = f"; last: {last_fault}" if last_fault else ""
        within = f"within {window:g} s " if window is not None else ""
        times = f" (time {trips} in a row)" if trips > 1 else ""
        super().__init__(
            f"plugin {plugin!r} is quarantined{times}: {within}{evidence}{last};"
            f" it is tried again after {pause:g} s, or at once by `pixsim7 plugins retry {plugin}`",
            plugin=plugin,
            evidence=evidence,
            window=window,
            last_fault=last_fault,
            pause=pause,
            trips=trips,
        )
