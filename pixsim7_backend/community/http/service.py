"""Answers ``http.*`` calls of a jail: requests to hosts that were granted, at addresses that were looked at."""

from __future__ import annotations

import asyncio
import itertools
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import httpx

from pixsim7_backend.infrastructure.plugins._jail.broker import (
    BrokerError,
    CallContext,
    Grants,
    JailIdentity,
    ServiceSession,
)

from .addresses import is_public
from .exchange import Exchange
from .policy import HttpLimits, Outgoing, RefusedError, check_request

__all__ = ["HttpService", "resolve"]

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host; raise OSError when there are none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(each[4][0]) for each in found]


class HttpService:
    """The web for community plugins: for each one the hosts of its ``net:`` grants.

    A name is resolved here, all of its addresses are looked at, and the request goes to the one that was: another
    answer to the same question later changes nothing. Nothing is read from the environment, like proxies.

    Args:
        limits: for each jail.
        allow_plain: http without encryption, too.
        resolver: gives the addresses of a name.
        is_allowed: tells whether requests may go to an address; public ones by default.
        trust: the certificates that are believed; those of the system's by default.
    """

    family = "http"
    inside: str | None = None
    permissions: tuple[str, ...] = ("net",)

    def __init__(
        self,
        limits: HttpLimits | None = None,
        *,
        allow_plain: bool = False,
        resolver: Resolve = resolve,
        is_allowed: Callable[[str], bool] = is_public,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self.limits = limits or HttpLimits()
        self.allow_plain = allow_plain
        self._resolve = resolver
        self._is_allowed = is_allowed
        self._trust = trust

    @property
    def trust(self) -> ssl.SSLContext:
        """The certificates that are believed; read once, when first needed."""
        if self._trust is None:
            self._trust = httpx.create_ssl_context(trust_env=False)
        return self._trust

    def describe(self, jail: JailIdentity, grants: Grants) -> Mapping[str, Any]:
        """Return nothing: what is granted is checked here."""
        return {}

    def open(self, jail: JailIdentity, grants: Grants) -> ServiceSession:
        """Return what answers one jail."""
        return _Session(self, grants)

    async def find_address(self, outgoing: Outgoing) -> str:
        """Return the one address to which a request goes.

        Raises:
            BrokerError: the host has none, or one that is not public.
        """
        try:
            async with asyncio.timeout(self.limits.resolve_time):
                found = await self._resolve(outgoing.host, outgoing.port)
        except (OSError, UnicodeError) as error:  # also when it takes too long
            raise BrokerError("ConnectError", f"{outgoing.host} has no address") from error
        if not found or not all(map(self._is_allowed, found)):
            raise BrokerError("NotGrantedError", f"{outgoing.host} is not out in the world: no request goes there")
        return found[0]


class _Session:
    """The requests of one jail process."""

    def __init__(self, service: HttpService, grants: Grants) -> None:
        self._service = service
        self._grants = grants
        self._exchanges: dict[int, Exchange] = {}
        self._numbers = itertools.count(1)

    async def call(self, method: str, args: Sequence[Any], call: CallContext) -> Any:
        """Answer ``open``, ``send``, ``head``, ``read`` and ``close``; see the methods of an exchange."""
        match method, args:
            case "open", [str() as verb, str() as url, list() as headers, bool() as has_body]:
                return self._open(verb, url, headers, has_body=has_body)
            case "send", [int() as number, bytes() as piece]:
                call.count("bytes", len(piece))
                return await self._find(number).send(piece)
            case "head", [int() as number]:
                return await self._find(number).head()
            case "read", [int() as number]:
                found = await self._find(number).read()
                call.count("bytes", len(found or b""))
                return found
            case "close", [int() as number]:
                return await self._close(number)
        raise BrokerError("UnknownCallError", f"the host knows no 'http.{method[:40]}' with such arguments")

    async def close(self) -> None:
        """Give up what is under way."""
        await asyncio.gather(*(self._close(number) for number in tuple(self._exchanges)))

    def _open(self, verb: str, url: str, headers: list[Any], *, has_body: bool) -> int:
        service = self._service
        try:
            outgoing = check_request(verb, url, headers, service.limits, allow_plain=service.allow_plain)
        except RefusedError as error:
            raise BrokerError(error.kind, str(error)) from error
        self._check_granted(outgoing)
        self._exchanges = {number: each for number, each in self._exchanges.items() if not each.is_abandoned}
        if len(self._exchanges) >= service.limits.concurrent:
            raise BrokerError("TooManyRequestsError", f"{service.limits.concurrent} requests of this plugin are open")
        number = next(self._numbers)
        self._exchanges[number] = Exchange(
            outgoing, has_body=has_body, find_address=service.find_address, trust=service.trust, limits=service.limits
        )
        return number

    def _check_granted(self, outgoing: Outgoing) -> None:
        names = [f"{outgoing.host}:{outgoing.port}", *([outgoing.host] if outgoing.is_default_port else [])]
        if not any(self._grants.allows("net", name) for name in names):
            raise BrokerError(
                "NotGrantedError",
                f"requests to {outgoing.host} are not granted; ask for it in the manifest with"
                f' permissions=["{outgoing.permission}"], and let the operator grant it',
            )

    def _find(self, number: int) -> Exchange:
        exchange = self._exchanges.get(number)
        if exchange is None:
            raise BrokerError("ConnectError", "the request is over")
        return exchange

    async def _close(self, number: int) -> None:
        if (exchange := self._exchanges.pop(number, None)) is not None:
            await exchange.close()
