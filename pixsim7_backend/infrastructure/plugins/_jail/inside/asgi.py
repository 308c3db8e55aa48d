"""Runs the requests that the host sends, as an ASGI server does; bodies in both directions wait for credit."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Scope

from pixsim7_backend.infrastructure.plugins._jail.frames import Frame, FrameError, Kind
from pixsim7_backend.infrastructure.plugins._jail.streams import WINDOW, body_size, iter_chunks

from .channel import Channel
from .errors import describe_error

_TOGETHER = 2
"""Messages that one frame may have."""
_DISCONNECT = {"http": "http.disconnect", "websocket": "websocket.disconnect"}


class _Stream:
    """One request or WebSocket: what came for its application, and what it may still send."""

    def __init__(self, server: StreamServer, number: int, scope: Scope) -> None:
        self.number = number
        self.task: asyncio.Task[None] | None = None
        self._server = server
        self._kind = str(scope["type"])
        self._inbox: deque[Message] = deque()
        self._has_mail = asyncio.Event()
        self._credit = WINDOW
        self._may_send = asyncio.Event()
        self.is_cancelled = False
        self._has_left = False
        self._held: list[Mapping[str, Any]] = []
        """What was sent in this turn of the event loop: one frame is enough for an answer that is there at once."""
        self._wrong: FrameError | None = None

    def deliver(self, message: Message) -> None:
        if message["type"] == _DISCONNECT[self._kind]:
            self._has_left = True
            self._may_send.set()
        self._inbox.append(message)
        self._has_mail.set()

    def add_credit(self, amount: int) -> None:
        self._credit += amount
        self._may_send.set()

    def cancel(self) -> None:
        """Nobody waits any more: the application sees its client leave, and is cancelled."""
        self.is_cancelled = True
        self.deliver({"type": _DISCONNECT[self._kind]})
        if self.task is not None:
            self.task.cancel()

    async def receive(self) -> Message:
        while not self._inbox:
            self._has_mail.clear()
            await self._has_mail.wait()
        message = self._inbox[0]
        if message["type"] != _DISCONNECT[self._kind]:  # once it has left, it stays away
            self._inbox.popleft()
        if message.get("more_body", True) and (size := body_size(message)):
            self._server.channel.post(Kind.CREDIT, self.number, size)
        return message

    async def send(self, message: Message) -> None:
        for piece in iter_chunks(message):
            size = body_size(piece)
            while size > self._credit and not self._has_left:
                self._may_send.clear()
                await self._may_send.wait()
            if self._has_left:
                raise OSError("the client has left")
            self._credit -= size
            self._hold(piece)

    def end(self, error: Mapping[str, Any] | None) -> None:
        """The application is over."""
        held, self._held = self._held, []
        if error is None and self._wrong is not None:  # it was not there any more to be told
            error = describe_error(self._wrong)
        try:
            self._server.channel.post(Kind.END, self.number, error, *held)
        except FrameError as wrong:
            self._server.channel.post(Kind.END, self.number, describe_error(wrong))
        self._server.channel.flush()  # whoever asked waits for it

    def _hold(self, message: Mapping[str, Any]) -> None:
        if self._wrong is not None:
            raise self._wrong
        if len(self._held) == _TOGETHER:
            self._post()
        elif not self._held:
            asyncio.get_running_loop().call_soon(self._post_at_last)
        self._held.append({**message})  # the application may go on with its own

    def _post(self) -> None:
        held, self._held = self._held, []
        if held:
            self._server.channel.post(Kind.SEND, self.number, *held)

    def _post_at_last(self) -> None:
        try:
            self._post()
        except FrameError as error:
            self._wrong = error  # for whoever sends next


class StreamServer:
    """Serves ``app`` to the host, one task per stream, on the running event loop."""

    def __init__(self, app: ASGIApp, channel: Channel) -> None:
        self.channel = channel
        self._app = app
        self._streams: dict[int, _Stream] = {}

    def take(self, frame: Frame) -> None:
        """Do what a frame of a stream says; those of streams that are over are late, and nothing."""
        if frame.kind is Kind.REQUEST:
            self._begin(frame.id, *frame.payload)
            return
        stream = self._streams.get(frame.id)
        if stream is None:
            return
        if frame.kind is Kind.RECEIVE:
            stream.deliver(frame.payload[0])
        elif frame.kind is Kind.CREDIT:
            stream.add_credit(frame.payload[0])
        elif frame.kind is Kind.CANCEL:
            stream.cancel()

    def _begin(self, number: int, scope: Scope, *first: Message) -> None:
        _complete(scope)
        stream = self._streams[number] = _Stream(self, number, scope)
        for message in first:
            stream.deliver(message)
        stream.task = asyncio.create_task(self._run(stream, scope), name=f"request {scope.get('path')}")

    async def _run(self, stream: _Stream, scope: Scope) -> None:
        error: Mapping[str, Any] | None = None
        try:
            await self._app(scope, stream.receive, stream.send)
        except asyncio.CancelledError:
            if not stream.is_cancelled:
                raise
        except Exception as raised:  # noqa: BLE001 - the host is told; here nobody else would be
            error = describe_error(raised)
        finally:
            del self._streams[stream.number]
        stream.end(error)


def _complete(scope: Scope) -> None:
    """Give the scope the shape that it has in the host: what MessagePack makes lists of are tuples."""
    scope["asgi"] = {"version": "3.0", "spec_version": "2.4"}
    scope["headers"] = [(name, value) for name, value in scope.get("headers", ())]
    for name in ("client", "server"):
        if isinstance(scope.get(name), list):
            scope[name] = tuple(scope[name])
    scope["extensions"] = {}
    scope["state"] = {}
