"""Requests of tests to servers on this machine, without what preparing for TLS would cost each of them."""

from __future__ import annotations

import ssl

import httpx

_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def get(url: str, timeout: float = 20) -> httpx.Response:
    """Send a GET over a connection of its own; errors as ``httpx.get``."""
    with httpx.Client(trust_env=False, verify=_NO_TLS, timeout=timeout) as client:
        return client.get(url)


def answers(url: str) -> bool:
    """Tell whether a server answers there, with whatever but an error of its own."""
    try:
        return get(url, timeout=1).status_code < 500
    except httpx.TransportError:
        return False
