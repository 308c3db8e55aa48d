"""What is counted per plugin: while it serves (cheap, changed in place) and as frozen figures to read.

Times are in seconds. Counts belong to the id of a plugin, not to one generation: a reload goes on
counting, only a plugin that is removed is forgotten.
"""

from __future__ import annotations

import traceback
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from types import CoroutineType, TracebackType, coroutine
from typing import Any

#: Upper bounds of the latency buckets, as Prometheus' own libraries have them; above the last there is one more.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
EXACT = 100
"""So many requests of a plugin are timed one by one; of later ones every :data:`EVERY`-th, which stands for as many."""
EVERY = 13  # a prime, so that clients that ask in turns do not fall into step with it
UNAVAILABLE = 503
"""The status that blames somebody else: a database that is away, a limit. An error, but not the plugin's fault."""

Place = tuple[str, int]
"""File and line."""


def _nobody_asks() -> None:
    """Nobody wants to know at once."""


class RequestCounts:
    """What one plugin's requests came to. Changed on the event loop only; read from anywhere."""

    __slots__ = (
        "answers", "buckets", "exact", "faults", "last_fault", "latency_sum", "loop_seconds", "on_fault", "refused",
        "unanswered", "untimed", "websocket_errors", "websockets",
    )  # fmt: skip

    def __init__(self) -> None:
        self.answers = [0] * 10
        """Finished HTTP requests by the first digit of their status; what raised without answering counts as 5xx."""
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.latency_sum = 0.0
        self.refused: Counter[str] = Counter()
        """Requests that did not reach the plugin, by the limit that they were beyond; in no other count."""
        self.unanswered = 0
        self.websockets = 0
        self.websocket_errors = 0
        self.loop_seconds = 0.0
        self.exact = EXACT
        """Requests still to be timed one by one."""
        self.untimed = 0
        """Requests to come that the last one stands for: they need not be timed."""
        self.last_fault = ""
        """What went wrong last, with file and line where they are known."""
        self.faults: dict[str, int] = {}
        """Errors that are the plugin's fault, by the name of the endpoint."""
        self.on_fault: Callable[[], None] = _nobody_asks

    def timed(self, code: Awaitable[None], *, may_sample: bool) -> Awaitable[None]:
        """Return what runs ``code``, the coroutine of a request that begins, with its time on the loop added.

        Where ``may_sample``, it may stand for others once there were many: ``untimed`` then says for how many.
        """
        weight = 1
        if may_sample and self.exact:
            self.exact -= 1
        elif may_sample:
            weight = EVERY
            self.untimed = EVERY - 1
        return on_the_clock(code, self, weight) if type(code) is CoroutineType else code

    def add_answer(self, status: int, seconds: float) -> None:
        """Count a finished HTTP request that began to answer after ``seconds``."""
        self.answers[status // 100] += 1
        self.buckets[bisect_left(BUCKETS, seconds)] += 1
        self.latency_sum += seconds

    def add_error(self, status: int, endpoint: str) -> None:
        """Count whose endpoint an answer of 5xx came from, unless it blames somebody else."""
        if status != UNAVAILABLE:
            self.faults[endpoint] = self.faults.get(endpoint, 0) + 1
            self.on_fault()

    def add_websocket(self, failed_at: str | None = None) -> None:
        """Count a WebSocket that has ended, and the name of the endpoint at which it failed."""
        self.websockets += 1
        if failed_at is not None:
            self.websocket_errors += 1
            self.add_error(500, failed_at)

    def note_fault(self, error: BaseException, directory: str) -> None:
        """Remember what was raised and where; its text is left out, since it may hold a user's values."""
        place = find_place(error.__traceback__, directory)
        self.last_fault = f"{type(error).__name__} at {place[0]}:{place[1]}" if place else type(error).__name__

    def note_endpoint(self, status: int, endpoint: object) -> None:
        """Remember whose answer blames the server, without an exception that would tell."""
        code = getattr(endpoint, "__code__", None)
        by = f" by {code.co_qualname} at {code.co_filename}:{code.co_firstlineno}" if code is not None else ""
        self.last_fault = f"an answer of {status}{by}"

    @property
    def requests(self) -> int:
        """HTTP requests that were answered, and WebSockets that have ended."""
        return sum(self.answers) + self.websockets

    @property
    def errors(self) -> int:
        """Answers of 5xx, and whatever ended in an exception that nobody caught."""
        return sum(self.answers[5:]) + self.websocket_errors


def find_place(trace: TracebackType | None, directory: str) -> Place | None:
    """Return the innermost line below ``directory`` of a traceback, else its innermost line."""
    found: Place | None = None
    inside: Place | None = None
    for frame, line in traceback.walk_tb(trace):
        found = frame.f_code.co_filename, line
        if directory and found[0].startswith(directory):
            inside = found
    return inside or found


@coroutine
def on_the_clock(code: Any, counts: RequestCounts, weight: int = 1) -> Generator[Any, Any, Any]:
    """Run a coroutine, adding the time that its steps take on the loop to ``counts``; waiting costs nothing.

    Args:
        code: the coroutine of a request.
        counts: its plugin's.
        weight: for how many requests this one stands.
    """
    clock = perf_counter
    step, value = code.send, None
    while True:
        started = clock()
        try:
            awaited = step(value)
        except StopIteration as end:
            return end.value
        finally:
            counts.loop_seconds += weight * (clock() - started)
        try:
            step, value = code.send, (yield awaited)
        except GeneratorExit:
            code.close()
            raise
        except BaseException as error:  # noqa: BLE001 - a cancellation goes where the request waits
            step, value = code.throw, error


@dataclass(frozen=True, slots=True)
class Latency:
    """How long requests took until their answer began: ``counts[n]`` of them at most ``bounds[n]`` seconds.

    One more count than bounds: the last one is of those above every bound.
    """

    bounds: tuple[float, ...] = BUCKETS
    counts: tuple[int, ...] = (0,) * (len(BUCKETS) + 1)
    sum: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.counts)

    @property
    def mean(self) -> float:
        return self.sum / self.count if self.count else 0.0

    def quantile(self, share: float) -> float | None:
        """Return the bound below which ``share`` (0 to 1) of the requests were, None above the last or without any."""
        wanted, seen = share * self.count, 0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            seen += count
            if seen and seen >= wanted:
                return bound
        return None


