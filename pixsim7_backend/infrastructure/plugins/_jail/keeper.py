"""One zygote and the thread that keeps it: starts it, reads what it and its jails say, and sees them end.

The kernel ends the zygote when the *thread* that started it ends, so one thread does all of that, for as
long as the zygote is to live.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import IO, Any

from . import control
from .cgroups import JailGroup
from .level import ConfinementLevel, ConfinementReport
from .process import JailExit, JailProcess
from .program import start_zygote
from .spec import JailSpec

__all__ = ["Keeper", "LaunchError"]

logger = logging.getLogger("pixsim7.plugins.jail")

_PIECE = 1 << 16
_TAIL = 8 << 10
_END_TIME = 5.0


class LaunchError(Exception):
    """A jail, or the zygote, could not be started; the text says why."""


@dataclass(slots=True, eq=False)
class _Launch:
    """A jail that was asked for, until it says how it is confined."""

    spec: JailSpec
    connection: socket.socket
    errors: int
    report: socket.socket
    on_end: Callable[[], None]
    group: JailGroup | None
    begun: threading.Event = field(default_factory=threading.Event)
    """It has a process, or will never have one."""
    outcome: Future[JailProcess] = field(default_factory=Future)
    process: JailProcess | None = None
    said: bytes = b""


class Keeper:
    """A running zygote."""

    def __init__(self, *, preload: Sequence[str], floor: ConfinementLevel) -> None:
        self._options = {"preload": list(preload), "floor": floor.name.lower()}
        self._ready: Future[ConfinementReport] = Future()
        self._lock = threading.Lock()
        self._launches: dict[int, _Launch] = {}
        self._number = 0
        self._errors = bytearray()
        self._control, self._far_end = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._is_over = False
        self._stderr: IO[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="jail keeper", daemon=True)

    def start(self, limit: float) -> ConfinementReport:
        """Start the zygote and wait until it can fork; return what this machine can confine a jail with.

        Raises:
            LaunchError: it does not start, or not within ``limit`` seconds.
        """
        self._thread.start()
        try:
            return self._ready.result(limit)
        except TimeoutError:
            self.close()
            raise LaunchError(f"the process that starts jails was not ready after {limit:g} s") from None

    @property
    def is_alive(self) -> bool:
        """The zygote runs, as far as is known."""
        return not self._is_over

    def launch(
        self, spec: JailSpec, on_end: Callable[[], None], limit: float, group: JailGroup | None = None
    ) -> JailProcess:
        """Fork a jail and wait until it is confined.

        ``on_end`` is called once, when nothing of the jail is left, whether it was started or not. ``group`` is the
        control group that it is in before it is told what it is.

        Raises:
            LaunchError: it cannot be started; the text says why.
        """
        here, there = socket.socketpair()
        errors, errors_end = os.pipe()
        report, report_end = socket.socketpair()
        os.set_blocking(errors, False)
        launch = _Launch(spec, here, errors, report, on_end, group)
        try:
            self._request(launch, [there.fileno(), errors_end, report_end.fileno()])
        finally:
            there.close()
            os.close(errors_end)
            report_end.close()
        _admit(launch, limit)
        with contextlib.suppress(OSError):  # it has ended before it was told: the thread sees that too
            control.send(report, spec.to_json())  # past the zygote
        try:
            return launch.outcome.result(limit)
        except TimeoutError:
            if launch.process is not None:
                launch.process.kill()
            raise LaunchError(f"the jail of plugin {spec.plugin!r} was not confined after {limit:g} s") from None

    def _request(self, launch: _Launch, descriptors: list[int]) -> None:
        with self._lock:
            if self._is_over:
                self._give_up(launch, "the process that starts jails has ended")
                return
            self._number += 1
            self._launches[self._number] = launch
            with contextlib.suppress(OSError):  # it has ended: the thread sees that too, and says so
                control.send(self._control, {"spawn": self._number}, descriptors)

    def close(self) -> None:
        """End the zygote and all its jails; returns when they have ended."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        if self._thread is not threading.current_thread():
            self._thread.join()

    def forget(self) -> None:
        """Close what a forked copy of the host must not hold; only in that copy."""
        self._is_over = True
        self._control.close()
        self._far_end.close()
        self._selector.close()
        if self._stderr is not None:
            self._stderr.close()
        for launch in self._launches.values():
            if launch.process is not None:
                launch.process.forget()
            launch.report.close()
            _close(launch.errors)

    # --- in the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._keep()
        except OSError as error:
            self._fail(f"the process that starts jails cannot be started: {error}")
        except Exception as error:  # whoever needs a jail next gets a new keeper
            logger.exception("What keeps the process that starts jails has failed; all jails end, and are started anew")
            self._fail(f"what keeps the process that starts jails has failed: {error!r}")
        finally:
            self._control.close()
            self._selector.close()

    def _keep(self) -> None:
        with self._far_end, start_zygote(self._far_end.fileno()) as program:
            self._far_end.close()
            assert program.stderr is not None
            self._stderr = program.stderr
            os.set_blocking(program.stderr.fileno(), False)
            self._selector.register(program.stderr, selectors.EVENT_READ, self._take_errors)
            self._selector.register(self._control, selectors.EVENT_READ, self._take_message)
            with contextlib.suppress(OSError):  # it has ended: seen below
                control.send(self._control, self._options)
            try:
                self._watch()
            except BaseException:
                program.kill()  # leaving the block waits for its end
                raise
            try:
                code = program.wait(_END_TIME)  # it ends when the socket is closed
            except subprocess.TimeoutExpired:
                program.kill()
                code = program.wait()
            self._take_errors(program.stderr.fileno())
        text = self._errors.decode(errors="replace").strip()
        self._fail(f"the process that starts jails has ended with code {code}" + (f": {text}" if text else ""))

    def _watch(self) -> None:
        while not self._is_over:
            for key, _ in self._selector.select():
                if self._is_watched(key):
                    key.data(key.fd)

    def _is_watched(self, key: selectors.SelectorKey) -> bool:
        """Tell whether what was selected is still open: what was selected before it may have been its end."""
        try:
            return self._selector.get_map().get(key.fileobj) is key
        except ValueError:  # a closed socket has no descriptor
            return False

    def _take_errors(self, descriptor: int) -> None:
        for piece in _iter_pieces(descriptor):
            if not piece:
                self._unregister(descriptor)
            self._errors += piece
            del self._errors[:-_TAIL]

    def _take_message(self, _descriptor: int) -> None:
        try:
            received = control.receive(self._control)
        except OSError:
            received = None
        if received is None:
            self._is_over = True
            return
        message, descriptors = received
        if "ready" in message:
            self._ready.set_result(ConfinementReport.from_json(message["ready"]))
        elif "spawned" in message:
            self._begin(message["spawned"], message["pid"], descriptors[0])
        elif "refused" in message:
            self._give_up(self._launches.pop(message["refused"]), message["error"])
        else:
            self._end(message)

    def _begin(self, number: int, pid: int, descriptor: int) -> None:
        launch = self._launches[number]
        launch.process = JailProcess(launch.spec, launch.connection, pid, descriptor, launch.on_end, group=launch.group)
        self._selector.register(launch.errors, selectors.EVENT_READ, lambda _: self._take_stderr(launch))
        self._selector.register(launch.report, selectors.EVENT_READ, lambda _: self._take_report(launch))
        launch.begun.set()

    def _take_stderr(self, launch: _Launch) -> None:
        assert launch.process is not None
        for piece in _iter_pieces(launch.errors):
            launch.process.add_stderr(piece)
            if not piece:
                self._unregister(launch.errors)

    def _take_report(self, launch: _Launch) -> None:
        assert launch.process is not None
        with contextlib.suppress(OSError):
            while piece := launch.report.recv(_PIECE, socket.MSG_DONTWAIT):
                launch.said += piece
            self._unregister(launch.report)
            self._confirm(launch)

    def _confirm(self, launch: _Launch) -> None:
        """Hand out the jail, now that it has said all of how it is confined."""
        assert launch.process is not None
        if launch.outcome.done():
            return
        said: Mapping[str, Any] = json.loads(launch.said or b"{}")
        if "report" in said:
            found = ConfinementReport.from_json(said["report"])
            launch.process.report = replace(found, cgroup=launch.group is not None)
            launch.outcome.set_result(launch.process)
        elif "error" in said:
            launch.connection.close()
            launch.outcome.set_exception(_refusal(launch, said["error"]))

    def _end(self, message: Mapping[str, Any]) -> None:
        launch = self._launches.pop(message["exited"])
        how = JailExit(code=message["code"], cpu=message["cpu"], peak=message["peak"])
        self._finish(launch, how)

    def _finish(self, launch: _Launch, how: JailExit) -> None:
        assert launch.process is not None
        self._take_stderr(launch)
        self._take_report(launch)  # its end may be seen before what it said
        self._unregister(launch.errors)
        self._unregister(launch.report)
        launch.report.close()
        _close(launch.errors)
        launch.process.end(how)
        if not launch.outcome.done():
            launch.connection.close()
            said = launch.process.stderr_tail().strip()
            why = f"it {how} while it was confined" + (f": {said}" if said else "")
            launch.outcome.set_exception(_refusal(launch, why))

    def _give_up(self, launch: _Launch, why: str) -> None:
        launch.connection.close()
        launch.report.close()
        _close(launch.errors)
        launch.on_end()
        launch.outcome.set_exception(_refusal(launch, why))
        launch.begun.set()

    def _fail(self, why: str) -> None:
        """The zygote is gone, and with it all jails."""
        with self._lock:
            self._is_over = True
            launches, self._launches = self._launches, {}
        if not self._ready.done():
            self._ready.set_exception(LaunchError(why))
        for launch in launches.values():
            if launch.process is None:
                self._give_up(launch, why)
            else:
                launch.process.await_end(_END_TIME)
                self._finish(launch, JailExit(code=None))

    def _unregister(self, descriptor: int | socket.socket) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(descriptor)


def _admit(launch: _Launch, limit: float) -> None:
    """Move a jail into its group, while it waits to be told what it is."""
    if launch.group is None or not launch.begun.wait(limit) or launch.process is None:
        return
    try:
        launch.group.admit(launch.process.pid)
    except OSError as error:
        launch.process.kill()
        raise _refusal(launch, f"it cannot be moved into its control group: {error}") from error


def _refusal(launch: _Launch, why: str) -> LaunchError:
    return LaunchError(f"the jail of plugin {launch.spec.plugin!r} cannot be started: {why}")


def _iter_pieces(descriptor: int) -> list[bytes]:
    """Return what can be read now without waiting; behind the last piece, an empty one."""
    pieces = []
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(descriptor, _PIECE):
            pieces.append(piece)
        pieces.append(b"")
    return pieces


def _close(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.close(descriptor)
