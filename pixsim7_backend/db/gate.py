"""One writer at a time inside this process, first come first served, for threads and coroutines alike.

SQLite lets one connection write. Its own waiting is polling with growing pauses, in no order: under
load a waiter starves while the file is free. Between processes that has to do; inside one, this gate
hands the turn over directly.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import Future

from .errors import DatabaseBusyError

_WHAT = "the turn to write"


class WriteGate:
    """A fair lock that threads (:meth:`acquire`) and coroutines (:meth:`acquire_async`) may wait for."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._is_taken = False
        self._waiting: deque[Future[None]] = deque()

    def acquire(self, timeout: float) -> None:
        """Take the turn.

        Raises:
            DatabaseBusyError: it did not come within ``timeout`` seconds.
        """
        turn = self._queue()
        if turn is None:
            return
        try:
            turn.result(timeout)
        except TimeoutError:
            self._give_up(turn)
            raise DatabaseBusyError(_WHAT, timeout) from None
        except BaseException:
            self._give_up(turn)
            raise

    async def acquire_async(self, timeout: float) -> None:  # noqa: ASYNC109 - the same limit as for threads
        """Take the turn without blocking the event loop; errors as :meth:`acquire`."""
        turn = self._queue()
        if turn is None:
            return
        try:
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(turn)), timeout)
        except TimeoutError:
            self._give_up(turn)
            raise DatabaseBusyError(_WHAT, timeout) from None
        except BaseException:
            self._give_up(turn)
            raise

    def release(self) -> None:
        """Hand the turn to who has waited longest."""
        with self._mutex:
            while self._waiting:
                turn = self._waiting.popleft()
                if turn.set_running_or_notify_cancel():
                    turn.set_result(None)
                    return
            self._is_taken = False

    def _queue(self) -> Future[None] | None:
        """Take the turn at once and return None, or return what will tell that it has come."""
        with self._mutex:
            if not self._is_taken:
                self._is_taken = True
                return None
            turn: Future[None] = Future()
            self._waiting.append(turn)
            return turn

    def _give_up(self, turn: Future[None]) -> None:
        """Leave the queue; a turn that came meanwhile goes to the next."""
        if not turn.cancel():
            self.release()
