"""Name the code that blocks the event loop while it does, by looking at the loop's thread from another one.

The loop notes the time every so often. A thread looks whether it still does; when it is late, the
thread reads the stack of the loop's thread, which costs nothing while all is well. Time for which the
loop's thread could run but had no processor (a busy machine) is nobody's fault; Linux tells how long.

What it cannot do: Python code runs only while it holds the interpreter's lock. A call into C that keeps
the lock (a long match of a regular expression) is named with its line the moment it ends, not before.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextvars import Context
from types import FrameType

from .culprit import Culprit
from .figures import Stall

logger = logging.getLogger("pixsim7.plugins")

#: Seconds between two looks at a loop that is late.
_SAMPLING = 0.02
#: A stall that goes on is logged again when it is this many times as long as at the last time.
_AGAIN = 4.0


class StallWatch:
    """Watches one event loop from a daemon thread of its own, from :meth:`start` until :meth:`stop`.

    ``recent`` holds the last stalls that are over, ``current`` the one under way, if any.

    Args:
        threshold: seconds by which the loop must be late.
        find_culprit: tells from the loop's innermost frame who is to answer for it; called in the other thread.
        on_stall: called in the loop's thread when a stall is over.
    """

    def __init__(
        self,
        threshold: float,
        *,
        find_culprit: Callable[[FrameType], Culprit],
        on_stall: Callable[[Stall], None],
    ) -> None:
        self.current: Stall | None = None
        self.recent: deque[Stall] = deque(maxlen=100)
        self._threshold = threshold
        self._period = threshold / 4
        self._find_culprit = find_culprit
        self._on_stall = on_stall
        self._beat = 0.0
        self._seen: Counter[Culprit] = Counter()
        self._report_at = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None
        self._over = threading.Event()

    def start(self) -> None:
        """Watch the running loop."""
        self._loop = asyncio.get_running_loop()
        self._over = threading.Event()
        self._note_time()
        self._thread = threading.Thread(
            target=self._watch,
            args=(self._loop, threading.get_ident(), threading.get_native_id(), self._over),
            name="pixsim7 stall watch",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop watching. Calling it again does nothing."""
        self._over.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(1.0)
        self._thread = self._timer = self._loop = None

    def _note_time(self) -> None:
        assert self._loop is not None
        self._beat = time.monotonic()
        self._timer = self._loop.call_later(self._period, self._note_time, context=Context())

    # --- in the other thread ------------------------------------------------------------------------

    def _watch(self, loop: asyncio.AbstractEventLoop, thread: int, native: int, over: threading.Event) -> None:
        beat, looked, worked = self._beat, time.monotonic(), time.process_time()
        lost, queued = 0.0, _time_in_queue(native)
        while not over.wait(self._period if not self._seen else _SAMPLING):
            now, busy = time.monotonic(), time.process_time()
            if beat == self._beat and now - beat > self._threshold / 2 and loop.is_running():
                self._look(thread)  # first of all: whatever waits for a file lets the loop go on meanwhile
            before, queued = queued, _time_in_queue(native)
            lost += queued - before
            if beat != self._beat:
                self._finish(beat + lost)
                beat, lost = self._beat, 0.0
            elif not loop.is_running() or _was_suspended(
                now - looked - (queued - before), busy - worked, self._threshold
            ):
                self._beat = beat = now  # nobody's fault: nobody runs the loop now, or the whole process stood still
            self._report(now - beat - self._period - lost)
            looked, worked = now, busy

    def _look(self, thread: int) -> None:
        """Note what the loop's thread runs now."""
        frame = sys._current_frames().get(thread)
        if frame is not None:
            self._seen[self._find_culprit(frame)] += 1
        del frame  # what it holds shall not live longer because somebody looked

    def _report(self, late: float) -> None:
        """Say who blocks the loop once it is late enough, and then ever more rarely."""
        if self._seen and late > max(self._threshold, self._report_at):
            self.current = self._stall(late)
            self._report_at = late * _AGAIN
            logger.warning("%s", self.current)

    def _stall(self, seconds: float, *, is_over: bool = False) -> Stall:
        """Name the line that was seen most often."""
        culprit = self._seen.most_common(1)[0][0]
        return Stall(
            culprit.plugin, culprit.file, culprit.line, culprit.function, seconds, culprit.inside, is_over=is_over
        )

    def _finish(self, beat: float) -> None:
        """The loop goes on: keep what there is to say of its stall, and tell the loop's thread."""
        late = self._beat - beat - self._period
        if self._seen and late > self._threshold:
            stall = self._stall(late, is_over=True)
            self.recent.append(stall)
            if self.current is None:
                logger.warning("%s", stall)
            self._tell(stall)
        self.current, self._report_at = None, 0.0
        self._seen.clear()

    def _tell(self, stall: Stall) -> None:
        loop = self._loop
        if loop is not None and not self._over.is_set():
            try:
                loop.call_soon_threadsafe(self._on_stall, stall, context=Context())
            except RuntimeError:
                logger.debug("the loop ended before it heard of a stall")


def _time_in_queue(thread: int) -> float:
    """Return the seconds for which a thread of this process waited for a processor so far; 0 where nobody knows."""
    try:
        with open(f"/proc/self/task/{thread}/schedstat", "rb", buffering=0) as file:  # noqa: PTH123  # often, and cheap
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def _was_suspended(elapsed: float, worked: float, threshold: float) -> bool:
    """Tell whether the process itself stood still (a sleeping machine, a paused container, no processor left).

    A thread that comes late because another one keeps the interpreter's lock has seen the process work.
    """
    return elapsed > threshold and worked < elapsed / 2
