"""Whether this process is the only worker of its data directory, however the workers were started.

``WORKERS`` says how many `pixsim7 serve` starts; ``uvicorn --workers``, gunicorn, or a second server
with the same data directory say nothing. So each worker holds a shared lock on a file as long as it
serves, and asks whether it could have it alone; the kernel lets go for one that dies.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

if os.name == "posix":
    import fcntl

__all__ = ["counted_worker"]

logger = logging.getLogger("pixsim7.workers")

_HELD = "workers.lock"
_ASKING = "workers-asking.lock"
"""Held while one asks: a lock that is widened is let go of for an instant, which no other one may take for good."""


@asynccontextmanager
async def counted_worker(data_dir: Path) -> AsyncIterator[Callable[[], bool]]:
    """Be counted as a worker of ``data_dir``; gives what tells whether there is no other one now.

    Where that cannot be told (no such locks, a directory that cannot be written) it is always true.
    """
    with ExitStack() as undo:
        is_alone = _alone
        if os.name == "posix":
            try:
                is_alone = _count(data_dir, undo)
            except OSError as error:
                logger.warning("Cannot tell whether other workers serve: %s: %s", data_dir, error.strerror)
        yield is_alone


def _alone() -> bool:
    return True


def _count(data_dir: Path, undo: ExitStack) -> Callable[[], bool]:
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    held, asking = (_opened(data_dir / name, undo) for name in (_HELD, _ASKING))
    fcntl.flock(held, fcntl.LOCK_SH)

    def is_alone() -> bool:
        fcntl.flock(asking, fcntl.LOCK_EX)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            return True
        finally:
            fcntl.flock(held, fcntl.LOCK_SH)
            fcntl.flock(asking, fcntl.LOCK_UN)

    return is_alone


def _opened(path: Path, undo: ExitStack) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    undo.callback(os.close, descriptor)
    return descriptor
