"""The process that jails are forked from: it has imported what plugins need, and has seen nothing of the host.

It is a program of its own, started by the launcher with an environment that holds nothing; what a child of
it could find in its memory is code. It has one thread, as what it forks has to have one.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import mimetypes
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from . import control
from .child import Ends, run_jail
from .code import find_code
from .confine.privileges import die_with_parent, set_name
from .confine.probe import probe_level
from .inside.rehearsal import rehearse
from .level import ConfinementLevel
from .pages import gather_code, gather_names, put_finders_away

__all__ = ["main"]

_PRELOADED = (
    "anyio._backends._asyncio",
    "encodings.idna",
    "fastapi.responses",
    "fastapi.staticfiles",
    "msgpack",
    "python_multipart.multipart",
    "sqlalchemy.orm",
    "pixsim7_backend.infrastructure.plugins._jail.inside.serving",
)


def main(descriptor: int, parent: int) -> NoReturn:
    """Serve the launcher at the other end of this socket until it closes that, or ends."""
    gc.disable()  # what it frees are holes in pages that are shared, and that children would fill
    die_with_parent(parent)
    set_name("jail zygote")
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    sys.dont_write_bytecode = True
    zygote = _Zygote(socket.socket(fileno=descriptor))
    with contextlib.suppress(OSError):  # the host is gone
        zygote.run()
    zygote.kill_all()
    os._exit(0)


@dataclass(slots=True)
class _Zygote:
    control: socket.socket
    children: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Of each jail, by the descriptor of its process: its number at the launcher, its process."""

    def run(self) -> None:
        first = control.receive(self.control)
        if first is None:
            return
        options, _ = first
        _preload(options["preload"])
        report = probe_level()
        floor = ConfinementLevel[options["floor"].upper()]
        code = find_code()
        gather_names()
        put_finders_away()
        gc.freeze()  # a collection in a child would write to every page that it shares with its siblings
        control.send(self.control, {"ready": report.to_json()})
        while (message := self._next()) is not None:
            request, descriptors = message
            self._spawn(request, Ends(*descriptors), code, floor, isolated=bool(report.namespaces))

    def _next(self) -> tuple[Any, list[int]] | None:
        """Return the next request; tell of the children that end meanwhile."""
        while True:
            poll = select.poll()
            poll.register(self.control, select.POLLIN)
            for descriptor in self.children:
                poll.register(descriptor, select.POLLIN)
            ready = {descriptor for descriptor, _ in poll.poll()}
            for descriptor in ready & self.children.keys():
                self._reap(descriptor)
            if self.control.fileno() in ready:
                return control.receive(self.control)

    def _spawn(
        self, request: Mapping[str, Any], ends: Ends, code: tuple[str, ...], floor: ConfinementLevel, *, isolated: bool
    ) -> None:
        parent, number = os.getpid(), request["spawn"]
        try:
            pid = os.fork()
        except OSError as error:
            control.send(self.control, {"refused": number, "error": f"the machine has no room for it: {error}"})
        else:
            if pid == 0:
                self.control.detach()  # all descriptors are closed: no object may believe that one is its own
                run_jail(ends, code=code, parent=parent, has_namespaces=isolated, floor=floor)
            descriptor = os.pidfd_open(pid)
            self.children[descriptor] = number, pid
            control.send(self.control, {"spawned": number, "pid": pid}, [descriptor])
        for end in ends:
            os.close(end)

    def _reap(self, descriptor: int) -> None:
        number, pid = self.children.pop(descriptor)
        with contextlib.suppress(OSError):  # what an unfiltered child may have started ends with it
            os.killpg(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        os.close(descriptor)
        report = {
            "exited": number,
            "code": os.waitstatus_to_exitcode(status),
            "cpu": usage.ru_utime + usage.ru_stime,
            "peak": usage.ru_maxrss << 10,
        }
        control.send(self.control, report)

    def kill_all(self) -> None:
        for descriptor in self.children:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)


def _preload(modules: Sequence[str]) -> None:
    """Do once what every jail would do at its start."""
    for name in (*_PRELOADED, *modules):
        importlib.import_module(name)
    mimetypes.init()  # reads files that a jail cannot
    gather_code(rehearse)
    rehearse()
