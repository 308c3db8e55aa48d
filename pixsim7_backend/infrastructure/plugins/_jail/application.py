"""Answers requests with a jailed plugin: an ASGI application that passes them on, and lets no harm through."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from .allowances import HttpLimits
from .channel import Channel, Stream
from .errors import JailGoneError, JailProtocolError
from .headers import content_length, for_client, for_plugin
from .streams import CHUNK

__all__ = ["JailedApplication"]

_PATIENCE = 0.05
"""Seconds without an answer after which it is watched whether the client is still there."""
_WITHOUT_BODY = frozenset({204, 205, 304})
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
_SCOPE = ("type", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path", "server")


class Jails(Protocol):
    """Who knows the jail of a plugin."""

    plugin: str

    async def connect(self) -> Channel:
        """Return the channel of the running jail, starting one if need be.

        Raises:
            HTTPException: 503, there is none now.
        """


class JailedApplication:
    """The host's stand-in for the plugin's own application.

    Before the answer has begun, whatever goes wrong is an HTTPException (502 misbehaviour, 503 no jail, 504 too
    slow) that names the plugin; afterwards the connection is cut, so that half an answer never looks whole.
    ``extend`` adds to the scope what the plugin may know of the caller.
    """

    def __init__(
        self,
        jails: Jails,
        limits: HttpLimits,
        *,
        extend: Callable[[Scope], Awaitable[Mapping[str, Any]]],
        on_misbehaviour: Callable[[JailProtocolError], None],
    ) -> None:
        self._jails = jails
        self._limits = limits
        self._extend = extend
        self._on_misbehaviour = on_misbehaviour

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        passed = await self._scope(scope)
        kind = _Http if scope["type"] == "http" else _WebSocket
        exchange = kind(self._limits, scope, receive, send)
        first = await exchange.find_first()
        channel = await self._jails.connect()  # and at once begun: one that nobody uses may be stopped
        try:
            stream = channel.begin(passed, first)
            try:
                await exchange.run(stream)
            finally:
                exchange.stop()
                stream.close()
        except JailProtocolError as error:
            self._on_misbehaviour(error)
            raise self._refusal(exchange, 502, f"misbehaved: {error}") from error
        except JailGoneError as error:
            raise self._refusal(exchange, 502, "ended before it had answered") from error
        except TimeoutError as error:
            raise self._refusal(exchange, 504, "did not answer in time") from error
        if not exchange.is_answered:
            raise self._refusal(exchange, 502, "ended without an answer")

    def _refusal(self, exchange: _Exchange, status: int, what: str) -> Exception:
        text = f"plugin {self._jails.plugin!r} {what}"
        return ConnectionError(text) if exchange.has_begun else HTTPException(status, text)

    async def _scope(self, scope: Scope) -> Scope:
        passed: Scope = {name: scope[name] for name in _SCOPE if scope.get(name) is not None}
        passed["headers"] = for_plugin(scope["headers"])
        passed["client"] = None
        if scope["type"] == "websocket":
            passed["subprotocols"] = list(scope.get("subprotocols", ()))
        passed.update(await self._extend(scope))
        return passed


class _Exchange(ABC):
    """One request or WebSocket between its client and the jail."""

    has_begun = False
    is_answered = False

    def __init__(self, limits: HttpLimits, scope: Scope, receive: Receive, send: Send) -> None:
        self._limits = limits
        self._origin = _origin_of(scope)
        self._has_no_body = _has_no_body(scope)
        self._receive = receive
        self._send = send
        self._pump: asyncio.Task[None] | None = None

    async def find_first(self) -> Message | None:
        """Return the first message of the client, where that goes along with the beginning."""
        return None

    @abstractmethod
    async def run(self, stream: Stream) -> None: ...

    def stop(self) -> None:
        if self._pump is not None:
            self._pump.cancel()

    @abstractmethod
    async def _feed(self, stream: Stream) -> None: ...


class _Http(_Exchange):
    _declared: int | None = None
    _status = 0
    _sent = 0
    _received = 0
    _has_left = False
    _first: Message | None = None
    _has_more = False
    _until = 0.0
    _look_again: asyncio.TimerHandle | None = None

    async def find_first(self) -> Message | None:
        """Return the body where it comes in one small piece, as most do, or there is none."""
        message = await (self._receive() if self._has_no_body else self._receive_in_time())
        self._count(message)
        if len(message.get("body") or b"") <= CHUNK:
            self._has_more = bool(message.get("more_body"))
            return message
        self._first = message
        return None

    async def _receive_in_time(self) -> Message:
        try:
            async with asyncio.timeout(self._limits.answer_time):
                return await self._receive()
        except TimeoutError as error:
            raise HTTPException(408, "the body of the request did not come in time") from error

    async def run(self, stream: Stream) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        end = begun + self._limits.total_time
        self._until = min(begun + self._limits.answer_time, end)
        if self._first is not None or self._has_more:
            self._feed_on(stream)
        async with asyncio.timeout(None) as timer:  # most requests are over before anybody looks at the clock
            self._look_again = loop.call_later(_PATIENCE, self._look, stream, timer)
            while (message := await stream.receive()) is not None:
                if not self.is_answered:
                    await self._pass_on(message)
                    if not self._has_left:  # without a client its time runs out, whatever it sends
                        self._until = min(end, loop.time() + self._limits.idle_time)

    def _look(self, stream: Stream, timer: asyncio.Timeout) -> None:
        """Watch the client from here on, and end what takes too long, a fourth of the idle time late at most."""
        if self._pump is None:
            self._feed_on(stream)
        loop = asyncio.get_running_loop()
        left = self._until - loop.time()
        if left <= 0:
            timer.reschedule(loop.time())
        else:
            self._look_again = loop.call_later(min(left, self._limits.idle_time / 4), self._look, stream, timer)

    def _feed_on(self, stream: Stream) -> None:
        self._pump = asyncio.create_task(self._feed(stream), name="feeding a jail")

    async def _feed(self, stream: Stream) -> None:
        try:
            if self._first is not None:
                await stream.send(self._first)
            while True:
                message = await self._receive()
                self._count(message)
                await stream.send(message)
                if message["type"] == "http.disconnect":
                    self._has_left = True
                    return
        except HTTPException as error:
            stream.lose(error)

    def stop(self) -> None:
        super().stop()
        if self._look_again is not None:
            self._look_again.cancel()

    def _count(self, message: Message) -> None:
        self._received += len(message.get("body") or b"")
        if self._received > self._limits.request_size:
            raise HTTPException(413, f"a request to this plugin may have {self._limits.request_size:,} bytes")

    async def _pass_on(self, message: Message) -> None:
        kind = message.get("type")
        if kind == "http.response.start" and not self.has_begun:
            await self._start(message)
        elif kind == "http.response.body" and self.has_begun:
            await self._continue(message)
        else:
            raise JailProtocolError(f"its answer has {str(kind)[:50]!r} where that cannot be")

    async def _start(self, message: Message) -> None:
        status = message.get("status")
        if type(status) is not int or not 200 <= status <= 599:
            raise JailProtocolError(f"its answer has the status {str(status)[:20]}")
        headers = for_client(message.get("headers", []), origin=self._origin)
        self._declared, self._status = content_length(headers), status
        if self._declared is not None and self._declared > self._limits.response_size:
            raise JailProtocolError(f"its answer is larger than {self._limits.response_size:,} bytes")
        self.has_begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _continue(self, message: Message) -> None:
        body, has_more = message.get("body", b""), bool(message.get("more_body", False))
        if not isinstance(body, bytes):
            raise JailProtocolError("a piece of its answer is no bytes")
        self._sent += len(body)
        if self._sent > self._limits.response_size:
            raise JailProtocolError(f"its answer is larger than {self._limits.response_size:,} bytes")
        if self._declared is not None and self._sent > self._declared:
            raise JailProtocolError("its answer is longer than it said")
        if not has_more and self._declared is not None and self._sent < self._declared and self._sent:
            raise JailProtocolError("its answer is shorter than it said")
        if body and self._status in _WITHOUT_BODY:
            raise JailProtocolError(f"its answer {self._status} has a body")
        self.is_answered = not has_more
        await self._send({"type": "http.response.body", "body": body, "more_body": has_more})


class _WebSocket(_Exchange):
    async def run(self, stream: Stream) -> None:
        self._pump = asyncio.create_task(self._feed(stream), name="feeding a jail")
        while (message := await stream.receive()) is not None:
            await self._pass_on(message)

    async def _feed(self, stream: Stream) -> None:
        while True:
            message = await self._receive()
            try:
                await stream.send(message)
            except ValueError as error:  # larger than what a jail can be sent
                stream.lose(JailProtocolError(str(error)))
                return
            if message["type"] == "websocket.disconnect":
                return

    async def _pass_on(self, message: Message) -> None:
        kind = message.get("type")
        if kind == "websocket.accept" and not self.has_begun:
            await self._accept(message)
        elif kind == "websocket.send" and self.has_begun:
            await self._forward(message)
        elif kind == "websocket.close":
            await self._close(message)
        else:
            raise JailProtocolError(f"its answer has {str(kind)[:50]!r} where that cannot be")

    async def _accept(self, message: Message) -> None:
        subprotocol = message.get("subprotocol")
        if subprotocol is not None and not isinstance(subprotocol, str):
            raise JailProtocolError("its subprotocol is no text")
        headers = for_client(message.get("headers", []), origin=self._origin)
        self.has_begun = True
        await self._send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers})

    async def _forward(self, message: Message) -> None:
        text, content = message.get("text"), message.get("bytes")
        if isinstance(text, str) and content is None:
            await self._send({"type": "websocket.send", "text": text})
        elif isinstance(content, bytes) and text is None:
            await self._send({"type": "websocket.send", "bytes": content})
        else:
            raise JailProtocolError("a message of its WebSocket is neither text nor bytes")

    async def _close(self, message: Message) -> None:
        code, reason = message.get("code", 1000), str(message.get("reason") or "")
        if type(code) is not int or not (code == 1000 or 3000 <= code <= 4999 or 1001 <= code <= 1014):
            raise JailProtocolError("its close code is none")
        self.is_answered = True
        await self._send(
            {"type": "websocket.close", "code": code, "reason": reason.encode()[:120].decode(errors="ignore")}
        )


def _has_no_body(scope: Scope) -> bool:
    """Tell whether a request is known to have none: HTTP/1 would announce one."""
    if scope.get("method") not in _BODILESS or not scope.get("http_version", "").startswith("1"):
        return False
    return all(name not in {b"content-length", b"transfer-encoding"} for name, _ in scope["headers"])


def _origin_of(scope: Scope) -> bytes:
    host: bytes = next((value for name, value in scope["headers"] if name == b"host"), b"")
    return str(scope.get("scheme", "http")).encode() + b"://" + host
