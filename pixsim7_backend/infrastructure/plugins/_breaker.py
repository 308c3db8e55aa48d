"""When a plugin is taken out of service for what it does, and when it gets another chance. Pure.

A breaker is told the time and running totals; it keeps no clock, starts nothing and stops nothing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """Thresholds within a sliding window; times are in seconds. One of them is enough."""

    window: float = 30.0
    min_requests: int = 20
    """Fewer requests than this in the window say nothing about their error rate."""
    error_rate: float = 0.5
    """Share of requests that fail by the plugin's fault: 5xx other than 503, and exceptions that nobody caught."""
    handler_failures: int = 100
    """Event handlers that raise or overrun."""
    timeouts: int = 3
    """Event handlers that overrun."""
    stalled: float = 5.0
    """Time for which the plugin blocks the event loop."""
    pause: float = 30.0
    """How long it stays out before it is tried again; doubled each time that the trial fails."""
    max_pause: float = 3600.0
    trial: float = 30.0
    """How long it is watched closely when it is tried again: a quarter of each threshold is enough then."""

    def __post_init__(self) -> None:
        counts = (self.min_requests, self.handler_failures, self.timeouts)
        times = (self.window, self.stalled, self.pause, self.trial)
        if min(counts) < 1 or min(times) <= 0 or not 0 < self.error_rate <= 1 or self.max_pause < self.pause:
            raise ValueError(f"thresholds and times must be positive, error_rate at most 1: {self}")

    def is_exceeded_by(self, recent: Totals, *, is_trial: bool = False) -> bool:
        """Tell whether what happened within the window is too much."""
        share = 0.25 if is_trial else 1.0

        def at_most(limit: int) -> int:
            return max(1, int(limit * share))

        return (
            (recent.requests >= at_most(self.min_requests) and recent.faults >= self.error_rate * recent.requests)
            or recent.handler_failures >= at_most(self.handler_failures)
            or recent.timeouts >= at_most(self.timeouts)
            or recent.stalled >= self.stalled * share
        )


@dataclass(frozen=True, slots=True)
class Totals:
    """What happened since counting began (or, as a difference, within a window)."""

    requests: int = 0
    faults: int = 0
    handler_failures: int = 0
    timeouts: int = 0
    stalled: float = 0.0

    def since(self, before: Totals) -> Totals:
        """Return what was added since ``before``."""
        return Totals(
            self.requests - before.requests,
            self.faults - before.faults,
            self.handler_failures - before.handler_failures,
            self.timeouts - before.timeouts,
            self.stalled - before.stalled,
        )

    def __str__(self) -> str:
        parts = [f"{self.faults} of {self.requests} requests failed"] if self.faults else []
        if self.handler_failures:
            parts.append(f"{self.handler_failures} event handlers failed, {self.timeouts} of them by overrunning")
        if self.stalled:
            parts.append(f"the event loop was blocked for {self.stalled:.1f} s")
        return ", ".join(parts) or "nothing failed"


class BreakerState(StrEnum):
    """Closed: in service. Open: out of service. Half open: in service, on trial."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """Decides for one plugin. ``pause`` is how long it is out of service this time."""

    def __init__(self, settings: BreakerSettings, now: float, totals: Totals | None = None) -> None:
        self.settings = settings
        self.state = BreakerState.CLOSED
        self.pause = 0.0
        self.trips = 0
        """How often it opened since it was last well."""
        self._since = now
        self._seen: deque[tuple[float, Totals]] = deque([(now, totals or Totals())])

    def observe(self, now: float, totals: Totals) -> Totals | None:
        """Take note of the totals; return what happened within the window when that opens the breaker.

        Time never runs backwards. An open breaker takes no notice.
        """
        if self.state is BreakerState.OPEN:
            return None
        self._forget_before(now - self.settings.window)
        recent = totals.since(self._seen[0][1])
        is_trial = self.state is BreakerState.HALF_OPEN
        if self.settings.is_exceeded_by(recent, is_trial=is_trial):
            self._open(now)
            return recent
        if is_trial and now - self._since >= self.settings.trial:
            self.state, self.pause, self.trips = BreakerState.CLOSED, 0.0, 0
        if now - self._seen[-1][0] >= self.settings.window / 30:
            self._seen.append((now, totals))
        return None

    def _forget_before(self, start: float) -> None:
        while len(self._seen) > 1 and self._seen[1][0] <= start:
            self._seen.popleft()

    def _open(self, now: float) -> None:
        self.state, self._since = BreakerState.OPEN, now
        self.pause = min(max(self.settings.pause, 2 * self.pause), self.settings.max_pause)
        self.trips += 1

    def reopen(self, now: float) -> None:
        """The trial failed before it could be watched: the plugin did not start."""
        self._open(now)

    def remaining(self, now: float) -> float:
        """Return the seconds until the next trial, 0 when it is due or the breaker is not open."""
        if self.state is not BreakerState.OPEN:
            return 0.0
        return max(0.0, self._since + self.pause - now)

    def begin_trial(self, now: float, totals: Totals) -> None:
        """Watch closely from now on: the plugin is in service again, by whoever's wish."""
        self.state, self._since = BreakerState.HALF_OPEN, now
        self._seen = deque([(now, totals)])
