"""One request of a confined plugin and its answer: sent by one task, piece by piece, whatever the plugin does."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx

from pixsim7_backend.infrastructure.plugins._jail.broker import BrokerError

from .policy import HttpLimits, Outgoing, RefusedError, passed_back

__all__ = ["Exchange", "FindAddress"]

PIECE = 128 << 10
_PATIENCE = 5.0
"""Seconds after which the plugin is told that there is nothing yet; it asks again."""

logger = logging.getLogger("pixsim7.plugins.http")

FindAddress = Callable[[Outgoing], Awaitable[str]]


class Exchange:
    """Sends a request, and holds what comes until the plugin takes it.

    ``find_address`` gives the one address to which it goes; a redirect is an answer like any other.
    """

    def __init__(
        self,
        outgoing: Outgoing,
        *,
        has_body: bool,
        find_address: FindAddress,
        trust: ssl.SSLContext,
        limits: HttpLimits,
    ) -> None:
        self._outgoing = outgoing
        self._has_body = has_body
        self._find_address = find_address
        self._trust = trust
        self._limits = limits
        self._body: asyncio.Queue[bytes] = asyncio.Queue(1)
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue(2)
        self._has_piece = asyncio.Event()
        self._used_at = time.monotonic()
        self._head: dict[str, Any] | None = None
        self._has_head = asyncio.Event()
        self._error: BrokerError | None = None
        self._task = asyncio.create_task(self._run(), name=f"request to {outgoing.host}")

    @property
    def is_abandoned(self) -> bool:
        """Nothing goes on any more, and nobody has come for the answer for a while."""
        return self._task.done() and time.monotonic() - self._used_at > self._limits.idle_time

    async def send(self, piece: bytes) -> None:
        """Send a piece of the body; none is its end. Waits until the former one has gone."""
        put = asyncio.ensure_future(self._body.put(piece))
        try:
            await asyncio.wait({put, self._task}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # the piece may be lost, so what follows would be another body
            self._task.cancel()
            raise
        finally:
            put.cancel()

    async def head(self) -> dict[str, Any] | None:
        """Return status and headers of the answer; None: not yet."""
        waiting = asyncio.ensure_future(self._has_head.wait())
        await self._wait_for(waiting)
        if self._head is None:
            self._raise_error()
        return self._head

    async def read(self) -> bytes | None:
        """Return the next piece of the answer, an empty one at its end; None: not yet."""
        self._used_at = time.monotonic()
        if self._pieces.empty() and not self._task.done():
            await self._wait_for(asyncio.ensure_future(self._has_piece.wait()))
        if not self._pieces.empty():
            piece = self._pieces.get_nowait()
            if self._pieces.empty():
                self._has_piece.clear()
            return piece
        if not self._task.done():
            return None
        self._raise_error()
        return b""

    async def close(self) -> None:
        """Nobody wants the answer any more."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _wait_for(self, waiting: asyncio.Future[Any]) -> None:
        try:
            await asyncio.wait({waiting, self._task}, timeout=_PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not waiting.done():
                waiting.cancel()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    # --- the task ------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            async with asyncio.timeout(self._limits.total_time):
                await self._exchange()
        except BrokerError as error:
            self._error = error
        except RefusedError as error:
            self._error = BrokerError(error.kind, str(error))
        except (TimeoutError, httpx.TimeoutException):
            self._error = BrokerError("TimeoutError", f"{self._outgoing.host} did not answer in time")
        except (httpx.HTTPError, OSError, zlib.error) as error:
            self._error = BrokerError("ConnectError", f"{self._outgoing.host} could not be asked: {_reason(error)}")
        except asyncio.CancelledError:
            self._error = BrokerError("ConnectError", "the request was given up")
            raise
        except Exception:
            logger.exception("A request of a plugin to %s failed", self._outgoing.host)
            self._error = BrokerError("ConnectError", "the host could not send that; its log says why")
        finally:
            self._has_head.set()

    async def _exchange(self) -> None:
        address = await self._find_address(self._outgoing)
        request = self._outgoing.at(address, self._iter_body() if self._has_body else None)
        limits = self._limits
        request.extensions["timeout"] = {
            "connect": limits.connect_time, "read": limits.idle_time, "write": limits.idle_time, "pool": None
        }  # fmt: skip
        transport = httpx.AsyncHTTPTransport(
            verify=self._trust, trust_env=False, limits=httpx.Limits(max_connections=1, max_keepalive_connections=0)
        )
        async with transport:
            response = await transport.handle_async_request(request)
            try:
                await self._take(response)
            finally:
                await response.aclose()

    async def _take(self, response: httpx.Response) -> None:
        if response.status_code == 101:
            raise BrokerError("ConnectError", f"{self._outgoing.host} wants to speak another protocol")
        unpack = self._unpacker(response)
        headers = passed_back(response.headers.raw, self._limits, is_unpacked=unpack is not None)
        self._head = {"status": response.status_code, "headers": headers}
        self._has_head.set()
        size = 0
        assert isinstance(response.stream, httpx.AsyncByteStream)
        async for packed in response.stream:
            for piece in _iter_unpacked(packed, unpack):
                size += len(piece)
                if size > self._limits.response_size:
                    raise BrokerError("ConnectError", f"the answer has more than {self._limits.response_size:,} bytes")
                await self._pieces.put(piece)
                self._has_piece.set()

    def _unpacker(self, response: httpx.Response) -> Any:
        """Return what unpacks the answer here, where it is known how much may come of it; None: it is not packed."""
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        if encoding in ("gzip", "x-gzip"):
            return zlib.decompressobj(zlib.MAX_WBITS | 16)
        if encoding in ("", "identity"):
            return None
        raise BrokerError("ConnectError", f"the answer is packed as {encoding[:20]!r}, which was not asked for")

    async def _iter_body(self) -> AsyncIterator[bytes]:
        size, length = 0, self._outgoing.length
        while piece := await self._body.get():
            size += len(piece)
            if size > self._limits.request_size:
                raise BrokerError("ValueError", f"a request may have {self._limits.request_size:,} bytes")
            if length is not None and size > length:
                raise BrokerError("ValueError", "the body is longer than its Content-Length")
            yield piece
        if length is not None and size < length:
            raise BrokerError("ValueError", "the body is shorter than its Content-Length")


def _iter_unpacked(packed: bytes, unpack: Any) -> Any:
    """Yield the pieces in ``packed``, none of them large, however large they are together."""
    if unpack is None:
        yield from (packed[at : at + PIECE] for at in range(0, len(packed), PIECE))
        return
    while packed:
        piece = unpack.decompress(packed, PIECE)
        if piece:
            yield piece
        packed = unpack.unconsumed_tail


def _reason(error: Exception) -> str:
    return "its certificate is not valid" if "CERTIFICATE_VERIFY" in str(error) else type(error).__name__
