"""When a plugin is taken out of service for what it does, and when it gets another chance. Pure.

A breaker is told the time and running totals; it keeps no clock, starts nothing and stops nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """Thresholds within a sliding window; times are in seconds. One of them is enough."""

    window: float = 30.0
    """What happened longer ago than this does not count."""
    min_requests: int = 20
    """Fewer requests than this in the window say nothing about their error rate."""
    error_rate: float = 0.9
    """Share of all requests that fail by the plugin's fault: 5xx other than 503, and exceptions that nobody caught."""
    endpoints: int = 4
    """So many endpoints (all, where a plugin has fewer) must fail, and no one of them counts for more than these."""
    timeouts: int = 3
    """Event handlers that overrun."""
    stalled: float = 5.0
    """Time for which the plugin blocks the event loop."""
    pause: float = 30.0
    """How long it stays out before it is tried again; doubled each time that the trial fails."""
    max_pause: float = 600.0
    """The pause is never longer than this."""
    trial: float = 30.0
    """How long it is watched closely when it is tried again: a quarter of each threshold is enough then."""

    def __post_init__(self) -> None:
        counts = (self.min_requests, self.endpoints, self.timeouts)
        times = (self.window, self.stalled, self.pause, self.trial)
        if min(counts) < 1 or min(times) <= 0 or not 0 < self.error_rate <= 1 or self.max_pause < self.pause:
            raise ValueError(f"thresholds and times must be positive, error_rate at most 1: {self}")

    def is_exceeded_by(self, recent: Totals, endpoints: int, *, is_trial: bool = False) -> bool:
        """Tell whether what happened within the window is too much, for a plugin with so many endpoints."""
        share = 0.25 if is_trial else 1.0

        def at_most(limit: int) -> int:
            return max(1, int(limit * share))

        faults = recent.spread_faults(min(self.endpoints, max(1, endpoints)))
        requests = recent.requests - recent.all_faults + faults
        return (
            (faults > 0 and requests >= at_most(self.min_requests) and faults >= self.error_rate * requests)
            or recent.timeouts >= at_most(self.timeouts)
            or recent.stalled >= self.stalled * share
        )


@dataclass(frozen=True, slots=True)
class Totals:
    """What happened since counting began (or, as a difference, within a window)."""

    requests: int = 0
    faults: Mapping[str, int] = field(default_factory=dict)
    """Requests that failed by the plugin's fault, by the name of their endpoint."""
    timeouts: int = 0
    stalled: float = 0.0

    def since(self, before: Totals) -> Totals:
        """Return what was added since ``before``."""
        return Totals(
            self.requests - before.requests,
            {name: new for name, count in self.faults.items() if (new := count - before.faults.get(name, 0))},
            self.timeouts - before.timeouts,
            self.stalled - before.stalled,
        )

    @property
    def all_faults(self) -> int:
        """Requests that failed, wherever."""
        return sum(self.faults.values())

    def spread_faults(self, endpoints: int) -> int:
        """Return the faults, no endpoint with more than the one in the place ``endpoints`` of the most failing has.

        So whoever hammers at one broken endpoint adds nothing; fewer failing endpoints count for nothing.
        """
        most = sorted(self.faults.values(), reverse=True)
        limit = most[endpoints - 1] if len(most) >= endpoints else 0
        return sum(min(each, limit) for each in most)

    def __str__(self) -> str:
        parts = []
        if self.faults:
            where = f", at {len(self.faults)} endpoints" if len(self.faults) > 1 else ""
            parts.append(f"{self.all_faults} of {self.requests} requests failed{where}")
        if self.timeouts:
            parts.append(f"{self.timeouts} event handlers overran")
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

    def observe(self, now: float, totals: Totals, endpoints: int = 1) -> Totals | None:
        """Take note of the totals; return what happened within the window when that opens the breaker.

        ``endpoints`` is how many the plugin has. Time never runs backwards. An open breaker takes no notice.
        """
        if self.state is BreakerState.OPEN:
            return None
        self._forget_before(now - self.settings.window)
        recent = totals.since(self._seen[0][1])
        is_trial = self.state is BreakerState.HALF_OPEN
        if self.settings.is_exceeded_by(recent, endpoints, is_trial=is_trial):
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

    def trip(self, now: float) -> None:
        """Open for something that totals do not tell: a trial that did not even start, a process that ended."""
        self._open(now)

    def remaining(self, now: float) -> float:
        """Return the seconds until the next trial, 0 when it is due or the breaker is not open."""
        if self.state is not BreakerState.OPEN:
            return 0.0
        return max(0.0, self._since + self.pause - now)

    def rest(self, totals: Totals) -> None:
        """Nothing is asked of the plugin any more: whatever is added to the totals from now on is its trial's."""
        self._seen = deque([(self._since, totals)])

    def begin_trial(self, now: float, totals: Totals | None = None) -> None:
        """Watch closely from now on, since these totals or the rest: it is in service again, by whoever's wish."""
        self.state, self._since = BreakerState.HALF_OPEN, now
        self._seen = deque([(now, self._seen[-1][1] if totals is None else totals)])
