"""Counts the requests of clients in memory, by the generic cell rate algorithm. Pure: the clock is handed in."""

from __future__ import annotations

from collections.abc import Callable

from .rate import Rate, Verdict

#: Clients that are remembered per plugin; twice as many at the very most.
CAPACITY = 50_000
_new = tuple.__new__  # half the time of Verdict()


class MemoryRates:
    """How far each client is ahead of the rate that it may keep.

    The algorithm is the GCRA in its virtual scheduling form (ITU-T Recommendation I.371, annex A; ATM
    Forum Traffic Management 4.1, 4.4.3.2): per client one number, the theoretical arrival time of its
    next request, where an even flow at the rate has one request every ``period / count`` seconds. A
    request may come ahead of that time by as much as lets through ``count`` of them at once.

    Times are whole nanoseconds times ``count``, so that nothing is rounded.

    A client that was quiet for a period is as good as unknown. So the clients are kept in two tables,
    those of this period and those of the one before; when it is over the older table goes as a whole.
    A flood of new clients makes the tables turn early: then those are forgotten who were quiet longest.

    Args:
        rate: what each client may do.
        clock: nanoseconds that never run backwards.
        capacity: how many clients a table may hold.
    """

    __slots__ = (
        "_ahead",
        "_capacity",
        "_clock",
        "_count",
        "_older",
        "_recent",
        "_span",
        "_step",
        "_turns_at",
        "_unit",
        "rate",
    )

    def __init__(self, rate: Rate, clock: Callable[[], int], capacity: int = CAPACITY) -> None:
        self.rate = rate
        self._clock = clock
        self._capacity = capacity
        self._count = rate.count
        self._step = rate.period * 1_000_000_000
        self._span = self._step * rate.count
        self._ahead = self._span - self._step
        self._unit = 1e9 * rate.count
        self._recent: dict[str, int] = {}
        self._older: dict[str, int] = {}
        self._turns_at = 0

    def __len__(self) -> int:
        return len(self._recent) + len(self._older)

    def take(self, client: str) -> Verdict:
        """Count one request of ``client`` if it is within the rate; one that is not costs the client nothing."""
        now = self._clock() * self._count
        if now >= self._turns_at:
            self._turn(now)
        due = self._recent.get(client)
        if due is None:
            due = self._older.get(client, now)
            if len(self._recent) >= self._capacity:
                self._turn(now)
        if due < now:  # noqa: PLR1730 - max() would take a sixth of all the time here
            due = now
        slack = now - due + self._ahead
        if slack < 0:
            self._recent[client] = due
            return Verdict(False, 0, -slack / self._unit)
        step = self._step
        self._recent[client] = due + step
        remaining = slack // step
        wait = self._span - slack if remaining else step - slack
        return _new(Verdict, (True, remaining, wait / self._unit))

    def _turn(self, now: int) -> None:
        self._older, self._recent = self._recent, {}
        self._turns_at = now + self._span
