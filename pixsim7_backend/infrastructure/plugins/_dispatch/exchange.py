"""One request or WebSocket under way, which can be told to end when the plugin that answers it leaves."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from time import perf_counter
from typing import Any, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from pixsim7_backend.infrastructure.plugins._attribution.figures import RequestCounts
from pixsim7_backend.infrastructure.plugins._ledger.ownership import Owner

from .claims import name_of

SERVICE_RESTART = 1012
"""The close code that tells a WebSocket client that it may connect again at once (IANA registry of RFC 6455)."""

#: What Starlette raises in code that goes on sending to a client that has left.
LEFT = (ClientDisconnect, WebSocketDisconnect)

_EVENT_STREAM = b"text/event-stream"


class Leaving(Protocol):
    """Who serves the exchange, and whether what has no end of its own is to end now."""

    owner: Owner
    ends_streams: bool


class Exchange(ABC):
    """What a mount is serving; ``receive`` and ``send`` stand in for those of the server.

    ``scope`` is the request's. An exchange that is told to end sees its client leave: the next
    ``receive()``, also one that is waiting, says so; code that only sends gets an OSError, as from a
    server whose client has gone. :meth:`finish` then closes what the code left open.
    """

    is_ending = False
    failure: Exception | None = None
    """What the code raised that answers, when nobody caught it."""
    _was_told = False
    _reading: asyncio.Future[Message] | None = None

    def __init__(self, mount: Leaving, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self._mount = mount
        self._receive = receive
        self._send = send

    @property
    def name(self) -> str:
        """Method and path, like ``GET /api/v1/game/map``."""
        return f"{self.scope.get('method', 'WEBSOCKET')} {self.scope['path']}"

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """It has begun to answer, and more may follow."""

    @property
    @abstractmethod
    def is_endless(self) -> bool:
        """It is open, it has no end of its own, and clients of its kind come again when it ends."""

    def end(self) -> None:
        """Tell the code that answers that its client has left."""
        self.is_ending = True
        if self._reading is not None:
            self._was_told = True
            self._reading.cancel()

    @abstractmethod
    async def receive(self) -> Message:
        """Receive for the plugin."""

    @abstractmethod
    def send(self, message: Message) -> Awaitable[None]:
        """Send for the plugin."""

    @abstractmethod
    async def finish(self) -> None:
        """End what was told to end, in the way its client understands."""

    def note_failure(self, error: Exception, counts: RequestCounts) -> None:
        """The code that answers raised what nobody caught; that its client has left is not its fault."""
        if not isinstance(error, LEFT):
            self.failure = error
            counts.note_fault(error, self._mount.owner.directory)

    @abstractmethod
    def count(self, counts: RequestCounts, started: float) -> None:
        """It is over: add what it came to."""

    @abstractmethod
    def _farewell(self) -> Message: ...

    async def _read(self) -> Message:
        """Return the next message, or the farewell once the exchange is told to end."""
        if not self.is_ending:
            self._reading = reading = asyncio.ensure_future(_call(self._receive))
            try:
                return await reading
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not (self._was_told and reading.cancelled()) or (task is not None and task.cancelling()):
                    raise
            finally:
                self._reading = None
        self._was_told = True
        return self._farewell()

    def _refuse_more(self) -> None:
        if self.is_ending and not self._was_told:
            raise OSError("told to end, since the plugin was replaced or stopped")


class HttpExchange(Exchange):
    """One HTTP request. Until it is a stream that waits for its client to leave, nothing is added but two calls."""

    _start: Message | None = None
    _began = 0.0
    _last: Message | None = None
    _has_body = False

    async def receive(self) -> Message:
        """Receive for the plugin; once the body is there, this only waits for the client to leave."""
        if self._has_body:
            return await self._read()
        message = await self._receive()
        if not message.get("more_body"):
            self._has_body = True
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """Send for the plugin."""
        self._last = message
        if self._start is None:
            self._start = message
            self._began = perf_counter()
            if self._mount.ends_streams and self.is_endless:
                self.end()
        elif self.is_ending:
            self._refuse_more()
        return self._send(message)

    @property
    def is_open(self) -> bool:
        return self._last is not None and (self._last is self._start or bool(self._last.get("more_body")))

    @property
    def is_endless(self) -> bool:
        return self.is_open and _is_event_stream(self._start)

    async def finish(self) -> None:
        """End a stream of events as if it were over; any other one stays cut, so that it does not look whole."""
        if self.is_endless:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def count(self, counts: RequestCounts, started: float) -> None:
        """Add its status and the time until it began to answer."""
        start = self._start
        if self.failure is not None:
            status = _status_of(self.failure)
            counts.add_answer(status, (self._began or perf_counter()) - started)
        elif start is None:
            counts.unanswered += 1
            return
        else:
            status = start["status"]
            counts.add_answer(status, self._began - started)
        if status >= 500:
            endpoint = self.scope.get("endpoint")
            if self.failure is None:
                counts.note_endpoint(status, endpoint)
            counts.add_error(status, name_of(endpoint))

    def _farewell(self) -> Message:
        return {"type": "http.disconnect"}


class WebSocketExchange(Exchange):
    """One WebSocket."""

    _is_accepted = False
    _is_closed = False

    async def receive(self) -> Message:
        """Receive for the plugin."""
        message = await self._read()
        if message["type"] == "websocket.disconnect" and not self._was_told:
            self._is_closed = True
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """Send for the plugin."""
        if message["type"] == "websocket.accept":
            self._is_accepted = True
            if self._mount.ends_streams:
                self._was_told = False
                self.is_ending = True
                return self._send(message)
        elif message["type"] == "websocket.close":
            self._is_closed = True
            return self._send(message)
        if self.is_ending:
            self._refuse_more()
        return self._send(message)

    @property
    def is_open(self) -> bool:
        return self._is_accepted and not self._is_closed

    @property
    def is_endless(self) -> bool:
        return self.is_open

    async def finish(self) -> None:
        """Close it, unless either side has."""
        if self.is_open:
            await self._send({"type": "websocket.close", "code": SERVICE_RESTART, "reason": "plugin replaced"})

    def count(self, counts: RequestCounts, started: float) -> None:
        """Add that it was there, and whether it failed; how long it lasted says nothing."""
        counts.add_websocket(name_of(self.scope.get("endpoint")) if self.failure is not None else None)

    def _farewell(self) -> Message:
        return {"type": "websocket.disconnect", "code": SERVICE_RESTART, "reason": "plugin replaced"}


async def _call(receive: Receive) -> Message:
    return await receive()  # made here, so that a task that is cancelled before it begins leaves nothing unawaited


def _status_of(failure: Exception) -> int:
    """Return what the host answers: an HTTP error that a mounted application raised is its answer."""
    return failure.status_code if isinstance(failure, HTTPException) else 500


def _is_event_stream(start: Message | None) -> bool:
    headers: Any = start.get("headers", ()) if start is not None else ()
    return any(
        name.lower() == b"content-type" and bytes(value).strip().lower().startswith(_EVENT_STREAM)
        for name, value in headers
    )
