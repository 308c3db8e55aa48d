"""The web in a jail: transports for httpx whose requests the host sends.

Redirects are followed by the client, where it is told to: each hop is a request of its own, granted or not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx

from pixsim7_backend.infrastructure.plugins._jail.inside.services import BrokerCallError, acall, call, is_jailed
from pixsim7_backend.infrastructure.plugins._jail.inside.services import ShareUsedUpError as CallShareUsedUpError
from pixsim7_backend.infrastructure.plugins.errors import ShareUsedUpError as PluginShareUsedUpError

__all__ = ["AsyncHostTransport", "HostTransport", "async_http_client", "http_client"]

_PIECE = 128 << 10
_TIMEOUTS = frozenset({"TimeoutError", "CallTimeoutError"})


def http_client(**options: Any) -> httpx.Client:
    """Return a client, with options as ``httpx.Client`` has them; in a jail the host sends its requests."""
    if is_jailed():
        options |= {"transport": HostTransport(), "trust_env": False}
    return httpx.Client(**options)


def async_http_client(**options: Any) -> httpx.AsyncClient:
    """Async twin of :func:`http_client`."""
    if is_jailed():
        options |= {"transport": AsyncHostTransport(), "trust_env": False}
    return httpx.AsyncClient(**options)


class HostTransport(httpx.BaseTransport):
    """Lets the host send what an ``httpx.Client`` wants to be sent; needs a ``net:`` permission for each host."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; its answer is read piece by piece."""
        assert isinstance(request.stream, httpx.SyncByteStream)
        try:
            number = call("http.open", *_opening(request))
            if _has_body(request):
                for piece in request.stream:
                    for part in _iter_parts(piece):
                        call("http.send", number, part)
                call("http.send", number, b"")
            while (head := call("http.head", number)) is None:
                pass
        except BrokerCallError as error:
            raise _error(error, request) from None
        return _response(head, _Body(number, request))


class AsyncHostTransport(httpx.AsyncBaseTransport):
    """Async twin of :class:`HostTransport`."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; its answer is read piece by piece."""
        assert isinstance(request.stream, httpx.AsyncByteStream)
        try:
            number = await acall("http.open", *_opening(request))
            if _has_body(request):
                async for piece in request.stream:
                    for part in _iter_parts(piece):
                        await acall("http.send", number, part)
                await acall("http.send", number, b"")
            while (head := await acall("http.head", number)) is None:
                pass
        except BrokerCallError as error:
            raise _error(error, request) from None
        return _response(head, _AsyncBody(number, request))


class _Body(httpx.SyncByteStream):
    def __init__(self, number: int, request: httpx.Request) -> None:
        self._number = number
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        try:
            while (piece := call("http.read", self._number)) != b"":
                if piece is not None:
                    yield piece
        except BrokerCallError as error:
            raise _error(error, self._request) from None

    def close(self) -> None:
        call("http.close", self._number)


class _AsyncBody(httpx.AsyncByteStream):
    def __init__(self, number: int, request: httpx.Request) -> None:
        self._number = number
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while (piece := await acall("http.read", self._number)) != b"":
                if piece is not None:
                    yield piece
        except BrokerCallError as error:
            raise _error(error, self._request) from None

    async def aclose(self) -> None:
        await acall("http.close", self._number)


def _opening(request: httpx.Request) -> tuple[str, str, list[list[bytes]], bool]:
    headers = [[name, value] for name, value in request.headers.raw]
    return request.method, str(request.url), headers, _has_body(request)


def _has_body(request: httpx.Request) -> bool:
    return "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0"


def _iter_parts(piece: bytes) -> Iterator[bytes]:
    return (piece[at : at + _PIECE] for at in range(0, len(piece), _PIECE))


def _response(head: dict[str, Any], body: httpx.SyncByteStream | httpx.AsyncByteStream) -> httpx.Response:
    headers = [(name, value) for name, value in head["headers"]]
    return httpx.Response(head["status"], headers=headers, stream=body, extensions={"http_version": b"HTTP/1.1"})


class ShareUsedUpError(PluginShareUsedUpError, httpx.ConnectError):
    """The plugin has used its share of the minute, as httpx tells it."""

    def __init__(self, request: httpx.Request, fields: dict[str, Any]) -> None:
        httpx.ConnectError.__init__(self, "", request=request)
        PluginShareUsedUpError.__init__(self, **fields)


def _error(error: BrokerCallError, request: httpx.Request) -> httpx.HTTPError:
    if isinstance(error, CallShareUsedUpError):
        return ShareUsedUpError(request, error.fields)
    kind = httpx.ReadTimeout if error.kind in _TIMEOUTS else httpx.ConnectError
    return kind(str(error), request=request)
