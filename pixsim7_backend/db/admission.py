"""How many requests may use the database at once; the others wait on the event loop, where waiting is free.

Without it, requests beyond the pool wait for a connection or a lock inside threads of the pool that
FastAPI runs endpoints in, until the request that holds what they wait for finds no thread to go on.
The limit is below the number of those threads (40), so that there is always one left.
"""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from .errors import DatabaseBusyError

TIMEOUT = 30.0
_THREADS = 40


class Admission:
    """Counts the requests that use one database, per event loop."""

    def __init__(self, capacity: int) -> None:
        if not 0 < capacity < _THREADS:
            raise ValueError(f"at most {_THREADS - 1} requests may use the database at once, not {capacity}")
        self.capacity = capacity
        self._turnstiles: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    async def enter(self) -> asyncio.Semaphore:
        """Wait for a place; release what is returned to leave it.

        Raises:
            DatabaseBusyError: none became free in time.
        """
        turnstile = self._turnstiles.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(self.capacity))
        try:
            async with asyncio.timeout(TIMEOUT):
                await turnstile.acquire()
        except TimeoutError:
            raise DatabaseBusyError("the database (all connections are in use)", TIMEOUT) from None
        return turnstile