@dataclass(frozen=True, slots=True)
class Stall:
    """One time that the event loop stood still: whose code, where, and for how long at least.

    ``plugin`` is None where the host's own code blocks; ``inside`` is where below that line the loop was,
    empty where it was in the line itself.
    """

    plugin: str | None
    file: str
    line: int
    function: str
    seconds: float
    inside: str = ""
    is_over: bool = False

    def __str__(self) -> str:
        who = f"plugin {self.plugin!r}" if self.plugin else "the host"
        verb = "blocked" if self.is_over else "has been blocking"
        inside = f", in {self.inside}" if self.inside else ""
        return (
            f"{who} {verb} the event loop for {self.seconds:.2f} s at {self.file}:{self.line} ({self.function}{inside})"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the stall as JSON-able values."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfinedFigures:
    """What a confined plugin uses: of the machine in a process of its own, and of the host by its calls."""

    phase: str
    """Of its process: ``up``, ``starting``, ``idle``, ``off`` or ``given up``."""
    starts: int
    """Processes that were begun for it, over all its generations."""
    crashes: int
    """Ends of such processes that nobody asked for, and starts again that failed."""
    cpu_seconds: float | None
    """Of the present process, as the rest; None where there is none."""
    memory_bytes: int | None
    """What it has in memory, what it shares with others included."""
    threads: int | None
    scratch_bytes: int | None
    """What lay in its scratch directory when the host last looked; None before."""
    calls: Mapping[str, int]
    """What its calls came to, by what is counted, like ``{"db.calls": 3, "db.rows": 20}``."""
    calls_this_minute: Mapping[str, int]
    calls_per_minute: Mapping[str, int]
    """How much of it is allowed in a minute."""
    calls_refused: Mapping[str, int]
    """Calls that were not carried out, by the limit that they were beyond."""

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON-able values."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginFigures:
    """What one plugin has done since it was first served, over all its generations."""

    plugin: str
    requests: int = 0
    """HTTP requests that were answered, and WebSockets that have ended."""
    errors: int = 0
    """Answers of 5xx and exceptions that nobody caught."""
    answers: Mapping[str, int] = field(default_factory=dict)
    """HTTP answers by class, like ``{"2xx": 12, "5xx": 1}``."""
    refused: Mapping[str, int] = field(default_factory=dict)
    """Requests beyond a limit, like ``{"rate": 3}``; they did not reach the plugin, and are in no other figure."""
    unanswered: int = 0
    """Requests whose client left before the answer began."""
    websockets: int = 0
    in_flight: int = 0
    latency: Latency = Latency()
    loop_seconds: float = 0.0
    """Time on the event loop for requests: exact for the first hundred, then an estimate from one in thirteen.

    Work in threads and waiting are not in it, nor are tasks and event handlers.
    """
    stalls: int = 0
    stalled_seconds: float = 0.0
    """How long it blocked the event loop, in requests, hooks, handlers or tasks."""
    handler_failures: int = 0
    handler_timeouts: int = 0
    tasks: int = 0
    subscriptions: int = 0
    memory_bytes: int | None = None
    """Memory that its own lines took, while ``tracemalloc`` traces; None when it does not, since nothing else can tell.

    What libraries took on its behalf is never in it: plugins share one process.
    """
    confined: ConfinedFigures | None = None
    """What it uses where it runs confined; None where its code runs in the host's process, or is not loaded."""

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON-able values."""
        values = {name: getattr(self, name) for name in self.__slots__ if name != "latency"}
        latency = self.latency
        return values | {
            "answers": dict(self.answers),
            "refused": dict(self.refused),
            "confined": self.confined.to_json() if self.confined else None,
            "latency": {
                "bounds": list(latency.bounds),
                "counts": list(latency.counts),
                "sum": latency.sum,
                "mean": latency.mean,
                "p50": latency.quantile(0.5),
                "p95": latency.quantile(0.95),
            },
        }
