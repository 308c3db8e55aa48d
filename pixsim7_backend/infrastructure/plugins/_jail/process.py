"""One jail as the host holds it: its socket, its end, and the last it said."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from .cgroups import JailGroup
from .level import ConfinementReport
from .scratch import ScratchUse, measure
from .spec import JailSpec

__all__ = ["JailExit", "JailProcess", "JailUse"]

_TAIL = 8 << 10
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class JailExit:
    """How a jail ended."""

    code: int | None
    """Its exit code, below zero the signal that killed it; None: it ended together with the zygote."""
    cpu: float = 0.0
    """Seconds of processor time that it took."""
    peak: int = 0
    """Bytes of memory that it had at most, what it shared with others included."""
    ran_out_of_memory: bool = False
    """The kernel ended it, since its group had more than it may have."""

    def __str__(self) -> str:
        if self.code is None:
            return "ended with the process that starts jails"
        if self.ran_out_of_memory:
            return "was killed, since it used more memory than is allowed"
        if self.code >= 0:
            return f"exited with code {self.code}"
        name = signal.Signals(-self.code).name if -self.code in set(signal.Signals) else f"signal {-self.code}"
        meaning = {"SIGSYS": ", since it made a system call of another ABI", "SIGKILL": ""}.get(name, "")
        return f"was killed by {name}{meaning}"


@dataclass(frozen=True, slots=True)
class JailUse:
    """What a jail uses at a moment: processor time so far in seconds, bytes in memory, threads."""

    cpu: float
    memory: int
    threads: int


class JailProcess:
    """A jail that was started. Any thread may use it."""

    def __init__(
        self,
        spec: JailSpec,
        connection: socket.socket,
        pid: int,
        descriptor: int,
        on_end: Callable[[], None],
        *,
        group: JailGroup | None = None,
    ) -> None:
        self.spec = spec
        """What it was started with; its user and its scratch directory are the launcher's choice."""
        self.connection = connection
        weakref.finalize(self, connection.close).atexit = False  # of one that nobody holds any more
        self.pid = pid
        self.report: ConfinementReport | None = None
        """How it is confined; known as soon as it is started."""
        self.scratch: ScratchUse | None = None
        """What lay in its scratch directory when the host last looked; None before."""
        self.group = group
        """Its control group, where there are some."""
        self._descriptor = descriptor
        self._on_end = on_end
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._exit: JailExit | None = None
        self._tail = bytearray()

    @property
    def exit(self) -> JailExit | None:
        """How it ended; None while it runs."""
        return self._exit

    def kill(self) -> None:
        """End it at once; nothing happens where it has ended."""
        with self._lock, contextlib.suppress(ProcessLookupError):
            if self._exit is None:
                if self.group is not None:
                    self.group.kill()
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> JailExit | None:
        """Block until it has ended and nothing of it is left; return how, None where the time was up before."""
        self._ended.wait(timeout)
        return self._exit if self._ended.is_set() else None

    def describe_exit(self) -> str:
        """Return how it ended, in words."""
        return "is still running" if self._exit is None else str(self._exit)

    def close(self) -> None:
        """End it where it runs, and let go of its socket; what else it had is given back when it has ended."""
        self.kill()
        self.connection.close()

    def stderr_tail(self) -> str:
        """Return the last 8 KiB that it wrote to standard error, with control characters of terminals escaped."""
        with self._lock:
            text = self._tail.decode(errors="replace")
        return "".join(each if each.isprintable() or each in "\n\t" else f"\\x{ord(each):02x}" for each in text)

    def read_use(self) -> JailUse | None:
        """Return what it uses now; None where it has ended."""
        with self._lock:
            if self._exit is not None:
                return None
            try:
                fields = Path(f"/proc/{self.pid}/stat").read_bytes().rpartition(b")")[2].split()
            except OSError:
                return None
        return JailUse((int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * _PAGE, int(fields[17]))

    def measure_scratch(self) -> ScratchUse:
        """Return what lies in its scratch directory; reads the disk."""
        return measure(self.spec.scratch)

    # --- for the launcher -----------------------------------------------------------------------------

    def add_stderr(self, piece: bytes) -> None:
        """Keep what it wrote."""
        with self._lock:
            self._tail += piece
            del self._tail[:-_TAIL]

    def await_end(self, timeout: float) -> None:
        """Block until the kernel has ended it, which it is about to do anyway."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        poll.poll(timeout * 1000)

    def end(self, how: JailExit) -> None:
        """Take note that it has ended; what it had is given back."""
        with self._lock:
            if self._exit is not None:
                return
            full = self.group is not None and self.group.ran_out_of_memory()
            self._exit = replace(how, ran_out_of_memory=full)
            os.close(self._descriptor)
        self._on_end()
        self._ended.set()

    def forget(self) -> None:
        """Close what a forked copy of the host must not hold; only in that copy."""
        self.connection.close()
        if self._exit is None:
            os.close(self._descriptor)
