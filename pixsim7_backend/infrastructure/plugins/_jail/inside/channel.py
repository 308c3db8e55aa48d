"""The jail's end of the socket: sorts what the host sends, and calls the host's broker.

There is no thread that only reads. The event loop reads while nobody waits; whoever waits for a reply without
awaiting, in a thread or on the loop's own, reads instead until it is there, and hands the loop what is for it. So
an ``async def`` endpoint that calls the broker and blocks the loop gets its reply all the same, and a request that
calls nothing costs no change of threads.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

from pixsim7_backend.infrastructure.plugins import errors
from pixsim7_backend.infrastructure.plugins._jail.frames import Decoder, Frame, FrameError, Kind, encode

__all__ = ["BrokerCallError", "Channel", "ShareUsedUpError", "error_of"]

_PIECE = 1 << 16


class BrokerCallError(Exception):
    """The host refused a call, or could not carry it out.

    ``kind`` is the name of the error, for code; the text is for people.
    """

    def __init__(self, kind: str, text: str) -> None:
        Exception.__init__(self, text)
        self.kind = kind


class ShareUsedUpError(errors.ShareUsedUpError, BrokerCallError):
    """The plugin has used its share of the minute."""

    def __init__(self, fields: dict[str, Any]) -> None:
        errors.ShareUsedUpError.__init__(self, **fields)
        self.kind = type(self).__name__


def error_of(told: dict[str, Any]) -> BrokerCallError:
    """Return the error for what the host tells of a call that it did not carry out."""
    kind = str(told.get("type", "error"))
    if kind == ShareUsedUpError.__name__ and told.get("fields"):
        return ShareUsedUpError(told["fields"])
    return BrokerCallError(kind, str(told.get("text", "the call failed")))


class _Call:
    """A call that waits for its reply."""

    __slots__ = ("is_done", "is_good", "value", "wake")

    def __init__(self, wake: Callable[[], object] | None = None) -> None:
        self.wake = wake
        self.is_done = self.is_good = False
        self.value: Any = None

    def result(self) -> Any:
        if self.is_good:
            return self.value
        raise error_of(self.value if isinstance(self.value, dict) else {})


class Channel:
    """Sends frames from any thread, and hands out those that come."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._posted = bytearray()
        self._calls: dict[int, _Call] = {}
        self._numbers = count(1)
        self._decoder = Decoder()
        self._turn = threading.Condition()
        self._is_read = False
        self._watch = select.epoll()
        self._watch.register(connection, select.EPOLLIN)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._due: deque[Callable[[], object]] = deque()
        self._take: Callable[[Frame], object] = lambda _: None

    def start(self, take: Callable[[Frame], object]) -> None:
        """Read from now on; ``take`` gets, on the running loop and in their order, all frames that are not replies."""
        self._loop, self._take = asyncio.get_running_loop(), take
        self._loop.add_reader(self._watch.fileno(), self._on_readable)

    def send(self, kind: Kind, number: int, *payload: Any) -> None:
        """Send one frame; waits while the host is slow to read.

        Raises:
            FrameError: the payload cannot be said in a frame.
        """
        self._send(encode(kind, number, *payload))

    def post(self, kind: Kind, number: int, *payload: Any) -> None:
        """Send one frame with all others of this turn of the event loop, in order; only on the loop's thread.

        Raises:
            FrameError: the payload cannot be said in a frame.
        """
        packed = encode(kind, number, *payload)
        if not self._posted:
            asyncio.get_running_loop().call_soon(self.flush)
        self._posted += packed

    def flush(self) -> None:
        """Send what was posted now; only on the loop's thread."""
        if not self._posted:
            return
        posted, self._posted = self._posted, bytearray()
        self._send(posted)

    def _send(self, packed: bytes | bytearray) -> None:
        with self._sending:
            self._connection.sendall(packed)

    def call(self, method: str, *args: Any) -> Any:
        """Let the host do something; blocks this thread until it is done.

        Raises:
            BrokerCallError: it was refused or failed.
        """
        self._begin(method, args, call := _Call())
        while not call.is_done:
            if self._take_turn(call):
                self._read(0)
                self._hand_on_later()
        return call.result()

    async def acall(self, method: str, *args: Any) -> Any:
        """Async twin of :meth:`call`."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def finish() -> None:
            if not done.done():
                done.set_result(None)

        later = self._due.append if loop is self._loop else loop.call_soon_threadsafe
        self._begin(method, args, call := _Call(lambda: later(finish)))
        await done
        return call.result()

    def _begin(self, method: str, args: tuple[Any, ...], call: _Call) -> None:
        number = next(self._numbers)
        self._calls[number] = call
        try:
            self.send(Kind.CALL, number, method, list(args))
        except BaseException:
            self._calls.pop(number, None)
            raise

    # --- reading: one at a time, and handing on before the next one may --------------------------------

    def _take_turn(self, call: _Call) -> bool:
        """Wait until it is this thread's turn to read; False: the reply came meanwhile."""
        with self._turn:
            while self._is_read and not call.is_done:
                self._turn.wait()
            if call.is_done:
                return False
            self._is_read = True
            self._watch.modify(self._connection, 0)  # or what comes would wake the loop, too, for nothing
            return True

    def _on_readable(self) -> None:
        with self._turn:
            if self._is_read:  # by somebody who waits for a reply, and gets this, too
                return
            self._is_read = True
        self._read(socket.MSG_DONTWAIT)
        self._hand_on()

    def _read(self, flags: int) -> None:
        try:
            try:
                piece = self._connection.recv(_PIECE, flags)
            except BlockingIOError:  # somebody else has read it
                return
            if not piece:
                os._exit(0)  # without a host there is nothing to live for, whatever the plugin's threads do
            self._sort(self._decoder.feed(piece))
        except (OSError, FrameError, RuntimeError):  # the host is gone or mad, or our loop is closed
            os._exit(0)
        finally:
            with self._turn:
                self._is_read = False
                if not flags:
                    self._watch.modify(self._connection, select.EPOLLIN)
                self._turn.notify_all()

    def _sort(self, frames: list[Frame]) -> None:
        for frame in frames:
            if frame.kind is Kind.REPLY:
                self._settle(frame)
            else:
                self._due.append(partial(self._take, frame))

    def _settle(self, reply: Frame) -> None:
        call = self._calls.pop(reply.id, None)
        if call is not None:
            call.is_good, call.value = reply.payload
            call.is_done = True
            if call.wake is not None:
                call.wake()

    def _hand_on(self) -> None:
        """Let the loop do what is for it, on its own thread."""
        while self._due:
            self._due.popleft()()

    def _hand_on_later(self) -> None:
        if self._due:
            assert self._loop is not None, "nobody calls before the start"
            self._loop.call_soon_threadsafe(self._hand_on)
