"""Whose request it is, as far as its connection tells."""

from __future__ import annotations

import socket
from collections.abc import Callable

from starlette.types import Scope

FindClient = Callable[[Scope], str | None]
"""The host's own word on whose request it is, like ``"user 7"``; None: it cannot tell, so its address counts."""

_MAPPED = b"\0" * 10 + b"\xff\xff"
"""How an IPv6 address begins that stands for an IPv4 one."""


def client_address(scope: Scope) -> str:
    """Return the address that the request came from, of IPv6 the network of 64 bits that one client has.

    It is what the server puts into ``scope["client"]``; empty where that is nothing, as over a Unix socket.
    """
    client = scope.get("client")
    host: str = client[0] if client else ""
    if ":" not in host:
        return host
    try:
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except (OSError, ValueError):
        return host
    if packed[:12] == _MAPPED:
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return f"{packed[:8].hex(':', 2)}::/64"
