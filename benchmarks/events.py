"""Events: handlers that are isolated, owned and under a deadline, against awaiting them in a bare loop."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

from benchmarks.report import Row, at_most
from pixsim7_backend.infrastructure.plugins import HookBus
from pixsim7_backend.infrastructure.plugins._ledger.ownership import AppKey, Entry, Owner, running_as

Handler = Callable[[int], Awaitable[int]]

LIMITS = {10: 5.0, 100: 3.0}


def rows(quick: bool) -> list[Row]:
    """Return one row per number of handlers."""
    return asyncio.run(_rows(rounds=5 if quick else 41, calls=2_000 if quick else 20_000))


async def _rows(rounds: int, calls: int) -> list[Row]:
    return [await _row(count, limit, rounds, calls // count) for count, limit in LIMITS.items()]


async def _row(count: int, limit: float, rounds: int, emits: int) -> Row:
    handlers = [_handler() for _ in range(count)]
    bus = _bus(handlers)
    ratios, bare, emitted = [], [], []
    for _ in range(rounds):  # one after the other, so that a slow moment of the machine hits both
        bare.append(await _bare_loop(handlers, emits))
        emitted.append(await _emits(bus, emits))
        ratios.append(emitted[-1] / bare[-1])
    detail = f"{statistics.median(emitted) / emits * 1e6:.1f} µs against {statistics.median(bare) / emits * 1e6:.1f} µs"
    return at_most(
        f"emit to {count} async handlers, against a bare loop", statistics.median(ratios), limit, "x", detail
    )


def _handler() -> Handler:
    async def handler(quest: int) -> int:
        return quest

    return handler


def _bus(handlers: list[Handler]) -> HookBus:
    """Return a bus on which every handler belongs to a plugin of its own."""
    bus, app = HookBus(), AppKey()
    for number, handler in enumerate(handlers):
        with running_as(Owner(app, f"p{number}", 1, f"p{number}", f"/p{number}/"), Entry.HOOK):
            bus.register("quest:finished", handler)
    return bus


async def _bare_loop(handlers: list[Handler], times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        for handler in handlers:
            await handler(1)
    return time.perf_counter() - started


async def _emits(bus: HookBus, times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        await bus.emit("quest:finished", 1)
    return time.perf_counter() - started
