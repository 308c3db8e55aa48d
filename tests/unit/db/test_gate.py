"""Waiting for one's turn."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pixsim7_backend.db import DatabaseBusyError, admission
from pixsim7_backend.db.admission import Admission
from pixsim7_backend.db.gate import WriteGate

pytestmark = pytest.mark.anyio


async def test_threads_and_coroutines_take_turns() -> None:
    """Never two inside at once, whoever they are, and everybody gets in."""
    gate, inside, peak, done = WriteGate(), 0, 0, 0
    mutex = threading.Lock()

    def enter() -> None:
        nonlocal inside, peak, done
        with mutex:
            inside += 1
            peak = max(peak, inside)
            done += 1

    def leave() -> None:
        nonlocal inside
        with mutex:
            inside -= 1
        gate.release()

    def in_thread() -> None:
        for _ in range(50):
            gate.acquire(20)
            enter()
            leave()

    async def in_coroutine() -> None:
        for _ in range(50):
            await gate.acquire_async(20)
            enter()
            await asyncio.sleep(0)
            leave()

    with ThreadPoolExecutor(4) as threads:
        running = [asyncio.wrap_future(threads.submit(in_thread)) for _ in range(4)]
        await asyncio.gather(*running, *(in_coroutine() for _ in range(4)))
    assert (peak, inside, done) == (1, 0, 400)


async def test_who_waited_longest_is_next() -> None:
    """Turns are given in the order of asking."""
    gate, order = WriteGate(), []
    gate.acquire(1)

    async def wait(number: int) -> None:
        await gate.acquire_async(5)
        order.append(number)
        gate.release()

    waiting = [asyncio.create_task(wait(number)) for number in range(5)]
    await asyncio.sleep(0)
    gate.release()
    await asyncio.gather(*waiting)
    assert order == [0, 1, 2, 3, 4]


async def test_giving_up_hands_the_turn_on() -> None:
    """Neither a waiter that timed out nor a cancelled one blocks those behind it."""
    gate = WriteGate()
    gate.acquire(1)
    with pytest.raises(DatabaseBusyError, match=r"the turn to write was not free within 0\.01 s; try again"):
        gate.acquire(0.01)
    with pytest.raises(DatabaseBusyError):
        await gate.acquire_async(0.01)
    cancelled = asyncio.create_task(gate.acquire_async(5))
    behind = asyncio.create_task(gate.acquire_async(5))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    gate.release()
    await behind
    gate.release()
    gate.acquire(0)


async def test_a_turn_that_comes_while_it_is_cancelled_is_not_lost() -> None:
    """The race between getting the turn and giving up ends with the gate free."""
    gate = WriteGate()
    for _ in range(50):
        gate.acquire(1)
        waiting = asyncio.create_task(gate.acquire_async(5))
        await asyncio.sleep(0)
        gate.release()
        waiting.cancel()
        try:
            await waiting
        except asyncio.CancelledError:
            continue
        gate.release()
    gate.acquire(0)


async def test_requests_beyond_the_limit_wait_on_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Places are given back, and waiting ends in time."""
    monkeypatch.setattr(admission, "TIMEOUT", 0.05)
    places = Admission(2)
    first, _second = await places.enter(), await places.enter()
    started = time.monotonic()
    with pytest.raises(DatabaseBusyError, match="all connections are in use"):
        await places.enter()
    assert time.monotonic() - started < 2
    first.release()
    assert await places.enter() is first
