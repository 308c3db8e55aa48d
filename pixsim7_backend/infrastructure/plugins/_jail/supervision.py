"""How patient the host is with a jail, and what it remembers of its crashes."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = ["Crash", "Crashes", "JailStart", "SupervisorSettings"]

JailStart = Literal["with-plugin", "first-request"]
"""When a jail is started: with its plugin, or by the first request or event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorSettings:
    """How patient the host is with a jail. Durations are in seconds."""

    is_lazy: bool = False
    """It is started by the first request or event, not with its plugin."""
    load_time: float = 20.0
    hook_time: float = 15.0
    first_pause: float = 0.05
    """Between the first crash and the next start; doubled with each further one, with jitter."""
    longest_pause: float = 30.0
    healthy_after: float = 30.0
    """So long without a crash, and the pauses begin anew."""
    crashes: int = 5
    """So many crashes within :attr:`crash_window`, and it is not started again."""
    crash_window: float = 600.0
    heartbeat: float = 5.0
    """How often it is asked whether its event loop turns."""
    missed_heartbeats: int = 3
    """So many questions in a row without an answer, and it is killed; one that was late is none."""
    patience: float = 10.0
    """How long a request waits for a jail that is being started."""
    idle_stop: float | None = None
    """After so long without a request it is stopped, and started by the next one; None: it stays."""
    death_time: float = 5.0
    """How long a process that was killed may take to be gone."""


@dataclass(frozen=True, slots=True)
class Crash:
    """One end that nobody asked for."""

    at: float
    """``time.time()`` of it."""
    what: str
    """How the process ended, or how it misbehaved."""
    stderr: str
    """The last that it wrote there; a stranger's text."""


class Crashes:
    """The latest crashes of one jail, and what follows from them."""

    def __init__(self, settings: SupervisorSettings) -> None:
        self._settings = settings
        self._latest: deque[Crash] = deque(maxlen=max(20, settings.crashes))
        self._streak = 0

    def __iter__(self) -> Iterator[Crash]:
        return iter(self._latest)

    def __len__(self) -> int:
        return len(self._latest)

    def __getitem__(self, index: int) -> Crash:
        return self._latest[index]

    def note(self, what: str, stderr: str, *, lived: float) -> Crash:
        """Keep a crash of a process that had lived for so many seconds."""
        if lived >= self._settings.healthy_after:
            self._streak = 0
        self._streak += 1
        crash = Crash(time.time(), what, stderr)
        self._latest.append(crash)
        return crash

    @property
    def is_hopeless(self) -> bool:
        """There were too many lately."""
        since = time.time() - self._settings.crash_window
        return sum(crash.at >= since for crash in self._latest) >= self._settings.crashes

    def pause(self) -> float:
        """Return how long to wait now: longer each time, and not the same for all jails that ended together."""
        if not self._latest or time.time() - self._latest[-1].at >= self._settings.healthy_after:
            return 0.0
        longest = self._settings.first_pause * 2.0 ** min(60, self._streak - 1)
        return min(self._settings.longest_pause, longest) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
