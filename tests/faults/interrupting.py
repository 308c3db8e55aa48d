"""Break a coroutine off at a chosen await, by cancelling the task that runs it there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any


class BrokenOffAt:
    """Awaits a coroutine and cancels its task at the await number ``at``, ``times`` awaits in a row.

    ``awaits`` is how many there were.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], at: int, *, times: int = 1) -> None:
        self.awaits = 0
        self._coroutine = coroutine
        self._at = range(at, at + times)

    def __await__(self) -> Generator[Any, Any, Any]:
        task = asyncio.current_task()
        assert task is not None
        inner = self._coroutine.__await__()
        answer: Any = None
        error: BaseException | None = None
        while True:
            try:
                waits_for = inner.throw(error) if error is not None else inner.send(answer)
            except StopIteration as end:
                return end.value
            if self.awaits in self._at:
                asyncio.get_running_loop().call_soon(task.cancel)
            self.awaits += 1
            answer, error = None, None
            try:
                answer = yield waits_for
            except BaseException as thrown:  # noqa: BLE001 - handed on to where it belongs
                error = thrown


async def break_off(coroutine: Coroutine[Any, Any, Any], at: int, *, times: int = 1) -> BrokenOffAt:
    """Run a coroutine in a task of its own and break it off at this await; return how it went."""
    broken = BrokenOffAt(coroutine, at, times=times)

    async def run() -> None:
        await broken

    await asyncio.wait({asyncio.create_task(run())})
    return broken
