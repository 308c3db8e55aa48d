"""Lines that a jail logs, in the host's log: on one line each, as the plugin's, and not too many."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["JailLog", "LogLimits"]

_LONGEST_NAME = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLimits:
    """How much one plugin may write."""

    per_second: float = 20.0
    burst: int = 500
    """Lines that may come at once."""
    length: int = 4096
    """Characters of one line; the rest is cut off."""


class JailLog:
    """Writes what a jail says to ``pixsim7.plugins.jail.<id>``, tagged with the plugin; from any thread.

    Whatever is not plain text in it is escaped: a line cannot look like two, like the host's, or drive a terminal.
    """

    def __init__(
        self, plugin: str, limits: LogLimits | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.dropped = 0
        """Lines that were too many, in all."""
        self._logger = logging.getLogger(f"pixsim7.plugins.jail.{plugin}")
        self._tag = {"plugin": plugin}
        self._limits = limits or LogLimits()
        self._clock = clock
        self._left = float(self._limits.burst)
        self._at = clock()
        self._dropped = 0
        self._lock = threading.Lock()

    def __call__(self, level: int, name: str, text: str) -> None:
        """Write a line of the jail's: its level, its logger and its text."""
        with self._lock:
            if not self._may_write():
                self.dropped += 1
                self._dropped += 1
                return
            dropped, self._dropped = self._dropped, 0
        self._tell_dropped(dropped)
        what = text if len(text) <= self._limits.length else f"{text[: self._limits.length]}…"
        level = min(max(level, logging.DEBUG), logging.CRITICAL)
        self._logger.log(level, "[%s] %s", plain(name[:_LONGEST_NAME]), plain(what), extra=self._tag)

    def close(self) -> None:
        """Say how many lines were dropped last."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        self._tell_dropped(dropped)

    def _tell_dropped(self, dropped: int) -> None:
        if dropped:
            self._logger.warning("… %d lines dropped: it writes too many", dropped, extra=self._tag)

    def _may_write(self) -> bool:
        now = self._clock()
        self._left = min(self._limits.burst, self._left + (now - self._at) * self._limits.per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def plain(text: str) -> str:
    r"""Return ``text`` with all that cannot be seen, or changes how other text is seen, written as ``\n``, ``\x1b``."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
