"""Put garbage collection off while code is imported: that makes no garbage, and a full collection takes much longer."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Seconds after which garbage is collected again, however long the import takes.
_LONGEST = 1.0


class _Pause:
    """One for the process, as the collector is: the first who comes puts it off, the last who leaves on again.

    Where the host has turned it off itself, it stays off.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside: set[object] = set()
        self._is_ours = False

    def enter(self) -> object:
        """Put collecting off; return what to give to :meth:`leave`."""
        visit = object()
        with self._lock:
            if not self._inside and gc.isenabled():
                self._is_ours = True
                gc.disable()
            self._inside.add(visit)
        return visit

    def leave(self, visit: object) -> None:
        """Collect again, unless somebody else is still inside. Nothing happens a second time."""
        with self._lock:
            self._inside.discard(visit)
            if not self._inside and self._is_ours:
                self._is_ours = False
                gc.enable()


_pause = _Pause()


@contextmanager
def without_collections(longest: float = _LONGEST) -> Iterator[None]:
    """Put garbage collection off inside, for ``longest`` seconds at most; on the running loop."""
    visit = _pause.enter()
    timer = asyncio.get_running_loop().call_later(longest, _pause.leave, visit)
    try:
        yield
    finally:
        timer.cancel()
        _pause.leave(visit)
