"""The host's end of the socket to one jail: requests as streams, questions with answers, calls of the jail."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, cast

from starlette.types import Message, Scope

from .errors import JailCallError, JailGoneError, JailProtocolError
from .frames import Decoder, Frame, FrameError, Kind, encode
from .handshake import Greeting
from .streams import WINDOW, body_size, iter_chunks

__all__ = ["Channel", "Stream"]

_HIGH_WATER = 1 << 20
_PIECE = 16 << 10
"""Bytes that are read between two looks at the clock."""
_TURN = 0.005
"""Seconds that reading from one jail may keep the event loop at a time."""
_REST = 3.0
"""After such a turn nothing is read for so many times as long."""


class Stream:
    """One request or WebSocket that the jail answers."""

    def __init__(self, channel: Channel, number: int, *, sent: int = 0) -> None:
        self.number = number
        self.error: Mapping[str, Any] | None = None
        """What the application raised, once it is over."""
        self._channel = channel
        self._inbox: deque[Message] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._is_over = False
        self._lost: Exception | None = None
        self._owed = 0
        self._credit = WINDOW - sent
        self._may_send = asyncio.Event()
        self._may_send.set()

    @property
    def is_over(self) -> bool:
        """The application has ended, or the jail has."""
        return self._is_over or self._lost is not None

    async def receive(self) -> Message | None:
        """Return the next message of the application, None when it is over.

        Raises:
            JailGoneError: the jail has ended before.
        """
        while not self._inbox:
            if self._lost is not None:
                raise self._lost
            if self._is_over:
                return None
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        message = self._inbox.popleft()
        if message.get("more_body", True) and not self.is_over and (size := body_size(message)):
            self._owed -= size
            self._channel.write(Kind.CREDIT, self.number, size)
        return message

    async def send(self, message: Message) -> None:
        """Give the application a message; waits while it has not taken what it was given."""
        for piece in iter_chunks(message):
            size = body_size(piece)
            while size > self._credit and not self.is_over:
                self._may_send.clear()
                await self._may_send.wait()
            if self.is_over:
                return
            self._credit -= size
            self._channel.write(Kind.RECEIVE, self.number, piece)
            await self._channel.drained()

    def close(self) -> None:
        """Nobody waits any more: an application that is not over is cancelled."""
        if not self.is_over:
            self._channel.write(Kind.CANCEL, self.number)
        self._channel.forget(self)

    # --- what the jail says ---------------------------------------------------------------------------

    def deliver(self, *messages: Message) -> None:
        """Take messages of the application."""
        try:
            self._owed += sum(map(body_size, messages))
        except (KeyError, TypeError, AttributeError) as error:
            raise JailProtocolError("it sent a message that is none") from error
        if self._owed > WINDOW:
            raise JailProtocolError(f"it sent {self._owed:,} bytes of a body for which it had no credit")
        self._inbox += messages
        self._wake()

    def add_credit(self, amount: int) -> None:
        """The application has taken so many bytes."""
        if not 0 < amount <= WINDOW - self._credit:
            raise JailProtocolError(f"it gave credit for {amount} bytes that it never had")
        self._credit += amount
        self._may_send.set()

    def end(self, error: Mapping[str, Any] | None, *messages: Message) -> None:
        """The application is over, after these messages."""
        if messages:
            self.deliver(*messages)
        self.error = error
        self._is_over = True
        self._may_send.set()
        self._wake()

    def lose(self, error: Exception) -> None:
        """The jail is gone."""
        self._lost = self._lost or error
        self._may_send.set()
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class Channel(asyncio.Protocol):
    """Frames to and from one jail, on the event loop that it was opened on.

    ``on_call`` is given each call of the jail: number, method and arguments; whoever answers uses
    :meth:`answer_call`. ``on_log`` is given each line. ``on_lost`` is told once why there is nobody any more: None
    where the channel was closed here, the jail's own end or misbehaviour otherwise.
    """

    def __init__(
        self,
        *,
        on_call: Callable[[int, str, list[Any]], None],
        on_log: Callable[[int, str, str], None],
        on_lost: Callable[[Exception | None], None],
    ) -> None:
        self._on_call = on_call
        self._on_log = on_log
        self._on_lost = on_lost
        self._decoder = Decoder()
        self._unread = bytearray()
        self._is_resting = False
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, Stream] = {}
        self._questions: dict[int, asyncio.Future[Any]] = {}
        self._stream_numbers = count(1)
        self._question_numbers = count(1)
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._is_closed = False
        self._fault: Exception | None = None

    async def open(self, connection: socket.socket, greeting: Greeting) -> None:
        """Go on where the greeting ended; the socket belongs to the channel from now on."""
        self._decoder = greeting.decoder
        connection.setblocking(False)
        await asyncio.get_running_loop().create_connection(lambda: self, sock=connection)
        self._take_all(greeting.more)

    @property
    def streams(self) -> int:
        """How many requests and WebSockets are under way."""
        return len(self._streams)

    def begin(self, scope: Scope, first: Message | None = None) -> Stream:
        """Let the jail answer a request, whose first message may be there already.

        Raises:
            JailGoneError: there is no jail.
            FrameError: they are too large for a frame.
        """
        self._check_alive()
        assert self._transport is not None
        number = next(self._stream_numbers)
        begun = encode(Kind.REQUEST, number, scope, *(() if first is None else (first,)))
        stream = self._streams[number] = Stream(self, number, sent=0 if first is None else body_size(first))
        self._transport.write(begun)
        return stream

    async def ask(self, method: str, *args: Any) -> Any:
        """Ask the jail for something, like ``enable``; return its answer.

        Raises:
            JailCallError: it says what went wrong.
            JailGoneError: it ends before it has answered.
        """
        self._check_alive()
        number = next(self._question_numbers)
        answer = self._questions[number] = asyncio.get_running_loop().create_future()
        try:
            self.write(Kind.ASK, number, method, list(args))
            return await answer
        finally:
            self._questions.pop(number, None)

    def answer_call(self, number: int, is_good: bool, value: Any) -> None:
        """Tell the jail what came of its call: its value, or ``{type, text}`` of what was wrong."""
        try:
            self.write(Kind.REPLY, number, is_good, value)
        except FrameError as error:
            self.write(Kind.REPLY, number, False, {"type": "ResultTooLargeError", "text": str(error)})

    def write(self, kind: Kind, number: int, *payload: Any) -> None:
        """Send a frame; nothing happens when the jail is gone."""
        if self._transport is not None and not self._is_closed:
            self._transport.write(encode(kind, number, *payload))

    async def drained(self) -> None:
        """Wait until the jail has read most of what was sent."""
        await self._can_write.wait()

    def forget(self, stream: Stream) -> None:
        """Take no more messages of this stream."""
        self._streams.pop(stream.number, None)

    def close(self) -> None:
        """End the connection; the jail ends itself when it sees that."""
        self._is_closed = True
        if self._transport is not None:
            self._transport.abort()

    def _check_alive(self) -> None:
        if self._is_closed or self._transport is None:
            raise JailGoneError("it is not running")

    # --- asyncio.Protocol ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is not derived from it
        transport.set_write_buffer_limits(high=_HIGH_WATER)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._is_closed:
            return
        if not self._is_resting and len(data) <= _PIECE:  # so nothing is unread
            self._take_piece(data)
            return
        self._unread += data
        if not self._is_resting:
            self._read_on()

    def _read_on(self) -> None:
        """Take what has come, for a moment; when that is over, rest: a jail that never stops must not fill the loop."""
        assert self._transport is not None
        begun = now = time.monotonic()
        while self._unread and not self._is_closed and now - begun < _TURN:
            piece = bytes(self._unread[:_PIECE])
            del self._unread[:_PIECE]
            self._take_piece(piece)
            now = time.monotonic()
        was_resting, self._is_resting = self._is_resting, bool(self._unread) and not self._is_closed
        if self._is_resting:
            if not was_resting:
                self._transport.pause_reading()
            asyncio.get_running_loop().call_later(_REST * (now - begun), self._read_on)
        elif was_resting and not self._is_closed:
            self._transport.resume_reading()

    def _take_piece(self, piece: bytes) -> None:
        try:
            frames = self._decoder.feed(piece)
        except FrameError as error:
            self._fail(JailProtocolError(str(error)))
        else:
            self._take_all(frames)

    def _take_all(self, frames: list[Frame]) -> None:
        try:
            for frame in frames:
                self._take(frame)
        except JailProtocolError as error:
            self._fail(error)

    def _fail(self, error: JailProtocolError) -> None:
        """The jail is not believed any more; the connection ends, and with it the jail."""
        self._fault, self._is_closed = error, True
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        was_closed, self._is_closed = self._is_closed, True
        self._can_write.set()
        gone = self._fault or JailGoneError("it was stopped" if was_closed else "it has ended")
        for stream in tuple(self._streams.values()):
            stream.lose(gone)
        for answer in tuple(self._questions.values()):
            if not answer.done():
                answer.set_exception(gone)
        self._on_lost(None if was_closed and self._fault is None else gone)

    def pause_writing(self) -> None:
        self._can_write.clear()

    def resume_writing(self) -> None:
        self._can_write.set()

    def _take(self, frame: Frame) -> None:
        kind, number, payload = frame
        if kind is Kind.CALL:
            self._on_call(number, *payload)
        elif kind is Kind.LOG:
            self._on_log(*payload)
        elif kind is Kind.ANSWER:
            self._answered(number, *payload)
        elif kind in _OF_STREAMS:
            stream = self._streams.get(number)
            if stream is not None:  # of one that is over here, the jail may still be on its way
                _OF_STREAMS[kind](stream, *payload)
        else:
            raise JailProtocolError(f"it sent a frame of kind {kind.name}, which is the host's")

    def _answered(self, number: int, is_good: bool, value: Any) -> None:
        answer = self._questions.pop(number, None)
        if answer is None or answer.done():
            return
        if is_good:
            answer.set_result(value)
        else:
            answer.set_exception(JailCallError(value if isinstance(value, dict) else {}))


_OF_STREAMS: Mapping[Kind, Callable[..., None]] = {
    Kind.SEND: Stream.deliver,
    Kind.END: Stream.end,
    Kind.CREDIT: Stream.add_credit,
}
